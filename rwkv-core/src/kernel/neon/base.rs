//! Integer rows without dot products: products of 16 bits, added in pairs.

use core::arch::aarch64::*;

/// Adds the products of sixteen bytes.
#[inline]
#[target_feature(enable = "neon")]
fn add_bytes(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let acc = vpadalq_s16(acc, vmull_s8(vget_low_s8(w), vget_low_s8(x)));
    vpadalq_s16(acc, vmull_high_s8(w, x))
}

/// Adds the products of 32 nibbles: four of at most 15·128 to a lane.
#[inline]
#[target_feature(enable = "neon")]
fn add_nibbles(acc: int32x4_t, w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
    let sum = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0]));
    let sum = vmlal_high_s8(sum, w[0], x[0]);
    let sum = vmlal_s8(sum, vget_low_s8(w[1]), vget_low_s8(x[1]));
    vpadalq_s16(acc, vmlal_high_s8(sum, w[1], x[1]))
}

super::integer::rows!("neon");
