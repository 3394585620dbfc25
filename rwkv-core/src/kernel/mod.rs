//! The inner loops: one contract, one implementation per instruction set.
//!
//! [`Kernel`] says what each loop computes, bit for bit; [`Generic`] is the scalar reference that
//! every other implementation is tested against. Kernels cannot panic: slices whose lengths
//! disagree are cut to the shorter.

#[cfg(rwkv_isa = "armv6m")]
mod armv6m;
#[cfg(rwkv_isa = "armv7em")]
mod armv7em;
#[cfg(rwkv_isa = "armv7m")]
mod armv7m;
#[cfg(any(test, feature = "suite"))]
#[doc(hidden)]
pub mod cases;
mod choice;
pub(crate) mod floats;
mod generic;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;
mod partial;
#[cfg(any(test, rwkv_isa = "armv6m", rwkv_isa = "armv7m", rwkv_isa = "rv32"))]
mod plain;
#[cfg(rwkv_isa = "rv32")]
mod rv32;
#[cfg(test)]
mod suite;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(rwkv_isa = "armv6m")]
pub use armv6m::Armv6m;
#[cfg(rwkv_isa = "armv7em")]
pub use armv7em::Armv7em;
#[cfg(rwkv_isa = "armv7m")]
pub use armv7m::Armv7m;
pub use choice::Choice;
pub use floats::{Keys5, Keys7};
pub use generic::Generic;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
pub use neon::{Neon, NeonDot};
#[cfg(rwkv_isa = "rv32")]
pub use rv32::Rv32;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};
pub(crate) use {
    floats::sqrt,
    generic::{lane_nibbles, nibbles},
    partial::Partial,
};

use crate::{
    error::Error,
    image::{Format, GROUP},
    op::Quantiser,
};

/// The implementation for the target this crate is compiled for.
#[cfg(rwkv_isa = "armv6m")]
pub type Native = Armv6m;
/// The implementation for the target this crate is compiled for.
#[cfg(rwkv_isa = "armv7em")]
pub type Native = Armv7em;
/// The implementation for the target this crate is compiled for.
#[cfg(rwkv_isa = "armv7m")]
pub type Native = Armv7m;
/// The implementation for the target this crate is compiled for.
#[cfg(rwkv_isa = "rv32")]
pub type Native = Rv32;
/// The implementation for the target this crate is compiled for.
#[cfg(all(rwkv_isa = "", not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub type Native = Generic;
/// The implementation for the target this crate is compiled for: one that is chosen when the
/// program runs, or without the feature `std` by what the compiler may use.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub type Native = Choice;

/// [`Native`], ready to use.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const fn native() -> Native {
    Native {}
}

/// [`Native`], ready to use.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub fn native() -> Native {
    Choice::fastest()
}

/// Words of the room in which a kernel arranges an input of `len` elements: 33 per group.
pub const fn room_words(len: usize) -> usize {
    len.div_ceil(GROUP) * (GROUP + 1)
}

/// What a kernel knows of an input that it has quantised and arranged.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Arranged {
    /// What a quantised element of 1 stands for.
    pub scale: f32,
    /// The sum of the quantised elements, wrapping.
    pub sum: i32,
    /// Groups of 32 elements, the last one padded with zeros.
    pub groups: usize,
    /// Bits of an element, sign included.
    pub bits: u8,
}

/// An arranged input. How the elements lie in `words` is the kernel's business.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Input<'a> {
    /// The room in which it was arranged.
    pub words: &'a [u32],
    /// What came of it.
    pub arranged: Arranged,
}

/// Lines of a row-major matrix and the scales of their rows.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Lines<'a> {
    /// The lines, as long as the input is wide (see [`Format::line_words`]).
    pub words: &'a [u32],
    /// One scale per row.
    pub scales: &'a [f32],
}

/// The inner loops of a token.
///
/// A kernel is a value that proves that the core it runs on has what it needs: the constructor of
/// an implementation for optional instructions looks and may refuse.
///
/// Implementations return the same bits for the same input. Integer sums wrap, so their order is
/// free; float sums follow the rule of eight (see [`crate::op::sum`]) or, by column, natural order.
pub trait Kernel: Copy + Send + Sync {
    /// Quantises the first `len` floats in `room` to `bits` (8 to 15, sign included) and arranges
    /// them for the rows of an integer format. `room` has [`room_words`] words; what it held is
    /// lost.
    ///
    /// # Errors
    /// [`Error::NonFinite`].
    fn arrange(
        self,
        format: Format,
        bits: u8,
        room: &mut [f32],
        len: usize,
    ) -> Result<Arranged, Error>;

    /// `out[r] = Σ w[r][i] · x[i]` with the rule of eight. `w` holds `out.len()` rows of
    /// `x.len()`.
    fn rows_f32(self, w: &[f32], x: &[f32], out: &mut [f32]);

    /// As [`Kernel::rows_f32`], with rows of binary16 that start on whole words.
    fn rows_f16(self, w: &[u16], x: &[f32], out: &mut [f32]);

