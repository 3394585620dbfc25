//! What the kernels of vector units share: how an input is arranged, and rows in blocks.
//!
//! Plain code that is always inlined, so that each unit compiles it with its own instructions.

use core::hint::cold_path;

use super::{Arranged, Input, Lines};
use crate::{error::Error, image::GROUP, op::Quantiser};

/// Words of a group of quantised elements as `i16`.
const STRIDE: usize = GROUP / 2;

/// Quantises an input to `i16` at the front of the room; `order` permutes the elements of a group.
///
/// # Errors
/// [`Error::NonFinite`].
#[inline(always)]
pub(super) fn quantise(
    bits: u8,
    room: &mut [f32],
    len: usize,
    order: impl Fn([i16; GROUP]) -> [i16; GROUP],
) -> Result<Arranged, Error> {
    let len = len.min(room.len());
    let quantiser = Quantiser::new(room.get(..len).unwrap_or_default(), bits)?;
    let groups = len.div_ceil(GROUP);
    let words: &mut [u32] = bytemuck::cast_slice_mut(room);
    words.get_mut(len..groups * GROUP).unwrap_or_default().fill(0);
    let mut sums = [0i32; GROUP];
    for group in 0..groups {
        let floats = words.get(group * GROUP..).and_then(|w| w.first_chunk::<GROUP>());
        let Some(floats) = floats.copied() else { break };
        let mut values = [0i16; GROUP];
        for ((q, sum), x) in values.iter_mut().zip(&mut sums).zip(floats) {
            let value = quantiser.value(f32::from_bits(x));
            *sum = sum.wrapping_add(value);
            *q = value as i16;
        }
        // The words of a group lie in front of its floats: those have been read.
        let place = words.get_mut(group * STRIDE..).and_then(|w| w.first_chunk_mut::<STRIDE>());
        if let Some(place) = place {
            *place = bytemuck::cast(order(values));
        }
    }
    let sum = sums.iter().fold(0i32, |sum, q| sum.wrapping_add(*q));
    Ok(Arranged { scale: quantiser.scale(), sum, groups, bits })
}

/// Even elements, then odd ones.
#[inline(always)]
pub(super) fn parted<T: Copy + Default>(values: [T; GROUP]) -> [T; GROUP] {
    let mut parted = [T::default(); GROUP];
    let (even, odd) = parted.split_at_mut(GROUP / 2);
    for (([a, b], even), odd) in values.as_chunks().0.iter().zip(even).zip(odd) {
        (*even, *odd) = (*a, *b);
    }
    parted
}

/// An input in planes of signed bytes. Elements of up to 8 bits lie in the low plane; wider ones
/// are `low + 128·high`, with a low byte of 0 to 127.
#[derive(Clone, Copy)]
pub(super) struct Planes<'a> {
    /// Low and high plane. For int4, each consists of the even elements of all groups and the odd
    /// ones of all groups.
    pub(super) bytes: [&'a [u32]; 2],
    /// Per group, minus the sum of its low bytes and minus the sum of its high ones, as `i16` in
    /// the halves of a word.
    pub(super) sums: &'a [u32],
}

impl<'a> Planes<'a> {
    /// Whether the high plane is in use.
    #[inline(always)]
    pub(super) const fn wide(arranged: &Arranged) -> bool {
        arranged.bits > 8
    }

    /// What [`arrange_planes`] left in the room.
    #[inline(always)]
    pub(super) fn of(x: Input<'a>) -> Option<Self> {
        let groups = x.arranged.groups;
        let (_, planes) = x.words.split_at_checked(groups * STRIDE)?;
        let (low, rest) = planes.split_at_checked(groups * 8)?;
        let (high, rest) = rest.split_at_checked(groups * 8)?;
        Some(Self { bytes: [low, high], sums: rest.get(..groups)? })
    }

