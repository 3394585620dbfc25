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
    macro_rules! load {
        () => {
            "ldm r1!, {{r5-r7}}\n"
        };
    }
    /// A column of both rows, from that bit of the word on.
    macro_rules! column {
        ($x:literal, $bit:literal) => {
            concat!(
                "lsrs r3, r4, #",
                $bit,
                "\n",
                "ands r3, r2\n",
                "muls r3, ",
                $x,
                ", r3\n",
                "add r8, r3\n",
            )
        };
    }
    /// The lowest column of both rows, and the word is lost.
    macro_rules! last {
        ($x:literal) => {
            concat!("ands r4, r2\n", "muls r4, ", $x, ", r4\n")
        };
    }
    // A group and its start are eleven times three words of input, so that a word of weights finds
    // its four in three ways.
    macro_rules! first_word {
        () => {
            concat!(
                "ldm r0!, {{r4}}\n",
                column!("r6", 4),
                column!("r7", 8),
                load!(),
                column!("r5", 12),
                last!("r6"),
                "add r8, r4\n",
            )
        };
    }
    macro_rules! second_word {
        () => {
            concat!(
                "ldm r0!, {{r4}}\n",
                column!("r7", 4),
                load!(),
                column!("r5", 8),
                column!("r6", 12),
                last!("r7"),
            )
        };
    }
    macro_rules! third_word {
        () => {
            concat!(
                "add r8, r4\n",
                "ldm r0!, {{r4}}\n",
                load!(),
                column!("r5", 4),
                column!("r6", 8),
                column!("r7", 12),
                load!(),
                last!("r5"),
                "add r8, r4\n",
            )
        };
    }
    naked_asm!(
        // r0 words, r1 input, r2 mask, r3 two weights, r4 a word, r5 to r7 inputs,
        // r8 the lanes of a group, r9 and r10 sums, r11 sub-scales, r12 end of the input, lr output.
        // On the stack: the start of the input, then registers, at 40 end of the output, at 44
        // bytes of sub-scales.
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r1, r4-r7}}",
        "mov r12, r2",
        "mov lr, r3",
        "movs r2, #15",
        "lsls r3, r2, #16",
        "orrs r2, r3",
        "2:",
        "mov r11, r0",
        "ldr r3, [sp, #44]",
        "adds r0, r0, r3",
        "ldr r1, [sp]",
        "movs r3, #0",
        "mov r9, r3",
        "mov r10, r3",
        "3:",
        load!(),
        "mov r8, r5",
        ".rept 2",
        first_word!(),
        second_word!(),
        third_word!(),
        ".endr",
        first_word!(),
        second_word!(),
        "add r4, r8",
        // The low lane, as a signed number, has borrowed from the high one.
        "sxth r5, r4",
        "subs r4, r4, r5",
        "asrs r4, r4, #16",
        "mov r3, r11",
        "ldrb r6, [r3]",
        "muls r5, r6, r5",
        "add r9, r5",
        "ldrb r6, [r3, #1]",
        "muls r4, r6, r4",
        "add r10, r4",
        "adds r3, #2",
        "mov r11, r3",
        "cmp r1, r12",
        "beq 4f",
        "b 3b",
        "4:",
        "mov r3, lr",
        "mov r4, r9",
        "mov r5, r10",
        "stm r3!, {{r4, r5}}",
        "mov lr, r3",
        "ldr r4, [sp, #40]",
        "cmp r3, r4",
        "beq 5f",
        "b 2b",
        "5:",
        "pop {{r3-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
    )
}
