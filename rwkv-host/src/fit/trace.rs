//! A token as the words that it reads and the work that is done with them.
//!
//! The tracer is an executor: it runs the model text beside the records of a layout and computes
//! nothing, so that it cannot leave out an operation or read in another order.

use rwkv_core::{
    exec::{Bump, Carry, Executor, Input, Output, Shifted, Span, TILE_ROWS, Wkv5, Wkv7},
    image::{Dims, Format, Id, RECORD_WORDS, Record},
    model,
    op::{Activation, Shift},
    poll,
};

use super::{Costs, Layout, layout};

/// Words that are read together, and the instructions until the next are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Touch {
    /// The first of them in the image.
    pub word: usize,
    /// How many.
    pub words: usize,
    /// What a stream that reads ahead knows of them.
    pub known: Known,
    /// Instructions.
    pub work: f64,
}

/// What a stream that reads ahead knows of some words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// They follow what was read before.
    Straight,
    /// The model names them when it asks for those before them.
    Told,
    /// The model names them when it asks for them.
    Named,
    /// Nothing: the model jumps there.
    Sought,
    /// Nothing, and they lie elsewhere: rows of tables.
    Aside,
}

/// A token.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// What is read, in order.
    pub touches: Vec<Touch>,
    /// Instructions of rows and columns.
    pub products: f64,
    /// Instructions of recurrences.
    pub recurrence: f64,
    /// All instructions.
    pub instructions: f64,
}

impl Trace {
    /// The token of a model with these records, of whose columns `live`, from 0 to 1, are not
    /// passed over. They lie anywhere, at the same places every time.
    pub fn new(layout: &Layout, costs: &Costs, live: f64) -> Self {
        let trace = Self::default();
        let bump = Bump::default();
        let mut tracer = Tracer {
            layout,
            costs,
            live: live.clamp(0.0, 1.0),
            next: 0,
            bump,
            columns: 0,
            random: 1,
            trace,
        };
        // Nothing waits, and nothing fails.
        let _ = poll::once(model::token(layout.header.version, &mut tracer));
        tracer.trace
    }

    /// Words of all touches.
    pub fn words(&self) -> u64 {
        self.touches.iter().map(|touch| touch.words as u64).sum()
    }
}

struct Tracer<'a> {
    layout: &'a Layout,
    costs: &'a Costs,
    live: f64,
    /// The next record.
    next: usize,
    bump: Bump,
    /// Columns so far.
    columns: u64,
    /// Draws those that are not passed over.
    random: u32,
    trace: Trace,
}

/// Why a layout does not belong to its header: it has too few records.
#[derive(Debug)]
struct Incomplete;

/// The part of a token that work belongs to.
#[derive(Clone, Copy)]
enum Kind {
    Product,
    Recurrence,
    Rest,
}

