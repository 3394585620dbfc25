//! [`Format::Int4`](crate::image::Format::Int4) and
//! [`Format::Int4Lanes`](crate::image::Format::Int4Lanes): offset nibbles in groups.

use core::{arch::naked_asm, slice};

use super::in_pairs;
use crate::{
    image::{Format, GROUP},
    kernel::Input,
};

/// Words of an arranged group: -8 times its sum, then per eight elements the pairs (0, 4), (1, 5),
/// (2, 6) and (3, 7). One pointer walks over all.
pub(super) const STRIDE: usize = 1 + GROUP / 2;

/// Words of a group of weights.
const WORDS: usize = GROUP / 8;

/// The sums of rows.
pub(super) fn rows(lines: &[u32], x: Input<'_>, out: &mut [u32]) {
    let groups = x.arranged.groups.min(x.words.len() / STRIDE);
    let (line, subs) = (Format::Int4.line_words(groups * GROUP), 4 * groups.div_ceil(4));
    match x.words.get(..groups * STRIDE) {
        // SAFETY: `pairs` reads rows of as many groups, with their sub-scales.
        Some(x @ [_, ..]) => unsafe { in_pairs(pairs, lines, line, x, [groups % 2, subs], out) },
        _ => out.fill(0),
    }
}

/// The sums of rows whose weights lie in two lanes.
pub(super) fn rows_lanes(lines: &[u32], x: Input<'_>, out: &mut [u32]) {
    let groups = x.arranged.groups.min(x.words.len() / STRIDE);
    let (line, subs) = (Format::Int4Lanes.line_words(groups * GROUP), 8 * groups.div_ceil(4));
    let whole = lines.len() - lines.len().checked_rem(2 * line).unwrap_or_default();
    let lines = lines.get(..whole).unwrap_or_default();
    match x.words.get(..groups * STRIDE) {
        // SAFETY: `lanes` reads pairs of rows of as many groups, with their sub-scales. There is a
        // second row to the last, wanted or not.
        Some(x @ [_, ..]) => unsafe { in_pairs(lanes, lines, line, x, [0, subs], out) },
        _ => out.fill(0),
    }
}

/// Eight columns of a row, whose weights are in `w`. The sum begins at `start` and goes to `acc`;
/// the mask is in r3, the input in r6 to r9.
macro_rules! eight {
    ($w:literal, $start:literal => $acc:literal) => {
        lines!(
            "and lr, r3, " $w;
            "smlad " $acc ", lr, r6, " $start;
            "and lr, r3, " $w ", lsr #4";
            "smlad " $acc ", lr, r7, " $acc;
            "and lr, r3, " $w ", lsr #8";
            "smlad " $acc ", lr, r8, " $acc;
            "and lr, r3, " $w ", lsr #12";
            "smlad " $acc ", lr, r9, " $acc;
        )
    };
}

/// Sixteen columns of two rows, the first eight of the input in r6 to r9.
macro_rules! sixteen {
    ($start:literal) => {
        concat!(
            "ldrd r10, r11, [r1], #8\n",
            eight!("r10", $start => "r4"),
            "ldrd r10, r12, [r2], #8\n",
            eight!("r10", "r5" => "r5"),
            "ldm r0!, {{r6-r9}}\n",
            eight!("r11", "r4" => "r4"),
            eight!("r12", "r5" => "r5"),
        )
    };
}

/// A group of two rows. Both sums begin with the word in front of the input.
macro_rules! group {
    () => {
        concat!("ldm r0!, {{r5-r9}}\n", sixteen!("r5"), "ldm r0!, {{r6-r9}}\n", sixteen!("r4"))
    };
}

