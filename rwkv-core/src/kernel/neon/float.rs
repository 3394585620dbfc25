//! Rows of floats by the rule of eight: the lanes of two vectors are the eight accumulators.

use core::arch::aarch64::*;

use super::vector;

/// Rows that are computed at once, since an addition takes several cycles.
const ROWS: usize = 4;

#[inline]
#[target_feature(enable = "neon")]
fn load(values: &[f32; 8]) -> [float32x4_t; 2] {
    // SAFETY: an array of 32 bytes.
    let pair = unsafe { vld1q_f32_x2(values.as_ptr()) };
    [pair.0, pair.1]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_halves(values: &[u16; 8]) -> [float32x4_t; 2] {
    // SAFETY: an array of 16 bytes.
    let halves = vreinterpretq_f16_u16(unsafe { vld1q_u16(values.as_ptr()) });
    [vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)]
}

/// `((0+4)+(2+6)) + ((1+5)+(3+7))`, for each row.
#[inline]
#[target_feature(enable = "neon")]
fn fold(rows: [[float32x4_t; 2]; ROWS]) -> [f32; ROWS] {
    let mut sums = [0.0; ROWS];
    for (sum, [low, high]) in sums.iter_mut().zip(rows) {
        let half = vaddq_f32(low, high);
        *sum = vaddv_f32(vadd_f32(vget_low_f32(half), vget_high_f32(half)));
    }
    sums
}

#[inline]
#[target_feature(enable = "neon")]
fn rows<T: Copy + Default>(
    w: &[T],
    padding: usize,
    x: &[f32],
    out: &mut [f32],
    load_weights: impl Fn(&[T; 8]) -> [float32x4_t; 2],
) {
    let (x8, x_tail) = x.as_chunks::<8>();
    vector::blocks::<T, ROWS, ROWS>((x.len(), padding), w, out, |_, rows| {
        let mut acc = [[vdupq_n_f32(0.0); 2]; ROWS];
        for (i, x) in x8.iter().enumerate() {
            let x = load(x);
            for (acc, (row, _)) in acc.iter_mut().zip(&rows) {
                let Some(w) = row.as_chunks().0.get(i) else { break };
                add(acc, load_weights(w), x);
            }
        }
        if !x_tail.is_empty() {
            // Products of padding leave an accumulator as it is: starting at +0, it is never -0.
            let x = load(&vector::padded(x_tail));
            for (acc, (row, _)) in acc.iter_mut().zip(&rows) {
                add(acc, load_weights(&vector::padded(row.as_chunks::<8>().1)), x);
            }
        }
        fold(acc)
    });
}

#[inline]
#[target_feature(enable = "neon")]
fn add(acc: &mut [float32x4_t; 2], w: [float32x4_t; 2], x: [float32x4_t; 2]) {
    for ((acc, w), x) in acc.iter_mut().zip(w).zip(x) {
        *acc = vaddq_f32(*acc, vmulq_f32(w, x));
    }
}

#[target_feature(enable = "neon")]
pub(super) fn rows_f32(w: &[f32], x: &[f32], out: &mut [f32]) {
    rows(w, 0, x, out, |w| load(w));
}

#[target_feature(enable = "neon")]
pub(super) fn rows_f16(w: &[u16], x: &[f32], out: &mut [f32]) {
    rows(w, x.len() % 2, x, out, |w| load_halves(w));
}