impl Tracer<'_> {
    fn record(&mut self) -> Result<(Record, usize), Incomplete> {
        let found = self.layout.records.get(self.next).copied().ok_or(Incomplete)?;
        self.next += 1;
        Ok(found)
    }

    fn touch(&mut self, word: usize, words: usize, known: Known) {
        self.trace.touches.push(Touch { word, words, known, work: 0.0 });
    }

    /// Work with what was read last.
    fn work(&mut self, kind: Kind, instructions: f64) {
        match kind {
            Kind::Product => self.trace.products += instructions,
            Kind::Recurrence => self.trace.recurrence += instructions,
            Kind::Rest => {}
        }
        self.trace.instructions += instructions;
        if let Some(last) = self.trace.touches.last_mut() {
            last.work += instructions;
        }
    }

    /// A record's header; returns where its blocks begin.
    fn open(&mut self) -> Result<(Record, usize), Incomplete> {
        let (record, word) = self.record()?;
        let known = match self.next - 1 {
            // A sparse product tells what follows it: with its last block, if it has one.
            index if self.is_behind_columns(index) => match self.trace.touches.last() {
                Some(last) if last.words == RECORD_WORDS => Known::Named,
                _ => Known::Told,
            },
            index if self.is_first(index) => Known::Sought,
            _ => Known::Straight,
        };
        self.touch(word, RECORD_WORDS, known);
        self.work(Kind::Rest, self.costs.record);
        Ok((record, word + RECORD_WORDS))
    }

    fn is_behind_columns(&self, index: usize) -> bool {
        let before = index.checked_sub(1).and_then(|before| self.layout.records.get(before));
        before.is_some_and(|(record, _)| layout::is_sparse(record))
    }

    /// Whether it is the first record of the first layer: the stream jumps there.
    fn is_first(&self, index: usize) -> bool {
        let before = index.checked_sub(1).and_then(|before| self.layout.records.get(before));
        before.is_none_or(|(record, _)| layout::is_table(record))
    }

    /// The tiles of a record, each with its work.
    fn tiles(&mut self, record: &Record, mut at: usize, kind: Kind, work: impl Fn(usize) -> f64) {
        for (_, rows) in record.tiles() {
            let words = record.tile_words(rows);
            self.touch(at, words, Known::Straight);
            self.work(kind, self.costs.block + work(rows));
            at += words;
        }
    }

    /// A group of vectors.
    fn vectors(&mut self, kind: Kind, each: f64) -> Result<(), Incomplete> {
        let (record, at) = self.open()?;
        self.tiles(&record, at, kind, |rows| each * rows as f64);
        Ok(())
    }

    /// A matrix, its rows in runs of at most `run`; returns its rows.
    fn matrix(&mut self, run: usize) -> Result<usize, Incomplete> {
        let (record, at) = self.open()?;
        self.work(Kind::Rest, self.costs.input(&record));
        let costs = *self.costs;
        self.tiles(&record, at, Kind::Product, |rows| {
            let runs = rows.div_ceil(run);
            // Kernels take two rows at a time.
            let pairs: usize = (0..runs).map(|i| run.min(rows - i * run).next_multiple_of(2)).sum();
            costs.row(&record) * pairs as f64 + costs.block * (runs - 1) as f64
        });
        Ok(record.rows as usize)
    }

    /// A row of a table, whose record lies at `word`.
    fn row(&mut self, record: &Record, word: usize, row: usize) {
        let words = record.tile_words(1);
        for (at, words) in [(word, RECORD_WORDS), (word + RECORD_WORDS + row * words, words)] {
            self.touch(at, words, Known::Aside);
        }
        let each = if record.format == Format::F32 { 1.0 } else { self.costs.dequantise };
        self.work(Kind::Rest, self.costs.record + self.costs.block + each * f64::from(record.cols));
    }

    fn floats(&mut self, len: usize) {
        self.work(Kind::Rest, self.costs.plain + self.costs.float * len as f64);
    }

    /// Which of the next columns are not passed over: as many as there are on average, drawn
    /// without regard to each other.
    fn live_columns(&mut self, count: usize) -> Vec<usize> {
        let before = (self.columns as f64 * self.live).round();
        self.columns += count as u64;
        let mut wanted = ((self.columns as f64 * self.live).round() - before) as usize;
        let mut live = Vec::with_capacity(wanted);
        for column in 0..count {
            // Knuth's selection sampling.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            if (self.random as usize) % (count - column) < wanted {
                live.push(column);
                wanted -= 1;
            }
        }
        live
    }

    fn token(&self) -> usize {
        self.layout.header.dims.vocab as usize / 2
    }
}

