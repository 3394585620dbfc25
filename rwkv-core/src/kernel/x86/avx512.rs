//! Integer rows for AVX-512 with VNNI: 512 bits, and bytes times bytes without saturation.

use core::arch::x86_64::*;

use super::vector::{self, Line, Planes};
use super::{Arranged, Input, Lines, avx2, column};
use crate::{
    error::Error,
    image::{Format, GROUP},
    kernel::{Kernel, one_by_one},
};

/// Rows that are computed at once.
const ROWS: usize = 4;

/// Sixteen words of a line; with `LAST`, the fewer ones at its end, then zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn load<const LAST: bool>(line: &[u32], step: usize) -> __m512i {
    if LAST {
        return load_last(line.as_chunks::<16>().1);
    }
    match line.as_chunks::<16>().0.get(step) {
        // SAFETY: an array of 64 bytes.
        Some(words) => unsafe { _mm512_loadu_si512(words.as_ptr().cast()) },
        None => _mm512_setzero_si512(),
    }
}

/// Up to sixteen words, then zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_last(words: &[u32]) -> __m512i {
    let there = (1u32 << words.len().min(16)) - 1;
    // SAFETY: as many words are read as the slice has, or sixteen.
    unsafe { _mm512_maskz_loadu_epi32(there as u16, words.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
pub(super) fn arrange(
    format: Format,
    bits: u8,
    room: &mut [f32],
    len: usize,
) -> Result<Arranged, Error> {
    match format {
        Format::Int8 => vector::arrange_planes::<false>(bits, room, len),
        _ => vector::arrange_planes::<true>(bits, room, len),
    }
}

/// Sums of lanes.
#[inline]
#[target_feature(enable = "avx2,avx512f")]
fn sums(rows: [__m512i; ROWS]) -> [i32; ROWS] {
    let mut halves = [_mm256_setzero_si256(); ROWS];
    for (half, row) in halves.iter_mut().zip(rows) {
        let high = _mm512_extracti64x4_epi64(row, 1);
        *half = _mm256_add_epi32(_mm512_castsi512_si256(row), high);
    }
    avx2::sums(halves)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn rows_i8(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    match Planes::wide(&x.arranged) {
        true => rows_i8_planes::<2>(lines, x, out),
        false => rows_i8_planes::<1>(lines, x, out),
    }
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn rows_i8_planes<const PLANES: usize>(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    let weights = Format::Int8.line_words(x.arranged.groups * GROUP);
    let start = x.arranged.sum.wrapping_mul(-128);
    let Some(planes) = Planes::of(x) else { return };
    vector::integer_blocks::<ROWS, ROWS>((0, weights), lines, x.arranged.scale, out, |lines| {
        let mut acc = [[_mm512_setzero_si512(); PLANES]; ROWS];
        for step in 0..weights / 16 {
            add_i8::<PLANES, false>(&planes, &lines, step, &mut acc);
        }
        if !weights.is_multiple_of(16) {
            add_i8::<PLANES, true>(&planes, &lines, 0, &mut acc);
        }
        join(acc).map(|sum| sum.wrapping_add(start))
    });
}

/// Adds two groups of all rows.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_i8<const PLANES: usize, const LAST: bool>(
    planes: &Planes<'_>,
    lines: &[Line<'_>; ROWS],
    step: usize,
    acc: &mut [[__m512i; PLANES]; ROWS],
) {
    let mut x = [_mm512_setzero_si512(); PLANES];
    x.iter_mut().zip(planes.bytes).for_each(|(x, plane)| *x = load::<LAST>(plane, step));
    for (acc, (_, row)) in acc.iter_mut().zip(lines) {
        let w = load::<LAST>(row, step);
        for (acc, x) in acc.iter_mut().zip(x) {
            *acc = _mm512_dpbusd_epi32(*acc, w, x);
        }
    }
}

/// `low + 128·high`.
#[inline]
#[target_feature(enable = "avx2,avx512f")]
fn join<const PLANES: usize>(acc: [[__m512i; PLANES]; ROWS]) -> [i32; ROWS] {
    let mut joined = [_mm512_setzero_si512(); ROWS];
    for (joined, acc) in joined.iter_mut().zip(acc) {
        for plane in acc.iter().rev() {
            *joined = _mm512_add_epi32(_mm512_slli_epi32(*joined, 7), *plane);
        }
    }
    sums(joined)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn rows_i4(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    match Planes::wide(&x.arranged) {
        true => rows_i4_planes::<2>(lines, x, out),
        false => rows_i4_planes::<1>(lines, x, out),
    }
}

/// Which quarter of the vector a word lies in: the group that it belongs to.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters() -> __m512i {
    _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
}

/// An input for int4: of the planes in use, four groups at a time.
struct Step<const PLANES: usize> {
    /// Even and odd elements.
    x: [[__m512i; 2]; PLANES],
    /// What a word starts at: together, -8 times the sum of the group.
    start: [__m512i; PLANES],
}

impl<const PLANES: usize> Step<PLANES> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn new<const LAST: bool>(planes: &Planes<'_>, step: usize) -> Self {
        let zero = _mm512_setzero_si512();
        let sums = planes.sums.get(4 * step..).unwrap_or_default();
        let sums = match sums.first_chunk() {
            Some(sums) => _mm512_castsi128_si512(avx2::load_half(sums)),
            None => load_last(sums),
        };
        let sums = _mm512_permutexvar_epi32(quarters(), sums);
        let (mut x, mut start) = ([[zero; 2]; PLANES], [zero; PLANES]);
        let parts = planes.parts();
        for (((x, start), part), twice) in x.iter_mut().zip(&mut start).zip(parts).zip([2, 2 << 16])
        {
            *x = [load::<LAST>(part[0], step), load::<LAST>(part[1], step)];
            *start = _mm512_dpwssd_epi32(zero, sums, _mm512_set1_epi32(twice));
        }
        Self { x, start }
    }

    /// Adds four groups of weights times their sub-scales.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn add(&self, w: &Nibbles, acc: &mut [__m512i; PLANES]) {
        for ((acc, x), start) in acc.iter_mut().zip(&self.x).zip(&self.start) {
            // At most 8·15·128 + 2·32·128: the low 16 bits of a sum are the sum.
            let sum = _mm512_dpbusd_epi32(*start, w.even, x[0]);
            let sum = _mm512_dpbusd_epi32(sum, w.odd, x[1]);
            *acc = _mm512_dpwssd_epi32(*acc, sum, w.subs);
        }
    }
}

/// Four groups of weights of a row.
#[derive(Clone, Copy)]
struct Nibbles {
    even: __m512i,
    odd: __m512i,
    /// The sub-scale of its group in every word.
    subs: __m512i,
}

impl Nibbles {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn new(w: __m512i, subs: u32) -> Self {
        let nibble = _mm512_set1_epi8(15);
        // Byte i to the words of quarter i; an index with its top bit set makes a zero.
        let bytes = _mm512_or_si512(quarters(), _mm512_set1_epi32(-0x100));
        Self {
            even: _mm512_and_si512(w, nibble),
            odd: _mm512_and_si512(_mm512_srli_epi16(w, 4), nibble),
            subs: _mm512_shuffle_epi8(_mm512_set1_epi32(subs as i32), bytes),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn rows_i4_planes<const PLANES: usize>(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    let weights = 4 * x.arranged.groups;
    let subs = x.arranged.groups.div_ceil(4);
    let Some(planes) = Planes::of(x) else { return };
    vector::integer_blocks::<ROWS, ROWS>((subs, weights), lines, x.arranged.scale, out, |lines| {
        let mut acc = [[_mm512_setzero_si512(); PLANES]; ROWS];
        let full = weights / 16;
        for step in 0..full {
            add_i4::<PLANES, false>(&planes, &lines, step, &mut acc);
        }
        if !weights.is_multiple_of(16) {
            add_i4::<PLANES, true>(&planes, &lines, full, &mut acc);
        }
        join(acc)
    });
}

/// Adds four groups of all rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_i4<const PLANES: usize, const LAST: bool>(
    planes: &Planes<'_>,
    lines: &[Line<'_>; ROWS],
    step: usize,
    acc: &mut [[__m512i; PLANES]; ROWS],
) {
    let x = Step::<PLANES>::new::<LAST>(planes, step);
    for (acc, (subs, row)) in acc.iter_mut().zip(lines) {
        let Some(subs) = subs.get(step) else { break };
        x.add(&Nibbles::new(load::<LAST>(row, step), *subs), acc);
    }
}

/// Rows for several inputs: as many at once as the registers hold, weights loaded once for all.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn rows_of_many(
    kernel: impl Kernel,
    format: Format,
    lines: Lines<'_>,
    inputs: &[Input<'_>],
    out: &mut [f32],
) {
    let rows = out.len().checked_div(inputs.len()).unwrap_or(0);
    let out = out.get_mut(..rows * inputs.len()).unwrap_or_default();
    let wide = inputs.iter().any(|x| Planes::wide(&x.arranged));
    let at_once = if wide || format == Format::Int4 { 2 } else { 4 };
    let chunks = inputs.chunks(at_once).zip(out.chunks_mut((at_once * rows).max(1)));
    for (inputs, out) in chunks {
        match (format, wide, inputs) {
            (Format::Int8, false, &[a, b, c, d]) => many_i8::<1, 4>(lines, [a, b, c, d], out),
            (Format::Int8, true, &[a, b]) => many_i8::<2, 2>(lines, [a, b], out),
            (Format::Int4, false, &[a, b]) => many_i4::<1, 2>(lines, [a, b], out),
            (Format::Int4, true, &[a, b]) => many_i4::<2, 2>(lines, [a, b], out),
            _ => one_by_one(kernel, format, lines, inputs, out),
        }
    }
}

/// The planes of several inputs, if they have the same length.
#[inline(always)]
fn planes_of<'a, const INPUTS: usize>(
    inputs: &[Input<'a>; INPUTS],
    groups: usize,
) -> Option<[Planes<'a>; INPUTS]> {
    let mut planes = [Planes::of(inputs[0])?; INPUTS];
    for (planes, x) in planes.iter_mut().zip(inputs) {
        *planes = Planes::of(*x).filter(|_| x.arranged.groups == groups)?;
    }
    Some(planes)
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn many_i8<const PLANES: usize, const INPUTS: usize>(
    lines: Lines<'_>,
    inputs: [Input<'_>; INPUTS],
    out: &mut [f32],
) {
    let groups = inputs[0].arranged.groups;
    let Some(planes) = planes_of(&inputs, groups) else { return };
    let weights = Format::Int8.line_words(groups * GROUP);
    let scales = inputs.map(|x| x.arranged.scale);
    vector::blocks_of_many((0, weights), lines, scales, out, |lines| {
        let mut acc = [[[_mm512_setzero_si512(); PLANES]; ROWS]; INPUTS];
        for step in 0..weights / 16 {
            many_add_i8::<PLANES, INPUTS, false>(&planes, &lines, step, &mut acc);
        }
        if !weights.is_multiple_of(16) {
            many_add_i8::<PLANES, INPUTS, true>(&planes, &lines, 0, &mut acc);
        }
        let mut sums = [[0; ROWS]; INPUTS];
        for ((sums, acc), x) in sums.iter_mut().zip(acc).zip(&inputs) {
            let start = x.arranged.sum.wrapping_mul(-128);
            *sums = join(acc).map(|sum| sum.wrapping_add(start));
        }
        sums
    });
}

/// Adds two groups of all rows for all inputs.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn many_add_i8<const PLANES: usize, const INPUTS: usize, const LAST: bool>(
    planes: &[Planes<'_>; INPUTS],
    lines: &[Line<'_>; ROWS],
    step: usize,
    acc: &mut [[[__m512i; PLANES]; ROWS]; INPUTS],
) {
    let mut weights = [_mm512_setzero_si512(); ROWS];
    weights.iter_mut().zip(lines).for_each(|(w, (_, row))| *w = load::<LAST>(row, step));
    for (acc, planes) in acc.iter_mut().zip(planes) {
        for (plane, bytes) in planes.bytes.iter().take(PLANES).enumerate() {
            let x = load::<LAST>(bytes, step);
            for (acc, w) in acc.iter_mut().zip(weights) {
                acc[plane] = _mm512_dpbusd_epi32(acc[plane], w, x);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn many_i4<const PLANES: usize, const INPUTS: usize>(
    lines: Lines<'_>,
    inputs: [Input<'_>; INPUTS],
    out: &mut [f32],
) {
    let groups = inputs[0].arranged.groups;
    let Some(planes) = planes_of(&inputs, groups) else { return };
    let (subs, weights) = (groups.div_ceil(4), 4 * groups);
    let scales = inputs.map(|x| x.arranged.scale);
    vector::blocks_of_many((subs, weights), lines, scales, out, |lines| {
        let mut acc = [[[_mm512_setzero_si512(); PLANES]; ROWS]; INPUTS];
        let full = weights / 16;
        for step in 0..full {
            many_add_i4::<PLANES, INPUTS, false>(&planes, &lines, step, &mut acc);
        }
        if !weights.is_multiple_of(16) {
            many_add_i4::<PLANES, INPUTS, true>(&planes, &lines, full, &mut acc);
        }
        let mut sums = [[0; ROWS]; INPUTS];
        sums.iter_mut().zip(acc).for_each(|(sums, acc)| *sums = join(acc));
        sums
    });
}

/// Adds four groups of all rows for all inputs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn many_add_i4<const PLANES: usize, const INPUTS: usize, const LAST: bool>(
    planes: &[Planes<'_>; INPUTS],
    lines: &[Line<'_>; ROWS],
    step: usize,
    acc: &mut [[[__m512i; PLANES]; ROWS]; INPUTS],
) {
    let mut weights = [Nibbles::new(_mm512_setzero_si512(), 0); ROWS];
    for (w, (subs, row)) in weights.iter_mut().zip(lines) {
        let Some(subs) = subs.get(step) else { return };
        *w = Nibbles::new(load::<LAST>(row, step), *subs);
    }
    for (acc, planes) in acc.iter_mut().zip(planes) {
        let x = Step::<PLANES>::new::<LAST>(planes, step);
        acc.iter_mut().zip(&weights).for_each(|(acc, w)| x.add(w, acc));
    }
}

/// Up to 32 elements from `first` on, then zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_i16(values: &[i16], first: usize) -> __m512i {
    let values = values.get(first..).unwrap_or_default();
    let there = (1u64 << values.len().min(32)) - 1;
    // SAFETY: as many elements are read as the slice has, or 32.
    unsafe { _mm512_maskz_loadu_epi16(there as u32, values.as_ptr()) }
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn rows_i16(w: &[i16], inputs: &[&[i16]], out: &mut [i32]) {
    let rows = out.len().checked_div(inputs.len()).unwrap_or(0);
    let out = out.get_mut(..rows * inputs.len()).unwrap_or_default();
    for (inputs, out) in inputs.chunks(4).zip(out.chunks_mut((4 * rows).max(1))) {
        match inputs {
            &[a, b, c, d] if rows.is_multiple_of(ROWS) => block_i16(w, [a, b, c, d], out),
            _ => avx2::rows_i16(w, inputs, out),
        }
    }
}

/// Four inputs, and rows by four.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn block_i16(w: &[i16], inputs: [&[i16]; 4], out: &mut [i32]) {
    let (cols, rows) = (inputs[0].len().max(1), out.len() / 4);
    let blocks = w.chunks_exact((ROWS * cols).max(1)).take(rows / ROWS);
    for (block, w) in blocks.enumerate() {
        let mut acc = [[_mm512_setzero_si512(); ROWS]; 4];
        for first in (0..cols).step_by(32) {
            let mut weights = [_mm512_setzero_si512(); ROWS];
            for (to, row) in weights.iter_mut().zip(w.chunks_exact(cols)) {
                *to = load_i16(row, first);
            }
            for (acc, x) in acc.iter_mut().zip(inputs) {
                let x = load_i16(x, first);
                for (acc, w) in acc.iter_mut().zip(weights) {
                    *acc = _mm512_dpwssd_epi32(*acc, w, x);
                }
            }
        }
        for (out, acc) in out.chunks_exact_mut(rows.max(1)).zip(acc) {
            let to = out.get_mut(ROWS * block..).and_then(|out| out.first_chunk_mut());
            if let Some(to) = to {
                *to = sums(acc);
            }
        }
    }
}

/// `acc += w·x` for sixteen bytes and an `x` of 16 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_bytes(w: __m128i, x: __m512i, acc: &mut [i32; 16]) {
    // SAFETY: an array of 64 bytes.
    let sum = unsafe { _mm512_loadu_si512(acc.as_ptr().cast()) };
    let sum = _mm512_dpwssd_epi32(sum, _mm512_cvtepu8_epi32(w), x);
    // SAFETY: the same array.
    unsafe { _mm512_storeu_si512(acc.as_mut_ptr().cast(), sum) };
}

/// A number of 16 bits in the low half of every word.
#[inline]
#[target_feature(enable = "avx512f")]
fn low_half(x: i16) -> __m512i {
    _mm512_set1_epi32(i32::from(x) & 0xffff)
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn column_i8(line: &[u32], x: i16, acc: &mut [i32]) {
    let (line, acc) = (line.as_chunks::<4>().0, acc.as_chunks_mut::<16>());
    let wide = low_half(x);
    for (acc, w) in acc.0.iter_mut().zip(line) {
        add_bytes(avx2::load_half(w), wide, acc);
    }
    if let Some(w) = line.get(acc.0.len()) {
        for (acc, w) in acc.1.iter_mut().zip(bytemuck::cast_slice::<u32, u8>(w)) {
            *acc = acc.wrapping_add(i32::from(*w) * i32::from(x));
        }
    }
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn column_i4(line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
    vector::column_i4(line, x, acc, offsets, |group, x, acc| match i16::try_from(x) {
        Ok(x) => {
            for (acc, w) in acc.as_chunks_mut().0.iter_mut().zip(column::halves(group)) {
                add_bytes(w, low_half(x), acc);
            }
        }
        Err(_) => vector::add_nibbles(column::nibbles(group), x, acc),
    });
}