/// Sums of pairs of rows.
///
/// # Safety
/// As [`super::Pairs`]: `x` is groups, `odd` says whether their number is. A row has as many,
/// behind `subs` bytes of sub-scales.
#[unsafe(naked)]
unsafe extern "C" fn pairs(
    x: *const u32,
    a: *const u32,
    b: *const u32,
    sums: *mut [u32; 2],
    end: *mut [u32; 2],
    x_end: *const u32,
    odd: usize,
    subs: usize,
) {
    // r0 x, r1 a, r2 b, r3 mask, r4 and r5 sums of a group, r6 to r9 inputs, r10 to r12 weights, lr
    // a pair. What a group needs but once lies on the stack: [0] sums of rows, [8] sub-scales, [16]
    // x_end, [20] sums of the group before, [28] x, [32] sums, [36] end, [40] nine registers; then
    // [76] end, x_end, [84] odd, subs.
    naked_asm!(
        dsp!(),
        "push {{r4-r11, lr}}",
        "sub sp, sp, #40",
        "ldrd r4, r5, [sp, #76]",
        "str r5, [sp, #16]",
        "str r0, [sp, #28]",
        "strd r3, r4, [sp, #32]",
        "mov r3, #0x000f000f",
        "2:",
        "strd r1, r2, [sp, #8]",
        "ldrd r4, r5, [sp, #84]",
        "add r1, r1, r5",
        "add r2, r2, r5",
        "mov r5, #0",
        "strd r5, r5, [sp]",
        "ldr r0, [sp, #28]",
        "cbz r4, 4f",
        // An odd group comes first.
        "ldr r5, [r0], #4",
        "mov r4, r5",
        "mov r11, #4",
        "3:",
        "ldm r0!, {{r6-r9}}",
        "ldr r10, [r1], #4",
        eight!("r10", "r4" => "r4"),
        "ldr r10, [r2], #4",
        eight!("r10", "r5" => "r5"),
        "subs r11, r11, #1",
        "bne 3b",
        "ldm sp, {{r6-r10}}",
        "ldrb r11, [r8], #1",
        "ldrb r12, [r9], #1",
        "mla r6, r4, r11, r6",
        "mla r7, r5, r12, r7",
        "stm sp, {{r6-r9}}",
        "cmp r0, r10",
        "beq 5f",
        // Two groups per turn.
        "4:",
        group!(),
        "strd r4, r5, [sp, #20]",
        group!(),
        "ldm sp, {{r6-r12}}",
        "ldrb lr, [r8], #1",
        "mla r6, r11, lr, r6",
        "ldrb lr, [r9], #1",
        "mla r7, r12, lr, r7",
        "ldrb r11, [r8], #1",
        "ldrb r12, [r9], #1",
        "mla r6, r4, r11, r6",
        "mla r7, r5, r12, r7",
        "stm sp, {{r6-r9}}",
        "cmp r0, r10",
        "bne 4b",
        "5:",
        "ldrd r8, r9, [sp, #32]",
        "strd r6, r7, [r8], #8",
        "str r8, [sp, #32]",
        // Behind row b is the next pair.
        "sub r10, r2, r1",
        "mov r1, r2",
        "add r2, r2, r10",
        "cmp r8, r9",
        "bne 2b",
        "add sp, sp, #40",
        "pop {{r4-r11, pc}}",
    )
}

/// Eight columns of two rows in lanes, their input in r6 to r9: halves of two words change places,
/// and the rows lie apart.
macro_rules! eight_lanes {
    ($start:literal) => {
        concat!(
            "ldrd r10, r11, [r1], #8\n",
            "pkhbt r12, r10, r11, lsl #16\n",
            "pkhtb r10, r11, r10, asr #16\n",
            eight!("r12", $start => "r4"),
            eight!("r10", "r5" => "r5"),
        )
    };
}

/// Sums of pairs of rows in lanes; `b` is not looked at.
///
/// # Safety
/// As [`super::Pairs`]: `x` is groups. A pair of rows has as many, behind `subs` bytes of
/// sub-scales.
#[unsafe(naked)]
unsafe extern "C" fn lanes(
    x: *const u32,
    a: *const u32,
    b: *const u32,
    sums: *mut [u32; 2],
    end: *mut [u32; 2],
    x_end: *const u32,
    _: usize,
    subs: usize,
) {
    // As in `pairs`, but r1 weights, r2 sub-scales. On the stack: [0] sums of rows, [8] x_end, [12]
    // x, [16] sums, [20] end, [24] nine registers; then [60] end, x_end, nothing, [72] subs.
    naked_asm!(
        dsp!(),
        "push {{r4-r11, lr}}",
        "sub sp, sp, #24",
        "ldrd r4, r5, [sp, #60]",
        "strd r5, r0, [sp, #8]",
        "strd r3, r4, [sp, #16]",
        "mov r3, #0x000f000f",
        "2:",
        "mov r2, r1",
        "ldr r0, [sp, #12]",
        "ldr r4, [sp, #72]",
        "add r1, r1, r4",
        "mov r4, #0",
        "strd r4, r4, [sp]",
        "3:",
        "ldm r0!, {{r5-r9}}",
        eight_lanes!("r5"),
        "ldm r0!, {{r6-r9}}",
        eight_lanes!("r4"),
        "ldm r0!, {{r6-r9}}",
        eight_lanes!("r4"),
        "ldm r0!, {{r6-r9}}",
        eight_lanes!("r4"),
        "ldm sp, {{r6-r8}}",
        "ldrb r9, [r2], #1",
        "ldrb r10, [r2], #1",
        "mla r6, r4, r9, r6",
        "mla r7, r5, r10, r7",
        "strd r6, r7, [sp]",
        "cmp r0, r8",
        "bne 3b",
        "ldrd r8, r9, [sp, #16]",
        "strd r6, r7, [r8], #8",
        "str r8, [sp, #16]",
        "cmp r8, r9",
        "bne 2b",
        "add sp, sp, #24",
        "pop {{r4-r11, pc}}",
    )
}

