//! The sequence executor on the CPU: every record is looked up once and applied to all
//! tokens.
//!
//! It gives the bits of the step executor for every format and every split of a prompt: products
//! and element-wise operations run token-parallel over the same functions, recurrences token by
//! token.

use rayon::prelude::*;
use rwkv_core::{
    Digest, Error, Image, ImageError, Logits, StateView,
    exec::{
        Bump, Carry, Executor, Input, Lane, Output, Shifted, Span, TILE_ROWS, Wkv5, Wkv7, finite,
        record::{columns_room, deep_table, product_room},
    },
    image::{Dims, Id, MathMode, RECORD_WORDS, Record, SectionKind, Shape},
    kernel::Kernel,
    op::{self, Activation},
};

use super::Watch;

/// A run of tokens, each with a scratch of its own.
pub(super) struct Sequence<'a, K, L, W> {
    kernel: K,
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

impl<'a, K: Kernel, L: Logits + Send, W: Watch> Sequence<'a, K, L, W> {
    /// The caller has checked the tokens and the size of the state.
    pub(super) fn new(
        kernel: K,
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
        Self { kernel, image, at, state, layer, tokens, scratch, bump, logits, digests, watch }
    }

    fn show(&mut self, id: Id, input: Span) -> Result<(), Error> {
        if !W::WANTED {
            return Ok(());
        }
        let layer = (id != Id::Head).then_some(self.layer as u32);
        let lanes = self.scratch.chunks_exact(stride(self.image));
        let inputs: Option<Vec<_>> = lanes.map(|scratch| scratch.get(input.range())).collect();
        self.watch.inputs(layer, id, &inputs.ok_or(Error::Internal)?);
        Ok(())
    }

