//! Sums into floats. A product of two significands is put together from three, and zeros are counted
//! by halves.

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
    /// The upper 32 bits of 48: of the factor that r4 and r3 hold as 8 and 16 bits, with the one
    /// whose upper 16 bits are in r6, its lower 8 in r7, and which r4 has been multiplied with.
    macro_rules! carry {
        () => {
            concat!(
                "muls r7, r3, r7\n",
                "muls r3, r6, r3\n",
                "lsrs r7, r7, #8\n",
                "adds r3, r3, r7\n",
                "lsrs r3, r3, #8\n",
                "adds r4, r4, r3\n",
            )
        };
    }
    /// Rounds r4 to 24 bits. The exponent in r2 counts on bit 31.
    macro_rules! round {
        () => {
            concat!(
                "bmi 3f\n",
                "lsls r4, r4, #1\n",
                "subs r2, #1\n",
                "3:\n",
                "lsls r6, r4, #24\n",
                "cmp r6, lr\n",
                "beq 9f\n",
                "lsrs r4, r4, #7\n",
                "adds r4, #1\n",
                "lsrs r4, r4, #1\n",
            )
        };
    }
    /// Shifts the sum in r5 by so many bits unless it fills more than the others.
    macro_rules! normalise {
        ($bits:literal, $others:literal) => {
            concat!(
                "lsrs r6, r5, #",
                $others,
                "\n",
                "bne 3f\n",
                "lsls r5, r5, #",
                $bits,
                "\n",
                "subs r2, #",
                $bits,
                "\n",
                "3:\n",
            )
        };
    }
    naked_asm!(
        // r0 sums, r1 scales, r2 sign and exponent, r5 magnitude of the sum, r3, r4, r6, r7 parts,
        // r8 upper 16 bits of the input's significand, r9 all of it, r10 offset in its place,
        // r11 lowest exponent, r12 number of exponents, lr what says halfway.
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r2, r4-r7}}",
        "ldm r3!, {{r4-r7}}",
        "mov r11, r4",
        "mov r12, r5",
        "mov r9, r6",
        "lsrs r6, r6, #8",
        "mov r8, r6",
        // Eight zeros are not counted, and two carries are.
        "subs r7, #6",
        "lsls r7, r7, #23",
        "mov r10, r7",
        "movs r4, #1",
        "lsls r4, r4, #31",
        "mov lr, r4",
        "2:",
        "ldm r1!, {{r3}}",
        "ldr r5, [r0]",
        "lsrs r2, r3, #23",
        "cmp r5, #0",
        "bgt 3f",
        "beq 9f",
        "rsbs r5, r5, #0",
        "adds r2, #255",
        "adds r2, #1",
        "3:",
        "uxtb r4, r2",
        "mov r6, r11",
        "subs r4, r4, r6",
        "cmp r4, r12",
        "bhs 9f",
        // The scale times the input.
        "lsls r4, r3, #9",
        "lsrs r4, r4, #25",
        "adds r4, #128",
        "uxth r3, r3",
        "mov r7, r9",
        "muls r4, r7, r4",
        "uxtb r7, r7",
        "mov r6, r8",
        carry!(),
        round!(),
        "lsrs r6, r5, #24",
        "bne 5f",
        normalise!(8, 16),
        normalise!(8, 16),
        normalise!(4, 20),
        normalise!(2, 22),
        normalise!(1, 23),
        "4:",
        // The sum times that.
        "uxtb r7, r4",
        "lsrs r6, r4, #8",
        "uxth r3, r5",
        "lsrs r5, r5, #16",
        "muls r4, r5, r4",
        carry!(),
        round!(),
        "lsls r2, r2, #23",
        "add r4, r10",
        "adds r4, r4, r2",
        "stm r0!, {{r4}}",
        "ldr r3, [sp]",
        "cmp r0, r3",
        "bne 2b",
        "b 9f",
        // A sum of more than 24 bits.
        "5:",
        "adds r2, #8",
        normalise!(4, 28),
        normalise!(2, 30),
        normalise!(1, 31),
        // To nearest, ties to even: bit 8 is the carry.
        "lsrs r6, r5, #9",
        "movs r6, #127",
        "adcs r5, r6",
        "bcs 9f",
        "lsrs r5, r5, #8",
        "b 4b",
        "9:",
        "pop {{r3-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
    )
}
