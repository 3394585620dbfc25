//! Columns, for AVX2: lanes hold independent outputs, so plain loops do where bytes lie in order.

use core::arch::x86_64::*;

use half::f16;

use super::{avx2::load_half, float::load_halves, vector};
use crate::image::GROUP;

#[target_feature(enable = "avx2")]
pub(super) fn column_f32(w: &[f32], x: f32, acc: &mut [f32]) {
    for (a, w) in acc.iter_mut().zip(w) {
        *a += w * x;
    }
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn column_f16(w: &[u16], x: f32, acc: &mut [f32]) {
    // A line may end with a weight that pads it to a word.
    let w = w.get(..acc.len()).unwrap_or(w);
    let ((acc, acc_tail), (w, w_tail)) = (acc.as_chunks_mut::<8>(), w.as_chunks::<8>());
    for (a, w) in acc.iter_mut().zip(w) {
        let product = _mm256_mul_ps(load_halves(w), _mm256_set1_ps(x));
        // SAFETY: an array of 32 bytes.
        let sum = _mm256_add_ps(unsafe { _mm256_loadu_ps(a.as_ptr()) }, product);
        // SAFETY: the same array.
        unsafe { _mm256_storeu_ps(a.as_mut_ptr(), sum) };
    }
    for (a, w) in acc_tail.iter_mut().zip(w_tail) {
        *a += f16::from_bits(*w).to_f32() * x;
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn column_i8(line: &[u32], x: i16, acc: &mut [i32]) {
    for (a, w) in acc.iter_mut().zip(bytemuck::cast_slice::<_, u8>(line)) {
        *a = a.wrapping_add(i32::from(*w) * i32::from(x));
    }
}

/// The nibbles of a group, in order, in two halves.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn halves(group: &[u32; 4]) -> [__m128i; 2] {
    let group = load_half(group);
    let mask = _mm_set1_epi8(15);
    let even = _mm_and_si128(group, mask);
    let odd = _mm_and_si128(_mm_srli_epi16(group, 4), mask);
    [_mm_unpacklo_epi8(even, odd), _mm_unpackhi_epi8(even, odd)]
}

/// The nibbles of a group, in order.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn nibbles(group: &[u32; 4]) -> [u8; GROUP] {
    let [low, high] = halves(group);
    let mut nibbles = [0; GROUP];
    // SAFETY: an array of 32 bytes.
    unsafe { _mm256_storeu_si256(nibbles.as_mut_ptr().cast(), _mm256_set_m128i(high, low)) };
    nibbles
}

#[target_feature(enable = "avx2")]
pub(super) fn column_i4(line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
    let add = |group: &_, x, acc: &mut _| vector::add_nibbles(nibbles(group), x, acc);
    vector::column_i4(line, x, acc, offsets, add);
}
