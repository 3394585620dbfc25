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
    macro_rules! weight {
        ($acc:literal, $at:literal) => {
            concat!(
                "ldrb r3, [r0, #",
                $at,
                "]\n",
                "muls r3, r2, r3\n",
                "adds ",
                $acc,
                ", ",
                $acc,
                ", r3\n",
            )
        };
    }
    macro_rules! word {
        ($a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "ldm r1!, {{r4-r7}}\n",
                weight!("r4", $a),
                weight!("r5", $b),
                weight!("r6", $c),
                weight!("r7", $d),
                "subs r1, #16\n",
                "stm r1!, {{r4-r7}}\n",
            )
        };
    }
    naked_asm!(
        // r0 words, r1 accumulators, r2 input, r3 a weight, r4 to r7 sums, r12 the end.
        "push {{r4-r7, lr}}",
        "mov r12, r3",
        "2:",
        word!(0, 1, 2, 3),
        word!(4, 5, 6, 7),
        word!(8, 9, 10, 11),
        word!(12, 13, 14, 15),
        "adds r0, #16",
        "cmp r1, r12",
        "bne 2b",
        "pop {{r4-r7, pc}}",
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
    /// A nibble with so many bits above it.
    macro_rules! weight {
        ($acc:literal, $above:literal) => {
            concat!("lsls r3, r0, #", $above, "\n lsrs r3, r3, #28\n", add!($acc))
        };
    }
    macro_rules! add {
        ($acc:literal) => {
            concat!("muls r3, r2, r3\n adds ", $acc, ", ", $acc, ", r3\n")
        };
    }
    /// Eight accumulators, from two loads, and the word at that offset.
    macro_rules! word {
        ($at:literal) => {
            concat!(
                concat!("mov r3, r9\n ldr r0, [r3, #", $at, "]\n"),
                "ldm r1!, {{r4-r7}}\n",
                weight!("r4", 28),
                weight!("r5", 24),
                weight!("r6", 20),
                weight!("r7", 16),
                "subs r1, #16\n stm r1!, {{r4-r7}}\n",
                "ldm r1!, {{r4-r7}}\n",
                weight!("r4", 12),
                weight!("r5", 8),
                weight!("r6", 4),
                "lsrs r3, r0, #28\n",
                add!("r7"),
                "subs r1, #16\n stm r1!, {{r4-r7}}\n",
            )
        };
    }
    naked_asm!(
        // r0 a word, r1 accumulators, r2 input, r3 a weight, r4 to r7 sums, r8 input without a
        // sub-scale, r9 words, r10 sub-scales, r11 offsets, r12 end.
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "mov r8, r2",
        "mov r9, r0",
        "mov r10, r3",
        "ldr r3, [sp, #36]",
        "mov r11, r3",
        "ldr r3, [sp, #40]",
        "mov r12, r3",
        "2:",
        "mov r3, r10",
        "ldrb r2, [r3]",
        "adds r3, #1",
        "mov r10, r3",
        "mov r3, r8",
        "muls r2, r3, r2",
        "mov r3, r11",
        "ldr r0, [r3]",
        "adds r0, r0, r2",
        "stm r3!, {{r0}}",
        "mov r11, r3",
        word!(0),
        word!(4),
        word!(8),
        word!(12),
        "mov r3, r9",
        "adds r3, #16",
        "mov r9, r3",
        "cmp r1, r12",
        "beq 3f",
        "b 2b",
        "3:",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
    )
}
