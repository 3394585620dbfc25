//! Cores whose multiplier keeps the low word: Cortex-M0 to M3 and RV32IM.
//!
//! All that such a multiplier is asked for is the low word of a product, and sums wrap. Two things
//! follow, on which everything here rests (the book's chapter on kernels works them out):
//!
//! - *Digits.* A word of weights is a number with the weights as its digits. Shifted by a digit at a
//!   time and multiplied by the differences `x[k] - base * x[k-1]`, it adds up to `Σ w[k] · x[k]`: no
//!   weight is ever taken out of its word.
//! - *Lanes.* A word that holds a weight of two rows, 16 bits apart, times their common input is two
//!   products. With inputs of 8 bits a group of 32 ends inside its lane, wherever the sums were in
//!   between.
//!
//! What is here quantises, arranges and checks lengths; a [`Core`] computes the sums.

mod arrange;
mod portable;
pub(super) mod shapes;

pub(super) use arrange::arrange;

#[cfg(test)]
pub(super) use portable::Portable;

use shapes::{ByteColumn, NibbleColumn, Product};

use super::{Generic, Input, Kernel, Lines};
#[cfg(rwkv_soft_float)]
use crate::soft::Rescaler;
use crate::{
    image::{Format, GROUP},
    op::Quantiser,
};

/// An input for the digits of bytes: a group of differences.
pub(super) type Bytes = [u32; GROUP];

/// An input for nibbles: where the sum of a group starts, and its differences or elements.
pub(super) type Nibbles = [u32; GROUP + 1];

/// Bits of an input that lanes have room for.
const LANE_BITS: u8 = 8;

/// What an instruction set has its own way of doing.
pub(super) trait Core: Copy + Send + Sync {
    /// Turns floats into elements where they lie, by [`Quantiser::value`].
    fn quantise(words: &mut [u32], quantiser: Quantiser) {
        portable::quantise(words, quantiser);
    }

    /// The inputs of a word of lanes, as [`Core::lanes`] wants them.
    fn lane_inputs(x: [u32; 4]) -> [u32; 4] {
        x
    }

    /// Sums of rows of [`Format::Int8`], from `start` on.
    fn bytes(product: Product<'_, Bytes, 1>, start: u32) {
        portable::bytes(product, start);
    }

    /// Sums of rows of [`Format::Int4`].
    fn nibbles(product: Product<'_, Nibbles, 1>) {
        portable::nibbles(product);
    }

    /// Sums of pairs of rows of [`Format::Int4Lanes`], for inputs of 8 bits.
    fn lanes(product: Product<'_, Nibbles, 2>) {
        portable::lanes(product);
    }

    /// Sums of pairs of rows of [`Format::Int4Lanes`], for inputs of more bits.
    fn wide_lanes(product: Product<'_, Nibbles, 2>) {
        portable::wide_lanes(product);
    }

    /// As [`Kernel::column_i8`], for whole runs of accumulators.
    fn column_bytes(column: ByteColumn<'_>, x: i32) {
        portable::column_bytes(column, x);
    }

    /// As [`Kernel::column_i4`], for whole groups.
    fn column_nibbles(column: NibbleColumn<'_>, x: i32) {
        portable::column_nibbles(column, x);
    }

    /// Turns sums into floats where they lie: `sum · (input · scale)`.
    fn rescale(sums: &mut [f32], input: f32, scales: &[f32]) {
        portable::rescale(sums, input, scales);
    }
}

/// Implements [`Kernel`] for a [`Core`]. What is over floats is the reference.
macro_rules! kernel {
    ($core:ty) => {
        impl $crate::kernel::Kernel for $core {
            fn arrange(
                self,
                format: $crate::image::Format,
                bits: u8,
                room: &mut [f32],
                len: usize,
            ) -> Result<$crate::kernel::Arranged, $crate::Error> {
                $crate::kernel::plain::arrange::<$core>(format, bits, room, len)
            }

            fn rows_f32(self, w: &[f32], x: &[f32], out: &mut [f32]) {
                $crate::kernel::Generic.rows_f32(w, x, out);
            }

            fn rows_f16(self, w: &[u16], x: &[f32], out: &mut [f32]) {
                $crate::kernel::Generic.rows_f16(w, x, out);
            }

            fn rows_i8(
                self,
                lines: $crate::kernel::Lines<'_>,
                x: $crate::kernel::Input<'_>,
                out: &mut [f32],
            ) {
                $crate::kernel::plain::rows_i8::<$core>(lines, x, out);
            }

            fn rows_i4(
                self,
                lines: $crate::kernel::Lines<'_>,
                x: $crate::kernel::Input<'_>,
                out: &mut [f32],
            ) {
                $crate::kernel::plain::rows_i4::<$core>(lines, x, out);
            }

            fn rows_i4_lanes(
                self,
                lines: $crate::kernel::Lines<'_>,
                x: $crate::kernel::Input<'_>,
                out: &mut [f32],
            ) {
                $crate::kernel::plain::rows_i4_lanes::<$core>(lines, x, out);
            }

            fn column_f32(self, w: &[f32], x: f32, acc: &mut [f32]) {
                $crate::kernel::Generic.column_f32(w, x, acc);
            }

            fn column_f16(self, w: &[u16], x: f32, acc: &mut [f32]) {
                $crate::kernel::Generic.column_f16(w, x, acc);
            }

            fn column_i8(self, line: &[u32], x: i16, acc: &mut [i32]) {
                $crate::kernel::plain::column_i8::<$core>(line, x, acc);
            }

            fn column_i4(self, line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
                $crate::kernel::plain::column_i4::<$core>(line, x, acc, offsets);
            }
        }
    };
}

