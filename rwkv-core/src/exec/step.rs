//! The step executor: one token in fixed memory, the weights from a stream.

mod cut;
mod read;

use core::slice;

pub(super) use cut::Cut;
use read::block;
pub(super) use read::{checked, parse};

use super::{
    Bump, Carry, Executor, Input, Lane, Logits, Output, Part, Shifted, Span, Wkv5, Wkv7, Work,
    blocks::{Parts, first_words, is_cut},
    record::{columns_room, deep_table, product_room},
    room::may_be_cut,
};
use crate::{
    error::Error,
    image::{Dims, HEADER_BYTES, Header, Id, RECORD_WORDS, SECTION_BYTES, Shape},
    kernel::Kernel,
    model,
    op::{self, Activation},
    state::StateView,
    stream::{Blocks, Stream},
};

/// What is compared before the first operation, so that the state is untouched by these errors.
///
/// # Errors
/// [`Error::BrokenState`], [`Error::StateSize`], [`Error::Token`], [`Error::LogitsSize`].
pub fn check<L: Logits>(
    header: &Header,
    state: &StateView<'_>,
    tokens: &[u32],
    logits: &[L],
) -> Result<(), Error> {
    state.check(header)?;
    let vocab = header.dims.vocab;
    if let Some(&token) = tokens.iter().find(|token| **token >= vocab) {
        return Err(Error::Token { token, vocab });
    }
    if logits.iter().any(|sink| !sink.fits(vocab)) {
        return Err(Error::LogitsSize { needed: vocab });
    }
    Ok(())
}

/// Refuses what is infinite or not a number.
///
/// # Errors
/// [`Error::NonFinite`].
pub fn finite(values: &[f32]) -> Result<(), Error> {
    if values.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(Error::NonFinite) }
}

/// Computes one token of one sequence.
#[derive(Debug)]
pub struct Step<'a, S, K, L> {
    header: &'a Header,
    stream: S,
    state: StateView<'a>,
    lane: Lane<'a>,
    logits: L,
    bump: Bump,
    token: u32,
    layer: usize,
    /// Where the record of the DeepEmbed table lies, in words.
    deep: usize,
    section: u16,
    kernel: K,
    columns: Columns,
}

crate::brief!([S, K, L] Step<'_, S, K, L>, |step| "Step(token {}, layer {})", step.token, step.layer);

/// Columns of sparse products: an input that is zero costs neither reading nor multiplying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Columns {
    /// Columns that were read and multiplied.
    pub live: u64,
    /// Columns that there were.
    pub all: u64,
}

impl<'a, S: Stream, K: Kernel, L: Logits> Step<'a, S, K, L> {
    /// Runs `token` through the model: the state moves on by one token, the logits go to
    /// `logits`. `scratch` holds [`Header::scratch_words`] words or more; its content is
    /// undefined before and after. Returns how many columns of the sparse products were needed.
    ///
    /// # Errors
    /// Whatever is detected before the first operation leaves the state untouched. Any later
    /// error leaves it marked broken: it refuses to step until reset or restored.
    pub async fn run(
        header: &'a Header,
        kernel: K,
        stream: S,
        mut state: StateView<'a>,
        scratch: &'a mut [f32],
        token: u32,
        logits: L,
    ) -> Result<Columns, Error> {
        check(header, &state, &[token], slice::from_ref(&logits))?;
        if scratch.len() < header.scratch_words as usize {
            let (needed, given) = (header.scratch_words, scratch.len() as u32);
            return Err(Error::ScratchSize { needed, given });
        }
        state.set_broken(true);
        let mut step = Self {
            header,
            stream,
            state,
            lane: Lane(scratch),
            logits,
            bump: Bump::default(),
            token,
            layer: 0,
            deep: 0,
            section: 0,
            kernel,
            columns: Columns::default(),
        };
        model::token(header.version, &mut step).await?;
        step.state.set_broken(false);
        Ok(step.columns)
    }

    fn spent(&mut self, id: impl Into<Option<Id>>, part: Part) {
        self.logits.spent(Work { section: self.section, id: id.into(), part });
    }

    /// A vector is written, and whoever looks on sees it before anything reads it.
    fn wrote(&mut self, id: impl Into<Option<Id>>, part: Part, out: Span) -> Result<(), Error> {
        if L::LOOKS {
            let work = Work { section: self.section, id: id.into(), part };
            self.logits.wrote(work, 0, self.lane.get_mut(out)?);
        }
        Ok(())
    }

