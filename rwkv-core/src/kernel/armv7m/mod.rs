//! Armv7-M without the DSP extension: Cortex-M3.
//!
//! `mla` multiplies and adds, and takes two cycles, a cycle more than a product alone; `smlal` would
//! do two products of bytes at once, but takes four to seven. Shifting is free in `and` and `add`.

#![allow(unsafe_code)]

mod bytes;
mod columns;
mod digits;
mod lanes;
#[cfg(rwkv_soft_float)]
mod rescale;

use super::plain::{
    Bytes, Core, Nibbles, kernel,
    shapes::{ByteColumn, NibbleColumn, Product},
};

/// For cores with the instructions of Armv7-M, which the target vouches for.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Armv7m;

kernel!(Armv7m);

impl Core for Armv7m {
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

    #[cfg(rwkv_soft_float)]
    fn rescale(sums: &mut [f32], input: f32, scales: &[f32]) {
        rescale::all(sums, input, scales);
    }
}