    /// `out[r] = f32(Σ w[r][i] · x[i]) · (x_scale · scales[r])`, the sum in wrapping `i32`, for
    /// rows of [`Format::Int8`].
    fn rows_i8(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]);

    /// `out[r] = f32(Σ sub[r][g] · Σ w[r][i] · x[i]) · (x_scale · scales[r])`, the sums in wrapping
    /// `i32`, for rows of [`Format::Int4`].
    fn rows_i4(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]);

    /// As [`Kernel::rows_i4`], for rows of [`Format::Int4Lanes`] from an even row on.
    fn rows_i4_lanes(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]);

    /// `acc[r] += w[r] · x` in f32.
    fn column_f32(self, w: &[f32], x: f32, acc: &mut [f32]);

    /// `acc[r] += w[r] · x` in f32, the weights in binary16.
    fn column_f16(self, w: &[u16], x: f32, acc: &mut [f32]);

    /// `acc[r] += (w[r] + 128) · x` in wrapping `i32`, for a line of [`Format::Int8`]. The caller
    /// starts the accumulators at `-128 · Σ x` over all columns.
    fn column_i8(self, line: &[u32], x: i16, acc: &mut [i32]);

    /// `acc[r] += (w[r] + 8) · (sub[g] · x)` and `offsets[g] += sub[g] · x` in wrapping `i32`, for
    /// a line of [`Format::Int4`]. The caller subtracts eight times the offset of a group.
    fn column_i4(self, line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]);

    /// The rows of an integer format for several inputs of one length and one number of bits. `out`
    /// holds the rows of an input behind those of the input before.
    #[inline]
    fn rows_of_many(self, format: Format, lines: Lines<'_>, inputs: &[Input<'_>], out: &mut [f32]) {
        one_by_one(self, format, lines, inputs, out);
    }

    /// `out[t][r] = Σ w[r][i] · x[t][i]` in wrapping `i32`, for inputs of one length. `w` holds as
    /// many rows as there are outputs of an input: columns that the host has turned to rows.
    #[inline]
    fn rows_i16(self, w: &[i16], inputs: &[&[i16]], out: &mut [i32]) {
        generic::rows_i16(w, inputs, out);
    }

    /// The recurrence of versions 5 and 6 for one head. For each value index `j`, over the keys `i`
    /// in natural order and from +0:
    ///
    /// `y[j] = Σ S[i][j]·r[i]`, then `S[i][j] = S[i][j]·w[i] + v[j]·k[i]`; products are rounded.
    ///
    /// `state` is `S[key][value]`, all else as long as the head is wide.
    #[inline]
    fn wkv5(self, keys: Keys5<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
        floats::wkv5(keys, v, state, y);
    }

    /// The recurrence of version 7 for one head. For each value index `j`, over the keys `i` in
    /// natural order and from +0:
    ///
    /// `sa = Σ S[i][j]·kk[i]`, then `S[i][j] = S[i][j]·w[i] - sa·b[i] + v[j]·k[i]` and
    /// `y[j] = Σ S[i][j]·r[i]` with the new `S`; products are rounded, and evaluation goes from
    /// left to right.
    ///
    /// `state` is `S[key][value]`, all else as long as the head is wide.
    #[inline]
    fn wkv7(self, keys: Keys7<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
        floats::wkv7(keys, v, state, y);
    }
}

/// [`Kernel::rows_of_many`], an input after the other.
#[inline]
fn one_by_one(
    kernel: impl Kernel,
    format: Format,
    lines: Lines<'_>,
    inputs: &[Input<'_>],
    out: &mut [f32],
) {
    let rows = out.len().checked_div(inputs.len()).unwrap_or(0).max(1);
    for (x, out) in inputs.iter().zip(out.chunks_exact_mut(rows)) {
        match format {
            Format::Int8 => kernel.rows_i8(lines, *x, out),
            Format::Int4 => kernel.rows_i4(lines, *x, out),
            Format::Int4Lanes => kernel.rows_i4_lanes(lines, *x, out),
            Format::F32 | Format::F16 => {}
        }
    }
}

/// Quantises an input group after group, for implementations of [`Kernel::arrange`]. `store`
/// puts 32 elements into the `STRIDE` words of their group.
///
/// # Errors
/// [`Error::NonFinite`].
pub fn arrange_groups<const STRIDE: usize>(
    bits: u8,
    room: &mut [f32],
    len: usize,
    store: impl Fn(&[i32; GROUP], &mut [u32; STRIDE]),
) -> Result<Arranged, Error> {
    let len = len.min(room.len());
    let quantiser = Quantiser::new(room.get(..len).unwrap_or_default(), bits)?;
    let groups = len.div_ceil(GROUP);
    let words: &mut [u32] = bytemuck::cast_slice_mut(room);
    let mut sum = 0i32;
    for step in 0..groups {
        // A group is read before anything is written over it: short strides go ahead, long ones
        // come from behind.
        let group = if STRIDE <= GROUP { step } else { groups - 1 - step };
        let first = group * GROUP;
        let mut values = [0; GROUP];
        let floats = words.get(first..len.min(first + GROUP)).unwrap_or_default();
        for (q, x) in values.iter_mut().zip(floats) {
            *q = quantiser.value(f32::from_bits(*x));
            sum = sum.wrapping_add(*q);
        }
        let place = words.get_mut(group * STRIDE..).and_then(|w| w.first_chunk_mut());
        if let Some(place) = place {
            store(&values, place);
        }
    }
    Ok(Arranged { scale: quantiser.scale(), sum, groups, bits })
}
