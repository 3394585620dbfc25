//! Rows of int4 in lanes, for inputs of 8 bits: two products with each multiplication.

use core::arch::naked_asm;

use super::{begin, end, inputs, restore, save};
use crate::kernel::plain::{
    Nibbles,
    shapes::{Pointers, Product},
};

/// Two sums, and the lanes of a group whose second half is still to come.
type Pair = [u32; 3];

/// Pairs that share the loads of their input.
const AT_ONCE: usize = 16;

/// As [`crate::kernel::plain::Core::lanes`].
pub(super) fn pairs(product: Product<'_, Nibbles, 2>) {
    let Pointers { mut words, line, subs, x, out } = product.pointers();
    for out in out.chunks_mut(AT_ONCE) {
        let mut pairs = [[0; 3]; AT_ONCE];
        let sums = pairs.as_mut_ptr();
        let end = sums.wrapping_add(out.len());
        // SAFETY: nothing in a product is empty, its lengths agree, and `words` is at the line of
        // the first pair.
        unsafe { all_pairs(words, x.start, x.end, sums, end, line, subs) };
        words = words.wrapping_byte_add(AT_ONCE * line);
        out.iter_mut().zip(pairs).for_each(|(out, [a, b, _])| *out = [a, b]);
    }
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
    out: *mut Pair,
    out_end: *mut Pair,
    stride: usize,
    subs: usize,
) {
    /// Four columns of both rows: added to one register, the result in another.
    macro_rules! columns {
        ($at:literal, $sum:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "lw t0, ",
                $at,
                "(a7)\n",
                "and t1, t0, ra\n",
                "mul t1, t1, ",
                $a,
                "\n",
                "add t2, ",
                $sum,
                ", t1\n",
                "and t1, t0, a1\n",
                "mulhsu t1, ",
                $c,
                ", t1\n",
                "add t2, t2, t1\n",
                "and t1, t0, a2\n",
                "mulhsu t1, ",
                $d,
                ", t1\n",
                "add t2, t2, t1\n",
                "srli t0, t0, 4\n",
                "and t0, t0, ra\n",
                "mul t0, t0, ",
                $b,
                "\n",
                "add t2, t2, t0\n",
            )
        };
    }
    naked_asm!(
        // a0 start of a group or its sub-scales, a1 and a2 masks of the upper weights, a3 output,
        // a4 its end, a5 stride, a6 distance from the sub-scales of a group to its words, a7 words,
        // ra mask, t0 a word, t1 product, t2 lanes, s0 to s11 and t3 to t6 inputs.
        // On the stack: 12 output, 8 words of the first pair, 4 input, 0 its end.
        begin!(),
        save!(),
        "addi sp, sp, -16",
        "add a0, a0, a6",
        "sw a0, 8(sp)",
        "sw a1, 4(sp)",
        "sw a2, 0(sp)",
        "sw a3, 12(sp)",
        "lui ra, 0xF0",
        "addi ra, ra, 15",
        "slli a1, ra, 8",
        "slli a2, ra, 12",
        "1:",
        "lw t0, 4(sp)",
        "lw a0, 0(t0)",
        "addi t0, t0, 4",
        inputs!(),
        "sw t0, 4(sp)",
        "lw a7, 8(sp)",
        "lw a3, 12(sp)",
        "2:",
        columns!(0, "a0", "s0", "s1", "s2", "s3"),
        columns!(4, "t2", "s4", "s5", "s6", "s7"),
        columns!(8, "t2", "s8", "s9", "s10", "s11"),
        columns!(12, "t2", "t3", "t4", "t5", "t6"),
        "sw t2, 8(a3)",
        "add a7, a7, a5",
        "addi a3, a3, 12",
        "bne a3, a4, 2b",
        "lw t0, 4(sp)",
        inputs!(),
        "sw t0, 4(sp)",
        "lw a7, 8(sp)",
        "addi t0, a7, 32",
        "sw t0, 8(sp)",
        "lw a3, 12(sp)",
        "3:",
        "lw t2, 8(a3)",
        columns!(16, "t2", "s0", "s1", "s2", "s3"),
        columns!(20, "t2", "s4", "s5", "s6", "s7"),
        columns!(24, "t2", "s8", "s9", "s10", "s11"),
        columns!(28, "t2", "t3", "t4", "t5", "t6"),
        // The low lane, as a signed number, has borrowed from the high one.
        "slli t0, t2, 16",
        "srai t0, t0, 16",
        "sub t2, t2, t0",
        "srai t2, t2, 16",
        "sub a0, a7, a6",
        "lbu t1, 0(a0)",
        "lbu a0, 1(a0)",
        "mul t0, t0, t1",
        "mul t2, t2, a0",
        "lw t1, 0(a3)",
        "lw a0, 4(a3)",
        "add t1, t1, t0",
        "add a0, a0, t2",
        "sw t1, 0(a3)",
        "sw a0, 4(a3)",
        "add a7, a7, a5",
        "addi a3, a3, 12",
        "bne a3, a4, 3b",
        "addi a6, a6, 30",
        "lw t0, 4(sp)",
        "lw t1, 0(sp)",
        "bne t0, t1, 1b",
        "addi sp, sp, 16",
        restore!(),
        end!(),
    )
}
