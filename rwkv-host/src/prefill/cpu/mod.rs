//! The sequence executor on the CPU: every record is looked up once and applied to all
//! tokens.
//!
//! It gives the bits of the step executor for every format, every split of a prompt and any number
//! of threads: the same functions compute the same values, in another order. Products run tile by
//! tile, each over all tokens while it lies in the cache; element-wise operations token by token;
//! recurrences head by head, each over the tokens as they come.

use std::iter;

use rayon::prelude::*;
use rwkv_core::{
    Digest, Error, Image, ImageError, Logits, StateView,
    exec::{
        Bump, Carry, Executor, Input, Inputs, Lane, Output, Shifted, Span, Wkv5, Wkv7, finite,
        record::{columns_room, deep_table, product_room},
        tile_rows_of_many,
    },
    image::{Dims, GROUP, Id, RECORD_WORDS, Record, SectionKind, Shape},
    kernel::{self, Kernel},
    op::{self, Activation, Head5, Head7},
};

use super::{Watch, turn::turn};

/// Multiplications that are worth a task of their own.
const TASK: usize = 1 << 16;
/// Outputs that are computed before they go where they belong: bounds their room.
const BAND: usize = 1 << 20;
/// Tokens from which on tiles are joined, and rows that are joined then.
const JOIN: usize = 8;
const JOINED: usize = 32;
/// Tokens whose shift is a task.
const RUN: usize = 16;
/// Tokens that take the columns of a matrix together: their sums stay in the cache.
const TOGETHER: usize = 8;
/// Tokens from which on it pays to turn columns of integers to rows.
const TURN: usize = 16;
/// Words of columns from which on few tokens spread them over the threads.
const SPREAD: usize = 1 << 14;
/// Channels of version 4 that are a part of its recurrence.
const CHANNELS: usize = 32;

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

    /// Runs a recurrence, its parts in parallel and each token by token, and digests the state after
    /// every token.
    ///
    /// A part is `width` channels. It works on `M` vectors of that width: `output`, which it reads
    /// as well, the other `vectors`, then room. Its state is `rows` runs of values.
    fn recurrence<const N: usize, const M: usize>(
        &mut self,
        output: Span,
        vectors: [Span; N],
        (width, rows): (usize, usize),
        step: impl Fn(usize, [&mut [f32]; M], &mut [&mut [f32]]) + Sync,
    ) -> Result<(), Error> {
        let (dims, stride) = (self.image.header().dims, stride(self.image));
        let [shift, recurrent] = self.state.layer_mut(&dims, self.layer);
        let vectors = || iter::once(output).chain(vectors);
        let (channels, row) = (output.len(), recurrent.len() / rows);
        let per_channel = row / channels;
        let mut parts: Vec<Vec<&mut [f32]>> = Vec::new();
        parts.resize_with(channels.div_ceil(width), Vec::new);
        for values in recurrent.chunks_exact_mut(row) {
            let runs = values.chunks_mut(width * per_channel);
            parts.iter_mut().zip(runs).for_each(|(part, run)| part.push(run));
        }
        let (scratch, wanted) = (&self.scratch, self.digests.is_some());
        let run = |(part, mut state): (usize, Vec<&mut [f32]>)| {
            let first = part * width;
            let width = width.min(channels - first);
            let mut local = vec![0.0; M * width];
            let (mut outputs, mut digests) = (Vec::new(), Vec::new());
            for lane in scratch.chunks_exact(stride) {
                for (to, from) in local.chunks_exact_mut(width).zip(vectors()) {
                    let from = lane.get(from.part(first, width).range());
                    to.copy_from_slice(from.ok_or(Error::Internal)?);
                }
                let mut places = local.chunks_exact_mut(width);
                step(first, [(); M].map(|()| places.next().unwrap_or_default()), &mut state);
                outputs.extend_from_slice(&local[..width]);
                if wanted {
                    let mut digest = Digest::default();
                    for (index, values) in state.iter().enumerate() {
                        let place = shift.len() + index * row + first * per_channel;
                        digest.add(place as u32, values)?;
                    }
                    digests.push(digest);
                }
            }
            Ok((outputs, digests))
        };
        let done = parts.into_par_iter().enumerate().map(run).collect::<Result<Vec<_>, Error>>()?;
        self.lanes().enumerate().try_for_each(|(token, mut lane)| {
            let parts = lane.get_mut(output)?.chunks_mut(width).zip(&done);
            parts.for_each(|(to, (outputs, _))| {
                let width = to.len();
                to.copy_from_slice(&outputs[token * width..(token + 1) * width]);
            });
            Ok::<(), Error>(())
        })?;
        if let Some(all) = self.digests.as_deref_mut() {
            let layers = dims.layers as usize;
            for (_, digests) in &done {
                let of_layer = all.iter_mut().skip(self.layer).step_by(layers);
                of_layer.zip(digests).for_each(|(all, part)| all.merge(*part));
            }
        }
        Ok(())
    }

    /// The product of a row-major matrix with the vector in `input`, for the last tokens, as many
    /// as there are sinks: `visit` gets a token's outputs from a row on, in order.
    fn rows<S: Send>(
        &mut self,
        (record, payload): (&Record, &[u32]),
        input: Span,
        sinks: &mut [S],
        visit: impl Fn(&mut Lane<'_>, &mut S, usize, &[f32]) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let (kernel, stride) = (self.kernel, stride(self.image));
        let (tokens, cols) = (sinks.len(), record.cols as usize);
        let skip = (self.scratch.len() / stride).saturating_sub(tokens);
        let scratch = self.scratch.get_mut(skip * stride..).ok_or(Error::Internal)?;
        let arrange = |lane: &mut [f32]| Lane(lane).arrange(kernel, record, input, cols);
        let arranged = scratch.par_chunks_exact_mut(stride).map(arrange);
        let arranged = arranged.collect::<Result<Vec<_>, Error>>()?;

        let tiles: Vec<_> = tiles(record, payload).collect();
        let rows = usize::from(record.tile_rows).clamp(1, record.rows.max(1) as usize);
        // For many tokens it pays to lay several tiles together.
        let joins = tokens >= JOIN && rows.is_multiple_of(record.format.interleaved());
        let joined = if joins { JOINED.div_ceil(rows) } else { 1 };
        let most = tokens * rows * joined;
        let band = (BAND / most.max(1)).max(1);
        let task = (TASK / (most * cols).max(1)).max(1);
        let mut outputs = vec![0.0; most * band.min(tiles.len().div_ceil(joined))];
        for tiles in tiles.chunks(band * joined) {
            let rooms = scratch.chunks_exact(stride).map(|lane| lane.get(input.range()));
            let rooms = rooms.collect::<Option<Vec<_>>>().ok_or(Error::Internal)?;
            let integers = rooms.iter().zip(&arranged).filter_map(|(room, arranged)| {
                Some(kernel::Input { words: bytemuck::cast_slice(room), arranged: (*arranged)? })
            });
            let integers: Vec<_> = integers.collect();
            let inputs = match record.format.is_integer() {
                true => Inputs::Integers(&integers),
                false => Inputs::Floats(&rooms),
            };
            let tiles = outputs.par_chunks_mut(most).zip(tiles.par_chunks(joined));
            let done = tiles.with_min_len(task).map(|(outputs, tiles)| {
                let first = tiles.first().map_or(0, |(_, (first, _))| *first);
                let rows = tiles.iter().map(|(_, (_, rows))| rows).sum::<usize>();
                let outputs = outputs.get_mut(..rows * tokens).ok_or(Error::Internal)?;
                match tiles {
                    [(tile, _)] => {
                        tile_rows_of_many(kernel, record, (tile, rows), inputs, outputs)?
                    }
                    tiles => {
                        let tile = join(record, tiles, rows);
                        tile_rows_of_many(kernel, record, (&tile, rows), inputs, outputs)?;
                    }
                }
                Ok((first, rows, outputs))
            });
            let done = done.collect::<Result<Vec<_>, Error>>()?;
            let lanes = scratch.par_chunks_exact_mut(stride).zip(&mut *sinks).enumerate();
            lanes.try_for_each(|(token, (lane, sink))| {
                let mut lane = Lane(lane);
                done.iter().try_for_each(|(first, rows, outputs)| {
                    let y = outputs.get(token * rows..(token + 1) * rows);
                    visit(&mut lane, sink, *first, y.ok_or(Error::Internal)?)
                })
            })?;
        }
        Ok(())
    }

    /// `acc = W·k` with an input-major matrix, as it lies: column by column, each for the tokens
    /// whose input it is and is not zero.
    fn columns(
        &mut self,
        record: &Record,
        columns: &[u32],
        (k, acc): (Span, Span),
    ) -> Result<(), Error> {
        let (kernel, stride) = (self.kernel, stride(self.image));
        let lanes = self.scratch.par_chunks_mut(stride * TOGETHER);
        lanes.try_for_each(|lanes| {
            let mut lanes: Vec<_> = lanes.chunks_exact_mut(stride).map(|l| (Lane(l), 0)).collect();
            for (index, column) in columns.chunks_exact(1 + record.line_words()).enumerate() {
                for (lane, next) in &mut lanes {
                    if *next == index {
                        *next = lane.next_live(record, k, index)?.unwrap_or(usize::MAX);
                    }
                    if *next == index {
                        lane.column(kernel, record, &column[1..], (k, index), acc)?;
                        *next += 1;
                    }
                }
            }
            Ok(())
        })
    }

    /// The same for integers and few tokens: runs of columns are spread over the threads, and their
    /// sums added, in whatever order.
    fn runs(
        &mut self,
        record: &Record,
        columns: &[u32],
        (k, acc): (Span, Span),
    ) -> Result<(), Error> {
        let (kernel, column) = (self.kernel, 1 + record.line_words());
        let run = k.len().div_ceil(rayon::current_num_threads());
        let mut bump = Bump::default();
        let (inner, sums) = (bump.take(k.len() as u32), bump.take(acc.len() as u32));
        for scratch in self.scratch.chunks_exact_mut(stride(self.image)) {
            let input = scratch.get(k.range()).ok_or(Error::Internal)?;
            let parts = columns.par_chunks(column * run).enumerate().map(|(part, columns)| {
                let mut room = vec![0.0; bump.peak() as usize];
                let mut lane = Lane(&mut room);
                lane.get_mut(inner)?.copy_from_slice(input);
                let (mut at, end) = (part * run, part * run + columns.len() / column);
                while let Some(index) = lane.next_live(record, inner, at)?.filter(|i| *i < end) {
                    let line = columns[(index - part * run) * column..].get(1..column);
                    let line = line.ok_or(Error::Internal)?;
                    lane.column(kernel, record, line, (inner, index), sums)?;
                    at = index + 1;
                }
                Ok(room)
            });
            let parts = parts.collect::<Result<Vec<_>, Error>>()?;
            let mut lane = Lane(scratch);
            for mut part in parts {
                let part = Lane(&mut part);
                let part: &[i32] = bytemuck::cast_slice(part.get(sums)?);
                let all: &mut [i32] = bytemuck::cast_slice_mut(lane.get_mut(acc)?);
                all.iter_mut().zip(part).for_each(|(all, part)| *all = all.wrapping_add(*part));
            }
        }
        Ok(())
    }

    /// The same for integers, whose sums are the same in any order: columns are turned to rows, a
    /// group of outputs at a time, which then serve all tokens. Zeros are multiplied as well.
    fn turned(
        &mut self,
        record: &Record,
        columns: &[u32],
        (k, acc): (Span, Span),
    ) -> Result<(), Error> {
        let (kernel, stride) = (self.kernel, stride(self.image));
        let (rows, cols, tokens) = (record.rows as usize, record.cols as usize, self.tokens.len());
        let inputs = self.scratch.chunks_exact(stride).map(|lane| {
            let x: &[i16] = bytemuck::cast_slice(lane.get(k.range()).ok_or(Error::Internal)?);
            x.get(..cols).ok_or(Error::Internal)
        });
        let inputs = inputs.collect::<Result<Vec<_>, Error>>()?;
        let mut sums = vec![0i32; rows.next_multiple_of(GROUP) * tokens];
        sums.par_chunks_mut(GROUP * tokens).enumerate().try_for_each(|(group, sums)| {
            let turned = turn(record, columns, group);
            kernel.rows_i16(&turned, &inputs, sums);
            Ok::<(), Error>(())
        })?;
        self.lanes().enumerate().try_for_each(|(token, mut lane)| {
            let (acc, offsets) =
                lane.get_mut(acc)?.split_at_mut_checked(rows).ok_or(Error::Internal)?;
            offsets.fill(0.0);
            let groups = sums.chunks_exact(GROUP).skip(token).step_by(tokens);
            for (acc, sums) in acc.chunks_mut(GROUP).zip(groups) {
                acc.iter_mut().zip(sums).for_each(|(a, sum)| *a = f32::from_bits(*sum as u32));
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

/// Several tiles as one: their scales, then their lines.
fn join(record: &Record, tiles: &[(&[u32], (usize, usize))], rows: usize) -> Vec<u32> {
    let mut joined = Vec::with_capacity(record.tile_words(rows));
    let scales = |rows: usize| rows * record.scale_words();
    for (tile, (_, rows)) in tiles {
        joined.extend_from_slice(&tile[..scales(*rows)]);
    }
    for (tile, (_, rows)) in tiles {
        joined.extend_from_slice(&tile[scales(*rows)..]);
    }
    joined
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
        let math = self.image.header().math;
        let mut tokens = vec![(); self.tokens.len()];
        self.rows((&record, payload), input, &mut tokens, |lane, (), first, rows| match out {
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
        let input = self.lanes().map(|mut lane| lane.open_columns(&record, k, acc));
        let input = input.collect::<Result<Vec<_>, Error>>()?;
        let (tokens, threads) = (self.tokens.len(), rayon::current_num_threads());
        match record.format.is_integer() {
            true if tokens >= TURN => self.turned(&record, columns, (k, acc))?,
            true if tokens < threads && columns.len() >= SPREAD => {
                self.runs(&record, columns, (k, acc))?;
            }
            _ => self.columns(&record, columns, (k, acc))?,
        }
        self.lanes().zip(input).try_for_each(|(mut lane, scale)| {
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
        self.recurrence(r, [k, v], (CHANNELS, 3), |first, [r, k, v], state| {
            if let [a, b, p] = state {
                op::wkv4(&params[2 * first..], k, v, r, [a, b, p]);
            }
        })
    }

    async fn wkv5(&mut self, vectors: Wkv5) -> Result<(), Error> {
        let dims = self.dims();
        let shape = Shape::heads(Id::AttWkv5, vectors.r.len() as u32, 3, dims.head_size);
        let params = self.vectors(shape)?;
        let (kernel, n, epsilon) = (self.kernel, dims.head_size as usize, dims.group_norm_eps);
        let Wkv5 { r, w, k, v } = vectors;
        self.recurrence(r, [w, k, v], (n, 1), |first, [r, w, k, v, y], state| {
            if let [state] = state {
                let params = &params[3 * first..][..3 * n];
                op::wkv5(kernel, params, epsilon, Head5 { r, w, k, v, y }, state);
            }
        })
    }

    async fn wkv7(&mut self, vectors: Wkv7) -> Result<(), Error> {
        let dims = self.dims();
        let shape = Shape::heads(Id::AttWkv7, vectors.r.len() as u32, 5, dims.head_size);
        let params = self.vectors(shape)?;
        let (kernel, n, epsilon) = (self.kernel, dims.head_size as usize, dims.group_norm_eps);
        let Wkv7 { r, w, k, v, a, g } = vectors;
        self.recurrence(r, [w, k, v, a, g], (n, 1), |first, [r, w, k, v, a, g, kk, y], state| {
            if let [state] = state {
                let params = &params[5 * first..][..5 * n];
                op::wkv7(kernel, params, epsilon, Head7 { r, w, k, v, a, g, kk, y }, state);
            }
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
        let sinks = core::mem::take(&mut self.logits);
        self.rows((&record, payload), input, sinks, |_, sink, first, y| {
            finite(y)?;
            sink.push(first as u32, y);
            Ok(())
        })
    }
}
