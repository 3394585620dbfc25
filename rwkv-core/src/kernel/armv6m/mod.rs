//! Armv6-M, and Armv8-M Baseline, which contains it: Cortex-M0, M0+, M23.
//!
//! Instructions reach eight registers, and a product replaces one of its factors. The other
//! registers take sums, pointers and limits, which only `add`, `mov` and `cmp` have to reach.

#![allow(unsafe_code)]

mod bytes;
mod columns;
mod digits;
mod lanes;
mod quantise;
mod rescale;

use super::plain::{
    Bytes, Core, Nibbles, kernel,
    shapes::{ByteColumn, NibbleColumn, Product},
};
use crate::op::Quantiser;

/// For cores with the instructions of Armv6-M, which the target vouches for.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Armv6m;

kernel!(Armv6m);

impl Core for Armv6m {
    fn quantise(words: &mut [u32], quantiser: Quantiser) {
        quantise::all(words, quantiser);
    }

    /// A word gives up its lowest nibbles last, so that it need not be kept.
    fn lane_inputs([a, b, c, d]: [u32; 4]) -> [u32; 4] {
        [b, c, d, a]
    }

    fn bytes(product: Product<'_, Bytes, 1>, start: u32) {
        bytes::rows(product, start);
    }

    fn nibbles(product: Product<'_, Nibbles, 1>) {
        digits::rows(product);
    }

    fn lanes(product: Product<'_, Nibbles, 2>) {
        lanes::pairs(product);
    }

    fn wide_lanes(product: Product<'_, Nibbles, 2>) {
        digits::pairs(product);
    }

    fn column_bytes(column: ByteColumn<'_>, x: i32) {
        columns::bytes(column, x);
    }

    fn column_nibbles(column: NibbleColumn<'_>, x: i32) {
        columns::nibbles(column, x);
    }

    fn rescale(sums: &mut [f32], input: f32, scales: &[f32]) {
        rescale::all(sums, input, scales);
    }
}
