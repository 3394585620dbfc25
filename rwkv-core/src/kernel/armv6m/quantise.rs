//! Floats into elements: the upper halves of two significands nearly always settle the matter.

use core::arch::naked_asm;

use crate::{
    op::Quantiser,
    soft::{exponent, significand},
};

/// As [`crate::kernel::plain::Core::quantise`].
pub(super) fn all(words: &mut [u32], quantiser: Quantiser) {
    let factor = quantiser.factor().to_bits();
    // With the exponent of an element this makes a distance to shift by, which has eight bits.
    let Some(distance @ ..=255) = 283u32.checked_sub(exponent(factor)) else {
        words.iter_mut().for_each(|word| one(word, quantiser));
        return;
    };
    let mut rest = words;
    while !rest.is_empty() {
        let words = rest.as_mut_ptr_range();
        // SAFETY: there are words.
        let stop = unsafe { most(words.start, words.end, distance, significand(factor)) };
        let done = (stop.addr() - words.start.addr()) / size_of::<u32>();
        let Some((word, behind)) = rest.get_mut(done..).and_then(<[u32]>::split_first_mut) else {
            return;
        };
        one(word, quantiser);
        rest = behind;
    }
}

#[cold]
#[inline(never)]
fn one(word: &mut u32, quantiser: Quantiser) {
    *word = quantiser.value(f32::from_bits(*word)) as u32;
}

/// Quantises up to the first float whose product may round to halfway between two integers.
///
/// # Safety
/// `words` up to `end` is not empty.
#[unsafe(naked)]
unsafe extern "C" fn most(words: *mut u32, end: *mut u32, distance: u32, factor: u32) -> *mut u32 {
    naked_asm!(
        // r0 words, r1 bit 15, r2 a float, r3 lower bound of the product, r4 distance, r5 upper
        // bound, r6 upper half of the factor, r7 distance without the float's exponent,
        // r8 range, r9 factor, r12 the end.
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "push {{r4, r5}}",
        "mov r12, r1",
        "mov r7, r2",
        "mov r9, r3",
        "lsrs r6, r3, #8",
        // Both lower halves may add just less than 2^16, and rounding to 24 bits moves by up to 128.
        "movs r1, #0x81",
        "lsls r1, r1, #10",
        "mov r8, r1",
        "movs r1, #128",
        "lsls r1, r1, #8",
        "2:",
        "ldr r2, [r0]",
        "lsls r3, r2, #1",
        "lsrs r3, r3, #24",
        "subs r4, r7, r3",
        "lsls r3, r2, #8",
        "lsrs r3, r3, #16",
        "orrs r3, r1",
        "muls r3, r6, r3",
        "subs r3, #129",
        "mov r5, r3",
        "add r5, r8",
        "lsrs r3, r4",
        "lsrs r5, r4",
        "cmp r3, r5",
        "bne 5f",
        "3:",
        "adds r3, #1",
        "lsrs r3, r3, #1",
        "cmp r2, #0",
        "bpl 4f",
        "rsbs r3, r3, #0",
        "4:",
        "stm r0!, {{r3}}",
        "cmp r0, r12",
        "bne 2b",
        "b 6f",
        // The whole product: of 8 and of 16 bits with 24.
        "5:",
        "lsls r5, r2, #9",
        "lsrs r5, r5, #25",
        "adds r5, #128",
        "mov r3, r9",
        "muls r5, r3, r5",
        "uxtb r3, r3",
        "uxth r1, r2",
        "muls r3, r1, r3",
        "muls r1, r6, r1",
        "lsrs r3, r3, #8",
        "adds r1, r1, r3",
        "lsrs r1, r1, #8",
        "adds r5, r5, r1",
        "movs r1, #128",
        "subs r3, r5, r1",
        "subs r3, #1",
        "adds r5, r5, r1",
        "adds r5, #1",
        "lsls r1, r1, #8",
        "lsrs r3, r4",
        "lsrs r5, r4",
        "cmp r3, r5",
        "beq 3b",
        "6:",
        "pop {{r4, r5}}",
        "mov r8, r4",
        "mov r9, r5",
        "pop {{r4-r7, pc}}",
    )
}
