//! Rows of floats by the rule of eight: the lanes of a vector are the eight accumulators.

use core::arch::x86_64::*;

use super::{Keys5, Keys7, vector};
use crate::kernel::floats::scalar;

/// Rows that are computed at once, since an addition takes several cycles.
const ROWS: usize = 8;

/// Lanes hold independent value indices, so the compiler's own vectors do.
#[target_feature(enable = "avx2")]
pub(super) fn wkv5(keys: Keys5<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
    scalar::wkv5(keys, v, state, y);
}

/// As [`wkv5`].
#[target_feature(enable = "avx2")]
pub(super) fn wkv7(keys: Keys7<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
    scalar::wkv7(keys, v, state, y);
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[f32; 8]) -> __m256 {
    // SAFETY: an array of 32 bytes.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load_halves(values: &[u16; 8]) -> __m256 {
    // SAFETY: an array of 16 bytes.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(values.as_ptr().cast()) })
}

/// Folds the accumulators of eight rows.
#[inline]
#[target_feature(enable = "avx2")]
fn fold([a, b, c, d, e, f, g, h]: [__m256; ROWS]) -> [f32; ROWS] {
    let mut sums = [0.0; ROWS];
    let folded = _mm256_set_m128(fold_half([e, f, g, h]), fold_half([a, b, c, d]));
    // SAFETY: an array of 32 bytes.
    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), folded) };
    sums
}

/// `((0+4)+(2+6)) + ((1+5)+(3+7))`, for four rows.
#[inline]
#[target_feature(enable = "avx2")]
fn fold_half(rows: [__m256; 4]) -> __m128 {
    let mut halves = [_mm_setzero_ps(); 4];
    for (half, row) in halves.iter_mut().zip(rows) {
        *half = _mm_add_ps(_mm256_castps256_ps128(row), _mm256_extractf128_ps(row, 1));
    }
    let [a, b, c, d] = halves;
    let ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
    let cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
    _mm_add_ps(_mm_shuffle_ps(ab, cd, 0b10_00_10_00), _mm_shuffle_ps(ab, cd, 0b11_01_11_01))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn rows<T: Copy + Default>(
    w: &[T],
    padding: usize,
    x: &[f32],
    out: &mut [f32],
    load_weights: impl Fn(&[T; 8]) -> __m256,
) {
    let (x8, x_tail) = x.as_chunks::<8>();
    vector::blocks::<T, ROWS, ROWS>((x.len(), padding), w, out, |_, rows| {
        let mut acc = [_mm256_setzero_ps(); ROWS];
        for (i, x) in x8.iter().enumerate() {
            let x = load(x);
            for (acc, (row, _)) in acc.iter_mut().zip(&rows) {
                let Some(w) = row.as_chunks().0.get(i) else { break };
                *acc = _mm256_add_ps(*acc, _mm256_mul_ps(load_weights(w), x));
            }
        }
        if !x_tail.is_empty() {
            // Products of padding leave an accumulator as it is: starting at +0, it is never -0.
            let x = load(&vector::padded(x_tail));
            for (acc, (row, _)) in acc.iter_mut().zip(&rows) {
                let w = load_weights(&vector::padded(row.as_chunks::<8>().1));
                *acc = _mm256_add_ps(*acc, _mm256_mul_ps(w, x));
            }
        }
        fold(acc)
    });
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn rows_f32(w: &[f32], x: &[f32], out: &mut [f32]) {
    rows(w, 0, x, out, |w| load(w));
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn rows_f16(w: &[u16], x: &[f32], out: &mut [f32]) {
    rows(w, x.len() % 2, x, out, |w| load_halves(w));
}
