//! How the integer formats lie in words: the inverse of what kernels read.

use super::{Format, GROUP};

/// Writes a line of [`Format::Int8`]: `values` in -128..=127, padded with zeros to whole groups.
pub fn int8(values: &[i8], out: &mut [u32]) {
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(out);
    bytes.fill(128);
    bytes.iter_mut().zip(values).for_each(|(byte, w)| *byte = (*w as u8) ^ 128);
}

/// Writes a line of [`Format::Int4`]: `values` in -8..=7, one sub-scale per group.
pub fn int4(values: &[i8], subs: &[u8], out: &mut [u32]) {
    let line = sub_scales(subs.len(), subs.iter().copied(), out);
    line.fill(0x8888_8888);
    for (i, w) in values.iter().enumerate() {
        let j = i % 8;
        put(line, i / 8, 4 * (j % 4) + 16 * (j / 4), *w);
    }
}

/// Writes two rows of [`Format::Int4Lanes`]; a missing row is one of zeros.
pub fn int4_lanes(rows: [(&[i8], &[u8]); 2], out: &mut [u32]) {
    let [(a, a_subs), (b, b_subs)] = rows;
    let sub = |subs: &[u8], group: usize| subs.get(group).copied().unwrap_or(1);
    let groups = a_subs.len();
    let subs = (0..groups).flat_map(|g| [sub(a_subs, g), sub(b_subs, g)]);
    // Each of the two rows pads its sub-scales to words.
    let line = sub_scales(2 * groups.next_multiple_of(4), subs, out);
    line.fill(0x8888_8888);
    for (lane, row) in [a, b].into_iter().enumerate() {
        for (i, w) in row.iter().enumerate() {
            put(line, i / 4, 4 * (i % 4) + 16 * lane, *w);
        }
    }
}

/// Writes the bytes at the front, and returns the words behind them.
fn sub_scales(bytes: usize, subs: impl Iterator<Item = u8>, out: &mut [u32]) -> &mut [u32] {
    let (front, line) = out.split_at_mut(bytes.div_ceil(4).min(out.len()));
    front.fill(0);
    bytemuck::cast_slice_mut(front)
        .iter_mut()
        .zip(subs)
        .for_each(|(byte, sub): (&mut u8, _)| *byte = sub);
    line
}

fn put(line: &mut [u32], word: usize, bit: usize, w: i8) {
    if let Some(word) = line.get_mut(word) {
        *word = *word & !(15 << bit) | ((w as u32).wrapping_add(8) & 15) << bit;
    }
}

/// Words of the lines of `rows` rows of `len` weights.
pub const fn lines_words(format: Format, rows: usize, len: usize) -> usize {
    let rows = if matches!(format, Format::Int4Lanes) { rows.next_multiple_of(2) } else { rows };
    rows * format.line_words(len)
}

/// Groups of a line of `len` weights.
pub const fn groups(len: usize) -> usize {
    len.div_ceil(GROUP)
}
