//! The sequence executor on the CPU: every record is looked up once and applied to all
//! tokens.
//!
//! With the arithmetic [`Exact`] it gives the bits of the step executor for every format, every
//! split of a prompt and any number of threads: the same functions compute the same values, in
//! another order. With [`Fast`] it does not.
//!
//! Element-wise operations run token by token; products and recurrences, over all tokens, are the
//! arithmetic's.

mod arithmetic;
mod exact;
mod fast;
mod lanes;
mod recurrence;

use rayon::prelude::*;
use rwkv_core::{
    Digest, Error, Image, ImageError, Logits, StateView,
    exec::{
        Bump, Carry, Executor, Input, Lane, Output, Shifted, Span, Wkv5, Wkv7, finite,
        record::{columns_room, deep_table, product_room},
    },
    image::{Dims, Id, RECORD_WORDS, Record, SectionKind, Shape},
    op::{self, Activation},
};

use self::{arithmetic::Matrix, lanes::Lanes, recurrence::Parts};
use super::Watch;

pub(super) use self::{arithmetic::Arithmetic, exact::Exact, fast::Fast};

/// Tokens whose shift is a task.
const RUN: usize = 16;
/// Channels of version 4 that are a part of its recurrence.
const CHANNELS: usize = 32;

/// A run of tokens, each with a scratch of its own.
pub(super) struct Sequence<'a, A, L, W> {
    arithmetic: A,
    image: &'a Image<'a>,
    /// The next word of the image.
    at: usize,
    state: StateView<'a>,
    layer: usize,
    tokens: &'a [u32],
    scratch: Vec<f32>,
    bump: Bump,
    /// Sinks of the last tokens.
    logits: &'a mut [L],
    /// Digests of the state after every token, layer by layer.
    digests: Option<&'a mut [Digest]>,
    watch: &'a mut W,
}

impl<'a, A: Arithmetic, L: Logits + Send, W: Watch> Sequence<'a, A, L, W> {
    /// The caller has checked the tokens and the size of the state.
    pub(super) fn new(
        arithmetic: A,
        image: &'a Image<'a>,
        state: StateView<'a>,
        tokens: &'a [u32],
        logits: &'a mut [L],
        digests: Option<&'a mut [Digest]>,
        watch: &'a mut W,
    ) -> Self {
        let scratch = vec![0.0; image.header().scratch_words as usize * tokens.len()];
        let bump = Bump::default();
        let (at, layer) = (0, 0);
        Self { arithmetic, image, at, state, layer, tokens, scratch, bump, logits, digests, watch }
    }

    fn show(&mut self, id: Id, input: Span) -> Result<(), Error> {
        if !W::WANTED {
            return Ok(());
        }
        let layer = (id != Id::Head).then_some(self.layer as u32);
        let lanes = Lanes::new(&mut self.scratch, stride(self.image));
        self.watch.inputs(layer, id, &lanes.vectors(input)?);
        Ok(())
    }

    fn lanes(&mut self) -> Lanes<'_> {
        Lanes::new(&mut self.scratch, stride(self.image))
    }

    fn section(&mut self, kind: SectionKind, index: usize) -> Result<(), Error> {
        let section = self.image.sections().filter(|s| s.kind == kind).nth(index);
        self.at = section.ok_or(Error::Internal)?.offset as usize / 4;
        Ok(())
    }

    fn record(&mut self, shape: Shape) -> Result<(Record, &'a [u32]), Error> {
        let wrong = ImageError::Record {
            offset: (self.at as u32).wrapping_mul(4),
            expected: shape.id as u8,
        };
        let words = self.image.words().get(self.at..).ok_or(wrong)?;
        let (head, rest) = words.split_first_chunk::<RECORD_WORDS>().ok_or(wrong)?;
        let record = Record::parse(head, &shape).ok_or(wrong)?;
        let payload = rest.get(..record.payload_words()).ok_or(wrong)?;
        self.at += RECORD_WORDS + payload.len();
        Ok((record, payload))
    }

    /// The rows of a table that the tokens ask for, as floats.
    fn table_rows(
        &mut self,
        shape: Shape,
        out: Span,
        row: impl Fn(u32) -> usize + Sync,
    ) -> Result<(), Error> {
        let (record, payload) = self.record(shape)?;
        let words = record.tile_words(1);
        let tokens = self.tokens;
        self.lanes().parallel().zip(tokens).try_for_each(|(mut lane, token)| {
            let at = row(*token) * words;
            let row = payload.get(at + 1..at + words).ok_or(Error::Internal)?;
            op::dequantise(&record, row, lane.get_mut(out)?);
            Ok(())
        })
    }

    /// The values of a group of vectors, without the checksums of their blocks.
    fn vectors(&mut self, shape: Shape) -> Result<Vec<f32>, Error> {
        let (record, payload) = self.record(shape)?;
        let mut values = Vec::with_capacity(payload.len());
        for (tile, _) in tiles(&record, payload) {
            values.extend_from_slice(bytemuck::cast_slice(tile));
        }
        Ok(values)
    }

    /// Shows `run` every token's scratch, and a vector of the token before it.
    fn with_previous(
        &mut self,
        x: Span,
        previous: Carry,
        run: impl Fn(&[f32], Lane<'_>) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let stride = stride(self.image);
        let [shift, _] = self.state.layer(&self.image.header().dims, self.layer);
        // What the first token of each run goes on from.
        let lasts = self.scratch.chunks_exact(stride * RUN);
        let mut before = vec![carried(shift, previous).to_vec()];
        for lanes in lasts {
            let last = lanes.get((RUN - 1) * stride..).and_then(|lane| lane.get(x.range()));
            before.push(last.ok_or(Error::Internal)?.to_vec());
        }
        let runs = self.scratch.par_chunks_mut(stride * RUN).zip(before);
        runs.try_for_each(|(lanes, mut before)| {
            for scratch in lanes.chunks_exact_mut(stride) {
                run(&before, Lane(scratch))?;
                before.copy_from_slice(scratch.get(x.range()).ok_or(Error::Internal)?);
            }
            Ok(())
        })
    }

    fn room(&mut self, words: u32) -> Span {
        let span = self.bump.take(words);
        self.bump.release(span);
        span
    }
}

