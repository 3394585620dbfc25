//! Rows of floats by the rule of eight: a register per accumulator.

use core::arch::naked_asm;

use super::super::{Pairs, in_pairs};
use crate::kernel::{Generic, Kernel};

/// Columns of a turn.
const EIGHT: usize = 8;

/// See [`Kernel::rows_f32`].
pub(crate) fn rows_f32(w: &[f32], x: &[f32], out: &mut [f32]) {
    if x.is_empty() || !x.len().is_multiple_of(EIGHT) {
        return Generic.rows_f32(w, x, out);
    }
    rows(pairs_f32, bytemuck::cast_slice(w), x.len(), x, out);
}

/// See [`Kernel::rows_f16`].
pub(crate) fn rows_f16(w: &[u16], x: &[f32], out: &mut [f32]) {
    match bytemuck::try_cast_slice(w) {
        Ok(w) if !x.is_empty() && x.len().is_multiple_of(EIGHT) => {
            rows(pairs_f16, w, x.len() / 2, x, out);
        }
        _ => Generic.rows_f16(w, x, out),
    }
}

/// `pairs` reads rows of `line` words that hold as many weights as there are inputs.
fn rows(pairs: Pairs, w: &[u32], line: usize, x: &[f32], out: &mut [f32]) {
    let (x, out) = (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(out));
    // SAFETY: neither the input nor a row is empty.
    unsafe { in_pairs(pairs, w, line, x, [0; 2], out) }
}

/// Adds products: `sum += a · b` for each of the operands.
macro_rules! add {
    ($([$sum:literal $a:literal $b:literal])*) => {
        lines!($("vmla.f32 " $sum ", " $a ", " $b;)*)
    };
}

/// `a = ((a + e) + (c + g)) + ((b + f) + (d + h))`.
macro_rules! fold {
    ($a:literal $b:literal $c:literal $d:literal $e:literal $f:literal $g:literal $h:literal) => {
        fold!([$a $e][$c $g][$b $f][$d $h][$a $c][$b $d][$a $b])
    };
    ($([$x:literal $y:literal])*) => {
        lines!($("vadd.f32 " $x ", " $x ", " $y;)*)
    };
}

/// The frame of both functions: `$turn` adds eight columns of two rows.
macro_rules! pairs {
    ($turn:expr) => {
        // r0 x, r1 a, r2 b, r3 out, r4 end, r5 x_end, r6 x again, r7 whether the number of turns is
        // odd; s0 to s15 sums, s16 to s23 inputs. On the stack: [0] eight doubles, six registers,
        // [88] end, x_end.
        naked_asm!(
            fpu!(),
            "push {{r4-r8, lr}}",
            "vpush {{d8-d15}}",
            "ldrd r4, r5, [sp, #88]",
            "mov r6, r0",
            "sub r7, r5, r0",
            "and r7, r7, #32",
            "mov r8, #0",
            "2:",
            "mov r0, r6",
            "vmov d0, r8, r8",
            "vmov d1, r8, r8",
            "vmov d2, r8, r8",
            "vmov d3, r8, r8",
            "vmov d4, r8, r8",
            "vmov d5, r8, r8",
            "vmov d6, r8, r8",
            "vmov d7, r8, r8",
            "cmp r7, #0",
            "bne 4f",
            "3:",
            $turn,
            "4:",
            $turn,
            "cmp r0, r5",
            "bne 3b",
            fold!("s0" "s1" "s2" "s3" "s4" "s5" "s6" "s7"),
            fold!("s8" "s9" "s10" "s11" "s12" "s13" "s14" "s15"),
            "vmov.f32 s1, s8",
            "vstmia r3!, {{s0, s1}}",
            // Behind row b is the next pair.
            "sub lr, r2, r1",
            "mov r1, r2",
            "add r2, r2, lr",
            "cmp r3, r4",
            "bne 2b",
            "vpop {{d8-d15}}",
            "pop {{r4-r8, pc}}",
        )
    };
}

/// Pairs of rows.
///
/// # Safety
/// As [`Pairs`]: `x` is eight floats or a multiple, and a row has as many.
#[unsafe(naked)]
unsafe extern "C" fn pairs_f32(
    x: *const u32,
    a: *const u32,
    b: *const u32,
    out: *mut [u32; 2],
    end: *mut [u32; 2],
    x_end: *const u32,
    _: usize,
    _: usize,
) {
    pairs!(concat!(
        "vldmia r0!, {{s16-s23}}\n",
        "vldmia r1!, {{s24-s31}}\n",
        add!(["s0" "s24" "s16"]["s1" "s25" "s17"]["s2" "s26" "s18"]["s3" "s27" "s19"]
            ["s4" "s28" "s20"]["s5" "s29" "s21"]["s6" "s30" "s22"]["s7" "s31" "s23"]),
        "vldmia r2!, {{s24-s31}}\n",
        add!(["s8" "s24" "s16"]["s9" "s25" "s17"]["s10" "s26" "s18"]["s11" "s27" "s19"]
            ["s12" "s28" "s20"]["s13" "s29" "s21"]["s14" "s30" "s22"]["s15" "s31" "s23"]),
    ))
}

/// Widens two weights, and adds their products.
macro_rules! add_halves {
    ($([$w:literal $s:literal $x:literal $t:literal $y:literal])*) => {
        lines!($(
            "vcvtb.f32.f16 s28, " $w;
            "vcvtt.f32.f16 s29, " $w;
            "vmla.f32 " $s ", s28, " $x;
            "vmla.f32 " $t ", s29, " $y;
        )*)
    };
}

/// As [`pairs_f32`], with two weights to a word.
///
/// # Safety
/// As [`pairs_f32`].
#[unsafe(naked)]
unsafe extern "C" fn pairs_f16(
    x: *const u32,
    a: *const u32,
    b: *const u32,
    out: *mut [u32; 2],
    end: *mut [u32; 2],
    x_end: *const u32,
    _: usize,
    _: usize,
) {
    pairs!(concat!(
        "vldmia r0!, {{s16-s23}}\n",
        "vldmia r1!, {{s24-s27}}\n",
        add_halves!(["s24" "s0" "s16" "s1" "s17"]["s25" "s2" "s18" "s3" "s19"]
            ["s26" "s4" "s20" "s5" "s21"]["s27" "s6" "s22" "s7" "s23"]),
        "vldmia r2!, {{s24-s27}}\n",
        add_halves!(["s24" "s8" "s16" "s9" "s17"]["s25" "s10" "s18" "s11" "s19"]
            ["s26" "s12" "s20" "s13" "s21"]["s27" "s14" "s22" "s15" "s23"]),
    ))
}
