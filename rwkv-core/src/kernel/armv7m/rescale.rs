//! Sums into floats.

use core::arch::naked_asm;

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
    /// Rounds r9 to 24 bits, and leaves seven zeros behind them. The exponent in r11 counts on bit
    /// 30.
    macro_rules! round {
        () => {
            concat!(
                "tst r9, #0x40000000\n",
                "itt eq\n lsleq r9, r9, #1\n subeq r11, r11, #1\n",
                "lsl r12, r9, #25\n cmp r12, r8\n beq 9f\n",
                "add r9, r9, #64\n",
            )
        };
    }
    naked_asm!(
        // r0 sums, r1 scales, r2 end, r3 lower half of a product, r4 lowest exponent, r5 number of
        // exponents, r6 significand of the input, r7 offset in its place, r8 topmost bit, r9 product,
        // r10 magnitude of the sum, r11 sign and exponent, r12 free.
        "push {{r4-r11, lr}}",
        "ldm r3, {{r4-r7}}",
        "lsl r6, r6, #7",
        // Two carries are counted.
        "add r7, r7, #2",
        "lsl r7, r7, #23",
        "mov r8, #0x80000000",
        "2:",
        "ldr r9, [r1], #4",
        "ldr r10, [r0]",
        "lsr r11, r9, #23",
        "cmp r10, #0",
        "beq 9f",
        "itt mi",
        "rsbmi r10, r10, #0",
        "addmi r11, r11, #256",
        "ubfx r12, r9, #23, #8",
        "sub r12, r12, r4",
        "cmp r12, r5",
        "bhs 9f",
        "clz r12, r10",
        "lsl r10, r10, r12",
        "sub r11, r11, r12",
        "tst r10, #255",
        "bne 4f",
        "3:",
        // The scale times the input.
        "orr r9, r8, r9, lsl #8",
        "umull r3, r9, r9, r6",
        round!(),
        // The sum times that.
        "bic r9, r9, #127",
        "umull r3, r9, r9, r10",
        round!(),
        "lsr r9, r9, #7",
        "add r9, r9, r11, lsl #23",
        "add r9, r9, r7",
        "str r9, [r0], #4",
        "cmp r0, r2",
        "bne 2b",
        "b 9f",
        // A sum of more than 24 bits, to nearest, ties to even: bit 8 is the carry.
        "4:",
        "lsrs r12, r10, #9",
        "mov r12, #127",
        "adcs r10, r10, r12",
        "bcs 9f",
        "bic r10, r10, #255",
        "b 3b",
        "9:",
        "pop {{r4-r11, pc}}",
    )
}
