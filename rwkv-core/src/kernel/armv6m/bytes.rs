//! Rows of int8, one at a time: a product destroys its input, which the next row reads again.

use core::arch::naked_asm;

use crate::kernel::plain::{
    Bytes,
    shapes::{Pointers, Product},
};

/// As [`crate::kernel::plain::Core::bytes`].
pub(super) fn rows(product: Product<'_, Bytes, 1>, start: u32) {
    let Pointers { words, x, out, .. } = product.pointers();
    let out = out.as_mut_ptr_range();
    // SAFETY: nothing in a product is empty, and its lengths agree.
    unsafe { all_rows(words, x.start, x.end, out.start.cast(), out.end.cast(), start) };
}

/// The sums of rows that lie one behind the other.
///
/// # Safety
/// `x` and `out` are not empty; `words` holds a row as long as `x` for each sum.
#[unsafe(naked)]
unsafe extern "C" fn all_rows(
    words: *const u32,
    x: *const Bytes,
    x_end: *const Bytes,
    out: *mut u32,
    out_end: *mut u32,
    start: u32,
) {
    /// Four columns: a word and the differences in r4 to r7, both lost.
    macro_rules! columns {
        ($word:literal) => {
            concat!(
                "ldm r1!, {{r4-r7}}\n",
                "muls r4, ",
                $word,
                ", r4\n",
                "add r8, r4\n",
                "lsrs ",
                $word,
                ", ",
                $word,
                ", #8\n",
                "muls r5, ",
                $word,
                ", r5\n",
                "add r8, r5\n",
                "lsrs ",
                $word,
                ", ",
                $word,
                ", #8\n",
                "muls r6, ",
                $word,
                ", r6\n",
                "add r8, r6\n",
                "lsrs ",
                $word,
                ", ",
                $word,
                ", #8\n",
                "muls r7, ",
                $word,
                ", r7\n",
                "add r8, r7\n",
            )
        };
    }
    naked_asm!(
        // r0 words, r1 input, r2 and r3 two words, r4 to r7 differences,
        // r8 sum, r9 end of the input, r10 its start, r11 output, r12 its end, lr first sum.
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "mov r10, r1",
        "mov r9, r2",
        "mov r11, r3",
        "ldr r4, [sp, #36]",
        "mov r12, r4",
        "ldr r4, [sp, #40]",
        "mov lr, r4",
        "2:",
        "mov r8, lr",
        "mov r1, r10",
        "3:",
        ".rept 4",
        "ldm r0!, {{r2, r3}}",
        columns!("r2"),
        columns!("r3"),
        ".endr",
        "cmp r1, r9",
        "bne 3b",
        "mov r2, r11",
        "mov r3, r8",
        "stm r2!, {{r3}}",
        "mov r11, r2",
        "cmp r2, r12",
        "bne 2b",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
    )
}