pub(super) use kernel;

/// As [`Kernel::rows_i8`].
pub(super) fn rows_i8<C: Core>(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    let start = (x.arranged.sum as u32).wrapping_mul(128).wrapping_neg();
    rows::<C, _, 1>(Format::Int8, lines, x, out, |product| C::bytes(product, start));
}

/// As [`Kernel::rows_i4`].
pub(super) fn rows_i4<C: Core>(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    rows::<C, _, 1>(Format::Int4, lines, x, out, C::nibbles);
}

/// As [`Kernel::rows_i4_lanes`].
pub(super) fn rows_i4_lanes<C: Core>(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    let sums = if x.arranged.bits <= LANE_BITS { C::lanes } else { C::wide_lanes };
    rows::<C, _, 2>(Format::Int4Lanes, lines, x, out, sums);
}

/// As [`Kernel::column_i8`].
pub(super) fn column_i8<C: Core>(line: &[u32], x: i16, acc: &mut [i32]) {
    let Some((words, tail)) = line.split_at_checked(acc.len() / 16 * 4) else {
        return Generic.column_i8(line, x, acc);
    };
    let (acc, rest) = acc.as_chunks_mut();
    if !acc.is_empty() {
        C::column_bytes(ByteColumn { words: words.as_chunks().0, acc }, x.into());
    }
    Generic.column_i8(tail, x, rest);
}

/// As [`Kernel::column_i4`].
pub(super) fn column_i4<C: Core>(line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
    let groups = acc.len().div_ceil(GROUP);
    let (subs, words) = line.split_at_checked(groups.div_ceil(4)).unwrap_or_default();
    let (subs, words) = (bytemuck::cast_slice::<_, u8>(subs), words.as_chunks().0);
    if words.len() < groups || offsets.len() < groups {
        return Generic.column_i4(line, x, acc, offsets);
    }
    let (acc, rest) = acc.as_chunks_mut();
    let whole = acc.len();
    if !acc.is_empty() {
        let offsets = &mut *offsets;
        C::column_nibbles(NibbleColumn { words, subs, acc, offsets }, x.into());
    }
    let last = (words.get(whole), subs.get(whole), offsets.get_mut(whole));
    if let (false, (Some(words), Some(sub), Some(offset))) = (rest.is_empty(), last) {
        portable::nibbles_of_column(words, i32::from(x) * i32::from(*sub), rest, offset);
    }
}

/// Has the sums of as many rows as there are of everything computed, and rescales them.
fn rows<C: Core, const STRIDE: usize, const ROWS: usize>(
    format: Format,
    lines: Lines<'_>,
    x: Input<'_>,
    out: &mut [f32],
    sums: impl Fn(Product<'_, [u32; STRIDE], ROWS>),
) {
    let inputs = x.words.as_chunks().0.get(..x.arranged.groups).unwrap_or_default();
    let line = ROWS * format.line_words(inputs.len() * GROUP);
    let mut rows = out.len().min(lines.scales.len());
    if line == 0 {
        return;
    }
    if lines.words.len() < rows.div_ceil(ROWS).saturating_mul(line) {
        rows = rows.min(lines.words.len() / line * ROWS);
    }
    let out = out.get_mut(..rows).unwrap_or_default();
    let (whole, odd) = bytemuck::cast_slice_mut(out).as_chunks_mut::<ROWS>();
    let behind = lines.words.get(whole.len() * line..).unwrap_or_default();
    if let Some(product) = Product::new(format, lines.words, inputs, whole) {
        sums(product);
    }
    // The last row of an odd number has a line of its own.
    let mut pair = [[0; ROWS]];
    if let ([y], Some(product)) = (odd, Product::new(format, behind, inputs, &mut pair)) {
        sums(product);
        *y = pair[0][0];
    }
    C::rescale(out, x.arranged.scale, lines.scales);
}

/// Has `most` rescale sums from the front, up to one that it cannot do, and so on behind that one.
/// It is given as many scales as sums, at least one, and returns how many it has done.
#[cfg(rwkv_soft_float)]
pub(super) fn rescale(
    sums: &mut [f32],
    input: f32,
    scales: &[f32],
    most: impl Fn(&mut [f32], &[f32], &Rescaler) -> usize,
) {
    let rescaler = Rescaler::new(input);
    let count = sums.len().min(scales.len());
    let mut sums = sums.get_mut(..count).unwrap_or_default();
    let mut scales = scales.get(..count).unwrap_or_default();
    while !sums.is_empty() {
        let done = most(sums, scales, &rescaler);
        if let (Some(y), Some(scale)) = (sums.get_mut(done), scales.get(done)) {
            *y = rescaler.floats(y.to_bits() as i32, *scale);
        }
        sums = sums.get_mut(done + 1..).unwrap_or_default();
        scales = scales.get(done + 1..).unwrap_or_default();
    }
}
