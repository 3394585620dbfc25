//! Float loops by the instructions that a target is sure to have, chosen when it is compiled for.

mod blocks;
mod root;
#[cfg(vfp)]
mod vfp;
mod wkv5;
mod wkv7;

pub(crate) use root::sqrt;
#[cfg(vfp)]
pub(super) use vfp::wkv7;
pub use wkv5::Keys5;
pub(super) use wkv5::wkv5;
pub use wkv7::Keys;
#[cfg(not(vfp))]
pub(super) use wkv7::wkv7;
pub(super) use wkv7::wkv7 as scalar_wkv7;