impl Executor for Tracer<'_> {
    type Error = Incomplete;

    fn dims(&self) -> Dims {
        self.layout.header.dims
    }

    fn take(&mut self, len: u32) -> Span {
        self.bump.take(len)
    }

    fn release(&mut self, span: Span) {
        self.bump.release(span);
    }

    async fn embed(&mut self, _: Span) -> Result<(), Incomplete> {
        let (record, word) = self.record()?;
        self.row(&record, word, self.token());
        // The DeepEmbed table lies beside it and is read later.
        self.next += usize::from(self.layout.header.version.is_deep());
        Ok(())
    }

    async fn deep_row(&mut self, _: Span) -> Result<(), Incomplete> {
        let found = self.layout.records.iter().find(|(record, _)| record.id == Id::DeepEmbed);
        let (record, word) = *found.ok_or(Incomplete)?;
        let row = self.token() * self.layout.header.dims.layers as usize;
        self.row(&record, word, row);
        Ok(())
    }

    async fn layer(&mut self, _: u32) -> Result<(), Incomplete> {
        Ok(())
    }

    async fn layer_norm(&mut self, _: Id, _: Span, _: Span) -> Result<(), Incomplete> {
        self.vectors(Kind::Rest, self.costs.norm)
    }

    async fn shift(&mut self, s: Shifted, _: Span) -> Result<(), Incomplete> {
        self.vectors(Kind::Rest, self.costs.shift(s.kind))
    }

    fn shift_by(&mut self, weights: Span, _: Span, _: Carry) -> Result<(), Incomplete> {
        let each = self.costs.shift(Shift::Previous);
        self.work(Kind::Rest, self.costs.plain + each * weights.len() as f64);
        Ok(())
    }

    async fn vector(&mut self, _: Id, _: Span) -> Result<(), Incomplete> {
        self.vectors(Kind::Rest, 0.0)
    }

    async fn product(&mut self, _: Id, x: Input, out: Output) -> Result<(), Incomplete> {
        match x {
            Input::Shifted(s) => self.vectors(Kind::Rest, self.costs.shift(s.kind))?,
            Input::Plain(_) => self.work(Kind::Rest, self.costs.plain),
        }
        match out {
            Output::Set(_, f) => {
                let rows = self.matrix(usize::MAX)?;
                self.work(Kind::Rest, self.costs.activation(f) * rows as f64);
            }
            Output::Add(_) => {
                let rows = self.matrix(TILE_ROWS)?;
                self.work(Kind::Rest, self.costs.float * rows as f64);
            }
        }
        Ok(())
    }

    async fn sparse_product(
        &mut self,
        _: Id,
        k: Span,
        gate: Option<Span>,
        x: Span,
    ) -> Result<(), Incomplete> {
        let (record, first) = self.open()?;
        let costs = *self.costs;
        let integers = record.format.is_integer();
        let quantise = if integers { costs.quantise } else { 0.0 };
        self.work(Kind::Rest, quantise * k.len() as f64);
        self.work(Kind::Product, costs.look * k.len() as f64);
        let words = 1 + record.line_words();
        // The first column is known when the input is.
        let mut known = Known::Named;
        for column in self.live_columns(record.cols as usize) {
            self.touch(first + column * words, words, known);
            self.work(Kind::Product, costs.live_column(&record));
            known = Known::Told;
        }
        if integers {
            let mut at = first + record.cols as usize * words;
            for (_, rows) in record.tiles() {
                self.touch(at, 1 + rows, known);
                known = Known::Told;
                self.work(Kind::Rest, costs.block + costs.rescale * rows as f64);
                at += 1 + rows;
            }
        }
        let floats = if gate.is_some() { 2 } else { 1 };
        self.floats(floats * x.len());
        Ok(())
    }

    async fn bias(&mut self, _: Id, _: Span, f: Activation) -> Result<(), Incomplete> {
        self.vectors(Kind::Rest, self.costs.float + self.costs.activation(f))
    }

    fn copy(&mut self, _: Span, _: Span) -> Result<(), Incomplete> {
        self.work(Kind::Rest, self.costs.plain);
        Ok(())
    }

    fn product_by(&mut self, _: Span, matrix: Span, _: Span) -> Result<(), Incomplete> {
        self.floats(2 * matrix.len());
        Ok(())
    }

    fn multiply(&mut self, x: Span, _: Span) -> Result<(), Incomplete> {
        self.floats(x.len());
        Ok(())
    }

    fn lerp(&mut self, x: Span, _: Span, _: Span) -> Result<(), Incomplete> {
        self.floats(3 * x.len());
        Ok(())
    }

    fn keep(&mut self, _: Span, _: Carry) -> Result<(), Incomplete> {
        self.work(Kind::Rest, self.costs.plain);
        Ok(())
    }

    async fn wkv4(&mut self, _: Span, _: Span, _: Span) -> Result<(), Incomplete> {
        self.vectors(Kind::Recurrence, self.costs.wkv4)
    }

    async fn wkv5(&mut self, _: Wkv5) -> Result<(), Incomplete> {
        let head = self.layout.header.dims.head_size as usize;
        self.vectors(Kind::Recurrence, self.costs.wkv5.of(head))
    }

    async fn wkv7(&mut self, _: Wkv7) -> Result<(), Incomplete> {
        let head = self.layout.header.dims.head_size as usize;
        self.vectors(Kind::Recurrence, self.costs.wkv7.of(head))
    }

    async fn head(&mut self, _: Span) -> Result<(), Incomplete> {
        self.vectors(Kind::Rest, self.costs.norm)?;
        self.work(Kind::Rest, self.costs.plain);
        let rows = self.matrix(TILE_ROWS)?;
        self.work(Kind::Rest, self.costs.logit * rows as f64);
        Ok(())
    }
}
