//! The scalar reference.

use core::array;

use half::f16;

use super::{
    Arranged, Input, Kernel, Keys5, Keys7, Lines, arrange_groups, floats, partial::Partial,
};
use crate::{
    error::Error,
    image::{Format, GROUP},
    op,
};

/// Plain Rust for every target; the oracle of the kernel tests.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Generic;

/// Words of a group of quantised elements: pairs of `i16`, in order.
pub(super) const STRIDE: usize = GROUP / 2;

impl Kernel for Generic {
    fn arrange(self, _: Format, bits: u8, room: &mut [f32], len: usize) -> Result<Arranged, Error> {
        arrange_groups::<STRIDE>(bits, room, len, |values, words| {
            let pairs: &mut [i16] = bytemuck::cast_slice_mut(words);
            pairs.iter_mut().zip(values).for_each(|(pair, q)| *pair = *q as i16);
        })
    }

    fn rows_f32(self, w: &[f32], x: &[f32], out: &mut [f32]) {
        for (y, row) in out.iter_mut().zip(w.chunks_exact(x.len().max(1))) {
            *y = op::dot(row, x);
        }
    }

    fn rows_f16(self, w: &[u16], x: &[f32], out: &mut [f32]) {
        for (y, row) in out.iter_mut().zip(w.chunks_exact(x.len().next_multiple_of(2).max(1))) {
            *y = op::sum(row.iter().zip(x).map(|(w, x)| f16::from_bits(*w).to_f32() * x));
        }
    }

    fn rows_i8(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
        rows(Format::Int8, lines, x, out);
    }

    fn rows_i4(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
        rows(Format::Int4, lines, x, out);
    }

    fn rows_i4_lanes(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
        rows(Format::Int4Lanes, lines, x, out);
    }

    fn column_f32(self, w: &[f32], x: f32, acc: &mut [f32]) {
        for (a, w) in acc.iter_mut().zip(w) {
            *a += w * x;
        }
    }

    fn column_f16(self, w: &[u16], x: f32, acc: &mut [f32]) {
        for (a, w) in acc.iter_mut().zip(w) {
            *a += f16::from_bits(*w).to_f32() * x;
        }
    }

    fn column_i8(self, line: &[u32], x: i16, acc: &mut [i32]) {
        for (a, w) in acc.iter_mut().zip(bytemuck::cast_slice::<_, u8>(line)) {
            *a = a.wrapping_add(i32::from(*w) * i32::from(x));
        }
    }

    fn column_i4(self, line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
        let groups = acc.len().div_ceil(GROUP);
        let (subs, line) = line.split_at_checked(groups.div_ceil(4)).unwrap_or_default();
        let subs: &[u8] = bytemuck::cast_slice(subs);
        let groups = line.as_chunks::<4>().0.iter().zip(subs);
        for ((acc, (group, sub)), offset) in acc.chunks_mut(GROUP).zip(groups).zip(offsets) {
            let x = i32::from(x) * i32::from(*sub);
            for (a, w) in acc.iter_mut().zip(nibbles(group)) {
                *a = a.wrapping_add((w + 8) * x);
            }
            *offset = offset.wrapping_add(x);
        }
    }

    fn wkv5(self, keys: Keys5<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
        floats::scalar::wkv5(keys, v, state, y);
    }

    fn wkv7(self, keys: Keys7<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
        floats::scalar::wkv7(keys, v, state, y);
    }
}

/// Always inlined, so that each unit compiles it with its own instructions.
#[inline(always)]
pub(super) fn rows_i16(w: &[i16], inputs: &[&[i16]], out: &mut [i32]) {
    let rows = out.len().checked_div(inputs.len()).unwrap_or(0).max(1);
    for (x, out) in inputs.iter().zip(out.chunks_exact_mut(rows)) {
        for (y, row) in out.iter_mut().zip(w.chunks_exact(x.len().max(1))) {
            let products = row.iter().zip(*x).map(|(w, x)| i32::from(*w) * i32::from(*x));
            *y = products.fold(0, i32::wrapping_add);
        }
    }
}

/// Rows of integers, each as one piece.
fn rows(format: Format, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    let (pair, groups) = (format.interleaved(), x.arranged.groups);
    let line = pair * format.line_words(groups * GROUP);
    let subs = line - groups * GROUP * pair / format.weights_per_word();
    let rows = lines.words.chunks_exact(line.max(1)).zip(lines.scales.chunks(pair));
    for (y, (row, scales)) in out.chunks_mut(pair).zip(rows) {
        let (subs, words) = row.split_at_checked(subs).unwrap_or_default();
        let mut sums = Partial::default();
        sums.add(format, (0, words), subs, bytemuck::cast_slice(x.words));
        let mut of_rows = [0.0; 2];
        of_rows.iter_mut().zip(scales).for_each(|(to, scale)| *to = *scale);
        let outputs = sums.rows(Some(x.arranged), of_rows);
        // Of a pair, the second may have no scale, and so no output.
        y.iter_mut().zip(outputs).zip(scales).for_each(|((y, output), _)| *y = output);
    }
}

pub(super) fn dot(w: [i32; GROUP], x: &[i16; GROUP]) -> i32 {
    w.iter().zip(x).fold(0, |sum, (w, x)| sum.wrapping_add(w * i32::from(*x)))
}

/// The weights of a group of [`Format::Int4`].
pub(crate) fn nibbles(group: &[u32; 4]) -> [i32; GROUP] {
    let bytes: [[u8; 4]; 4] = group.map(u32::to_le_bytes);
    array::from_fn(|i| {
        // Element j of a word lies at bit 4·(j mod 4) + 16·(j div 4).
        let (word, j) = (&bytes[i / 8], i % 8);
        let byte = word[(j % 4) / 2 + 2 * (j / 4)];
        i32::from(byte >> (4 * (j % 2)) & 15) - 8
    })
}

/// The weights of one row in a group of [`Format::Int4Lanes`].
pub(crate) fn lane_nibbles(group: &[u32; 8], lane: usize) -> [i32; GROUP] {
    array::from_fn(|i| (group[i / 4] >> (16 * lane + 4 * (i % 4)) & 15) as i32 - 8)
}