    /// As [`Step::wrote`], of a layer's recurrent state.
    fn wrote_recurrent(&mut self, id: Id) {
        if L::LOOKS {
            let [_, recurrent] = self.state.layer_mut(&self.header.dims, self.layer);
            let work = Work { section: self.section, id: Some(id), part: Part::State };
            self.logits.wrote(work, 0, recurrent);
        }
    }

    /// The last piece of work of an operation, which has written a vector.
    fn done(&mut self, id: impl Into<Option<Id>>, part: Part, out: Span) -> Result<(), Error> {
        let id = id.into();
        self.spent(id, part);
        self.wrote(id, part, out)
    }

    fn room(&mut self, words: u32) -> Span {
        let span = self.bump.take(words);
        self.bump.release(span);
        span
    }
}

/// The header of the record behind the last one of a layer, which this word follows: sparse
/// products come last, and sections begin at multiples of 16 bytes.
const fn next_layer(word: usize) -> (usize, usize) {
    (word.saturating_add(3) / 4 * 4, RECORD_WORDS)
}

fn carry_row(shift: &mut [f32], previous: Carry) -> Result<&mut [f32], Error> {
    let (att, ffn) = shift.split_at_mut_checked(shift.len() / 2).ok_or(Error::Internal)?;
    Ok(match previous {
        Carry::Att => att,
        Carry::Ffn => ffn,
    })
}