/// `acc[r] += (w[r] + 8) · (sub[g] · x)` and `offsets[g] += sub[g] · x`.
pub(super) fn column(line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
    let groups = acc.len().div_ceil(GROUP);
    let (subs, line) = line.split_at_checked(groups.div_ceil(4)).unwrap_or_default();
    let groups = groups.min(line.len() / WORDS).min(offsets.len());
    let (whole, rest) = acc.as_chunks_mut::<GROUP>();
    let count = groups.min(whole.len());
    let (w, subs) = (line.as_ptr(), subs.as_ptr().cast::<u8>());
    let (x, whole, offsets) = (x.into(), whole.as_mut_ptr(), offsets.as_mut_ptr());
    // SAFETY: `count` groups of everything.
    unsafe { groups_of_column(whole, w, subs, offsets, x, whole.wrapping_add(count)) }
    if count < groups {
        let (w, subs) = (w.wrapping_add(count * WORDS), subs.wrapping_add(count));
        // SAFETY: one more group of everything.
        unsafe { part_of_group(rest, w, subs, offsets.wrapping_add(count), x) }
    }
}

/// The rows behind the last whole group: they are changed elsewhere, with others beside them.
///
/// # Safety
/// There is a group at `w`, and its sub-scale and offset.
#[inline(never)]
unsafe fn part_of_group(
    rows: &mut [i32],
    w: *const u32,
    subs: *const u8,
    offset: *mut i32,
    x: i32,
) {
    let mut group = [0; GROUP];
    group.iter_mut().zip(&*rows).for_each(|(y, a)| *y = *a);
    let acc = slice::from_mut(&mut group).as_mut_ptr_range();
    // SAFETY: one group of everything.
    unsafe { groups_of_column(acc.start, w, subs, offset, x, acc.end) }
    rows.iter_mut().zip(&group).for_each(|(a, y)| *a = *y);
}

/// Eight rows. A view of the weights has nibbles at bits 8 and 24, and r2 is 2^8 times what they
/// are multiplied by, so that `smlaw`, which drops 16 bits of a product, drops zeros.
macro_rules! add_eight {
    () => {
        concat!(
            "ldm r0, {{r4-r11}}\n",
            "ldr r12, [r1], #4\n",
            "and lr, r3, r12, lsl #8\n",
            "smlawb r4, r2, lr, r4\n",
            "smlawt r8, r2, lr, r8\n",
            "and lr, r3, r12, lsl #4\n",
            "smlawb r5, r2, lr, r5\n",
            "smlawt r9, r2, lr, r9\n",
            "and lr, r3, r12\n",
            "smlawb r6, r2, lr, r6\n",
            "smlawt r10, r2, lr, r10\n",
            "and lr, r3, r12, lsr #4\n",
            "smlawb r7, r2, lr, r7\n",
            "smlawt r11, r2, lr, r11\n",
            "stm r0!, {{r4-r11}}\n",
        )
    };
}

/// Groups of a column. `x` and a sub-scale make 23 bits and a sign at most.
///
/// # Safety
/// From `acc` to `end` there are whole groups, if any, and as many from `w`, `subs` and `offsets`
/// on.
#[unsafe(naked)]
unsafe extern "C" fn groups_of_column(
    acc: *mut [i32; GROUP],
    w: *const u32,
    subs: *const u8,
    offsets: *mut i32,
    x: i32,
    end: *mut [i32; GROUP],
) {
    // On the stack: [0] subs, offsets, [8] nine registers, [44] x, end.
    naked_asm!(
        dsp!(),
        "push {{r2, r3, r4-r11, lr}}",
        "mov r3, #0x0f000f00",
        "b 3f",
        "2:",
        "ldrd r4, r5, [sp]",
        "ldr r6, [sp, #44]",
        "ldrb r7, [r4], #1",
        "ldr r8, [r5]",
        "mul r2, r6, r7",
        "add r8, r8, r2",
        "str r8, [r5], #4",
        "strd r4, r5, [sp]",
        "lsl r2, r2, #8",
        add_eight!(),
        add_eight!(),
        add_eight!(),
        add_eight!(),
        "3:",
        "ldr r4, [sp, #48]",
        "cmp r0, r4",
        "bne 2b",
        "pop {{r2, r3, r4-r11, pc}}",
    )
}
