//! Rows of int4 by their digits: any input, at one product per multiplication.
//!
//! Half a group is done for all lines before the next: its sum starts where the group's does, or
//! from zero, and is multiplied by the sub-scale.

use core::arch::naked_asm;

use super::{begin, end, inputs, restore, save};
use crate::kernel::plain::{
    Nibbles,
    shapes::{Pointers, Product},
};

/// As [`crate::kernel::plain::Core::nibbles`].
pub(super) fn rows(product: Product<'_, Nibbles, 1>) {
    let Pointers { words, line, subs, x, out } = product.pointers();
    out.fill([0]);
    let out = out.as_mut_ptr_range();
    // SAFETY: nothing in a product is empty, and its lengths agree.
    unsafe { all_rows(words, x.start, x.end, out.start.cast(), out.end.cast(), line, subs) };
}

/// As [`crate::kernel::plain::Core::wide_lanes`].
pub(super) fn pairs(product: Product<'_, Nibbles, 2>) {
    let Pointers { words, line, subs, x, out } = product.pointers();
    out.fill([0; 2]);
    let out = out.as_mut_ptr_range();
    // SAFETY: nothing in a product is empty, and its lengths agree.
    unsafe { all_pairs(words, x.start, x.end, out.start, out.end, line, subs) };
}

/// Begins a function, and its loop over half groups: loads their inputs and where they start.
// On the stack: output, 4 end of the input, 8 input, 12 words of the first line, 16 which half.
macro_rules! open {
    () => {
        "addi sp, sp, -32
         add a0, a0, a6
         sw a3, 0(sp)\n sw a2, 4(sp)\n sw a1, 8(sp)\n sw a0, 12(sp)\n sw zero, 16(sp)
         1:
         lw t0, 8(sp)\n lw t1, 16(sp)
         li a2, 0
         bnez t1, 2f
         lw a2, 0(t0)
         addi t0, t0, 4
         2:"
    };
}

/// Ends the loop: half a group has so many bytes in a line, and the group so many sub-scales.
macro_rules! close {
    ($bytes:literal, $subs:literal) => {
        concat!(
            "lw t0, 12(sp)\n lw t1, 16(sp)\n addi t0, t0, ",
            $bytes,
            "\n addi a6, a6, ",
            $bytes,
            "\n xori t1, t1, 1\n sw t0, 12(sp)\n sw t1, 16(sp)\n bnez t1, 1b\n",
            "lw t0, 8(sp)\n lw t1, 4(sp)\n addi a6, a6, -",
            $subs,
            "\n bne t0, t1, 1b\n addi sp, sp, 32\n",
        )
    };
}

/// Adds the products of rows, whose lines are of `stride` bytes and start with `subs` bytes of
/// sub-scales.
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
    stride: usize,
    subs: usize,
) {
    macro_rules! digit {
        ($x:literal) => {
            concat!("srli t0, t0, 4\n mul t1, t0, ", $x, "\n add t2, t2, t1\n")
        };
    }
    naked_asm!(
        // a2 start of the sum, a3 output, a4 its end, a5 stride, a6 distance from a sub-scale to the
        // words, a7 words, ra sub-scale, t0 a word, t1 product, t2 sum, s0 to s11 and t3 to t6 inputs.
        begin!(),
        save!(),
        open!(),
        inputs!(),
        "sw t0, 8(sp)",
        "lw a7, 12(sp)",
        "lw a3, 0(sp)",
        "3:",
        "lw t0, 0(a7)",
        "mul t1, t0, s0",
        "add t2, a2, t1",
        digit!("s1"),
        digit!("s2"),
        digit!("s3"),
        digit!("s4"),
        digit!("s5"),
        digit!("s6"),
        digit!("s7"),
        "lw t0, 4(a7)",
        "sub ra, a7, a6",
        "lbu ra, 0(ra)",
        "mul t1, t0, s8",
        "add t2, t2, t1",
        digit!("s9"),
        digit!("s10"),
        digit!("s11"),
        digit!("t3"),
        digit!("t4"),
        digit!("t5"),
        digit!("t6"),
        "lw t0, 0(a3)",
        "mul t2, t2, ra",
        "add a7, a7, a5",
        "add t0, t0, t2",
        "sw t0, 0(a3)",
        "addi a3, a3, 4",
        "bne a3, a4, 3b",
        close!(8, 1),
        restore!(),
        end!(),
    )
}

/// Adds the products of pairs, whose lines are of `stride` bytes and start with `subs` bytes of
/// sub-scales.
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
    stride: usize,
    subs: usize,
) {
    macro_rules! digit {
        ($x:literal) => {
            concat!(
                concat!("mul t1, t0, ", $x, "\n srli t0, t0, 4\n add t2, t2, t1\n"),
                concat!("mul t1, a0, ", $x, "\n srli a0, a0, 4\n add ra, ra, t1\n"),
            )
        };
    }
    macro_rules! word {
        ($at:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                concat!("lw t0, ", $at, "(a7)\n srli a0, t0, 16\n and t0, t0, a1\n"),
                digit!($a),
                digit!($b),
                digit!($c),
                concat!("mul t1, t0, ", $d, "\n add t2, t2, t1\n"),
                concat!("mul t1, a0, ", $d, "\n add ra, ra, t1\n"),
            )
        };
    }
    naked_asm!(
        // a0 high half of a word, a1 mask, a2 start of the sums, a3 output, a4 its end, a5 stride,
        // a6 distance from the sub-scales to the words, a7 words, t0 low half of a word, t1 product,
        // t2 and ra sums, s0 to s11 and t3 to t6 inputs.
        begin!(),
        save!(),
        open!(),
        inputs!(),
        "sw t0, 8(sp)",
        "lw a7, 12(sp)",
        "lw a3, 0(sp)",
        "lui a1, 16",
        "addi a1, a1, -1",
        "3:",
        "mv t2, a2",
        "mv ra, a2",
        word!(0, "s0", "s1", "s2", "s3"),
        word!(4, "s4", "s5", "s6", "s7"),
        word!(8, "s8", "s9", "s10", "s11"),
        word!(12, "t3", "t4", "t5", "t6"),
        "sub a0, a7, a6",
        "lbu t0, 0(a0)",
        "lbu a0, 1(a0)",
        "mul t2, t2, t0",
        "mul ra, ra, a0",
        "lw t0, 0(a3)",
        "lw t1, 4(a3)",
        "add t0, t0, t2",
        "add t1, t1, ra",
        "sw t0, 0(a3)",
        "sw t1, 4(a3)",
        "add a7, a7, a5",
        "addi a3, a3, 8",
        "bne a3, a4, 3b",
        close!(16, 2),
        restore!(),
        end!(),
    )
}
