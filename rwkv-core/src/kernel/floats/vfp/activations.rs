//! The steps of `math.rs`, with what the loop needs in registers.
//!
//! An addend that `vmla.f32` consumes is copied by a load of several registers.

use core::arch::asm;

use crate::math;

/// Into s16 and up: log2 e, the rounder, both parts of ln 2, the least exponent, 1, the first
/// coefficient, the factor of the decay.
static CONSTANTS: [f32; 8] = [
    math::LOG2_E,
    math::ROUNDER,
    math::LN2_HI,
    math::LN2_LO,
    -104.0,
    1.0,
    math::EXP[0],
    math::DECAY,
];

/// Into s0 and up, anew for each `exp`: the rounder and the other coefficients.
static ADDENDS: [f32; 7] = [
    math::ROUNDER,
    math::EXP[1],
    math::EXP[2],
    math::EXP[3],
    math::EXP[4],
    math::EXP[5],
    math::EXP[6],
];

/// e^s8 without its power of two in s6, the bits of the rounded exponent in `k`.
macro_rules! exp_parts {
    () => {
        "vldmia {addends}, {{s0-s6}}
         vmla.f32 s0, s8, s16
         vmov {k}, s0
         vsub.f32 s9, s0, s17
         vmls.f32 s8, s9, s18
         vmls.f32 s8, s9, s19
         vmla.f32 s1, s22, s8
         vmla.f32 s2, s1, s8
         vmla.f32 s3, s2, s8
         vmla.f32 s4, s3, s8
         vmla.f32 s5, s4, s8
         vmla.f32 s6, s5, s8"
    };
}

/// The sigmoid of the float at `x` in s6.
macro_rules! sigmoid {
    () => {
        concat!(
            "ldr {bits}, [{x}]
             orr {k}, {bits}, #0x80000000
             vmov s8, {k}
             vcmp.f32 s8, s20
             vmrs APSR_nzcv, fpscr
             it mi
             vmovmi.f32 s8, s20\n",
            exp_parts!(),
            // Half of the exponent, rounded down, and the rest, as the exponents of two factors:
            // those of the rounder's bits that move along are beyond the word.
            "\nlsl {half}, {k}, #22
             bfc {half}, #0, #23
             rsb {k}, {half}, {k}, lsl #23
             add {half}, {half}, #0x3f800000
             add {k}, {k}, #0x3f800000
             vmov d5, {half}, {k}
             vmul.f32 s6, s6, s10
             vmul.f32 s6, s6, s11
             vadd.f32 s7, s6, s21
             cmp {bits}, #0
             it pl
             vmovpl.f32 s6, s21
             vdiv.f32 s6, s6, s7",
        )
    };
}

macro_rules! each {
    ($x:ident: $($line:expr),*) => {
        if !$x.is_empty() {
            // SAFETY: reads and writes the elements of `x`, one by one.
            unsafe {
                asm!(
                    "vldmia {constants}, {{s16-s23}}",
                    "2:",
                    $($line,)*
                    "vstmia {x}!, {{s6}}",
                    "cmp {x}, {end}",
                    "bne 2b",
                    constants = in(reg) CONSTANTS.as_ptr(),
                    addends = in(reg) ADDENDS.as_ptr(),
                    end = in(reg) $x.as_mut_ptr_range().end,
                    x = inout(reg) $x.as_mut_ptr() => _,
                    bits = out(reg) _,
                    k = out(reg) _,
                    half = out(reg) _,
                    out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _,
                    out("d5") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _,
                    options(nostack),
                );
            }
        }
    };
}

/// `x = sigmoid(x)`.
pub(crate) fn sigmoid(x: &mut [f32]) {
    each!(x: sigmoid!());
}

/// `x = e^(-0.606531·sigmoid(x))`.
pub(crate) fn decay(x: &mut [f32]) {
    each!(
        x: sigmoid!(),
        "vmul.f32 s8, s6, s23",
        exp_parts!(),
        // One factor suffices: the result is not below 0.54.
        "lsl {k}, {k}, #23",
        "add {k}, {k}, #0x3f800000",
        "vmov s10, {k}",
        "vmul.f32 s6, s6, s10"
    );
}
