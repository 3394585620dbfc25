//! The square root by one instruction, where there is one.

#![allow(unsafe_code)]

#[cfg(not(any(
    rwkv_vfp,
    rwkv_riscv_f,
    target_feature = "sse",
    all(target_arch = "aarch64", target_feature = "neon")
)))]
pub(crate) use crate::math::sqrt_by_digits as sqrt;

/// The correctly rounded square root.
#[cfg(target_feature = "sse")]
#[inline]
pub(crate) fn sqrt(x: f32) -> f32 {
    #[cfg(target_arch = "x86")]
    use core::arch::x86::{_mm_cvtss_f32, _mm_set_ss, _mm_sqrt_ss};
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::{_mm_cvtss_f32, _mm_set_ss, _mm_sqrt_ss};
    // SAFETY: the target has SSE.
    unsafe { _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))) }
}

/// The correctly rounded square root.
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
#[inline]
pub(crate) fn sqrt(x: f32) -> f32 {
    use core::arch::aarch64::{vdup_n_f32, vget_lane_f32, vsqrt_f32};
    // SAFETY: the target has NEON.
    unsafe { vget_lane_f32::<0>(vsqrt_f32(vdup_n_f32(x))) }
}

/// The correctly rounded square root.
#[cfg(rwkv_vfp)]
#[inline]
pub(crate) fn sqrt(x: f32) -> f32 {
    let y: u32;
    // SAFETY: from register to register. Stable Rust takes no float operands on these targets.
    unsafe {
        core::arch::asm!(
            "vmov s0, {x}",
            "vsqrt.f32 s0, s0",
            "vmov {y}, s0",
            x = in(reg) x.to_bits(),
            y = lateout(reg) y,
            out("s0") _,
            options(pure, nomem, nostack),
        );
    }
    f32::from_bits(y)
}

/// The correctly rounded square root.
#[cfg(rwkv_riscv_f)]
#[inline]
pub(crate) fn sqrt(x: f32) -> f32 {
    let y: u32;
    // SAFETY: from register to register. Stable Rust takes no float operands on these targets.
    unsafe {
        core::arch::asm!(
            "fmv.w.x ft0, {x}",
            "fsqrt.s ft0, ft0",
            "fmv.x.w {y}, ft0",
            x = in(reg) x.to_bits(),
            y = lateout(reg) y,
            out("ft0") _,
            options(pure, nomem, nostack),
        );
    }
    f32::from_bits(y)
}
