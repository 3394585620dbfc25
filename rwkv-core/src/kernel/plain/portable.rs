//! The sums in plain Rust: what a core has no assembly for, and the model of what it has.

use super::{
    Bytes, Nibbles,
    shapes::{ByteColumn, NibbleColumn, Product},
};
use crate::{op::Quantiser, soft::Rescaler};

/// The sums in plain Rust, on any core.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[cfg(test)]
impl super::Core for Portable {}
#[cfg(test)]
super::kernel!(Portable);

/// As [`super::Core::quantise`].
pub(super) fn quantise(words: &mut [u32], quantiser: Quantiser) {
    for word in words {
        *word = quantiser.value(f32::from_bits(*word)) as u32;
    }
}

/// `sum` and the products of the digits of a word: `BITS` bits each, the input as differences.
#[inline(always)]
fn digits<const BITS: usize>(sum: u32, word: u32, x: &[u32]) -> u32 {
    let shifted = (0..32).step_by(BITS).map(|bit| word >> bit);
    shifted.zip(x).fold(sum, |sum, (w, y)| sum.wrapping_add(w.wrapping_mul(*y)))
}

/// As [`super::Core::bytes`].
pub(super) fn bytes(product: Product<'_, Bytes, 1>, start: u32) {
    let Product { words, line, x, out, .. } = product;
    for ([y], row) in out.iter_mut().zip(words.chunks_exact(line)) {
        let inputs = x.as_flattened().as_chunks::<4>().0;
        *y = row.iter().zip(inputs).fold(start, |sum, (w, x)| digits::<8>(sum, *w, x));
    }
}

/// As [`super::Core::nibbles`].
pub(super) fn nibbles(product: Product<'_, Nibbles, 1>) {
    groups(product, |words: &[u32; 4], [start, x @ ..]| {
        let inputs = x.as_chunks::<8>().0;
        [words.iter().zip(inputs).fold(*start, |sum, (w, x)| digits::<4>(sum, *w, x))]
    });
}

/// As [`super::Core::lanes`].
pub(super) fn lanes(product: Product<'_, Nibbles, 2>) {
    groups(product, |words: &[u32; 8], [start, x @ ..]| {
        let inputs = x.as_chunks::<4>().0;
        let sum = words.iter().zip(inputs).fold(*start, |sum, (w, x)| {
            let lanes = [0, 4, 8, 12].map(|bit| w >> bit & 0x000F_000F);
            lanes.iter().zip(x).fold(sum, |sum, (w, x)| sum.wrapping_add(w.wrapping_mul(*x)))
        });
        // The low lane, as a signed number, has borrowed from the high one.
        let low = sum as i16 as u32;
        [low, ((sum.wrapping_sub(low) as i32) >> 16) as u32]
    });
}

/// As [`super::Core::wide_lanes`].
pub(super) fn wide_lanes(product: Product<'_, Nibbles, 2>) {
    groups(product, |words: &[u32; 8], [start, x @ ..]| {
        let inputs = x.as_chunks::<4>().0;
        words.iter().zip(inputs).fold([*start; 2], |[a, b], (w, x)| {
            [digits::<4>(a, w & 0xffff, x), digits::<4>(b, w >> 16, x)]
        })
    });
}

/// The sums of lines of sub-scales and groups, by the sums of a group.
#[inline(always)]
fn groups<const WORDS: usize, const ROWS: usize>(
    product: Product<'_, Nibbles, ROWS>,
    sums: impl Fn(&[u32; WORDS], &Nibbles) -> [u32; ROWS],
) {
    let Product { words, line, subs, x, out } = product;
    for (out, line) in out.iter_mut().zip(words.chunks_exact(line)) {
        let (subs, words) = line.split_at_checked(subs).unwrap_or_default();
        let subs = bytemuck::cast_slice::<_, u8>(subs).as_chunks::<ROWS>().0;
        *out = [0; ROWS];
        for ((words, x), subs) in words.as_chunks().0.iter().zip(x).zip(subs) {
            for ((y, sum), sub) in out.iter_mut().zip(sums(words, x)).zip(subs) {
                *y = y.wrapping_add(sum.wrapping_mul((*sub).into()));
            }
        }
    }
}

/// As [`super::Core::column_bytes`].
pub(super) fn column_bytes(column: ByteColumn<'_>, x: i32) {
    for (words, acc) in column.words.iter().zip(column.acc) {
        for (a, w) in acc.iter_mut().zip(bytemuck::cast_slice::<_, u8>(words)) {
            *a = a.wrapping_add(i32::from(*w).wrapping_mul(x));
        }
    }
}

/// As [`super::Core::column_nibbles`].
pub(super) fn column_nibbles(column: NibbleColumn<'_>, x: i32) {
    let NibbleColumn { words, subs, acc, offsets } = column;
    for (((words, sub), acc), offset) in words.iter().zip(subs).zip(acc).zip(offsets) {
        nibbles_of_column(words, x.wrapping_mul((*sub).into()), acc, offset);
    }
}

/// A group of a column, for no more accumulators than it has.
#[inline(always)]
pub(super) fn nibbles_of_column(words: &[u32; 4], x: i32, acc: &mut [i32], offset: &mut i32) {
    *offset = offset.wrapping_add(x);
    for (acc, word) in acc.chunks_mut(8).zip(words) {
        for (k, a) in acc.iter_mut().enumerate() {
            *a = a.wrapping_add(((word >> (4 * k) & 15) as i32).wrapping_mul(x));
        }
    }
}

/// As [`super::Core::rescale`].
pub(super) fn rescale(sums: &mut [f32], input: f32, scales: &[f32]) {
    let rescaler = Rescaler::new(input);
    for (y, scale) in sums.iter_mut().zip(scales) {
        *y = rescaler.apply(y.to_bits() as i32, *scale);
    }
}