fn stride(image: &Image<'_>) -> usize {
    image.header().scratch_words as usize
}

fn carried(shift: &[f32], previous: Carry) -> &[f32] {
    let (att, ffn) = shift.split_at(shift.len() / 2);
    match previous {
        Carry::Att => att,
        Carry::Ffn => ffn,
    }
}

/// The tiles of a row-major record: words without checksum, first row and rows.
fn tiles<'a>(
    record: &Record,
    payload: &'a [u32],
) -> impl Iterator<Item = (&'a [u32], (usize, usize))> {
    let record = *record;
    record.tiles().scan(payload, move |rest, (first, rows)| {
        let (tile, after) = rest.split_at_checked(record.tile_words(rows))?;
        *rest = after;
        Some((tile.get(1..)?, (first, rows)))
    })
}

impl<A: Arithmetic, L: Logits + Send, W: Watch> Executor for Sequence<'_, A, L, W> {
    type Error = Error;

    fn dims(&self) -> Dims {
        self.image.header().dims
    }

    fn take(&mut self, len: u32) -> Span {
        self.bump.take(len)
    }

    fn release(&mut self, span: Span) {
        self.bump.release(span);
    }

    async fn embed(&mut self, out: Span) -> Result<(), Error> {
        self.section(SectionKind::Embedding, 0)?;
        let shape = Shape::table(Id::Embedding, self.dims().vocab, out.len() as u32);
        self.table_rows(shape, out, |token| token as usize)
    }

    async fn deep_row(&mut self, out: Span) -> Result<(), Error> {
        let (place, layer, dims) = (self.at, self.layer, self.dims());
        self.section(SectionKind::DeepEmbed, 0)?;
        self.table_rows(deep_table(&dims), out, |token| {
            token as usize * dims.layers as usize + layer
        })?;
        self.at = place;
        Ok(())
    }

    async fn layer(&mut self, layer: u32) -> Result<(), Error> {
        self.layer = layer as usize;
        self.section(SectionKind::Layer, self.layer)
    }

    async fn layer_norm(&mut self, id: Id, x: Span, out: Span) -> Result<(), Error> {
        let params = self.vectors(Shape::vectors(id, x.len() as u32, 2))?;
        let eps = self.dims().layer_norm_eps;
        self.lanes().parallel().try_for_each(|mut lane| {
            if x != out {
                lane.copy(x, out)?;
            }
            let out = lane.get_mut(out)?;
            op::normalise_in_place(out, op::moments(out, eps), &params);
            Ok(())
        })
    }

    async fn shift(&mut self, s: Shifted, out: Span) -> Result<(), Error> {
        let mix = self.vectors(Shape::vectors(s.id, s.x.len() as u32, 1))?;
        self.with_previous(s.x, s.previous, |previous, mut lane| {
            let [x, out] = lane.split([s.x, out])?;
            op::shift(s.kind, x, previous, &mix, out);
            Ok(())
        })
    }

    fn shift_by(&mut self, weights: Span, x: Span, previous: Carry) -> Result<(), Error> {
        self.with_previous(x, previous, |previous, mut lane| {
            let [x, weights] = lane.split([x, weights])?;
            op::shift_in_place(x, previous, weights);
            Ok(())
        })
    }

    async fn vector(&mut self, id: Id, out: Span) -> Result<(), Error> {
        let values = self.vectors(Shape::vectors(id, out.len() as u32, 1))?;
        self.lanes().parallel().try_for_each(|mut lane| {
            lane.get_mut(out)?.copy_from_slice(&values);
            Ok(())
        })
    }

    async fn product(&mut self, id: Id, x: Input, out: Output) -> Result<(), Error> {
        let input = self.room(product_room(x.len()));
        let filled = input.part(0, x.len());
        match x {
            Input::Plain(x) => {
                self.lanes().parallel().try_for_each(|mut lane| lane.copy(x, filled))?
            }
            Input::Shifted(s) => self.shift(s, filled).await?,
        }
        self.show(id, filled)?;
        let shape = Shape::matrix(id, out.len() as u32, x.len() as u32);
        let (record, payload) = self.record(shape)?;
        let math = self.image.header().math;
        let matrix = Matrix { record: &record, words: payload };
        let mut tokens = vec![(); self.tokens.len()];
        let (arithmetic, lanes) = (self.arithmetic, self.lanes());
        arithmetic.rows(matrix, input, lanes, &mut tokens, |lane, (), first, rows| match out {
            Output::Set(y, f) => {
                let y = y.part(first, rows.len());
                lane.get_mut(y)?.copy_from_slice(rows);
                lane.apply(f, math, y)
            }
            Output::Add(y) => lane.add(y, first, rows),
        })
    }

    async fn sparse_product(
        &mut self,
        id: Id,
        k: Span,
        gate: Option<Span>,
        x: Span,
    ) -> Result<(), Error> {
        self.show(id, k)?;
        let acc = self.room(columns_room(x.len()));
        let (record, payload) = self.record(Shape::columns(id, x.len() as u32, k.len() as u32))?;
        let column = 1 + record.line_words();
        let (columns, scales) =
            payload.split_at_checked(column * k.len()).ok_or(Error::Internal)?;
        let mut lanes = self.lanes();
        let input = lanes.parallel().map(|mut lane| lane.open_columns(&record, k, acc));
        let input = input.collect::<Result<Vec<_>, Error>>()?;
        let matrix = Matrix { record: &record, words: columns };
        self.arithmetic.columns(matrix, (k, acc), self.lanes())?;
        self.lanes().parallel().zip(input).try_for_each(|(mut lane, scale)| {
            if record.scale_words() > 0 {
                let mut rest = scales;
                for (first, rows) in record.tiles() {
                    let (tile, after) = rest.split_at_checked(1 + rows).ok_or(Error::Internal)?;
                    let scales = bytemuck::cast_slice(&tile[1..]);
                    lane.rescale(&record, acc, first, scales, scale)?;
                    rest = after;
                }
            }
            lane.add_gated(acc.part(0, x.len()), gate, x)
        })
    }

    async fn bias(&mut self, id: Id, x: Span, f: Activation) -> Result<(), Error> {
        let bias = self.vectors(Shape::vectors(id, x.len() as u32, 1))?;
        let math = self.image.header().math;
        self.lanes().parallel().try_for_each(|mut lane| {
            let x = lane.get_mut(x)?;
            op::add(x, &bias);
            f.apply(math, x);
            Ok(())
        })
    }

    fn copy(&mut self, x: Span, out: Span) -> Result<(), Error> {
        self.lanes().parallel().try_for_each(|mut lane| lane.copy(x, out))
    }

    fn product_by(&mut self, x: Span, matrix: Span, out: Span) -> Result<(), Error> {
        self.lanes().parallel().try_for_each(|mut lane| lane.product_by(x, matrix, out))
    }

    fn multiply(&mut self, x: Span, gate: Span) -> Result<(), Error> {
        self.lanes().parallel().try_for_each(|mut lane| lane.multiply(x, gate))
    }

    fn lerp(&mut self, x: Span, target: Span, weight: Span) -> Result<(), Error> {
        self.lanes().parallel().try_for_each(|mut lane| lane.lerp(x, target, weight))
    }

    fn keep(&mut self, x: Span, previous: Carry) -> Result<(), Error> {
        let first = match previous {
            Carry::Att => 0,
            Carry::Ffn => x.len(),
        };
        let (dims, stride) = (self.dims(), stride(self.image));
        let lanes = self.scratch.par_chunks_exact(stride);
        if let Some(digests) = self.digests.as_deref_mut() {
            let digests = digests.par_chunks_exact_mut(dims.layers as usize).zip(lanes);
            digests.try_for_each(|(digests, lane)| {
                let digest = digests.get_mut(self.layer).ok_or(Error::Internal)?;
                digest.add(first as u32, lane.get(x.range()).ok_or(Error::Internal)?)
            })?;
        }
        let last = self.scratch.chunks_exact(stride).last().and_then(|lane| lane.get(x.range()));
        let [shift, _] = self.state.layer_mut(&dims, self.layer);
        let row = shift.get_mut(first..first + x.len()).ok_or(Error::Internal)?;
        row.copy_from_slice(last.ok_or(Error::Internal)?);
        Ok(())
    }

    async fn wkv4(&mut self, k: Span, v: Span, r: Span) -> Result<(), Error> {
        let params = self.vectors(Shape::vectors(Id::AttWkv4, k.len() as u32, 2))?;
        let parts = Parts { width: CHANNELS, rows: 3, chunk: 1 };
        self.recurrence(r, [k, v], parts, |first, [r, k, v], state| {
            let [a, b, p] = state else { return Err(Error::Internal) };
            op::wkv4(&params[2 * first..], k, v, r, [a, b, p]);
            Ok(())
        })
    }

    async fn wkv5(&mut self, vectors: Wkv5) -> Result<(), Error> {
        let dims = self.dims();
        let shape = Shape::heads(Id::AttWkv5, vectors.r.len() as u32, 3, dims.head_size);
        let params = self.vectors(shape)?;
        let (arithmetic, n) = (self.arithmetic, dims.head_size as usize);
        let parts = Parts { width: n, rows: 1, chunk: A::CHUNK };
        let Wkv5 { r, w, k, v } = vectors;
        self.recurrence(r, [w, k, v], parts, |first, vectors, state| {
            let [state] = state else { return Err(Error::Internal) };
            let params = &params[3 * first..][..3 * n];
            arithmetic.wkv5(params, dims.group_norm_eps, vectors, state)
        })
    }

    async fn wkv7(&mut self, vectors: Wkv7) -> Result<(), Error> {
        let dims = self.dims();
        let shape = Shape::heads(Id::AttWkv7, vectors.r.len() as u32, 5, dims.head_size);
        let params = self.vectors(shape)?;
        let (arithmetic, n) = (self.arithmetic, dims.head_size as usize);
        let parts = Parts { width: n, rows: 1, chunk: A::CHUNK };
        let Wkv7 { r, w, k, v, a, g } = vectors;
        self.recurrence(r, [w, k, v, a, g], parts, |first, vectors, state| {
            let [state] = state else { return Err(Error::Internal) };
            let params = &params[5 * first..][..5 * n];
            arithmetic.wkv7(params, dims.group_norm_eps, vectors, state)
        })
    }

    async fn head(&mut self, x: Span) -> Result<(), Error> {
        let skip = self.tokens.len() - self.logits.len().min(self.tokens.len());
        // As in a step whose logits nobody wants.
        if !(L::WANTED || L::HIDDEN || W::WANTED) || skip == self.tokens.len() {
            return self.lanes().parallel().try_for_each(|lane| finite(lane.get(x)?));
        }
        self.lanes().parallel().take(skip).try_for_each(|lane| finite(lane.get(x)?))?;
        self.section(SectionKind::Head, 0)?;
        self.layer_norm(Id::LnOut, x, x).await?;
        self.show(Id::Head, x)?;
        if L::HIDDEN {
            let lanes = self.scratch.chunks_exact(stride(self.image)).skip(skip);
            for (scratch, sink) in lanes.zip(&mut *self.logits) {
                let x = scratch.get(x.range()).ok_or(Error::Internal)?;
                finite(x)?;
                sink.hidden(x);
            }
        }
        if !L::WANTED {
            return Ok(());
        }
        let input = self.room(product_room(x.len()));
        self.lanes().parallel().try_for_each(|mut lane| lane.copy(x, input.part(0, x.len())))?;
        let vocab = self.dims().vocab;
        let shape = Shape::matrix(Id::Head, vocab, x.len() as u32);
        let (record, payload) = self.record(shape)?;
        let matrix = Matrix { record: &record, words: payload };
        let (arithmetic, sinks) = (self.arithmetic, core::mem::take(&mut self.logits));
        arithmetic.rows(matrix, input, self.lanes(), sinks, |_, sink, first, y| {
            finite(y)?;
            sink.push(first as u32, y);
            Ok(())
        })
    }
}