    /// Even and odd elements of the low and the high plane, for int4: 4 words per group.
    #[inline(always)]
    pub(super) fn parts(&self) -> [[&'a [u32]; 2]; 2] {
        self.bytes.map(|plane| plane.split_at_checked(plane.len() / 2).unwrap_or_default().into())
    }
}

/// Quantises an input and arranges it as [`Planes`], for int4 (`PARTED`) or for int8.
///
/// # Errors
/// [`Error::NonFinite`].
#[inline(always)]
pub(super) fn arrange_planes<const PARTED: bool>(
    bits: u8,
    room: &mut [f32],
    len: usize,
) -> Result<Arranged, Error> {
    let arranged = quantise(bits, room, len, |values| values)?;
    match Planes::wide(&arranged) {
        true => {
            split_planes::<PARTED>(room, arranged.groups, |q| [(q & 127) as u8, (q >> 7) as u8])
        }
        false => split_planes::<PARTED>(room, arranged.groups, |q| [q as u8, 0]),
    }
    Ok(arranged)
}

#[inline(always)]
fn split_planes<const PARTED: bool>(
    room: &mut [f32],
    groups: usize,
    bytes: impl Fn(i16) -> [u8; 2],
) {
    let words: &mut [u32] = bytemuck::cast_slice_mut(room);
    let Some((elements, planes)) = words.split_at_mut_checked(groups * STRIDE) else { return };
    let Some((low, rest)) = planes.split_at_mut_checked(groups * 8) else { return };
    let Some((high, sums)) = rest.split_at_mut_checked(groups * 8) else { return };
    let (low, high) = (low.as_chunks_mut::<4>().0, high.as_chunks_mut::<4>().0);
    let groups_of = elements.as_chunks::<STRIDE>().0.iter().zip(sums).enumerate();
    for (group, (elements, sum)) in groups_of {
        let elements: [i16; GROUP] = bytemuck::cast(*elements);
        let (mut l, mut h) = ([0u8; GROUP], [0u8; GROUP]);
        let mut sums = [0i16; 2];
        for ((l, h), q) in l.iter_mut().zip(&mut h).zip(elements) {
            [*l, *h] = bytes(q);
            let [low, high] = [*l, *h].map(|byte| i16::from(byte as i8));
            sums = [sums[0].wrapping_sub(low), sums[1].wrapping_sub(high)];
        }
        *sum = bytemuck::cast(sums);
        let (first, second) =
            if PARTED { (group, groups + group) } else { (2 * group, 2 * group + 1) };
        for (plane, values) in [(&mut *low, l), (&mut *high, h)] {
            let values = if PARTED { parted(values) } else { values };
            let [a, b]: [[u32; 4]; 2] = bytemuck::cast(values);
            if let Some(words) = plane.get_mut(first) {
                *words = a;
            }
            if let Some(words) = plane.get_mut(second) {
                *words = b;
            }
        }
    }
}

/// A line in two parts: sub-scales and weights, or weights and padding.
pub(super) type Line<'a, T = u32> = (&'a [T], &'a [T]);

/// Computes rows in blocks: `rows` gets the first row of a block and `LINES` lines, whose parts are
/// as long as `parts` says, and returns `ROWS` outputs, `ROWS / LINES` per line. A block that is
/// not full repeats its last line.
#[inline(always)]
pub(super) fn blocks<'a, T, const LINES: usize, const ROWS: usize>(
    parts: (usize, usize),
    mut lines: &'a [T],
    out: &mut [f32],
    rows: impl Fn(usize, [Line<'a, T>; LINES]) -> [f32; ROWS],
) {
    let line = parts.0 + parts.1;
    let there = lines.len().checked_div(line).unwrap_or(0).saturating_mul(ROWS / LINES);
    let out = out.get_mut(..there.min(out.len())).unwrap_or_default();
    for first in (0..out.len()).step_by(ROWS) {
        // Returning where that cannot be, the compiler knows the lengths from here on.
        let Some(mut last) = lines.get(..line) else { return };
        let mut block = [(last, last); LINES];
        for place in &mut block {
            match lines.split_at_checked(line) {
                Some(next) => (last, lines) = next,
                None => cold_path(),
            }
            let Some(split) = last.split_at_checked(parts.0) else { return };
            *place = split;
        }
        let y = rows(first, block);
        let out = out.get_mut(first..).unwrap_or_default();
        match out.first_chunk_mut() {
            Some(out) => *out = y,
            None => out.iter_mut().zip(y).for_each(|(out, y)| *out = y),
        }
    }
}

/// As [`blocks`], for lines of integers whose sums are scaled.
#[inline(always)]
pub(super) fn integer_blocks<'a, const LINES: usize, const ROWS: usize>(
    parts: (usize, usize),
    lines: Lines<'a>,
    scale: f32,
    out: &mut [f32],
    sums: impl Fn([Line<'a>; LINES]) -> [i32; ROWS],
) {
    let out = out.get_mut(..lines.scales.len().min(out.len())).unwrap_or_default();
    blocks(parts, lines.words, out, |first, block| {
        let mut y = [0.0; ROWS];
        y.iter_mut().zip(sums(block)).for_each(|(y, sum)| *y = sum as f32);
        let scales: [f32; ROWS] = padded(lines.scales.get(first..).unwrap_or_default());
        y.iter_mut().zip(scales).for_each(|(y, s)| *y *= scale * s);
        y
    });
}

/// As [`integer_blocks`], for several inputs: `out` holds the rows of one behind those of another.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn blocks_of_many<'a, const ROWS: usize, const INPUTS: usize>(
    parts: (usize, usize),
    lines: Lines<'a>,
    scales: [f32; INPUTS],
    out: &mut [f32],
    sums: impl Fn([Line<'a>; ROWS]) -> [[i32; ROWS]; INPUTS],
) {
    let (line, rows) = (parts.0 + parts.1, out.len() / INPUTS);
    let there = lines.words.len().checked_div(line).unwrap_or(0).min(lines.scales.len()).min(rows);
    for first in (0..there).step_by(ROWS) {
        let mut block = [(lines.words, lines.words); ROWS];
        for (row, place) in (first..).zip(&mut block) {
            let Some(words) = lines.words.get(row.min(there - 1) * line..) else { return };
            let Some((head, tail)) = words.split_at_checked(parts.0) else { return };
            let Some(tail) = tail.get(..parts.1) else { return };
            *place = (head, tail);
        }
        let row_scales: [f32; ROWS] = padded(lines.scales.get(first..).unwrap_or_default());
        let outputs = out.chunks_exact_mut(rows.max(1)).zip(sums(block)).zip(scales);
        for ((out, sums), scale) in outputs {
            let out = out.get_mut(first..there).unwrap_or_default();
            for ((y, sum), s) in out.iter_mut().zip(sums).zip(row_scales) {
                *y = sum as f32 * (scale * s);
            }
        }
    }
}

/// The first values, with zeros behind them if they are fewer.
#[inline(always)]
pub(super) fn padded<T: Copy + Default, const N: usize>(values: &[T]) -> [T; N] {
    values.first_chunk().copied().unwrap_or_else(|| {
        let mut padded = [T::default(); N];
        padded.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        padded
    })
}

/// A column of int4: `add` adds a group of weights, each plus 8, times `sub·x` to its outputs.
#[inline(always)]
pub(super) fn column_i4(
    line: &[u32],
    x: i16,
    acc: &mut [i32],
    offsets: &mut [i32],
    add: impl Fn(&[u32; 4], i32, &mut [i32; GROUP]),
) {
    let groups = acc.len().div_ceil(GROUP);
    let (subs, line) = line.split_at_checked(groups.div_ceil(4)).unwrap_or_default();
    let groups = line.as_chunks::<4>().0.iter().zip(bytemuck::cast_slice::<_, u8>(subs));
    for ((acc, (group, sub)), offset) in acc.chunks_mut(GROUP).zip(groups).zip(offsets) {
        let x = i32::from(x) * i32::from(*sub);
        match acc.first_chunk_mut() {
            Some(acc) => add(group, x, acc),
            None => {
                let mut whole = padded(acc);
                add(group, x, &mut whole);
                acc.iter_mut().zip(whole).for_each(|(a, sum)| *a = sum);
            }
        }
        *offset = offset.wrapping_add(x);
    }
}

/// Adds weights times `x`.
#[inline(always)]
pub(super) fn add_nibbles(nibbles: [u8; GROUP], x: i32, acc: &mut [i32; GROUP]) {
    let add = |(a, w): (&mut i32, u8)| *a = a.wrapping_add(i32::from(w) * x);
    acc.iter_mut().zip(nibbles).for_each(add);
}
