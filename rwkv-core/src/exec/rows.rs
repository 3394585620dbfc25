//! The operations of one token's scratch, shared by the step and the sequence executor.

use core::ops::Range;

use super::{Span, Wkv5, Wkv7};
use crate::{
    error::Error,
    image::{Format, GROUP, MathMode, Record},
    kernel::{Arranged, Input, Kernel, Lines},
    op::{self, Activation, Head5, Head7},
    soft::Rescaler,
};

/// Rows of a product that are computed at once, at most, where they go on from there.
pub const TILE_ROWS: usize = 32;

/// The scratch of one token.
#[derive(Debug)]
pub struct Lane<'a>(pub &'a mut [f32]);

crate::brief!([] Lane<'_>, |lane| "Lane({} words)", lane.0.len());

impl Lane<'_> {
    /// A vector.
    ///
    /// # Errors
    /// [`Error::Internal`] if the span is not of this scratch.
    pub fn get(&self, span: Span) -> Result<&[f32], Error> {
        self.0.get(span.range()).ok_or(Error::Internal)
    }

    /// A vector, to write.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub fn get_mut(&mut self, span: Span) -> Result<&mut [f32], Error> {
        self.0.get_mut(span.range()).ok_or(Error::Internal)
    }

    /// Several vectors that do not overlap.
    ///
    /// # Errors
    /// As [`Lane::get`], or if they overlap.
    pub fn split<const N: usize>(&mut self, spans: [Span; N]) -> Result<[&mut [f32]; N], Error> {
        self.0.get_disjoint_mut(spans.map(Span::range)).map_err(|_| Error::Internal)
    }

    /// Several vectors, each behind the one before it: cheaper than [`Lane::split`] for many.
    ///
    /// # Errors
    /// As [`Lane::split`], or if they are out of order.
    pub fn split_in_order<const N: usize>(
        &mut self,
        spans: [Span; N],
    ) -> Result<[&mut [f32]; N], Error> {
        let (mut rest, mut at) = (&mut *self.0, 0);
        let mut parts = [(); N].map(|()| Default::default());
        for (part, span) in parts.iter_mut().zip(spans) {
            let Range { start, end } = span.range();
            let gap = start.checked_sub(at).ok_or(Error::Internal)?;
            let (_, tail) = rest.split_at_mut_checked(gap).ok_or(Error::Internal)?;
            (*part, rest) = tail.split_at_mut_checked(span.len()).ok_or(Error::Internal)?;
            at = end;
        }
        Ok(parts)
    }

    /// `out = x`.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn copy(&mut self, x: Span, out: Span) -> Result<(), Error> {
        let [x, out] = self.split([x, out])?;
        op::copy(x, out);
        Ok(())
    }

    /// `out[j] = Σ x[i]·matrix[i][j]`.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn product_by(&mut self, x: Span, matrix: Span, out: Span) -> Result<(), Error> {
        let [x, matrix, out] = self.split([x, matrix, out])?;
        op::product_by(x, matrix, out);
        Ok(())
    }

    /// `x *= gate`.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn multiply(&mut self, x: Span, gate: Span) -> Result<(), Error> {
        let [x, gate] = self.split([x, gate])?;
        op::multiply(x, gate);
        Ok(())
    }

    /// `x += (target - x)·weight`.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn lerp(&mut self, x: Span, target: Span, weight: Span) -> Result<(), Error> {
        let [x, target, weight] = self.split([x, target, weight])?;
        op::lerp(x, target, weight);
        Ok(())
    }

    /// Quantises and arranges the `len` values at the start of `input` for the rows of a record,
    /// if its format asks for it.
    ///
    /// # Errors
    /// [`Error::NonFinite`], or as [`Lane::get`].
    pub fn arrange(
        &mut self,
        kernel: impl Kernel,
        record: &Record,
        input: Span,
        len: usize,
    ) -> Result<Option<Arranged>, Error> {
        if !record.format.is_integer() {
            return Ok(None);
        }
        kernel.arrange(record.format, record.bits, self.get_mut(input)?, len).map(Some)
    }

    /// Rows of a product: `y` from row `first` of a tile of `rows` rows on.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub fn rows(
        &self,
        kernel: impl Kernel,
        record: &Record,
        (tile, first, rows): (&[u32], usize, usize),
        (input, arranged): (Span, Option<Arranged>),
        y: &mut [f32],
    ) -> Result<(), Error> {
        tile_rows(kernel, record, (tile, first, rows), (self.get(input)?, arranged), y)
    }

    /// All rows of a tile, to where they belong.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn tile(
        &mut self,
        kernel: impl Kernel,
        record: &Record,
        tile: &[u32],
        (input, arranged): (Span, Option<Arranged>),
        out: Span,
    ) -> Result<(), Error> {
        let [x, y] = self.split([input, out])?;
        tile_rows(kernel, record, (tile, 0, y.len()), (x, arranged), y)
    }

    /// `x = f(x)`, element by element.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub fn apply(&mut self, f: Activation, math: MathMode, x: Span) -> Result<(), Error> {
        f.apply(math, self.get_mut(x)?);
        Ok(())
    }

    /// `x += rows`, from row `first` of the vector on.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub fn add(&mut self, x: Span, first: usize, rows: &[f32]) -> Result<(), Error> {
        op::add(self.get_mut(x.part(first, rows.len()))?, rows);
        Ok(())
    }

    /// Quantises the input of a sparse product where it lies, if the format of its record asks for
    /// it, and starts the accumulators of its outputs. Returns the scale of the input.
    ///
    /// # Errors
    /// [`Error::NonFinite`], or as [`Lane::get`].
    pub fn open_columns(&mut self, record: &Record, k: Span, acc: Span) -> Result<f32, Error> {
        let (scale, sum) = match record.format.is_integer() {
            true => op::quantise(self.get_mut(k)?, record.bits)?,
            false => (1.0, 0),
        };
        let start = match record.format {
            Format::Int8 => sum.wrapping_mul(-128),
            _ => 0,
        };
        self.get_mut(acc)?.fill(f32::from_bits(start as u32));
        Ok(scale)
    }

    /// Adds one column of an input-major matrix: `acc += column·k[index]`.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn column(
        &mut self,
        kernel: impl Kernel,
        record: &Record,
        column: &[u32],
        (k, index): (Span, usize),
        acc: Span,
    ) -> Result<(), Error> {
        let [k, acc] = self.split([k, acc])?;
        let rows = record.rows as usize;
        let (acc, offsets) = acc.split_at_mut_checked(rows).ok_or(Error::Internal)?;
        column_words(kernel, record.format, column, (k, index), (acc, offsets))
    }

    /// The first input of a sparse product, from `first` on, that is not zero: the next column
    /// that must be read.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub fn next_live(
        &self,
        record: &Record,
        k: Span,
        first: usize,
    ) -> Result<Option<usize>, Error> {
        let k = self.get(k)?;
        Ok(if record.format.is_integer() {
            // The elements fill the front half.
            let elements = bytemuck::cast_slice::<_, i16>(k).get(..k.len()).unwrap_or_default();
            position(elements, first, |q| *q != 0)
        } else {
            position(k, first, |x| *x != 0.0)
        })
    }

    /// Turns integer sums into floats, from row `first` on: `acc·(k_scale·scale)`.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub fn rescale(
        &mut self,
        record: &Record,
        acc: Span,
        first: usize,
        scales: &[f32],
        k_scale: f32,
    ) -> Result<(), Error> {
        let acc = self.get_mut(acc)?;
        let rows = record.rows as usize;
        let rescaler = Rescaler::new(k_scale);
        let (acc, offsets) = acc.split_at_mut_checked(rows).ok_or(Error::Internal)?;
        let acc = acc.get_mut(first..).ok_or(Error::Internal)?;
        for (row, (a, s)) in (first..).zip(acc.iter_mut().zip(scales)) {
            // Only `column_i4` moves an offset from zero.
            let offset = match record.format {
                Format::Int4 => {
                    offsets.get(row / GROUP).map_or(0, |offset| offset.to_bits() as i32)
                }
                _ => 0,
            };
            let sum = (a.to_bits() as i32).wrapping_sub(offset.wrapping_mul(8));
            *a = rescaler.apply(sum, *s);
        }
        Ok(())
    }

    /// `x += gate ⊙ acc`.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn add_gated(&mut self, acc: Span, gate: Option<Span>, x: Span) -> Result<(), Error> {
        match gate {
            Some(gate) => {
                let [acc, gate, x] = self.split([acc, gate, x])?;
                x.iter_mut().zip(gate).zip(acc).for_each(|((x, g), a)| *x += *g * *a);
            }
            None => {
                let [acc, x] = self.split([acc, x])?;
                op::add(x, acc);
            }
        }
        Ok(())
    }

    /// Version 4's recurrence for the channels whose parameters are given, from `first` on.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn wkv4(
        &mut self,
        params: &[f32],
        first: usize,
        vectors: [Span; 3],
        recurrent: &mut [f32],
    ) -> Result<(), Error> {
        let channels = params.len() / 2;
        let [k, v, r] = self.split(vectors.map(|s| s.part(first, channels)))?;
        let dim = recurrent.len() / 3;
        let row = |i: usize| i * dim + first..i * dim + first + channels;
        let state = recurrent.get_disjoint_mut([row(0), row(1), row(2)]);
        op::wkv4(params, k, v, r, state.map_err(|_| Error::Internal)?);
        Ok(())
    }

    /// The recurrence of versions 5 and 6 for the head that starts at channel `first`; `room` is a
    /// vector of head size.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn wkv5(
        &mut self,
        kernel: impl Kernel,
        (first, params): (usize, &[f32]),
        vectors: Wkv5,
        room: Span,
        epsilon: f32,
        recurrent: &mut [f32],
    ) -> Result<(), Error> {
        let n = params.len() / 3;
        let Wkv5 { r, w, k, v } = vectors;
        let [r, w, k, v] = [r, w, k, v].map(|s| s.part(first, n));
        let [r, w, k, v, y] = self.split([r, w, k, v, room])?;
        let state = recurrent.get_mut(first * n..(first + n) * n).ok_or(Error::Internal)?;
        op::wkv5(kernel, params, epsilon, Head5 { r, w, k, v, y }, state);
        Ok(())
    }

    /// Version 7's recurrence for the head that starts at channel `first`; `room` is two vectors
    /// of head size.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn wkv7(
        &mut self,
        kernel: impl Kernel,
        (first, params): (usize, &[f32]),
        vectors: Wkv7,
        room: [Span; 2],
        epsilon: f32,
        recurrent: &mut [f32],
    ) -> Result<(), Error> {
        let n = params.len() / 5;
        let Wkv7 { r, w, k, v, a, g } = vectors;
        let [r, w, k, v, a, g] = [r, w, k, v, a, g].map(|s| s.part(first, n));
        let [kk, y] = room;
        let [r, w, k, v, a, g, kk, y] = self.split_in_order([r, w, k, v, a, g, kk, y])?;
        let state = recurrent.get_mut(first * n..(first + n) * n).ok_or(Error::Internal)?;
        op::wkv7(kernel, params, epsilon, Head7 { r, w, k, v, a, g, kk, y }, state);
        Ok(())
    }
}

