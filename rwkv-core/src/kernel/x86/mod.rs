//! x86-64: AVX2, and AVX-512 with VNNI.
//!
//! The loops are safe functions that need instructions; a value of [`Avx2`] or [`Avx512`] proves
//! that they are there.

#![allow(unsafe_code)]

mod avx2;
mod avx512;
mod column;
mod float;

use super::{Arranged, Input, Kernel, Keys5, Keys7, Lines, vector};
use crate::{error::Error, image::Format};

macro_rules! has {
    ($($feature:tt),+) => {{
        #[cfg(any(feature = "std", test))]
        {
            true $(&& std::arch::is_x86_feature_detected!($feature))+
        }
        #[cfg(not(any(feature = "std", test)))]
        {
            true $(&& cfg!(target_feature = $feature))+
        }
    }};
}

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, [$($feature:tt),+], $arrange:path, $i8:path, $i4:path, [$($many:path)?], $i16:path, $column8:path, $column4:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub struct $name(());

        impl $name {
            /// Whether the core has the instructions: asked of it with the feature `std`, else of
            /// the compiler.
            pub fn is_available() -> bool {
                has!($($feature),+)
            }

            /// The kernel, if the core has the instructions.
            pub fn new() -> Option<Self> {
                Self::is_available().then_some(Self(()))
            }
        }

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
                // SAFETY: see above.
                unsafe { $arrange(format, bits, room, len) }
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
                unsafe { $i8(lines, x, out) }
            }

            fn rows_i4(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
                // SAFETY: see above.
                unsafe { $i4(lines, x, out) }
            }

            fn rows_i4_lanes(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
                // SAFETY: see above.
                unsafe { avx2::rows_i4_lanes(lines, x, out) }
            }

            fn column_f32(self, w: &[f32], x: f32, acc: &mut [f32]) {
                // SAFETY: see above.
                unsafe { column::column_f32(w, x, acc) }
            }

            fn column_f16(self, w: &[u16], x: f32, acc: &mut [f32]) {
                // SAFETY: see above.
                unsafe { column::column_f16(w, x, acc) }
            }

            fn column_i8(self, line: &[u32], x: i16, acc: &mut [i32]) {
                // SAFETY: see above.
                unsafe { $column8(line, x, acc) }
            }

            fn column_i4(self, line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
                // SAFETY: see above.
                unsafe { $column4(line, x, acc, offsets) }
            }

            $(
                fn rows_of_many(
                    self,
                    format: Format,
                    lines: Lines<'_>,
                    inputs: &[Input<'_>],
                    out: &mut [f32],
                ) {
                    // SAFETY: see above.
                    unsafe { $many(self, format, lines, inputs, out) }
                }
            )?

            fn rows_i16(self, w: &[i16], inputs: &[&[i16]], out: &mut [i32]) {
                // SAFETY: see above.
                unsafe { $i16(w, inputs, out) }
            }

            fn wkv5(self, keys: Keys5<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
                // SAFETY: see above.
                unsafe { float::wkv5(keys, v, state, y) }
            }

            fn wkv7(self, keys: Keys7<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
                // SAFETY: see above.
                unsafe { float::wkv7(keys, v, state, y) }
            }
        }
    };
}

kernel!(
    /// Kernels for AVX2 and F16C.
    Avx2,
    ["avx2", "f16c"],
    avx2::arrange,
    avx2::rows_i8,
    avx2::rows_i4,
    [],
    avx2::rows_i16,
    column::column_i8,
    column::column_i4
);

kernel!(
    /// Kernels for AVX-512 with VNNI; what gains nothing from it is that of [`Avx2`].
    Avx512,
    ["avx2", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni"],
    avx512::arrange,
    avx512::rows_i8,
    avx512::rows_i4,
    [avx512::rows_of_many],
    avx512::rows_i16,
    avx512::column_i8,
    avx512::column_i4
);
