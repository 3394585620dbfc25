//! Rows of int8, two at a time.

use core::arch::naked_asm;

use super::{begin, end, inputs, restore, save};
use crate::kernel::plain::{
    Bytes,
    shapes::{Pointers, Product},
};

/// As [`crate::kernel::plain::Core::bytes`].
pub(super) fn rows(product: Product<'_, Bytes, 1>, start: u32) {
    let Pointers { words, line, x, out, .. } = product.pointers();
    let out = out.as_flattened_mut();
    out.fill(start);
    let (pairs, odd) = out.as_chunks_mut::<2>();
    let behind = words.wrapping_byte_add(2 * pairs.len() * line);
    let (x, end) = (x.start.cast(), x.end.cast());
    let pairs = pairs.as_mut_ptr_range();
    if !pairs.is_empty() {
        // SAFETY: a product has as many lines as sums, as long as its input.
        unsafe { all_rows(words, x, end, pairs.start, pairs.end, line) };
    }
    if let [y] = odd {
        let mut pair = [[start; 2]];
        let out = pair.as_mut_ptr_range();
        // SAFETY: there is one more line, which is taken twice.
        unsafe { all_rows(behind, x, end, out.start, out.end, 0) };
        *y = pair[0][0];
    }
}

/// Adds the products of rows that lie `stride` bytes apart to their sums.
///
/// # Safety
/// `x` is a whole number of groups; it and `out` are not empty. At each stride from `words` on,
/// twice for each pair of `out`, there is a row as long as `x`.
#[unsafe(naked)]
unsafe extern "C" fn all_rows(
    words: *const u32,
    x: *const u32,
    x_end: *const u32,
    out: *mut [u32; 2],
    out_end: *mut [u32; 2],
    stride: usize,
) {
    /// Four columns, while the word behind them is loaded.
    macro_rules! columns {
        ($word:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "mul t2, ",
                $word,
                ", ",
                $a,
                "\n",
                "srli ",
                $word,
                ", ",
                $word,
                ", 8\n",
                "add a7, a7, t2\n",
                "mul t2, ",
                $word,
                ", ",
                $b,
                "\n",
                "srli ",
                $word,
                ", ",
                $word,
                ", 8\n",
                "add a7, a7, t2\n",
                "mul t2, ",
                $word,
                ", ",
                $c,
                "\n",
                "srli ",
                $word,
                ", ",
                $word,
                ", 8\n",
                "add a7, a7, t2\n",
                "mul t2, ",
                $word,
                ", ",
                $d,
                "\n",
                "add a7, a7, t2\n",
            )
        };
    }
    macro_rules! row {
        ($sum:literal) => {
            concat!(
                "lw t0, 0(a6)\n",
                "lw t1, 4(a6)\n",
                "lw a7, ",
                $sum,
                "(ra)\n",
                columns!("t0", "s0", "s1", "s2", "s3"),
                "lw t0, 8(a6)\n",
                columns!("t1", "s4", "s5", "s6", "s7"),
                "lw t1, 12(a6)\n",
                columns!("t0", "s8", "s9", "s10", "s11"),
                "add a6, a6, a5\n",
                columns!("t1", "t3", "t4", "t5", "t6"),
                "sw a7, ",
                $sum,
                "(ra)\n",
            )
        };
    }
    naked_asm!(
        // a0 words of the first row, a1 input, a2 its end, a3 output, a4 its end, a5 stride,
        // a6 words, a7 sum, ra its place, t0 and t1 words, t2 product, s0 to s11 and t3 to t6 inputs.
        begin!(),
        save!(),
        "1:",
        "mv t0, a1",
        inputs!(),
        "mv a1, t0",
        "mv a6, a0",
        "addi a0, a0, 16",
        "mv ra, a3",
        "2:",
        row!(0),
        row!(4),
        "addi ra, ra, 8",
        "bne ra, a4, 2b",
        "bne a1, a2, 1b",
        restore!(),
        end!(),
    )
}
