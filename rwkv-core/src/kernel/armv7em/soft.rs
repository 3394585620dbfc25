//! Floats without a floating-point unit.

use super::{int4, int8};
use crate::{
    error::Error,
    kernel::{Arranged, Generic, Kernel, arrange_groups},
    soft::Rescaler,
};

pub(super) fn arrange_i8(bits: u8, room: &mut [f32], len: usize) -> Result<Arranged, Error> {
    arrange_groups::<{ int8::STRIDE }>(bits, room, len, |values, words| {
        let fours = values.as_chunks::<4>().0;
        for (words, [a, b, c, d]) in words.as_chunks_mut::<2>().0.iter_mut().zip(fours) {
            *words = [pair(*a, *c), pair(*b, *d)];
        }
    })
}

pub(super) fn arrange_i4(bits: u8, room: &mut [f32], len: usize) -> Result<Arranged, Error> {
    arrange_groups::<{ int4::STRIDE }>(bits, room, len, |values, [start, words @ ..]| {
        *start = values.iter().fold(0i32, |sum, q| sum.wrapping_sub(8 * q)) as u32;
        let eights = values.as_chunks::<8>().0;
        for (words, [a, b, c, d, e, f, g, h]) in words.as_chunks_mut::<4>().0.iter_mut().zip(eights)
        {
            *words = [pair(*a, *e), pair(*b, *f), pair(*c, *g), pair(*d, *h)];
        }
    })
}

fn pair(low: i32, high: i32) -> u32 {
    low as u32 & 0xffff | (high as u32) << 16
}

pub(super) fn rows_f32(w: &[f32], x: &[f32], out: &mut [f32]) {
    Generic.rows_f32(w, x, out);
}

pub(super) fn rows_f16(w: &[u16], x: &[f32], out: &mut [f32]) {
    Generic.rows_f16(w, x, out);
}

pub(super) fn column_f32(w: &[f32], x: f32, acc: &mut [f32]) {
    Generic.column_f32(w, x, acc);
}

pub(super) fn column_f16(w: &[u16], x: f32, acc: &mut [f32]) {
    Generic.column_f16(w, x, acc);
}

pub(super) fn requantise(out: &mut [f32], scales: &[f32], x_scale: f32) {
    let rescaler = Rescaler::new(x_scale);
    for (y, scale) in out.iter_mut().zip(scales) {
        *y = rescaler.apply(y.to_bits() as i32, *scale);
    }
}
