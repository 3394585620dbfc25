//! RV32IM: one row's word against sixteen inputs that stay in registers.
//!
//! There are registers for sixteen inputs but no addressing with two of them, and no multiplication
//! that adds. So the loop over rows is the inner one: what a row has come to waits in memory.

#![allow(unsafe_code)]

mod bytes;
mod digits;
mod lanes;
#[cfg(rwkv_soft_float)]
mod rescale;

use super::plain::{Bytes, Core, Nibbles, kernel, shapes::Product};

/// For cores with RV32IM, which the target vouches for.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rv32;

kernel!(Rv32);

impl Core for Rv32 {
    /// The upper half of a product shifts by itself, for the two weights whose inputs can be
    /// shifted that far.
    fn lane_inputs([a, b, c, d]: [u32; 4]) -> [u32; 4] {
        [a, b, c << 24, d << 20]
    }

    fn bytes(product: Product<'_, Bytes, 1>, start: u32) {
        bytes::rows(product, start);
    }

    fn nibbles(product: Product<'_, Nibbles, 1>) {
        digits::rows(product);
    }

    fn lanes(product: Product<'_, Nibbles, 2>) {
        lanes::pairs(product);
    }

    fn wide_lanes(product: Product<'_, Nibbles, 2>) {
        digits::pairs(product);
    }

    #[cfg(rwkv_soft_float)]
    fn rescale(sums: &mut [f32], input: f32, scales: &[f32]) {
        rescale::all(sums, input, scales);
    }
}

// A function's assembly is also read by a parser that knows nothing of the target's extensions.

/// Begins a function.
#[cfg(target_feature = "c")]
macro_rules! begin {
    () => {
        ".option push\n .option arch, +m, +c\n"
    };
}
#[cfg(not(target_feature = "c"))]
macro_rules! begin {
    () => {
        ".option push\n .option arch, +m\n"
    };
}

/// Ends a function.
macro_rules! end {
    () => {
        "ret\n .option pop\n"
    };
}

/// Pushes every register that a function must leave as it was.
macro_rules! save {
    () => {
        "addi sp, sp, -64
         sw ra, 60(sp)\n sw s0, 56(sp)\n sw s1, 52(sp)\n sw s2, 48(sp)\n sw s3, 44(sp)
         sw s4, 40(sp)\n sw s5, 36(sp)\n sw s6, 32(sp)\n sw s7, 28(sp)\n sw s8, 24(sp)
         sw s9, 20(sp)\n sw s10, 16(sp)\n sw s11, 12(sp)"
    };
}

/// Pops them.
macro_rules! restore {
    () => {
        "lw ra, 60(sp)\n lw s0, 56(sp)\n lw s1, 52(sp)\n lw s2, 48(sp)\n lw s3, 44(sp)
         lw s4, 40(sp)\n lw s5, 36(sp)\n lw s6, 32(sp)\n lw s7, 28(sp)\n lw s8, 24(sp)
         lw s9, 20(sp)\n lw s10, 16(sp)\n lw s11, 12(sp)
         addi sp, sp, 64"
    };
}

/// Loads sixteen words from where t0 points, which moves behind them.
macro_rules! inputs {
    () => {
        "lw s0, 0(t0)\n lw s1, 4(t0)\n lw s2, 8(t0)\n lw s3, 12(t0)
         lw s4, 16(t0)\n lw s5, 20(t0)\n lw s6, 24(t0)\n lw s7, 28(t0)
         lw s8, 32(t0)\n lw s9, 36(t0)\n lw s10, 40(t0)\n lw s11, 44(t0)
         lw t3, 48(t0)\n lw t4, 52(t0)\n lw t5, 56(t0)\n lw t6, 60(t0)
         addi t0, t0, 64"
    };
}

use {begin, end, inputs, restore, save};