/// Adds a column: its words, times an element of its input.
pub(super) fn column_words(
    kernel: impl Kernel,
    format: Format,
    words: &[u32],
    (k, index): (&[f32], usize),
    (acc, offsets): (&mut [f32], &mut [f32]),
) -> Result<(), Error> {
    if !format.is_integer() {
        let x = *k.get(index).ok_or(Error::Internal)?;
        match format {
            Format::F16 => kernel.column_f16(bytemuck::cast_slice(words), x, acc),
            _ => kernel.column_f32(bytemuck::cast_slice(words), x, acc),
        }
        return Ok(());
    }
    let x = *bytemuck::cast_slice::<_, i16>(k).get(index).ok_or(Error::Internal)?;
    let (acc, offsets) = (bytemuck::cast_slice_mut(acc), bytemuck::cast_slice_mut(offsets));
    match format {
        Format::Int8 => kernel.column_i8(words, x, acc),
        _ => kernel.column_i4(words, x, acc, offsets),
    }
    Ok(())
}

/// Rows `first` and on of a tile of `rows` rows: their words, and the scales of integer formats.
fn lines<'a>(
    record: &Record,
    (tile, first, rows): (&'a [u32], usize, usize),
) -> Result<Lines<'a>, Error> {
    let scales = rows * record.scale_words();
    let (scales, weights) = tile.split_at_checked(scales).ok_or(Error::Internal)?;
    let words = weights.get(first * record.line_words()..).ok_or(Error::Internal)?;
    let scales = match record.format.is_integer() {
        true => scales.get(first..).ok_or(Error::Internal)?,
        false => &[],
    };
    Ok(Lines { words, scales: bytemuck::cast_slice(scales) })
}

