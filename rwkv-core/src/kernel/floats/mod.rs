//! Float loops by the instructions that a target is sure to have, chosen when it is compiled for.
//!
//! Each has the bits of the one in [`scalar`]. Slices whose lengths disagree are cut to the
//! shortest.

mod root;
pub(crate) mod scalar;
#[cfg(rwkv_vfp)]
mod vfp;

pub(crate) use root::sqrt;
#[cfg(not(rwkv_vfp))]
use scalar as target;
pub use scalar::{Keys5, Keys7};
pub(crate) use target::{add, copy, decay, lerp, normalise, sigmoid, squares, sum, wkv5, wkv7};
#[cfg(rwkv_vfp)]
use vfp as target;