impl<S: Stream, K: Kernel, L: Logits> Executor for Step<'_, S, K, L> {
    type Error = Error;

    fn dims(&self) -> Dims {
        self.header.dims
    }

    fn take(&mut self, len: u32) -> Span {
        self.bump.take(len)
    }

    fn release(&mut self, span: Span) {
        self.bump.release(span);
    }

    async fn embed(&mut self, out: Span) -> Result<(), Error> {
        let sections = usize::from(self.header.section_count());
        let at = (HEADER_BYTES + sections * SECTION_BYTES) / 4;
        let shape = Shape::table(Id::Embedding, self.header.dims.vocab, out.len() as u32);
        let end = self.table_row(at, shape, self.token as usize, out).await?;
        self.deep = end.checked_next_multiple_of(4).ok_or(Error::Internal)?;
        self.stream.seek(self.header.layers_offset as usize / 4).await?;
        self.done(Id::Embedding, Part::Embed, out)
    }

    async fn deep_row(&mut self, out: Span) -> Result<(), Error> {
        let dims = self.header.dims;
        let row = (self.token as usize).saturating_mul(dims.layers as usize);
        let row = row.saturating_add(self.layer);
        self.table_row(self.deep, deep_table(&dims), row, out).await?;
        self.done(Id::DeepEmbed, Part::Embed, out)
    }

    async fn layer(&mut self, layer: u32) -> Result<(), Error> {
        self.layer = layer as usize;
        self.section = layer as u16 + 1;
        self.next_section().await
    }

    async fn layer_norm(&mut self, id: Id, x: Span, out: Span) -> Result<(), Error> {
        let moments = op::moments(self.lane.get(x)?, self.header.dims.layer_norm_eps);
        let shape = Shape::vectors(id, x.len() as u32, 2);
        self.vectors(shape, |lane, _, first, params| {
            let channels = params.len() / 2;
            if x == out {
                let x = lane.get_mut(x.part(first, channels))?;
                op::normalise_in_place(x, moments, params);
            } else {
                let spans = [x.part(first, channels), out.part(first, channels)];
                let [x, out] = lane.split(spans)?;
                op::normalise(x, moments, params, out);
            }
            Ok(())
        })
        .await?;
        self.done(id, Part::Norm, out)
    }

    async fn shift(&mut self, s: Shifted, out: Span) -> Result<(), Error> {
        self.fill(Input::Shifted(s), out).await?;
        self.done(s.id, Part::Shift, out)
    }

    fn shift_by(&mut self, weights: Span, x: Span, previous: Carry) -> Result<(), Error> {
        let [shift, _] = self.state.layer_mut(&self.header.dims, self.layer);
        let previous = carry_row(shift, previous)?;
        let [values, x] = self.lane.split([weights, x])?;
        op::shift_in_place(x, previous, values);
        self.done(None, Part::Move, weights)
    }

    async fn vector(&mut self, id: Id, out: Span) -> Result<(), Error> {
        let shape = Shape::vectors(id, out.len() as u32, 1);
        self.vectors(shape, |lane, _, first, values| {
            let out = lane.get_mut(out.part(first, values.len()))?;
            out.iter_mut().zip(values).for_each(|(y, x)| *y = *x);
            Ok(())
        })
        .await?;
        self.done(id, Part::Move, out)
    }

    async fn product(&mut self, id: Id, x: Input, out: Output) -> Result<(), Error> {
        let input = self.room(product_room(x.len()));
        self.fill(x, input.part(0, x.len())).await?;
        self.spent(id, Part::Shift);
        if let Input::Shifted(s) = x {
            self.wrote(s.id, Part::Shift, input.part(0, x.len()))?;
        }
        let shape = Shape::matrix(id, out.len() as u32, x.len() as u32);
        let y = match out {
            Output::Set(y, f) => {
                self.set_rows(shape, input, y, f).await?;
                y
            }
            Output::Add(y) => {
                let add = |lane: &mut Lane<'_>, _: &mut L, first, rows: &mut [f32]| {
                    lane.add(y, first, rows)
                };
                self.visit_rows(shape, input, add).await?;
                y
            }
        };
        self.wrote(id, Part::Store, y)
    }

    async fn sparse_product(
        &mut self,
        id: Id,
        k: Span,
        gate: Option<Span>,
        x: Span,
    ) -> Result<(), Error> {
        let acc = self.room(columns_room(x.len()));
        let shape = Shape::columns(id, x.len() as u32, k.len() as u32);
        let record = self.record(shape).await?;
        let scale = self.lane.open_columns(&record, k, acc)?;
        self.spent(id, Part::Quantise);
        let parts = Parts::column(&record);
        let column = parts.words();
        let cut = is_cut(&self.stream, column) && may_be_cut(&record, &shape, false);
        let first = self.stream.position();
        let end = k.len().saturating_mul(column).saturating_add(first);
        let scales = record.scale_words() > 0;
        // What follows the columns.
        let tail = match record.tiles().next() {
            Some((_, rows)) if scales => (end, first_words(&self.stream, Parts::plain(rows, 1))),
            _ => next_layer(end),
        };
        let mut at = 0;
        let mut live = self.lane.next_live(&record, k, 0)?;
        let words = if cut { first_words(&self.stream, parts) } else { column };
        let place = |live: Option<usize>| {
            live.map_or(tail, |i| (i.saturating_mul(column).saturating_add(first), words))
        };
        let (word, words) = place(live);
        self.stream.ahead(word, words);
        while let Some(index) = live {
            if index > at {
                self.stream.skip((index - at) * column).await?;
            }
            live = self.lane.next_live(&record, k, index + 1)?;
            let behind = place(live);
            if S::Blocks::CUT && cut {
                let (record, k) = (&record, (k, index));
                S::Blocks::cut(self, Cut::Column { record, k, acc, behind }).await?;
            } else {
                self.stream.ahead(behind.0, behind.1);
                let column = block(&mut self.stream, column).await?;
                self.lane.column(self.kernel, &record, column, (k, index), acc)?;
            }
            self.columns.live += 1;
            at = index + 1;
        }
        if at < k.len() {
            self.stream.skip((k.len() - at) * column).await?;
        }
        self.columns.all += k.len() as u64;
        self.spent(id, Part::Columns);
        if scales {
            let mut tiles = record.tiles().peekable();
            while let Some((first, rows)) = tiles.next() {
                let after = self.stream.position().saturating_add(1 + rows);
                let first_of =
                    |rows: &usize| (after, first_words(&self.stream, Parts::plain(*rows, 1)));
                let behind = tiles.peek().map_or(next_layer(after), |(_, rows)| first_of(rows));
                if is_cut(&self.stream, 1 + rows) {
                    let (record, rows, acc) = (&record, (first, rows), (acc, scale));
                    S::Blocks::cut(self, Cut::Scales { record, rows, acc, behind }).await?;
                    continue;
                }
                self.stream.ahead(behind.0, behind.1);
                let scales = block(&mut self.stream, 1 + rows).await?;
                let scales = bytemuck::cast_slice(scales);
                self.lane.rescale(&record, acc, first, scales, scale)?;
            }
        }
        self.lane.add_gated(acc.part(0, x.len()), gate, x)?;
        self.done(id, Part::Store, x)
    }

    async fn bias(&mut self, id: Id, x: Span, f: Activation) -> Result<(), Error> {
        let math = self.header.math;
        let shape = Shape::vectors(id, x.len() as u32, 1);
        self.vectors(shape, |lane, _, first, bias| {
            let x = lane.get_mut(x.part(first, bias.len()))?;
            op::add(x, bias);
            f.apply(math, x);
            Ok(())
        })
        .await?;
        self.done(id, Part::Bias, x)
    }

    fn copy(&mut self, x: Span, out: Span) -> Result<(), Error> {
        self.lane.copy(x, out)?;
        self.done(None, Part::Move, out)
    }

    fn product_by(&mut self, x: Span, matrix: Span, out: Span) -> Result<(), Error> {
        self.lane.product_by(x, matrix, out)?;
        self.done(None, Part::Move, out)
    }

    fn multiply(&mut self, x: Span, gate: Span) -> Result<(), Error> {
        self.lane.multiply(x, gate)?;
        self.done(None, Part::Move, x)
    }

    fn lerp(&mut self, x: Span, target: Span, weight: Span) -> Result<(), Error> {
        self.lane.lerp(x, target, weight)?;
        self.done(None, Part::Move, x)
    }

    #[inline(never)]
    fn keep(&mut self, x: Span, previous: Carry) -> Result<(), Error> {
        let [shift, _] = self.state.layer_mut(&self.header.dims, self.layer);
        let row = carry_row(shift, previous)?;
        op::copy(self.lane.get(x)?, row);
        let work = Work { section: self.section, id: None, part: Part::State };
        if L::LOOKS {
            self.logits.wrote(work, 0, row);
        }
        self.spent(None, Part::Move);
        Ok(())
    }

    async fn wkv4(&mut self, k: Span, v: Span, r: Span) -> Result<(), Error> {
        let (dims, layer) = (self.header.dims, self.layer);
        let shape = Shape::vectors(Id::AttWkv4, k.len() as u32, 2);
        self.vectors(shape, |lane, state, first, params| {
            let [_, recurrent] = state.layer_mut(&dims, layer);
            lane.wkv4(params, first, [k, v, r], recurrent)
        })
        .await?;
        self.wrote_recurrent(Id::AttWkv4);
        self.done(Id::AttWkv4, Part::Recurrence, r)
    }

    async fn wkv5(&mut self, vectors: Wkv5) -> Result<(), Error> {
        let (dims, layer) = (self.header.dims, self.layer);
        let room = self.room(dims.head_size);
        let shape = Shape::heads(Id::AttWkv5, vectors.r.len() as u32, 3, dims.head_size);
        let kernel = self.kernel;
        self.vectors(shape, |lane, state, first, params| {
            let [_, recurrent] = state.layer_mut(&dims, layer);
            lane.wkv5(kernel, (first, params), vectors, room, dims.group_norm_eps, recurrent)
        })
        .await?;
        self.wrote_recurrent(Id::AttWkv5);
        self.done(Id::AttWkv5, Part::Recurrence, vectors.r)
    }

    async fn wkv7(&mut self, vectors: Wkv7) -> Result<(), Error> {
        let (dims, layer) = (self.header.dims, self.layer);
        let room = self.room(2 * dims.head_size);
        let n = dims.head_size as usize;
        let room = [room.part(0, n), room.part(n, n)];
        let shape = Shape::heads(Id::AttWkv7, vectors.r.len() as u32, 5, dims.head_size);
        let kernel = self.kernel;
        self.vectors(shape, |lane, state, first, params| {
            let [_, recurrent] = state.layer_mut(&dims, layer);
            lane.wkv7(kernel, (first, params), vectors, room, dims.group_norm_eps, recurrent)
        })
        .await?;
        self.wrote_recurrent(Id::AttWkv7);
        self.done(Id::AttWkv7, Part::Recurrence, vectors.r)
    }

    async fn head(&mut self, x: Span) -> Result<(), Error> {
        if !(L::WANTED || L::HIDDEN) {
            return finite(self.lane.get(x)?);
        }
        self.section = self.header.dims.layers as u16 + 1;
        self.next_section().await?;
        self.layer_norm(Id::LnOut, x, x).await?;
        if L::HIDDEN {
            let x = self.lane.get(x)?;
            finite(x)?;
            self.logits.hidden(x);
        }
        if !L::WANTED {
            return Ok(());
        }
        let input = self.room(product_room(x.len()));
        self.lane.copy(x, input.part(0, x.len()))?;
        self.spent(Id::Head, Part::Shift);
        let shape = Shape::matrix(Id::Head, self.header.dims.vocab, x.len() as u32);
        let work = Work { section: self.section, id: Some(Id::Head), part: Part::Store };
        self.visit_rows(shape, input, |_, logits, first, y| {
            if L::LOOKS {
                logits.wrote(work, first as u32, y);
            }
            finite(y)?;
            logits.push(first as u32, y);
            Ok(())
        })
        .await
    }
}