/// Rows of a product with floats.
fn float_rows(
    kernel: impl Kernel,
    record: &Record,
    words: &[u32],
    x: &[f32],
    y: &mut [f32],
) -> Result<(), Error> {
    let x = x.get(..record.cols as usize).ok_or(Error::Internal)?;
    match record.format {
        Format::F16 => kernel.rows_f16(bytemuck::cast_slice(words), x, y),
        _ => kernel.rows_f32(bytemuck::cast_slice(words), x, y),
    }
    Ok(())
}

fn tile_rows(
    kernel: impl Kernel,
    record: &Record,
    tile: (&[u32], usize, usize),
    (x, arranged): (&[f32], Option<Arranged>),
    y: &mut [f32],
) -> Result<(), Error> {
    let lines = lines(record, tile)?;
    let Some(arranged) = arranged else {
        return float_rows(kernel, record, lines.words, x, y);
    };
    let x = Input { words: bytemuck::cast_slice(x), arranged };
    match record.format {
        Format::Int8 => kernel.rows_i8(lines, x, y),
        Format::Int4 => kernel.rows_i4(lines, x, y),
        Format::Int4Lanes => kernel.rows_i4_lanes(lines, x, y),
        Format::F32 | Format::F16 => return Err(Error::Internal),
    }
    Ok(())
}

