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
    macro_rules! digits {
        ($word:literal) => {
            concat!(
                "ldm r1!, {{r4-r7}}\n",
                digit!($word, "r4"),
                digit!($word, "r5"),
                digit!($word, "r6"),
                concat!("muls r7, ", $word, ", r7\n add r8, r7\n"),
            )
        };
    }
    macro_rules! digit {
        ($word:literal, $x:literal) => {
            concat!(
                concat!("muls ", $x, ", ", $word, ", ", $x, "\n add r8, ", $x, "\n"),
                shift!($word),
            )
        };
    }
    macro_rules! shift {
        ($word:literal) => {
            concat!("lsrs ", $word, ", ", $word, ", #4\n")
        };
    }
    naked_asm!(
        // r0 words, r1 input, r2 and r3 words, r4 to r7 inputs, r8 the sum of a group, r9 sum,
        // r10 sub-scales, r12 end of the input, lr output.
        // On the stack: the start of the input, then registers, at 36 end of the output, at 40
        // bytes of sub-scales.
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "push {{r1, r4-r6}}",
        "mov r12, r2",
        "mov lr, r3",
        "2:",
        "mov r10, r0",
        "ldr r3, [sp, #40]",
        "adds r0, r0, r3",
        "ldr r1, [sp]",
        "movs r3, #0",
        "mov r9, r3",
        "3:",
        "ldm r1!, {{r4}}",
        "mov r8, r4",
        ".rept 2",
        "ldm r0!, {{r2, r3}}",
        digits!("r2"),
        shift!("r2"),
        digits!("r2"),
        digits!("r3"),
        shift!("r3"),
        digits!("r3"),
        ".endr",
        "mov r2, r10",
        "ldrb r3, [r2]",
        "adds r2, #1",
        "mov r10, r2",
        "mov r4, r8",
        "muls r3, r4, r3",
        "add r9, r3",
        "cmp r1, r12",
        "bne 3b",
        "mov r3, lr",
        "mov r4, r9",
        "stm r3!, {{r4}}",
        "mov lr, r3",
        "ldr r4, [sp, #36]",
        "cmp r3, r4",
        "beq 4f",
        "b 2b",
        "4:",
        "pop {{r3-r6}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "pop {{r4-r7, pc}}",
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
    macro_rules! digit {
        ($sum:literal, $bit:literal, $x:literal) => {
            concat!(
                concat!("lsrs r3, r2, #", $bit, "\n muls r3, ", $x, ", r3\n"),
                concat!("add ", $sum, ", r3\n"),
            )
        };
    }
    naked_asm!(
        // r0 words, r1 input, r2 a word, r3 a word shifted, r4 to r7 inputs, r8 and r9 the sums of a
        // group, r10 and r11 sums, r12 sub-scales, lr end of the input.
        // On the stack: the start of the input, 4 output, then registers, at 44 end of the output,
        // at 48 bytes of sub-scales.
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r1, r3-r7}}",
        "mov lr, r2",
        "2:",
        "mov r12, r0",
        "ldr r3, [sp, #48]",
        "adds r0, r0, r3",
        "ldr r1, [sp]",
        "movs r3, #0",
        "mov r10, r3",
        "mov r11, r3",
        "3:",
        "ldm r1!, {{r4}}",
        "mov r8, r4",
        "mov r9, r4",
        ".rept 8",
        "ldm r0!, {{r2}}",
        "ldm r1!, {{r4-r7}}",
        digit!("r9", 16, "r4"),
        digit!("r9", 20, "r5"),
        digit!("r9", 24, "r6"),
        digit!("r9", 28, "r7"),
        "uxth r2, r2",
        digit!("r8", 4, "r5"),
        digit!("r8", 8, "r6"),
        digit!("r8", 12, "r7"),
        "muls r2, r4, r2",
        "add r8, r2",
        ".endr",
        "mov r2, r12",
        "ldrb r3, [r2]",
        "ldrb r4, [r2, #1]",
        "adds r2, #2",
        "mov r12, r2",
        "mov r5, r8",
        "muls r3, r5, r3",
        "add r10, r3",
        "mov r5, r9",
        "muls r4, r5, r4",
        "add r11, r4",
        "cmp r1, lr",
        "beq 4f",
        "b 3b",
        "4:",
        "ldr r3, [sp, #4]",
        "mov r4, r10",
        "mov r5, r11",
        "stm r3!, {{r4, r5}}",
        "str r3, [sp, #4]",
        "ldr r4, [sp, #44]",
        "cmp r3, r4",
        "beq 5f",
        "b 2b",
        "5:",
        "pop {{r2-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
    )
}
