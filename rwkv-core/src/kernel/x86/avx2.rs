//! Loops for AVX2: 256 bits.

use core::arch::x86_64::*;

use super::vector::{self, Line, Planes};
use super::{Arranged, Input, Lines};
use crate::{
    error::Error,
    image::{Format, GROUP},
};

/// Rows of an integer matrix that are computed at once.
const ROWS: usize = 4;

#[inline]
#[target_feature(enable = "avx2")]
fn load(words: &[u32; 8]) -> __m256i {
    // SAFETY: an array of 32 bytes.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_half(words: &[u32; 4]) -> __m128i {
    // SAFETY: an array of 16 bytes.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

/// Two groups of 16 bytes; with `LAST`, the one at the end of the line, then zeros.
#[inline]
#[target_feature(enable = "avx2")]
fn load_groups<const LAST: bool>(line: &[u32], step: usize) -> __m256i {
    match (line.as_chunks().0.get(step), line.last_chunk()) {
        (Some(words), _) if !LAST => load(words),
        (_, Some(words)) if LAST => _mm256_zextsi128_si256(load_half(words)),
        _ => _mm256_setzero_si256(),
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn arrange(
    format: Format,
    bits: u8,
    room: &mut [f32],
    len: usize,
) -> Result<Arranged, Error> {
    match format {
        Format::Int8 => vector::quantise(bits, room, len, vector::parted),
        _ => vector::arrange_planes::<true>(bits, room, len),
    }
}

/// The sums of the lanes of four vectors.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sums([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
    let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let halves = [_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)];
    let mut sums = [0; 4];
    // SAFETY: an array of 16 bytes.
    unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), _mm_add_epi32(halves[0], halves[1])) };
    sums
}

#[target_feature(enable = "avx2")]
pub(super) fn rows_i8(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    let weights = Format::Int8.line_words(x.arranged.groups * GROUP);
    let start = x.arranged.sum.wrapping_mul(-128);
    let byte = _mm256_set1_epi16(255);
    vector::integer_blocks::<ROWS, ROWS>((0, weights), lines, x.arranged.scale, out, |lines| {
        let mut acc = [_mm256_setzero_si256(); ROWS];
        for (i, x) in x.words.as_chunks::<16>().0.iter().enumerate().take(weights / 8) {
            let [even, odd]: &[[u32; 8]; 2] = bytemuck::cast_ref(x);
            let (even, odd) = (load(even), load(odd));
            for (acc, (_, row)) in acc.iter_mut().zip(&lines) {
                let Some(w) = row.as_chunks::<8>().0.get(i) else { break };
                let w = load(w);
                let a = _mm256_madd_epi16(_mm256_and_si256(w, byte), even);
                let b = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), odd);
                *acc = _mm256_add_epi32(*acc, _mm256_add_epi32(a, b));
            }
        }
        sums(acc).map(|sum| sum.wrapping_add(start))
    });
}

/// An input for int4: of the planes in use, two groups at a time.
struct Step<const PLANES: usize> {
    /// Even and odd elements.
    x: [[__m256i; 2]; PLANES],
    /// What a word of 16 bits starts at: together, -8 times the sum of the group.
    start: [__m256i; PLANES],
}

impl<const PLANES: usize> Step<PLANES> {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new<const LAST: bool>(planes: &Planes<'_>, step: usize) -> Self {
        let zero = _mm256_setzero_si256();
        let sums = match planes.sums.get(2 * step..).unwrap_or_default() {
            [a, b, ..] => _mm256_set_m128i(_mm_set1_epi32(*b as i32), _mm_set1_epi32(*a as i32)),
            [a] => _mm256_zextsi128_si256(_mm_set1_epi32(*a as i32)),
            [] => zero,
        };
        let (mut x, mut start) = ([[zero; 2]; PLANES], [zero; PLANES]);
        let parts = x.iter_mut().zip(&mut start).zip(planes.parts());
        for (((x, start), [even, odd]), bytes) in parts.zip([0x0100, 0x0302]) {
            *x = [load_groups::<LAST>(even, step), load_groups::<LAST>(odd, step)];
            *start = _mm256_shuffle_epi8(sums, _mm256_set1_epi16(bytes));
        }
        Self { x, start }
    }

    /// Adds two groups of weights times their sub-scales, as words of 16 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&self, w: __m256i, subs: __m256i, acc: &mut [__m256i; PLANES]) {
        let nibble = _mm256_set1_epi8(15);
        let even = _mm256_and_si256(w, nibble);
        let odd = _mm256_and_si256(_mm256_srli_epi16(w, 4), nibble);
        for ((acc, x), start) in acc.iter_mut().zip(&self.x).zip(&self.start) {
            // At most 15·128·4 + 32·128: nothing saturates.
            let sum =
                _mm256_add_epi16(_mm256_maddubs_epi16(even, x[0]), _mm256_maddubs_epi16(odd, x[1]));
            let sum = _mm256_madd_epi16(_mm256_add_epi16(sum, *start), subs);
            *acc = _mm256_add_epi32(*acc, sum);
        }
    }
}

/// The shuffle that makes all words of 16 bits of a half one byte.
#[inline]
#[target_feature(enable = "avx2")]
fn to_words([low, high]: [i16; 2]) -> __m256i {
    const ZERO: i16 = -0x8000;
    _mm256_set_m128i(_mm_set1_epi16(high | ZERO), _mm_set1_epi16(low | ZERO))
}

