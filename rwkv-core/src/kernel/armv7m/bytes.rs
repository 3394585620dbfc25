//! Rows of int8: four at a time, so that they share the loads of their input.

use core::arch::naked_asm;

use crate::kernel::plain::{
    Bytes,
    shapes::{Pointers, Product},
};

/// As [`crate::kernel::plain::Core::bytes`].
pub(super) fn rows(product: Product<'_, Bytes, 1>, start: u32) {
    let Pointers { words, line, x, out, .. } = product.pointers();
    let four = |row: usize, stride: usize, out: *mut u32| {
        let words = words.wrapping_byte_add(row * line);
        let (x, end) = (x.start.cast(), x.end.cast());
        // SAFETY: the rows at `row`, and at three strides behind it, are the product's, and `x` is
        // as long as a row; `out` has room for four sums.
        unsafe { four_rows(x, words, stride, out, end, start) };
    };
    let out = out.as_flattened_mut();
    if let Some(last) = out.len().checked_sub(4) {
        for row in (0..out.len()).step_by(4) {
            // The last four may have been computed in part.
            let row = if row < last { row } else { last };
            four(row, line, out.as_mut_ptr().wrapping_add(row));
        }
        return;
    }
    for (row, y) in out.iter_mut().enumerate() {
        let mut sums = [0; 4];
        four(row, 0, sums.as_mut_ptr());
        *y = sums[0];
    }
}

/// Four rows, `stride` bytes apart.
///
/// # Safety
/// `x` is a whole number of groups, at least one, each row has as many words as `x` has quarters, and `out` has room for four.
#[unsafe(naked)]
unsafe extern "C" fn four_rows(
    x: *const u32,
    words: *const u32,
    stride: usize,
    out: *mut u32,
    x_end: *const u32,
    start: u32,
) {
    macro_rules! row {
        ($acc:literal) => {
            concat!(
                "mla ",
                $acc,
                ", r12, r8, ",
                $acc,
                "\n",
                "lsr lr, r12, #8\n",
                "mla ",
                $acc,
                ", lr, r9, ",
                $acc,
                "\n",
                "lsr lr, r12, #16\n",
                "mla ",
                $acc,
                ", lr, r10, ",
                $acc,
                "\n",
                "lsr r12, r12, #24\n",
                "mla ",
                $acc,
                ", r12, r11, ",
                $acc,
                "\n",
            )
        };
    }
    naked_asm!(
        // r0 input, r1 words of the first row, r2 one stride, r3 three strides,
        // r4 to r7 sums, r8 to r11 inputs, r12 a word, lr the word shifted.
        "push {{r3-r11, lr}}",
        "add r3, r2, r2, lsl #1",
        "ldr r4, [sp, #44]",
        "mov r5, r4",
        "mov r6, r4",
        "mov r7, r4",
        "2:",
        ".rept 4",
        "ldm r0!, {{r8-r11}}",
        "ldr r12, [r1, r2]",
        row!("r5"),
        "ldr r12, [r1, r2, lsl #1]",
        row!("r6"),
        "ldr r12, [r1, r3]",
        row!("r7"),
        "ldr r12, [r1], #4",
        row!("r4"),
        ".endr",
        "ldr lr, [sp, #40]",
        "cmp r0, lr",
        "bne 2b",
        "ldr r3, [sp]",
        "stm r3, {{r4-r7}}",
        "pop {{r3-r11, pc}}",
    )
}