/// The inputs of many tokens to a product.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Inputs<'a> {
    /// To a matrix of floats.
    Floats(&'a [&'a [f32]]),
    /// Arranged for a matrix of integers.
    Integers(&'a [Input<'a>]),
}

/// All rows of a tile for many tokens. `y` holds the rows of a token behind those of the one
/// before.
///
/// # Errors
/// [`Error::Internal`] if the tile or an input is shorter than the record says.
pub fn tile_rows_of_many(
    kernel: impl Kernel,
    record: &Record,
    (tile, rows): (&[u32], usize),
    inputs: Inputs<'_>,
    y: &mut [f32],
) -> Result<(), Error> {
    let lines = lines(record, (tile, 0, rows))?;
    let needed = rows.next_multiple_of(record.format.interleaved()) * record.line_words();
    if lines.words.len() < needed {
        return Err(Error::Internal);
    }
    match inputs {
        Inputs::Integers(inputs) if record.format.is_integer() => {
            let groups = (record.cols as usize).div_ceil(GROUP);
            let fit = inputs.iter().all(|x| x.arranged.groups == groups);
            if !fit || y.len() != rows * inputs.len() {
                return Err(Error::Internal);
            }
            kernel.rows_of_many(record.format, lines, inputs, y);
        }
        Inputs::Integers(_) => return Err(Error::Internal),
        Inputs::Floats(inputs) => {
            for (x, y) in inputs.iter().zip(y.chunks_exact_mut(rows.max(1))) {
                float_rows(kernel, record, lines.words, x, y)?;
            }
        }
    }
    Ok(())
}

fn position<T>(values: &[T], first: usize, is_live: impl Fn(&T) -> bool) -> Option<usize> {
    let found = values.get(first..)?.iter().position(is_live)?;
    Some(first + found)
}
