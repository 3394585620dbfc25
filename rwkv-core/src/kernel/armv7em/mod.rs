//! Armv7E-M with the DSP extension: Cortex-M4, M7 and M33.
//!
//! `smlad` adds the products of two pairs of halfwords to a sum. Inputs are arranged as pairs, in
//! the order in which a word of weights gives up its own: `uxtb16` takes two bytes out of it, `and`
//! with a shifted operand two nibbles. Two rows at a time share the loads of their input.
//!
//! The loops are whole functions in assembly, since they need every register that there is. Those
//! over floats ask for a floating-point unit, in [`fpu`]; without one, [`soft`] stands in.

#![allow(unsafe_code)]

/// Lines of assembly, put together from pieces.
macro_rules! lines {
    ($($($piece:literal)+;)*) => {
        concat!($($($piece,)+ "\n",)*)
    };
}

// Link-time optimisation reads the assembly of functions with a parser that knows of the target
// what its triple says. These directives outlast a function, and allow more than code behind it
// needs.

/// Begins a function with instructions of the DSP extension.
#[cfg(not(rwkv_armv8m))]
macro_rules! dsp {
    () => {
        ""
    };
}
#[cfg(rwkv_armv8m)]
macro_rules! dsp {
    () => {
        ".cpu cortex-m33"
    };
}

/// Begins a function with instructions of a floating-point unit, or of both.
#[cfg(all(rwkv_vfp, not(rwkv_armv8m)))]
macro_rules! fpu {
    () => {
        ".fpu fpv4-sp-d16"
    };
}
#[cfg(all(rwkv_vfp, rwkv_armv8m))]
macro_rules! fpu {
    () => {
        dsp!()
    };
}

#[cfg(rwkv_vfp)]
mod fpu;
mod int4;
mod int8;
#[cfg(not(rwkv_vfp))]
mod soft;

#[cfg(rwkv_vfp)]
use fpu as floats;
#[cfg(not(rwkv_vfp))]
use soft as floats;

use super::{Arranged, Input, Kernel, Lines};
use crate::{
    error::Error,
    image::{Format, GROUP},
};

/// For cores with `smlad`, which the target vouches for.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Armv7em;

impl Kernel for Armv7em {
    fn arrange(
        self,
        format: Format,
        bits: u8,
        room: &mut [f32],
        len: usize,
    ) -> Result<Arranged, Error> {
        // A room that is too small holds a shorter input.
        let len = len.min(room.len() / (GROUP + 1) * GROUP);
        match format {
            Format::Int8 => floats::arrange_i8(bits, room, len),
            _ => floats::arrange_i4(bits, room, len),
        }
    }

    fn rows_f32(self, w: &[f32], x: &[f32], out: &mut [f32]) {
        floats::rows_f32(w, x, out);
    }

    fn rows_f16(self, w: &[u16], x: &[f32], out: &mut [f32]) {
        floats::rows_f16(w, x, out);
    }

    fn rows_i8(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
        let out = given(out, Format::Int8, lines, x);
        int8::rows(lines.words, x, bytemuck::cast_slice_mut(out));
        floats::requantise(out, lines.scales, x.arranged.scale);
    }

    fn rows_i4(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
        let out = given(out, Format::Int4, lines, x);
        int4::rows(lines.words, x, bytemuck::cast_slice_mut(out));
        floats::requantise(out, lines.scales, x.arranged.scale);
    }

    fn rows_i4_lanes(self, lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
        let out = given(out, Format::Int4Lanes, lines, x);
        int4::rows_lanes(lines.words, x, bytemuck::cast_slice_mut(out));
        floats::requantise(out, lines.scales, x.arranged.scale);
    }

    fn column_f32(self, w: &[f32], x: f32, acc: &mut [f32]) {
        floats::column_f32(w, x, acc);
    }

    fn column_f16(self, w: &[u16], x: f32, acc: &mut [f32]) {
        floats::column_f16(w, x, acc);
    }

    fn column_i8(self, line: &[u32], x: i16, acc: &mut [i32]) {
        int8::column(line, x, acc);
    }

    fn column_i4(self, line: &[u32], x: i16, acc: &mut [i32], offsets: &mut [i32]) {
        int4::column(line, x, acc, offsets);
    }
}

/// The outputs for which there are lines and scales. Sums go where the floats that they become do.
fn given<'a>(out: &'a mut [f32], format: Format, lines: Lines<'_>, x: Input<'_>) -> &'a mut [f32] {
    let line = format.line_words(x.arranged.groups * GROUP);
    let rows = lines.words.len().checked_div(line).unwrap_or_default();
    // Rows in lanes come in pairs, of which the last may want but one.
    let rows = if matches!(format, Format::Int4Lanes) { rows & !1 } else { rows };
    let rows = rows.min(out.len()).min(lines.scales.len());
    out.get_mut(..rows).unwrap_or_default()
}

/// A function that sums pairs of rows: `sums` to `end`, of the rows from `a` and `b` on, with the
/// input from `x` to `x_end` and two parameters.
type Pairs = unsafe extern "C" fn(
    x: *const u32,
    a: *const u32,
    b: *const u32,
    sums: *mut [u32; 2],
    end: *mut [u32; 2],
    x_end: *const u32,
    usize,
    usize,
);

/// Sums rows of `line` words in pairs. A row that is left over is paired with itself.
///
/// # Safety
/// `pairs` reads `x`, which is not empty, and per sum a row of `line` words, which is not 0: the
/// rows of a pair from `a` and `b` on, and those of further pairs behind `b`.
#[inline(never)]
unsafe fn in_pairs(
    pairs: Pairs,
    lines: &[u32],
    line: usize,
    x: &[u32],
    [p, q]: [usize; 2],
    out: &mut [u32],
) {
    let rows = out.len().min(lines.len().checked_div(line).unwrap_or_default());
    let (sums, odd) = out.get_mut(..rows).unwrap_or_default().as_chunks_mut();
    let (a, x) = (lines.as_ptr(), x.as_ptr_range());
    let last = a.wrapping_add(2 * line * sums.len());
    let sums = sums.as_mut_ptr_range();
    if !sums.is_empty() {
        // SAFETY: there are as many rows as sums, and at least two.
        unsafe { pairs(x.start, a, a.wrapping_add(line), sums.start, sums.end, x.end, p, q) }
    }
    if let [y] = odd {
        let mut pair = [[0; 2]];
        let sums = pair.as_mut_ptr_range();
        // SAFETY: there is one more row.
        unsafe { pairs(x.start, last, last, sums.start, sums.end, x.end, p, q) }
        *y = pair[0][0];
    }
}
