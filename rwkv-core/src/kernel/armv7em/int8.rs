//! [`Format::Int8`](crate::image::Format::Int8): offset bytes.

use core::arch::naked_asm;

use super::in_pairs;
use crate::{image::GROUP, kernel::Input};

/// Words of an arranged group: per four elements the pairs (0, 2) and (1, 3).
pub(super) const STRIDE: usize = GROUP / 2;

/// Words of a group of weights.
const WORDS: usize = GROUP / 4;

/// The sums of rows.
pub(super) fn rows(lines: &[u32], x: Input<'_>, out: &mut [u32]) {
    let groups = x.arranged.groups.min(x.words.len() / STRIDE);
    let start = x.arranged.sum.wrapping_mul(-128) as usize;
    match x.words.get(..groups * STRIDE) {
        // SAFETY: `pairs` reads rows of as many groups.
        Some(x @ [_, ..]) => unsafe { in_pairs(pairs, lines, groups * WORDS, x, [start, 0], out) },
        _ => out.fill(0),
    }
}

/// Eight columns of a row: `w` points at it, `acc` is its sum. The input is in r6 to r9.
macro_rules! eight {
    ($w:literal => $acc:literal) => {
        lines!(
            "ldrd r10, r11, [" $w "], #8";
            "uxtb16 r12, r10";
            "uxtb16 r10, r10, ror #8";
            "smlad " $acc ", r12, r6, " $acc;
            "smlad " $acc ", r10, r7, " $acc;
            "uxtb16 r12, r11";
            "uxtb16 r11, r11, ror #8";
            "smlad " $acc ", r12, r8, " $acc;
            "smlad " $acc ", r11, r9, " $acc;
        )
    };
}

/// Eight columns of two rows.
macro_rules! columns {
    () => {
        concat!("ldm r0!, {{r6-r9}}\n", eight!("r1" => "r4"), eight!("r2" => "r5"))
    };
}

/// Sums of pairs of rows, which begin at `start`.
///
/// # Safety
/// As [`super::Pairs`]: `x` is groups, and a row has as many.
#[unsafe(naked)]
unsafe extern "C" fn pairs(
    x: *const u32,
    a: *const u32,
    b: *const u32,
    sums: *mut [u32; 2],
    end: *mut [u32; 2],
    x_end: *const u32,
    start: usize,
    _: usize,
) {
    // r0 x, r1 a, r2 b, r3 x_end, r4 and r5 sums, r6 to r9 inputs, r10 and r11 weights, r12 a pair,
    // lr where the sums go. On the stack: [0] x, [4] nine registers, [40] end, x_end, [48] start.
    naked_asm!(
        dsp!(),
        "push {{r0, r4-r11, lr}}",
        "mov lr, r3",
        "2:",
        "ldr r0, [sp]",
        "ldrd r3, r4, [sp, #44]",
        "mov r5, r4",
        "3:",
        columns!(),
        columns!(),
        columns!(),
        columns!(),
        "cmp r0, r3",
        "bne 3b",
        "strd r4, r5, [lr], #8",
        // Behind row b is the next pair.
        "sub r3, r2, r1",
        "mov r1, r2",
        "add r2, r2, r3",
        "ldr r3, [sp, #40]",
        "cmp lr, r3",
        "bne 2b",
        "pop {{r0, r4-r11, pc}}",
    )
}

/// `acc[r] += (w[r] + 128) · x`.
pub(super) fn column(line: &[u32], x: i16, acc: &mut [i32]) {
    let rows = acc.len().min(4 * line.len());
    let acc = acc.as_mut_ptr();
    let blocks = acc.wrapping_add(rows / BLOCK * BLOCK);
    // SAFETY: as many sums as weights.
    unsafe { column_in_blocks(acc, line.as_ptr(), x.into(), blocks, acc.wrapping_add(rows)) }
}

/// Rows of a column that are added in one turn.
const BLOCK: usize = 16;

/// Four rows.
macro_rules! add_four {
    ($a:literal $b:literal $c:literal $d:literal) => {
        lines!(
            "ldr r12, [r1], #4";
            "uxtb16 lr, r12";
            "uxtb16 r12, r12, ror #8";
            "smlabb " $a ", lr, r2, " $a;
            "smlabb " $b ", r12, r2, " $b;
            "smlatb " $c ", lr, r2, " $c;
            "smlatb " $d ", r12, r2, " $d;
        )
    };
}

/// Eight rows: the sums are loaded, changed and stored.
macro_rules! add_eight {
    () => {
        concat!(
            "ldm r0, {{r4-r11}}\n",
            add_four!("r4" "r5" "r6" "r7"),
            add_four!("r8" "r9" "r10" "r11"),
            "stm r0!, {{r4-r11}}\n",
        )
    };
}

/// A column: blocks, and what is left over row by row.
///
/// # Safety
/// From `acc` on there are whole blocks up to `blocks`, any number of sums from there to `end`, and
/// as many bytes from `w` on.
#[unsafe(naked)]
unsafe extern "C" fn column_in_blocks(
    acc: *mut i32,
    w: *const u32,
    x: i32,
    blocks: *mut i32,
    end: *mut i32,
) {
    naked_asm!(
        dsp!(),
        "push {{r4-r11, lr}}",
        "cmp r0, r3",
        "beq 3f",
        "2:",
        add_eight!(),
        add_eight!(),
        "cmp r0, r3",
        "bne 2b",
        "3:",
        "ldr r3, [sp, #36]",
        "b 5f",
        "4:",
        "ldrb r4, [r1], #1",
        "ldr r5, [r0]",
        "mla r5, r4, r2, r5",
        "str r5, [r0], #4",
        "5:",
        "cmp r0, r3",
        "bne 4b",
        "pop {{r4-r11, pc}}",
    )
}