    /// One scratch per token, in parallel.
    fn lanes(&mut self) -> impl IndexedParallelIterator<Item = Lane<'_>> {
        self.scratch.par_chunks_exact_mut(stride(self.image)).map(Lane)
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
        self.lanes().zip(tokens).try_for_each(|(mut lane, token)| {
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

    /// A copy of a vector of all tokens, led by the same vector of the token before them.
    fn with_previous(&self, x: Span, previous: Carry) -> Result<Vec<f32>, Error> {
        let mut all = Vec::with_capacity(x.len() * (self.tokens.len() + 1));
        let [shift, _] = self.state.layer(&self.image.header().dims, self.layer);
        all.extend_from_slice(carried(shift, previous));
        for scratch in self.scratch.chunks_exact(stride(self.image)) {
            all.extend_from_slice(scratch.get(x.range()).ok_or(Error::Internal)?);
        }
        Ok(all)
    }

    /// Adds part of a layer's state, as it is after a token, to that token's digest.
    fn digest(&mut self, token: usize, first: usize, values: &[f32]) -> Result<(), Error> {
        let at = token * self.image.header().dims.layers as usize + self.layer;
        match self.digests.as_mut().and_then(|d| d.get_mut(at)) {
            Some(digest) => digest.add(first as u32, values),
            None => Ok(()),
        }
    }

    /// Runs a recurrence token by token and digests the state after each.
    fn recurrence(
        &mut self,
        step: impl Fn(&mut Lane<'_>, &mut [f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let dims = self.image.header().dims;
        let [shift, recurrent] = self.state.layer_mut(&dims, self.layer);
        let lanes = self.scratch.chunks_exact_mut(stride(self.image)).enumerate();
        for (token, scratch) in lanes {
            step(&mut Lane(scratch), recurrent)?;
            let at = token * dims.layers as usize + self.layer;
            if let Some(digest) = self.digests.as_mut().and_then(|d| d.get_mut(at)) {
                digest.add(shift.len() as u32, recurrent)?;
            }
        }
        Ok(())
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

/// The product of a row-major matrix with the vector in `input`; `visit` gets runs of rows.
fn rows(
    kernel: impl Kernel,
    lane: &mut Lane<'_>,
    (record, payload): (&Record, &[u32]),
    input: Span,
    mut visit: impl FnMut(&mut Lane<'_>, usize, &mut [f32]) -> Result<(), Error>,
) -> Result<(), Error> {
    let arranged = lane.arrange(kernel, record, input, record.cols as usize)?;
    for (tile, (start, rows)) in tiles(record, payload) {
        for first in (0..rows).step_by(TILE_ROWS) {
            let mut y = [0.0; TILE_ROWS];
            let (y, _) = y.split_at_mut(TILE_ROWS.min(rows - first));
            lane.rows(kernel, record, (tile, first, rows), (input, arranged), y)?;
            visit(lane, start + first, y)?;
        }
    }
    Ok(())
}

/// `out = f(W·x)` with the vector in `input`.
fn set_rows(
    kernel: impl Kernel,
    lane: &mut Lane<'_>,
    (record, payload): (&Record, &[u32]),
    input: Span,
    out: Span,
    (f, math): (Activation, MathMode),
) -> Result<(), Error> {
    let arranged = lane.arrange(kernel, record, input, record.cols as usize)?;
    for (tile, (start, rows)) in tiles(record, payload) {
        lane.tile(kernel, record, tile, (input, arranged), out.part(start, rows))?;
    }
    lane.apply(f, math, out)
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

impl<K: Kernel, L: Logits + Send, W: Watch> Executor for Sequence<'_, K, L, W> {
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
        self.lanes().try_for_each(|mut lane| {
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
        let all = self.with_previous(s.x, s.previous)?;
        let pairs =
            all.par_chunks_exact(s.x.len()).zip(all[s.x.len()..].par_chunks_exact(s.x.len()));
        self.lanes().zip(pairs).try_for_each(|(mut lane, (previous, x))| {
            op::shift(s.kind, x, previous, &mix, lane.get_mut(out)?);
            Ok(())
        })
    }

    fn shift_by(&mut self, weights: Span, x: Span, previous: Carry) -> Result<(), Error> {
        let all = self.with_previous(x, previous)?;
        let pairs = all.par_chunks_exact(x.len()).zip(all[x.len()..].par_chunks_exact(x.len()));
        self.lanes().zip(pairs).try_for_each(|(mut lane, (previous, x))| {
            op::shift_in_place(x, previous, lane.get_mut(weights)?);
            Ok(())
        })
    }

    async fn vector(&mut self, id: Id, out: Span) -> Result<(), Error> {
        let values = self.vectors(Shape::vectors(id, out.len() as u32, 1))?;
        self.lanes().try_for_each(|mut lane| {
            lane.get_mut(out)?.copy_from_slice(&values);
            Ok(())
        })
    }

    async fn product(&mut self, id: Id, x: Input, out: Output) -> Result<(), Error> {
        let input = self.room(product_room(x.len()));
        let filled = input.part(0, x.len());
        match x {
            Input::Plain(x) => self.lanes().try_for_each(|mut lane| lane.copy(x, filled))?,
            Input::Shifted(s) => self.shift(s, filled).await?,
        }
        self.show(id, filled)?;
        let shape = Shape::matrix(id, out.len() as u32, x.len() as u32);
        let (record, payload) = self.record(shape)?;
        let (kernel, math) = (self.kernel, self.image.header().math);
        self.lanes().try_for_each(|mut lane| {
            let matrix = (&record, payload);
            match out {
                Output::Set(y, f) => set_rows(kernel, &mut lane, matrix, input, y, (f, math)),
                Output::Add(y) => rows(kernel, &mut lane, matrix, input, |lane, first, rows| {
                    lane.add(y, first, rows)
                }),
            }
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
        let kernel = self.kernel;
        self.lanes().try_for_each(|mut lane| {
            let scale = lane.open_columns(&record, k, acc)?;
            let mut at = 0;
            while let Some(index) = lane.next_live(&record, k, at)? {
                let column = columns.get(index * column + 1..(index + 1) * column);
                lane.column(kernel, &record, column.ok_or(Error::Internal)?, (k, index), acc)?;
                at = index + 1;
            }
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
        self.lanes().try_for_each(|mut lane| {
            let x = lane.get_mut(x)?;
            op::add(x, &bias);
            f.apply(math, x);
            Ok(())
        })
    }

    fn copy(&mut self, x: Span, out: Span) -> Result<(), Error> {
        self.lanes().try_for_each(|mut lane| lane.copy(x, out))
    }

    fn product_by(&mut self, x: Span, matrix: Span, out: Span) -> Result<(), Error> {
        self.lanes().try_for_each(|mut lane| lane.product_by(x, matrix, out))
    }

    fn multiply(&mut self, x: Span, gate: Span) -> Result<(), Error> {
        self.lanes().try_for_each(|mut lane| lane.multiply(x, gate))
    }

    fn lerp(&mut self, x: Span, target: Span, weight: Span) -> Result<(), Error> {
        self.lanes().try_for_each(|mut lane| lane.lerp(x, target, weight))
    }

    fn keep(&mut self, x: Span, previous: Carry) -> Result<(), Error> {
        let first = match previous {
            Carry::Att => 0,
            Carry::Ffn => x.len(),
        };
        let all = self.with_previous(x, previous)?;
        for (token, values) in all.chunks_exact(x.len()).skip(1).enumerate() {
            self.digest(token, first, values)?;
        }
        let last = all.get(all.len() - x.len()..).ok_or(Error::Internal)?;
        let dims = self.dims();
        let [shift, _] = self.state.layer_mut(&dims, self.layer);
        let row = shift.get_mut(first..first + x.len()).ok_or(Error::Internal)?;
        row.copy_from_slice(last);
        Ok(())
    }

    async fn wkv4(&mut self, k: Span, v: Span, r: Span) -> Result<(), Error> {
        let params = self.vectors(Shape::vectors(Id::AttWkv4, k.len() as u32, 2))?;
        self.recurrence(|lane, recurrent| lane.wkv4(&params, 0, [k, v, r], recurrent))
    }

    async fn wkv5(&mut self, vectors: Wkv5) -> Result<(), Error> {
        let dims = self.dims();
        let n = dims.head_size as usize;
        let room = self.room(dims.head_size);
        let shape = Shape::heads(Id::AttWkv5, vectors.r.len() as u32, 3, dims.head_size);
        let params = self.vectors(shape)?;
        let kernel = self.kernel;
        self.recurrence(|lane, recurrent| {
            for (head, params) in params.chunks_exact(3 * n).enumerate() {
                let head = (head * n, params);
                lane.wkv5(kernel, head, vectors, room, dims.group_norm_eps, recurrent)?;
            }
            Ok(())
        })
    }

    async fn wkv7(&mut self, vectors: Wkv7) -> Result<(), Error> {
        let dims = self.dims();
        let n = dims.head_size as usize;
        let room = self.room(2 * dims.head_size);
        let room = [room.part(0, n), room.part(n, n)];
        let shape = Shape::heads(Id::AttWkv7, vectors.r.len() as u32, 5, dims.head_size);
        let params = self.vectors(shape)?;
        let kernel = self.kernel;
        self.recurrence(|lane, recurrent| {
            for (head, params) in params.chunks_exact(5 * n).enumerate() {
                let first = head * n;
                let epsilon = dims.group_norm_eps;
                lane.wkv7(kernel, (first, params), vectors, room, epsilon, recurrent)?;
            }
            Ok(())
        })
    }

    async fn head(&mut self, x: Span) -> Result<(), Error> {
        let skip = self.tokens.len() - self.logits.len().min(self.tokens.len());
        // As in a step whose logits nobody wants.
        if !(L::WANTED || L::HIDDEN || W::WANTED) || skip == self.tokens.len() {
            return self.lanes().try_for_each(|lane| finite(lane.get(x)?));
        }
        self.lanes().take(skip).try_for_each(|lane| finite(lane.get(x)?))?;
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
        self.lanes().try_for_each(|mut lane| lane.copy(x, input.part(0, x.len())))?;
        let vocab = self.dims().vocab;
        let shape = Shape::matrix(Id::Head, vocab, x.len() as u32);
        let (record, payload) = self.record(shape)?;
        let (kernel, stride) = (self.kernel, stride(self.image));
        let lanes = self.scratch.par_chunks_exact_mut(stride).skip(skip).map(Lane);
        lanes.zip(&mut *self.logits).try_for_each(|(mut lane, sink)| {
            rows(kernel, &mut lane, (&record, payload), input, |_, first, y| {
                finite(y)?;
                sink.push(first as u32, y);
                Ok(())
            })
        })
    }
}
