//! RWKV language models in C firmware: the functions behind `rwkv.h`.
//!
//! Everything is a thin layer over `rwkv-core` and the streams of `rwkv-embedded`. What a C
//! program hands over are pointers; each is checked for null and alignment before it becomes a
//! reference, and every opaque struct for having been initialised. What cannot be checked, the
//! header asks for: pointers to as much memory as they are said to be, left alone meanwhile.

#![no_std]
#![allow(non_camel_case_types, reason = "the names are those of the C header")]
#![allow(
    clippy::missing_safety_doc,
    reason = "one rule holds for all functions, and stands at the head of the C header"
)]

mod error;
mod image;
mod medium;
mod model;
mod opaque;
mod open;
mod output;
mod panic;
mod pointer;
mod sampler;
mod snapshots;
mod state;
mod stop;
mod text;
mod weights;

pub use error::{rwkv_detail, rwkv_error, rwkv_error_name};
pub use image::*;
pub use medium::*;
pub use model::*;
pub use open::*;
pub use output::*;
pub use sampler::*;
pub use snapshots::*;
pub use state::*;
pub use stop::*;
pub use text::*;
