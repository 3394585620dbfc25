//! Columns whose weights do not lie in order as numbers: the scalar reference does for the others.

use core::arch::aarch64::*;

use half::f16;

use super::{float::load_halves, vector};
use crate::image::GROUP;

#[target_feature(enable = "neon")]
pub(super) fn column_f16(w: &[u16], x: f32, acc: &mut [f32]) {
    // A line may end with a weight that pads it to a word.
    let w = w.get(..acc.len()).unwrap_or(w);
    let ((acc, acc_tail), (w, w_tail)) = (acc.as_chunks_mut::<8>(), w.as_chunks::<8>());
    for (acc, w) in acc.iter_mut().zip(w) {
        for (acc, w) in acc.as_chunks_mut::<4>().0.iter_mut().zip(load_halves(w)) {
            // SAFETY: an array of 16 bytes.
            let sum = vaddq_f32(unsafe { vld1q_f32(acc.as_ptr()) }, vmulq_n_f32(w, x));
            // SAFETY: the same array.
            unsafe { vst1q_f32(acc.as_mut_ptr(), sum) };
        }
    }
    for (a, w) in acc_tail.iter_mut().zip(w_tail) {
        *a += f16::from_bits(*w).to_f32() * x;
    }
}

/// The nibbles of a group, in order.
#[inline]
#[target_feature(enable = "neon")]
fn nibbles(group: &[u32; 4]) -> [u8; GROUP] {
    // SAFETY: an array of 16 bytes.
    let group = vreinterpretq_u8_u32(unsafe { vld1q_u32(group.as_ptr()) });
    let mut nibbles = [0; GROUP];
    let pairs = uint8x16x2_t(vandq_u8(group, vdupq_n_u8(15)), vshrq_n_u8::<4>(group));
    // SAFETY: an array of 32 bytes.
    unsafe { vst2q_u8(nibbles.as_mut_ptr(), pairs) };
    nibbles
}

#[target_feature(enable = "neon")]
pub(super) fn column_i4(line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
    let add = |group: &_, x, acc: &mut _| vector::add_nibbles(nibbles(group), x, acc);
    vector::column_i4(line, x, acc, offsets, add);
}