/// `low + 128·high`.
#[inline]
#[target_feature(enable = "avx2")]
fn join<const PLANES: usize>(acc: [[__m256i; PLANES]; ROWS]) -> [i32; ROWS] {
    let mut joined = [_mm256_setzero_si256(); ROWS];
    for (joined, acc) in joined.iter_mut().zip(acc) {
        for plane in acc.iter().rev() {
            *joined = _mm256_add_epi32(_mm256_slli_epi32(*joined, 7), *plane);
        }
    }
    sums(joined)
}

#[target_feature(enable = "avx2")]
pub(super) fn rows_i4(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    match Planes::wide(&x.arranged) {
        true => rows_i4_planes::<2>(lines, x, out),
        false => rows_i4_planes::<1>(lines, x, out),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn rows_i4_planes<const PLANES: usize>(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    let groups = x.arranged.groups;
    let Some(planes) = Planes::of(x) else { return };
    let words = (groups.div_ceil(4), 4 * groups);
    vector::integer_blocks::<ROWS, ROWS>(words, lines, x.arranged.scale, out, |lines| {
        let mut acc = [[_mm256_setzero_si256(); PLANES]; ROWS];
        for step in 0..groups / 2 {
            add_i4::<PLANES, false>(&planes, &lines, step, &mut acc);
        }
        if !groups.is_multiple_of(2) {
            add_i4::<PLANES, true>(&planes, &lines, groups / 2, &mut acc);
        }
        join(acc)
    });
}

/// Adds two groups of all rows.
#[inline]
#[target_feature(enable = "avx2")]
fn add_i4<const PLANES: usize, const LAST: bool>(
    planes: &Planes<'_>,
    lines: &[Line<'_>; ROWS],
    step: usize,
    acc: &mut [[__m256i; PLANES]; ROWS],
) {
    let x = Step::<PLANES>::new::<LAST>(planes, step);
    for (acc, (subs, row)) in acc.iter_mut().zip(lines) {
        let Some(subs) = bytemuck::cast_slice::<_, u16>(subs).get(step) else { break };
        let subs = _mm256_shuffle_epi8(_mm256_set1_epi16(*subs as i16), to_words([0, 1]));
        x.add(load_groups::<LAST>(row, step), subs, acc);
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn rows_i4_lanes(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    match Planes::wide(&x.arranged) {
        true => rows_i4_lanes_planes::<2>(lines, x, out),
        false => rows_i4_lanes_planes::<1>(lines, x, out),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn rows_i4_lanes_planes<const PLANES: usize>(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
    let groups = x.arranged.groups;
    let Some(planes) = Planes::of(x) else { return };
    let words = (2 * groups.div_ceil(4), 8 * groups);
    vector::integer_blocks::<{ ROWS / 2 }, ROWS>(words, lines, x.arranged.scale, out, |lines| {
        let mut acc = [[_mm256_setzero_si256(); PLANES]; ROWS];
        for step in 0..groups / 2 {
            add_lanes::<PLANES, false>(&planes, &lines, step, &mut acc);
        }
        if !groups.is_multiple_of(2) {
            add_lanes::<PLANES, true>(&planes, &lines, groups / 2, &mut acc);
        }
        join(acc)
    });
}

/// Adds two groups of all pairs of rows.
#[inline]
#[target_feature(enable = "avx2")]
fn add_lanes<const PLANES: usize, const LAST: bool>(
    planes: &Planes<'_>,
    lines: &[Line<'_>; ROWS / 2],
    step: usize,
    acc: &mut [[__m256i; PLANES]; ROWS],
) {
    let x = Step::<PLANES>::new::<LAST>(planes, step);
    for (acc, (subs, pair)) in acc.as_chunks_mut::<2>().0.iter_mut().zip(lines) {
        let (Some(subs), (groups, _)) = (subs.get(step), pair.as_chunks::<8>()) else { break };
        let Some(a) = groups.get(2 * step) else { break };
        let b = match groups.get(2 * step + 1) {
            Some(b) => load(b),
            None => _mm256_setzero_si256(),
        };
        let subs = _mm256_set1_epi32(*subs as i32);
        let rows = acc.iter_mut().zip(rows_of_lanes(load(a), b)).zip([[0, 2], [1, 3]]);
        for ((acc, w), bytes) in rows {
            x.add(w, _mm256_shuffle_epi8(subs, to_words(bytes)), acc);
        }
    }
}

/// Two groups of two rows in the halves of words, as two groups of one row and of the other.
#[inline]
#[target_feature(enable = "avx2")]
fn rows_of_lanes(a: __m256i, b: __m256i) -> [__m256i; 2] {
    let half = _mm256_set1_epi32(0xffff);
    let low = _mm256_packus_epi32(_mm256_and_si256(a, half), _mm256_and_si256(b, half));
    let high = _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
    [_mm256_permute4x64_epi64(low, 0b11_01_10_00), _mm256_permute4x64_epi64(high, 0b11_01_10_00)]
}

#[target_feature(enable = "avx2")]
pub(super) fn rows_i16(w: &[i16], inputs: &[&[i16]], out: &mut [i32]) {
    crate::kernel::generic::rows_i16(w, inputs, out);
}
