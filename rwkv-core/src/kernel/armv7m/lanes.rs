//! Rows of int4 in lanes, for inputs of 8 bits: two products with each multiplication.

use core::arch::naked_asm;

use crate::kernel::plain::{
    Nibbles,
    shapes::{Pointers, Product},
};

/// As [`crate::kernel::plain::Core::lanes`].
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
    /// Four columns of both rows: a word and the inputs in r2 to r5.
    macro_rules! columns {
        ($word:literal) => {
            concat!(
                "and lr, r8, ",
                $word,
                "\n",
                "mla r1, lr, r2, r1\n",
                "and lr, r8, ",
                $word,
                ", lsr #4\n",
                "mla r1, lr, r3, r1\n",
                "and lr, r8, ",
                $word,
                ", lsr #8\n",
                "mla r1, lr, r4, r1\n",
                "and lr, r8, ",
                $word,
                ", lsr #12\n",
                "mla r1, lr, r5, r1\n",
            )
        };
    }
    naked_asm!(
        // r0 words, r1 the lanes of a group, r2 to r5 inputs, r6 and r7 words, r8 mask, r9 input,
        // r10 sub-scales, r11 and r12 sums, lr two weights.
        // The arguments: sp + 0 input, 4 its end, 8 output, 48 its end, 52 bytes of sub-scales.
        "push {{r1-r11, lr}}",
        "mov r8, #0x000F000F",
        "2:",
        "mov r10, r0",
        "ldr lr, [sp, #52]",
        "add r0, r0, lr",
        "ldr r9, [sp]",
        "mov r11, #0",
        "mov r12, #0",
        "3:",
        "ldm r9!, {{r1-r5}}",
        "ldm r0!, {{r6, r7}}",
        columns!("r6"),
        "ldm r9!, {{r2-r5}}",
        columns!("r7"),
        ".rept 3",
        "ldm r9!, {{r2-r5}}",
        "ldm r0!, {{r6, r7}}",
        columns!("r6"),
        "ldm r9!, {{r2-r5}}",
        columns!("r7"),
        ".endr",
        // The low lane, as a signed number, has borrowed from the high one.
        "sxth r2, r1",
        "sub r1, r1, r2",
        "asr r1, r1, #16",
        "ldrb r3, [r10], #1",
        "ldrb r4, [r10], #1",
        "mla r11, r2, r3, r11",
        "mla r12, r1, r4, r12",
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
