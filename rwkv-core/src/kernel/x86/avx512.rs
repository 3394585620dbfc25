//! Integer rows for AVX-512 with VNNI: 512 bits, and bytes times bytes without saturation.

use core::arch::x86_64::*;

use super::vector::{self, Line, Planes};
use super::{Arranged, Input, Lines, avx2};
use crate::{
    error::Error,
    image::{Format, GROUP},
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
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn add(&self, w: __m512i, subs: u32, acc: &mut [__m512i; PLANES]) {
        let nibble = _mm512_set1_epi8(15);
        let even = _mm512_and_si512(w, nibble);
        let odd = _mm512_and_si512(_mm512_srli_epi16(w, 4), nibble);
        // Byte i to the words of quarter i; an index with its top bit set makes a zero.
        let bytes = _mm512_or_si512(quarters(), _mm512_set1_epi32(-0x100));
        let subs = _mm512_shuffle_epi8(_mm512_set1_epi32(subs as i32), bytes);
        for ((acc, x), start) in acc.iter_mut().zip(&self.x).zip(&self.start) {
            // At most 8·15·128 + 2·32·128: the low 16 bits of a sum are the sum.
            let sum = _mm512_dpbusd_epi32(*start, even, x[0]);
            let sum = _mm512_dpbusd_epi32(sum, odd, x[1]);
            *acc = _mm512_dpwssd_epi32(*acc, sum, subs);
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
        x.add(load::<LAST>(row, step), *subs, acc);
    }
}
