//! Columns of an input-major matrix.

use core::arch::naked_asm;

use crate::{
    image::GROUP,
    kernel::plain::shapes::{ByteColumn, NibbleColumn, NibblePointers},
};

/// As [`crate::kernel::plain::Core::column_bytes`].
pub(super) fn bytes(column: ByteColumn<'_>, x: i32) {
    let (words, acc) = column.pointers();
    // SAFETY: a column is not empty, and its lengths agree.
    unsafe { all_bytes(words, acc.start, x, acc.end) };
}

/// # Safety
/// `acc` up to `end` is not empty, and `words` is as long.
#[unsafe(naked)]
unsafe extern "C" fn all_bytes(
    words: *const [u32; 4],
    acc: *mut [i32; 16],
    x: i32,
    end: *mut [i32; 16],
) {
    macro_rules! word {
        ($a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "ldr r12, [r0], #4\n",
                "uxtb r3, r12\n",
                "mla ",
                $a,
                ", r3, r2, ",
                $a,
                "\n",
                "ubfx r3, r12, #8, #8\n",
                "mla ",
                $b,
                ", r3, r2, ",
                $b,
                "\n",
                "ubfx r3, r12, #16, #8\n",
                "mla ",
                $c,
                ", r3, r2, ",
                $c,
                "\n",
                "lsr r12, r12, #24\n",
                "mla ",
                $d,
                ", r12, r2, ",
                $d,
                "\n",
            )
        };
    }
    naked_asm!(
        // r0 words, r1 accumulators, r2 input, r3 a weight, r4 to r11 sums, r12 a word, lr the end.
        "push {{r4-r11, lr}}",
        "mov lr, r3",
        "2:",
        ".rept 2",
        "ldm r1, {{r4-r11}}",
        word!("r4", "r5", "r6", "r7"),
        word!("r8", "r9", "r10", "r11"),
        "stm r1!, {{r4-r11}}",
        ".endr",
        "cmp r1, lr",
        "bne 2b",
        "pop {{r4-r11, pc}}",
    )
}

/// As [`crate::kernel::plain::Core::column_nibbles`].
pub(super) fn nibbles(column: NibbleColumn<'_>, x: i32) {
    let NibblePointers { words, subs, acc, offsets } = column.pointers();
    // SAFETY: a column is not empty, and its lengths agree.
    unsafe { all_nibbles(words, acc.start, x, subs, offsets, acc.end) };
}

/// # Safety
/// `acc` up to `end` is not empty, and there are as many of everything else.
#[unsafe(naked)]
unsafe extern "C" fn all_nibbles(
    words: *const [u32; 4],
    acc: *mut [i32; GROUP],
    x: i32,
    subs: *const u8,
    offsets: *mut i32,
    end: *mut [i32; GROUP],
) {
    macro_rules! weight {
        ($acc:literal, $bit:literal) => {
            concat!("ubfx r3, r12, #", $bit, ", #4\n", "mla ", $acc, ", r3, r2, ", $acc, "\n")
        };
    }
    naked_asm!(
        // r0 words, r1 accumulators, r2 input, r3 a weight, r4 to r11 sums, r12 a word.
        // On the stack: the input without a sub-scale, at 4 sub-scales, at 48 offsets, at 52 end.
        "push {{r2-r12, lr}}",
        "2:",
        "ldr lr, [sp, #4]",
        "ldrb r3, [lr], #1",
        "str lr, [sp, #4]",
        "ldr r2, [sp]",
        "mul r2, r3, r2",
        "ldr lr, [sp, #48]",
        "ldr r3, [lr]",
        "add r3, r3, r2",
        "str r3, [lr], #4",
        "str lr, [sp, #48]",
        ".rept 4",
        "ldr r12, [r0], #4",
        "ldm r1, {{r4-r11}}",
        weight!("r4", 0),
        weight!("r5", 4),
        weight!("r6", 8),
        weight!("r7", 12),
        weight!("r8", 16),
        weight!("r9", 20),
        weight!("r10", 24),
        weight!("r11", 28),
        "stm r1!, {{r4-r11}}",
        ".endr",
        "ldr lr, [sp, #52]",
        "cmp r1, lr",
        "bne 2b",
        "pop {{r2-r12, pc}}",
    )
}
