//! Arm cores with a floating-point unit of 32 single registers: Cortex-M4F, M7, M33, and A-class.
//!
//! `vmla.f32` and `vmls.f32` round the product before the sum, as separate instructions would.

#![allow(unsafe_code)]

mod activations;
mod vectors;
mod wkv5;
mod wkv7;

pub(crate) use activations::{decay, sigmoid};
pub(crate) use vectors::{add, copy, lerp, normalise, squares, sum};
pub(crate) use wkv5::wkv5;
pub(crate) use wkv7::wkv7;

/// Elements of a block: value indices whose sums stay in registers.
const BLOCK: usize = 8;

/// Whether a head is one that the loops over keys can take: four keys make a turn.
fn fits(v: &[f32], state: &[f32], y: &[f32]) -> bool {
    let n = v.len();
    n > 0 && n.is_multiple_of(4) && y.len() == n && n.checked_mul(n) == Some(state.len())
}
