//! Rows of int4 by their digits: any input, at one product per multiplication.

use core::arch::naked_asm;

use crate::kernel::plain::{
    Nibbles,
    shapes::{Pointers, Product},
};

/// As [`crate::kernel::plain::Core::nibbles`].
pub(super) fn rows(product: Product<'_, Nibbles, 1>) {
    let Pointers { words, subs, x, out, .. } = product.pointers();
    let out = out.as_mut_ptr_range();
    // SAFETY: nothing in a product is empty, and its lengths agree.
    unsafe { all_rows(words, x.start, x.end, out.start.cast(), out.end.cast(), subs) };
}

/// The sums of all rows, whose lines start with `subs` bytes of sub-scales.
///
/// # Safety
/// `x` and `out` are not empty; `words` holds a line of as many groups as `x` for each sum.
#[unsafe(naked)]
unsafe extern "C" fn all_rows(
    words: *const u32,
    x: *const Nibbles,
    x_end: *const Nibbles,
    out: *mut u32,
    out_end: *mut u32,
    subs: usize,
) {
    macro_rules! digit {
        ($word:literal, $bit:literal, $x:literal) => {
            concat!("lsr lr, ", $word, ", #", $bit, "\n mla r1, lr, ", $x, ", r1\n")
        };
    }
    /// A word whose first four inputs are in r2 to r5.
    macro_rules! word {
        ($word:literal) => {
            concat!(
                concat!("mla r1, ", $word, ", r2, r1\n"),
                digit!($word, 4, "r3"),
                digit!($word, 8, "r4"),
                digit!($word, 12, "r5"),
                "ldm r9!, {{r2-r5}}\n",
                digit!($word, 16, "r2"),
                digit!($word, 20, "r3"),
                digit!($word, 24, "r4"),
                digit!($word, 28, "r5"),
            )
        };
    }
    naked_asm!(
        // r0 words, r1 the sum of a group, r2 to r5 inputs, r6 and r7 words, r9 input, r10
        // sub-scales, r11 sum, lr a word shifted.
        // The arguments: sp + 0 input, 4 its end, 8 output, 48 its end, 52 bytes of sub-scales.
        "push {{r1-r11, lr}}",
        "2:",
        "mov r10, r0",
        "ldr lr, [sp, #52]",
        "add r0, r0, lr",
        "ldr r9, [sp]",
        "mov r11, #0",
        "3:",
        "ldm r9!, {{r1-r5}}",
        "ldm r0!, {{r6, r7}}",
        word!("r6"),
        "ldm r9!, {{r2-r5}}",
        word!("r7"),
        "ldm r9!, {{r2-r5}}",
        "ldm r0!, {{r6, r7}}",
        word!("r6"),
        "ldm r9!, {{r2-r5}}",
        word!("r7"),
        "ldrb r2, [r10], #1",
        "mla r11, r1, r2, r11",
        "ldr lr, [sp, #4]",
        "cmp r9, lr",
        "bne 3b",
        "ldr lr, [sp, #8]",
        "str r11, [lr], #4",
        "str lr, [sp, #8]",
        "ldr r1, [sp, #48]",
        "cmp lr, r1",
        "bne 2b",
        "pop {{r1-r11, pc}}",
    )
}

/// As [`crate::kernel::plain::Core::wide_lanes`].
pub(super) fn pairs(product: Product<'_, Nibbles, 2>) {
    let Pointers { words, subs, x, out, .. } = product.pointers();
    let out = out.as_mut_ptr_range();
    // SAFETY: nothing in a product is empty, and its lengths agree.
    unsafe { all_pairs(words, x.start, x.end, out.start, out.end, subs) };
}

/// The sums of all pairs, whose lines start with `subs` bytes of sub-scales.
///
/// # Safety
/// `x` and `out` are not empty; `words` holds a line of as many groups as `x` for each pair.
#[unsafe(naked)]
unsafe extern "C" fn all_pairs(
    words: *const u32,
    x: *const Nibbles,
    x_end: *const Nibbles,
    out: *mut [u32; 2],
    out_end: *mut [u32; 2],
    subs: usize,
) {
    /// A nibble of the low half, from r7, and one of the high half, from r6.
    macro_rules! digit {
        ($low:literal, $high:literal, $x:literal) => {
            concat!(
                concat!("lsr lr, r7, #", $low, "\n mla r1, lr, ", $x, ", r1\n"),
                concat!("lsr lr, r6, #", $high, "\n mla r8, lr, ", $x, ", r8\n"),
            )
        };
    }
    /// A word, whose inputs are in r2 to r5.
    macro_rules! word {
        () => {
            concat!(
                "ldr r6, [r0], #4\n",
                "uxth r7, r6\n",
                "mla r1, r7, r2, r1\n",
                "lsr lr, r6, #16\n",
                "mla r8, lr, r2, r8\n",
                digit!(4, 20, "r3"),
                digit!(8, 24, "r4"),
                digit!(12, 28, "r5"),
            )
        };
    }
    naked_asm!(
        // r0 words, r1 and r8 the sums of a group, r2 to r5 inputs, r6 a word, r7 its low half,
        // r9 input, r10 sub-scales, r11 and r12 sums, lr a word shifted.
        // The arguments: sp + 0 input, 4 its end, 8 output, 48 its end, 52 bytes of sub-scales.
        "push {{r1-r11, lr}}",
        "2:",
        "mov r10, r0",
        "ldr lr, [sp, #52]",
        "add r0, r0, lr",
        "ldr r9, [sp]",
        "mov r11, #0",
        "mov r12, #0",
        "3:",
        "ldm r9!, {{r1-r5}}",
        "mov r8, r1",
        word!(),
        ".rept 7",
        "ldm r9!, {{r2-r5}}",
        word!(),
        ".endr",
        "ldrb r2, [r10], #1",
        "ldrb r3, [r10], #1",
        "mla r11, r1, r2, r11",
        "mla r12, r8, r3, r12",
        "ldr lr, [sp, #4]",
        "cmp r9, lr",
        "bne 3b",
        "ldr lr, [sp, #8]",
        "stm lr!, {{r11, r12}}",
        "str lr, [sp, #8]",
        "ldr r1, [sp, #48]",
        "cmp lr, r1",
        "bne 2b",
        "pop {{r1-r11, pc}}",
    )
}
