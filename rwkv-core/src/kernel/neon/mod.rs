//! aarch64: NEON, and its extension of dot products.
//!
//! The loops are safe functions that need instructions; a value of [`Neon`] or [`NeonDot`] proves
//! that they are there. All inputs are arranged as planes of bytes.

#![allow(unsafe_code)]

mod base;
mod column;
mod dot;
mod float;
mod integer;

use super::{Arranged, Generic, Input, Kernel, Lines, vector};
use crate::{error::Error, image::Format};

macro_rules! kernel {
    ($name:ident, $integer:ident) => {
        // SAFETY, of every call below: `new` is the only constructor, so the instructions that the
        // functions need are there.
        impl Kernel for $name {
            fn arrange(
                self,
                format: Format,
                bits: u8,
                room: &mut [f32],
                len: usize,
            ) -> Result<Arranged, Error> {
                match format {
                    Format::Int8 => vector::arrange_planes::<false>(bits, room, len),
                    _ => vector::arrange_planes::<true>(bits, room, len),
                }
            }

            fn rows_f32(self, w: &[f32], x: &[f32], out: &mut [f32]) {
                // SAFETY: see above.
                unsafe { float::rows_f32(w, x, out) }
            }

            fn rows_f16(self, w: &[u16], x: &[f32], out: &mut [f32]) {
                // SAFETY: see above.
                unsafe { float::rows_f16(w, x, out) }
            }

            fn rows_i8(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
                // SAFETY: see above.
                unsafe { $integer::rows_i8(lines, x, out) }
            }

            fn rows_i4(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
                // SAFETY: see above.
                unsafe { $integer::rows_i4(lines, x, out) }
            }

            fn rows_i4_lanes(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
                // SAFETY: see above.
                unsafe { $integer::rows_i4_lanes(lines, x, out) }
            }

            fn column_f32(self, w: &[f32], x: f32, acc: &mut [f32]) {
                Generic.column_f32(w, x, acc);
            }

            fn column_f16(self, w: &[u16], x: f32, acc: &mut [f32]) {
                // SAFETY: see above.
                unsafe { column::column_f16(w, x, acc) }
            }

            fn column_i8(self, line: &[u32], x: i16, acc: &mut [i32]) {
                Generic.column_i8(line, x, acc);
            }

            fn column_i4(self, line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
                // SAFETY: see above.
                unsafe { column::column_i4(line, x, acc, offsets) }
            }
        }
    };
}

/// Kernels for any aarch64 with floats: NEON is part of it.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Neon(());

impl Neon {
    /// The kernel.
    pub const fn new() -> Self {
        const { assert!(cfg!(target_feature = "neon")) };
        Self(())
    }
}

impl Default for Neon {
    fn default() -> Self {
        Self::new()
    }
}

/// Kernels for NEON with dot products of bytes.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NeonDot(());

impl NeonDot {
    /// Whether the core has the instructions: asked of the system with the feature `std`, else of
    /// the compiler.
    pub fn is_available() -> bool {
        #[cfg(any(feature = "std", test))]
        {
            std::arch::is_aarch64_feature_detected!("dotprod")
        }
        #[cfg(not(any(feature = "std", test)))]
        {
            cfg!(target_feature = "dotprod")
        }
    }

    /// The kernel, if the core has the instructions.
    pub fn new() -> Option<Self> {
        Self::is_available().then_some(Self(()))
    }
}

kernel!(Neon, base);
kernel!(NeonDot, dot);
