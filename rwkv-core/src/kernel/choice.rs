//! Choosing an implementation while the program runs.

use super::{Arranged, Generic, Input, Kernel, Keys5, Keys7, Lines};
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
use super::{Neon, NeonDot};
use crate::{error::Error, image::Format};

/// One of the implementations for this architecture, and the proof that the core can run it.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Choice {
    /// The scalar reference.
    Generic(Generic),
    /// 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 512 bits for integers.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// 128 bits.
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon(Neon),
    /// 128 bits, with dot products for integers.
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    NeonDot(NeonDot),
}

/// Does the same with any of them.
macro_rules! each {
    ($choice:expr, $kernel:ident => $call:expr) => {
        match $choice {
            Choice::Generic($kernel) => $call,
            #[cfg(target_arch = "x86_64")]
            Choice::Avx2($kernel) => $call,
            #[cfg(target_arch = "x86_64")]
            Choice::Avx512($kernel) => $call,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Choice::Neon($kernel) => $call,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Choice::NeonDot($kernel) => $call,
        }
    };
}

impl Choice {
    /// The names of all implementations for this architecture, the fastest last.
    pub const NAMES: &[&str] = &[
        "generic",
        #[cfg(target_arch = "x86_64")]
        "avx2",
        #[cfg(target_arch = "x86_64")]
        "avx512",
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        "neon",
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        "neon-dotprod",
    ];

    /// The implementation of a name, if there is one and the core can run it.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "generic" => Some(Self::Generic(Generic)),
            #[cfg(target_arch = "x86_64")]
            "avx2" => Avx2::new().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            "avx512" => Avx512::new().map(Self::Avx512),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            "neon" => Some(Self::Neon(Neon::new())),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            "neon-dotprod" => NeonDot::new().map(Self::NeonDot),
            _ => None,
        }
    }

    /// The fastest that the core can run.
    pub fn fastest() -> Self {
        let names = Self::NAMES.iter().rev();
        names.copied().find_map(Self::by_name).unwrap_or(Self::Generic(Generic))
    }
}

impl Kernel for Choice {
    fn arrange(
        self,
        format: Format,
        bits: u8,
        room: &mut [f32],
        len: usize,
    ) -> Result<Arranged, Error> {
        each!(self, kernel => kernel.arrange(format, bits, room, len))
    }

    fn rows_f32(self, w: &[f32], x: &[f32], out: &mut [f32]) {
        each!(self, kernel => kernel.rows_f32(w, x, out));
    }

    fn rows_f16(self, w: &[u16], x: &[f32], out: &mut [f32]) {
        each!(self, kernel => kernel.rows_f16(w, x, out));
    }

    fn rows_i8(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
        each!(self, kernel => kernel.rows_i8(lines, x, out));
    }

    fn rows_i4(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
        each!(self, kernel => kernel.rows_i4(lines, x, out));
    }

    fn rows_i4_lanes(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
        each!(self, kernel => kernel.rows_i4_lanes(lines, x, out));
    }

    fn column_f32(self, w: &[f32], x: f32, acc: &mut [f32]) {
        each!(self, kernel => kernel.column_f32(w, x, acc));
    }

    fn column_f16(self, w: &[u16], x: f32, acc: &mut [f32]) {
        each!(self, kernel => kernel.column_f16(w, x, acc));
    }

    fn column_i8(self, line: &[u32], x: i16, acc: &mut [i32]) {
        each!(self, kernel => kernel.column_i8(line, x, acc));
    }

    fn column_i4(self, line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
        each!(self, kernel => kernel.column_i4(line, x, acc, offsets));
    }

    fn rows_of_many(self, format: Format, lines: Lines<'_>, inputs: &[Input<'_>], out: &mut [f32]) {
        each!(self, kernel => kernel.rows_of_many(format, lines, inputs, out));
    }

    fn rows_i16(self, w: &[i16], inputs: &[&[i16]], out: &mut [i32]) {
        each!(self, kernel => kernel.rows_i16(w, inputs, out));
    }

    fn wkv5(self, keys: Keys5<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
        each!(self, kernel => kernel.wkv5(keys, v, state, y));
    }

    fn wkv7(self, keys: Keys7<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
        each!(self, kernel => kernel.wkv7(keys, v, state, y));
    }
}
