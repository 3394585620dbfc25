//! The operations of one token's scratch, shared by the step and the sequence executor.

use super::{Output, Span, Wkv7};
use crate::{
    error::Error,
    image::{Format, Record},
    kernel::Kernel,
    op::{self, Head7},
};

/// Rows of a product that are computed at once, at most.
pub const TILE_ROWS: usize = 32;

/// The scratch of one token.
#[derive(Debug)]
pub struct Lane<'a>(pub &'a mut [f32]);

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

    /// `out = x`.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn copy(&mut self, x: Span, out: Span) -> Result<(), Error> {
        let [x, out] = self.split([x, out])?;
        out.iter_mut().zip(x).for_each(|(y, x)| *y = *x);
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

    /// Quantises the `len` values in `input` for a record, if its format asks for it. Returns the
    /// scale.
    ///
    /// # Errors
    /// As [`op::quantise`].
    pub fn quantise(&mut self, record: &Record, input: Span, len: usize) -> Result<f32, Error> {
        match record.format {
            Format::F32 => Ok(1.0),
            Format::Int8 => op::quantise(self.get_mut(input)?, len, record.bits),
        }
    }

    /// Up to [`TILE_ROWS`] rows of a product: `y` from row `first` of a tile of `rows` rows on.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub fn rows(
        &self,
        kernel: impl Kernel,
        record: &Record,
        tile: &[u32],
        (first, rows): (usize, usize),
        (input, scale): (Span, f32),
        y: &mut [f32],
    ) -> Result<(), Error> {
        let line = record.line_words();
        let scales = rows * record.scale_words();
        let (scales, weights) = tile.split_at_checked(scales).ok_or(Error::Internal)?;
        let weights = weights.get(first * line..).ok_or(Error::Internal)?;
        let x = self.get(input)?;
        match record.format {
            Format::F32 => {
                let x = x.get(..record.cols as usize).ok_or(Error::Internal)?;
                kernel.rows_f32(bytemuck::cast_slice(weights), x, y);
            }
            Format::Int8 => {
                let x: &[i16] = bytemuck::cast_slice(x);
                let x = x.get(..record.padded_cols()).ok_or(Error::Internal)?;
                let scales = scales.get(first..).ok_or(Error::Internal)?;
                kernel.rows_i8(
                    bytemuck::cast_slice(weights),
                    bytemuck::cast_slice(scales),
                    x,
                    scale,
                    y,
                );
            }
        }
        Ok(())
    }

    /// Stores rows of a product, from row `first` of the output on.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub fn store(&mut self, out: Output, first: usize, rows: &mut [f32]) -> Result<(), Error> {
        match out {
            Output::Set(y, f) => {
                f.apply(rows);
                let y = self.get_mut(y.part(first, rows.len()))?;
                y.iter_mut().zip(rows).for_each(|(y, r)| *y = *r);
            }
            Output::Add(y) => op::add(self.get_mut(y.part(first, rows.len()))?, rows),
        }
        Ok(())
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
        match record.format {
            Format::F32 => {
                let x = k.get(index).ok_or(Error::Internal)?;
                kernel.column_f32(bytemuck::cast_slice(column), *x, acc);
            }
            Format::Int8 => {
                let x = bytemuck::cast_slice::<_, i16>(k).get(index).ok_or(Error::Internal)?;
                kernel.column_i8(bytemuck::cast_slice(column), *x, bytemuck::cast_slice_mut(acc));
            }
        }
        Ok(())
    }

    /// Whether input `index` of a sparse product is alive.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub fn is_live(&self, record: &Record, k: Span, index: usize) -> Result<bool, Error> {
        let k = self.get(k)?;
        match record.format {
            Format::F32 => k.get(index).map(|k| *k != 0.0),
            Format::Int8 => bytemuck::cast_slice::<_, i16>(k).get(index).map(|k| *k != 0),
        }
        .ok_or(Error::Internal)
    }

    /// Turns integer sums into floats, from row `first` on: `acc·(k_scale·scale)`.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub fn rescale(
        &mut self,
        acc: Span,
        first: usize,
        scales: &[f32],
        k_scale: f32,
    ) -> Result<(), Error> {
        let acc = self.get_mut(acc.part(first, scales.len()))?;
        for (a, s) in acc.iter_mut().zip(scales) {
            *a = a.to_bits() as i32 as f32 * (k_scale * s);
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

    /// Version 7's recurrence for the head that starts at channel `first`; `room` is two vectors
    /// of head size.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub fn wkv7(
        &mut self,
        params: &[f32],
        first: usize,
        vectors: Wkv7,
        room: [Span; 2],
        epsilon: f32,
        recurrent: &mut [f32],
    ) -> Result<(), Error> {
        let n = params.len() / 5;
        let Wkv7 { r, w, k, v, a, g } = vectors;
        let [r, w, k, v, a, g] = [r, w, k, v, a, g].map(|s| s.part(first, n));
        let [kk, sa] = room;
        let [r, w, k, v, a, g, kk, sa] = self.split([r, w, k, v, a, g, kk, sa])?;
        let state = recurrent.get_mut(first * n..(first + n) * n).ok_or(Error::Internal)?;
        op::wkv7(params, epsilon, Head7 { r, w, k, v, a, g, kk, sa }, state);
        Ok(())
    }
}
