//! Sums into floats: zeros are counted by halves.

use core::arch::naked_asm;

use super::{begin, end};
use crate::{kernel::plain, soft::Rescaler};

/// As [`crate::kernel::plain::Core::rescale`].
pub(super) fn all(sums: &mut [f32], input: f32, scales: &[f32]) {
    plain::rescale(sums, input, scales, |sums, scales, rescaler| {
        let sums = sums.as_mut_ptr_range();
        // SAFETY: there are as many scales as sums, at least one.
        let stop = unsafe { most(sums.start, scales.as_ptr(), sums.end, rescaler) };
        (stop.addr() - sums.start.addr()) / size_of::<f32>()
    });
}

/// Rescales up to the first sum that is zero, that has an unusual scale, or where a product may lie
/// halfway between two floats.
///
/// # Safety
/// `sums` is not empty, and there are as many scales.
#[unsafe(naked)]
unsafe extern "C" fn most(
    sums: *mut f32,
    scales: *const f32,
    end: *mut f32,
    rescaler: *const Rescaler,
) -> *mut f32 {
    /// Rounds to 24 bits. The exponent in t2 counts on bit 30.
    macro_rules! round {
        ($product:literal) => {
            concat!(
                "srli t4, ",
                $product,
                ", 30\n",
                "bnez t4, 1f\n",
                "slli ",
                $product,
                ", ",
                $product,
                ", 1\n",
                "addi t2, t2, -1\n",
                "1:\n",
                "andi t4, ",
                $product,
                ", 127\n",
                "beq t4, t5, 9f\n",
                "addi ",
                $product,
                ", ",
                $product,
                ", 64\n",
                "srli ",
                $product,
                ", ",
                $product,
                ", 7\n",
            )
        };
    }
    /// Shifts the sum in t1 by so many bits unless it fills more than the others.
    macro_rules! normalise {
        ($bits:literal, $others:literal) => {
            concat!(
                "srli t4, t1, ",
                $others,
                "\n",
                "bnez t4, 1f\n",
                "slli t1, t1, ",
                $bits,
                "\n",
                "addi t2, t2, -",
                $bits,
                "\n",
                "1:\n",
            )
        };
    }
    naked_asm!(
        // a0 sums, a1 scales, a2 end, a3 topmost bit, a4 lowest exponent, a5 number of exponents,
        // a6 significand of the input, a7 offset in its place, t0 scale, t1 magnitude of the sum,
        // t2 sign and exponent, t3 product, t4 free, t5 what says halfway.
        begin!(),
        "lw a4, 0(a3)",
        "lw a5, 4(a3)",
        "lw a6, 8(a3)",
        "lw a7, 12(a3)",
        "slli a6, a6, 7",
        // Eight zeros are not counted, and two carries are.
        "addi a7, a7, -6",
        "slli a7, a7, 23",
        "lui a3, 0x80000",
        "li t5, 64",
        "2:",
        "lw t0, 0(a1)",
        "lw t1, 0(a0)",
        "srli t2, t0, 23",
        "bgtz t1, 1f",
        "beqz t1, 9f",
        "neg t1, t1",
        "addi t2, t2, 256",
        "1:",
        "andi t3, t2, 255",
        "sub t3, t3, a4",
        "bgeu t3, a5, 9f",
        // The scale times the input.
        "slli t0, t0, 8",
        "or t0, t0, a3",
        "mulhu t3, t0, a6",
        round!("t3"),
        "srli t4, t1, 24",
        "bnez t4, 4f",
        normalise!(8, 16),
        normalise!(8, 16),
        normalise!(4, 20),
        normalise!(2, 22),
        normalise!(1, 23),
        "3:",
        // The sum times that.
        "slli t1, t1, 8",
        "slli t3, t3, 7",
        "mulhu t1, t1, t3",
        round!("t1"),
        "slli t2, t2, 23",
        "add t1, t1, t2",
        "add t1, t1, a7",
        "sw t1, 0(a0)",
        "addi a0, a0, 4",
        "addi a1, a1, 4",
        "bne a0, a2, 2b",
        "j 9f",
        // A sum of more than 24 bits.
        "4:",
        "addi t2, t2, 8",
        normalise!(4, 28),
        normalise!(2, 30),
        normalise!(1, 31),
        // To nearest, ties to even.
        "srli t4, t1, 8",
        "andi t4, t4, 1",
        "addi t4, t4, 127",
        "add t4, t1, t4",
        "bltu t4, t1, 9f",
        "srli t1, t4, 8",
        "j 3b",
        "9:",
        end!(),
    )
}
