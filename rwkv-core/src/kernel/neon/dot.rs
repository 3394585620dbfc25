//! Integer rows with dot products of four bytes.

use core::arch::{aarch64::*, asm};

/// Adds the products of sixteen bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_bytes(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction between registers; the function requires it. (Its intrinsic is not
    // stable.)
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// Adds the products of 32 nibbles.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_nibbles(acc: int32x4_t, w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
    add_bytes(add_bytes(acc, w[0], x[0]), w[1], x[1])
}

super::integer::rows!("neon,dotprod");
