//! The sequence executor on a device: every operation is a kernel, or a few, over all tokens.

mod products;

use rwkv_core::{
    Digest, Error, ImageError, Logits,
    exec::{
        Bump, Carry, Executor, Input, Output, Shifted, Span, Wkv5, Wkv7, finite,
        record::{columns_room, deep_table, product_room},
    },
    image::{Dims, Header, Id, RECORD_WORDS, Record, SectionKind, Shape},
    op::{Activation, Shift},
};

use super::{
    CudaError, Driver, Launch, Prefill,
    driver::Argument::{self, Address, Float, Word},
};
use products::{Target, Vectors};

/// Threads of most blocks.
const THREADS: u32 = 256;
/// Elements that a thread of a digest adds, at most, where there are many.
const DIGEST_RUN: u32 = 16;
/// How a product is stored that is added, beside the codes of activations.
const ADD: u32 = 7;

/// A run of tokens, each with a scratch of its own on the device.
pub(super) struct Sequence<'a, D: Driver, L> {
    on: &'a Prefill<'a, D>,
    /// The next word of the image.
    at: usize,
    layer: usize,
    tokens: u32,
    bump: Bump,
    /// Sinks of the last tokens.
    logits: &'a mut [L],
    /// Whether every token is digested.
    digests: bool,
}

/// A record's place on the device.
#[derive(Clone, Copy)]
struct Placed {
    record: Record,
    /// Where its blocks begin.
    payload: Argument,
    /// Floats of a block of vectors.
    tile: Argument,
}

const fn code(f: Activation) -> u32 {
    match f {
        Activation::Identity => 0,
        Activation::Sigmoid => 1,
        Activation::Tanh => 2,
        Activation::SquaredRelu => 3,
        Activation::Decay => 4,
        Activation::Silu => 5,
        Activation::ExpNegExp => 6,
    }
}

const fn blend(kind: Shift) -> u32 {
    match kind {
        Shift::Current => 1,
        Shift::Previous => 2,
    }
}

const fn start(span: Span) -> Argument {
    Word(span.range().start as u32)
}

const fn len(span: Span) -> Argument {
    Word(span.len() as u32)
}

const fn overlap(a: Span, b: Span) -> bool {
    a.range().start < b.range().end && b.range().start < a.range().end
}

impl<'a, D: Driver, L: Logits> Sequence<'a, D, L> {
    /// The caller has checked the tokens, of which there are no more than a piece has.
    pub(super) fn new(
        on: &'a Prefill<'a, D>,
        tokens: &[u32],
        logits: &'a mut [L],
        digests: bool,
    ) -> Result<Self, CudaError> {
        on.driver.upload(tokens, &on.memory.tokens, 0)?;
        let layers = on.image.header().dims.layers as usize;
        if digests {
            on.driver.clear(&on.memory.states, 2 * layers * tokens.len())?;
            on.driver.clear(&on.memory.logits_digests, 2 * tokens.len())?;
        }
        let (tokens, bump) = (tokens.len() as u32, Bump::default());
        Ok(Self { on, at: 0, layer: 0, tokens, bump, logits, digests })
    }

    /// Fetches the digests of the tokens, and learns whether all went well.
    pub(super) fn finish(self, digests: Option<&mut Vec<Digest>>) -> Result<(), CudaError> {
        self.on.check()?;
        let Some(digests) = digests else { return Ok(()) };
        let memory = &self.on.memory;
        let states = Address(self.on.driver.address(&memory.states));
        let logits = Address(self.on.driver.address(&memory.logits_digests));
        let all = Address(self.on.driver.address(&memory.digests));
        let (layers, tokens) = (Word(self.dims().layers), Word(self.tokens));
        let grid = [self.tokens.div_ceil(THREADS), 1];
        self.launch("digest_tokens", grid, THREADS, &[states, logits, layers, all, tokens])?;
        let mut words = vec![0; 2 * self.tokens as usize];
        self.on.driver.download(&memory.digests, 0, &mut words)?;
        digests.extend(words.as_chunks().0.iter().map(|[a, b]| Digest(*a, *b)));
        Ok(())
    }

    fn header(&self) -> &'a Header {
        self.on.image.header()
    }

    fn launch(
        &self,
        kernel: &'static str,
        grid: [u32; 2],
        threads: u32,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        if grid.contains(&0) {
            return Ok(());
        }
        self.on.driver.launch(&Launch { kernel, grid, threads, arguments })
    }

    /// A thread per element of a vector, a row of blocks per token.
    fn elements(
        &self,
        kernel: &'static str,
        span: Span,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let grid = [(span.len() as u32).div_ceil(THREADS), self.tokens];
        self.launch(kernel, grid, THREADS, arguments)
    }

    fn stride(&self) -> u32 {
        self.header().scratch_words
    }

    /// The two arguments that say where the scratch is.
    fn scratch(&self) -> [Argument; 2] {
        [Address(self.on.driver.address(&self.on.memory.scratch)), Word(self.stride())]
    }

    /// Where a vector of a token lies.
    fn vector_of(&self, token: u32, span: Span) -> u64 {
        let word = u64::from(token) * u64::from(self.stride()) + span.range().start as u64;
        self.on.driver.address(&self.on.memory.scratch) + 4 * word
    }

    fn failed(&self) -> Argument {
        Address(self.on.driver.address(&self.on.memory.failed))
    }

    /// Where a row of the layer's shift state lies.
    fn carry(&self, previous: Carry) -> Argument {
        let row = 2 * self.layer + usize::from(previous == Carry::Ffn);
        let word = row * self.dims().dim as usize;
        Address(self.on.driver.address(&self.on.memory.state) + 4 * word as u64)
    }

    /// Where the layer's recurrent state lies.
    fn recurrent(&self) -> Argument {
        let header = self.header();
        let (shift, all) = (header.shift_words(), header.state_words());
        let layer = (all - shift) / header.dims.layers as usize;
        let word = shift + self.layer * layer;
        Address(self.on.driver.address(&self.on.memory.state) + 4 * word as u64)
    }

    /// Where the digests of the layer's state go, and the words from one token to the next.
    fn state_digests(&self) -> [Argument; 2] {
        let states = self.on.driver.address(&self.on.memory.states);
        let address = if self.digests { states + 8 * self.layer as u64 } else { 0 };
        [Address(address), Word(2 * self.dims().layers)]
    }

    fn section(&mut self, kind: SectionKind, index: usize) -> Result<(), CudaError> {
        let section = self.on.image.sections().filter(|s| s.kind == kind).nth(index);
        self.at = section.ok_or(Error::Internal)?.offset as usize / 4;
        Ok(())
    }

    fn record(&mut self, shape: Shape) -> Result<Placed, CudaError> {
        let offset = (self.at as u32).wrapping_mul(4);
        let wrong = ImageError::Record { offset, expected: shape.id as u8 };
        let words = self.on.image.words().get(self.at..).ok_or(wrong)?;
        let (head, rest) = words.split_first_chunk::<RECORD_WORDS>().ok_or(wrong)?;
        let record = Record::parse(head, &shape).ok_or(wrong)?;
        if record.payload_words() > rest.len() {
            return Err(wrong.into());
        }
        let image = self.on.driver.address(&self.on.memory.image);
        let payload = Address(image + 4 * (self.at + RECORD_WORDS) as u64);
        self.at += RECORD_WORDS + record.payload_words();
        let tile = Word(u32::from(record.tile_rows) * record.cols);
        Ok(Placed { record, payload, tile })
    }

    /// The rows of a table that the tokens ask for: `token * times + plus`.
    fn table_rows(
        &mut self,
        shape: Shape,
        out: Span,
        [times, plus]: [u32; 2],
    ) -> Result<(), CudaError> {
        let Placed { record, payload, .. } = self.record(shape)?;
        let words = Word(record.tile_words(1) as u32);
        let tokens = Address(self.on.driver.address(&self.on.memory.tokens));
        let [scratch, stride] = self.scratch();
        let (format, times, plus) = (Word(record.format as u32), Word(times), Word(plus));
        let arguments =
            [format, payload, words, tokens, times, plus, scratch, stride, start(out), len(out)];
        self.elements("table_row", out, &arguments)
    }

    /// A vector of every token.
    fn vectors(&self, x: Span) -> Vectors {
        Vectors { address: self.vector_of(0, x), len: x.len() as u32, tokens: self.tokens }
    }

    /// A token shift, with the record of its weights.
    fn shift_with(&self, mix: Placed, s: Shifted, out: Span) -> Result<(), CudaError> {
        let [scratch, stride] = self.scratch();
        let (kind, carry) = (Word(blend(s.kind)), self.carry(s.previous));
        let (x, y, len) = (start(s.x), start(out), len(out));
        let arguments = [kind, mix.payload, mix.tile, carry, scratch, stride, x, y, len];
        self.elements("shift", out, &arguments)
    }

    /// Adds vectors to digests: a vector of each of some tokens, at `position`.
    fn digest(
        &self,
        (address, stride): (u64, u32),
        (len, tokens): (u32, u32),
        position: u32,
        [digests, apart]: [Argument; 2],
    ) -> Result<(), CudaError> {
        let grid = [len.div_ceil(THREADS * DIGEST_RUN), tokens];
        let (x, stride, len, position) =
            (Address(address), Word(stride), Word(len), Word(position));
        let arguments = [x, stride, len, position, digests, apart, self.failed()];
        self.launch("digest_vectors", grid, THREADS, &arguments)
    }

    fn check_finite(&self, x: Vectors, stride: u32) -> Result<(), CudaError> {
        let grid = [x.len.div_ceil(THREADS), x.tokens];
        let place = [Address(x.address), Word(stride), Word(0), Word(x.len), self.failed()];
        self.launch("check_finite", grid, THREADS, &place)
    }

    /// The logits of some tokens, into the buffer of a slab.
    fn logits_of(
        &self,
        placed: Placed,
        x: Span,
        (first, tokens): (u32, u32),
    ) -> Result<(), CudaError> {
        let memory = &self.on.memory;
        let vocab = self.dims().vocab;
        let address = self.on.driver.address(&memory.logits);
        let target = Target { address, gate: 0, stride: vocab, f: code(Activation::Identity) };
        let x = Vectors { address: self.vector_of(first, x), tokens, ..self.vectors(x) };
        self.plain_product(placed, false, x, target)?;
        if self.digests {
            let digests = self.on.driver.address(&memory.logits_digests);
            let digests = [Address(digests + 8 * u64::from(first)), Word(2)];
            return self.digest((address, vocab), (vocab, tokens), 0, digests);
        }
        self.check_finite(Vectors { address, len: vocab, tokens }, vocab)
    }

    /// Shows the hidden vectors of the last tokens, one for each sink.
    fn show_hidden(&mut self, x: Span, skip: u32) -> Result<(), CudaError> {
        let mut values = vec![0.0f32; x.len()];
        for (token, sink) in (skip..).zip(&mut *self.logits) {
            let at = token as usize * self.on.image.header().scratch_words as usize;
            let words = bytemuck::cast_slice_mut(&mut values);
            self.on.driver.download(&self.on.memory.scratch, at + x.range().start, words)?;
            finite(&values)?;
            sink.hidden(&values);
        }
        Ok(())
    }
}

impl<D: Driver, L: Logits> Executor for Sequence<'_, D, L> {
    type Error = CudaError;

    fn dims(&self) -> Dims {
        self.header().dims
    }

    fn take(&mut self, len: u32) -> Span {
        self.bump.take(len)
    }

    fn release(&mut self, span: Span) {
        self.bump.release(span);
    }

    async fn embed(&mut self, out: Span) -> Result<(), CudaError> {
        self.section(SectionKind::Embedding, 0)?;
        let shape = Shape::table(Id::Embedding, self.dims().vocab, out.len() as u32);
        self.table_rows(shape, out, [1, 0])
    }

    async fn deep_row(&mut self, out: Span) -> Result<(), CudaError> {
        let (place, layer, dims) = (self.at, self.layer as u32, self.dims());
        self.section(SectionKind::DeepEmbed, 0)?;
        self.table_rows(deep_table(&dims), out, [dims.layers, layer])?;
        self.at = place;
        Ok(())
    }

    async fn layer(&mut self, layer: u32) -> Result<(), CudaError> {
        self.layer = layer as usize;
        self.section(SectionKind::Layer, self.layer)
    }

    async fn layer_norm(&mut self, id: Id, x: Span, out: Span) -> Result<(), CudaError> {
        // Eight lanes per token, in small blocks, so that they spread over the device.
        const NORM_THREADS: u32 = 64;
        let Placed { payload, tile, .. } = self.record(Shape::vectors(id, x.len() as u32, 2))?;
        let epsilon = Float(self.dims().layer_norm_eps);
        let [scratch, stride] = self.scratch();
        let tokens = Word(self.tokens);
        let arguments =
            [payload, tile, epsilon, scratch, stride, start(x), start(out), len(x), tokens];
        let grid = [self.tokens.div_ceil(NORM_THREADS / 8), 1];
        self.launch("layer_norm", grid, NORM_THREADS, &arguments)
    }

    async fn shift(&mut self, s: Shifted, out: Span) -> Result<(), CudaError> {
        let mix = self.record(Shape::vectors(s.id, s.x.len() as u32, 1))?;
        self.shift_with(mix, s, out)
    }

    fn shift_by(&mut self, weights: Span, x: Span, previous: Carry) -> Result<(), CudaError> {
        let [scratch, stride] = self.scratch();
        let carry = self.carry(previous);
        let arguments = [carry, scratch, stride, start(weights), start(x), len(x)];
        self.elements("shift_by", x, &arguments)
    }

    async fn vector(&mut self, id: Id, out: Span) -> Result<(), CudaError> {
        let Placed { payload, tile, .. } = self.record(Shape::vectors(id, out.len() as u32, 1))?;
        let [scratch, stride] = self.scratch();
        self.elements("vector", out, &[payload, tile, scratch, stride, start(out), len(out)])
    }

    async fn product(&mut self, id: Id, x: Input, out: Output) -> Result<(), CudaError> {
        let room = self.bump.take(product_room(x.len()));
        self.bump.release(room);
        let (y, f) = match out {
            Output::Set(y, f) => (y, code(f)),
            Output::Add(y) => (y, ADD),
        };
        let target = Target { address: self.vector_of(0, y), gate: 0, stride: self.stride(), f };
        let input = room.part(0, x.len());
        let matrix = Shape::matrix(id, y.len() as u32, x.len() as u32);
        match x {
            Input::Shifted(s) => {
                let mix = self.record(Shape::vectors(s.id, s.x.len() as u32, 1))?;
                let placed = self.record(matrix)?;
                if placed.record.format.is_integer() {
                    let mix = [Word(blend(s.kind)), mix.payload, mix.tile, self.carry(s.previous)];
                    self.quantise(self.vectors(s.x), mix, placed.record.bits)?;
                } else {
                    self.shift_with(mix, s, input)?;
                }
                self.multiply_matrix(placed, false, self.vectors(input), target)
            }
            Input::Plain(x) => {
                let placed = self.record(matrix)?;
                // Integers are read before anything is written, and so are vectors elsewhere.
                if placed.record.format.is_integer() || !overlap(x, y) {
                    return self.plain_product(placed, false, self.vectors(x), target);
                }
                self.copy(x, input)?;
                self.plain_product(placed, false, self.vectors(input), target)
            }
        }
    }

    async fn sparse_product(
        &mut self,
        id: Id,
        k: Span,
        gate: Option<Span>,
        x: Span,
    ) -> Result<(), CudaError> {
        let room = self.bump.take(columns_room(x.len()));
        self.bump.release(room);
        let placed = self.record(Shape::columns(id, x.len() as u32, k.len() as u32))?;
        let gate = gate.map_or(0, |gate| self.vector_of(0, gate));
        let target = Target { address: self.vector_of(0, x), gate, stride: self.stride(), f: ADD };
        self.plain_product(placed, true, self.vectors(k), target)
    }

    async fn bias(&mut self, id: Id, x: Span, f: Activation) -> Result<(), CudaError> {
        let Placed { payload, tile, .. } = self.record(Shape::vectors(id, x.len() as u32, 1))?;
        let [scratch, stride] = self.scratch();
        let f = Word(code(f));
        self.elements("bias", x, &[payload, tile, f, scratch, stride, start(x), len(x)])
    }

    fn copy(&mut self, x: Span, out: Span) -> Result<(), CudaError> {
        let [scratch, stride] = self.scratch();
        self.elements("copy", x, &[scratch, stride, start(x), start(out), len(x)])
    }

    fn product_by(&mut self, x: Span, matrix: Span, out: Span) -> Result<(), CudaError> {
        let [scratch, stride] = self.scratch();
        let arguments = [scratch, stride, start(x), start(matrix), start(out), len(x), len(out)];
        self.elements("product_by", out, &arguments)
    }

    fn multiply(&mut self, x: Span, gate: Span) -> Result<(), CudaError> {
        let [scratch, stride] = self.scratch();
        self.elements("multiply", x, &[scratch, stride, start(x), start(gate), len(x)])
    }

    fn lerp(&mut self, x: Span, target: Span, weight: Span) -> Result<(), CudaError> {
        let [scratch, stride] = self.scratch();
        let arguments = [scratch, stride, start(x), start(target), start(weight), len(x)];
        self.elements("lerp", x, &arguments)
    }

    fn keep(&mut self, x: Span, previous: Carry) -> Result<(), CudaError> {
        if self.digests {
            let position = match previous {
                Carry::Att => 0,
                Carry::Ffn => x.len() as u32,
            };
            let values = (self.vector_of(0, x), self.stride());
            let count = (x.len() as u32, self.tokens);
            self.digest(values, count, position, self.state_digests())?;
        }
        let [scratch, stride] = self.scratch();
        let (carry, tokens) = (self.carry(previous), Word(self.tokens));
        let grid = [(x.len() as u32).div_ceil(THREADS), 1];
        let arguments = [carry, scratch, stride, start(x), len(x), tokens];
        self.launch("keep", grid, THREADS, &arguments)
    }

    async fn wkv4(&mut self, k: Span, v: Span, r: Span) -> Result<(), CudaError> {
        // Few threads per block, since there are few: one per channel.
        const CHANNELS: u32 = 32;
        let dim = k.len() as u32;
        let Placed { payload, tile, .. } = self.record(Shape::vectors(Id::AttWkv4, dim, 2))?;
        let [scratch, stride] = self.scratch();
        let [digests, apart] = self.state_digests();
        let (state, dims, tokens) = (self.recurrent(), Word(dim), Word(self.tokens));
        let (k, v, r, failed) = (start(k), start(v), start(r), self.failed());
        let arguments =
            [payload, tile, scratch, stride, k, v, r, state, dims, tokens, digests, apart, failed];
        self.launch("wkv4", [dim.div_ceil(CHANNELS), 1], CHANNELS, &arguments)
    }

    async fn wkv5(&mut self, vectors: Wkv5) -> Result<(), CudaError> {
        let dims = self.dims();
        let (dim, n) = (vectors.r.len() as u32, dims.head_size);
        let Placed { payload, .. } = self.record(Shape::heads(Id::AttWkv5, dim, 3, n))?;
        let [scratch, stride] = self.scratch();
        let [digests, apart] = self.state_digests();
        let Wkv5 { r, w, k, v } = vectors;
        let [r, w, k, v] = [r, w, k, v].map(start);
        let epsilon = Float(dims.group_norm_eps);
        let (state, size, tokens) = (self.recurrent(), Word(n), Word(self.tokens));
        let (width, failed) = (Word(dim), self.failed());
        let arguments = [
            payload, epsilon, scratch, stride, r, w, k, v, state, size, width, tokens, digests,
            apart, failed,
        ];
        let kernel = match n {
            32 => "wkv5_32",
            64 => "wkv5_64",
            _ => "wkv5_any",
        };
        self.launch(kernel, [dim / n.max(1), 1], n.next_multiple_of(32), &arguments)
    }

    async fn wkv7(&mut self, vectors: Wkv7) -> Result<(), CudaError> {
        let dims = self.dims();
        let (dim, n) = (vectors.r.len() as u32, dims.head_size);
        let Placed { payload, .. } = self.record(Shape::heads(Id::AttWkv7, dim, 5, n))?;
        let [scratch, stride] = self.scratch();
        let [digests, apart] = self.state_digests();
        let Wkv7 { r, w, k, v, a, g } = vectors;
        let [r, w, k, v, a, g] = [r, w, k, v, a, g].map(start);
        let epsilon = Float(dims.group_norm_eps);
        let (state, size, tokens) = (self.recurrent(), Word(n), Word(self.tokens));
        let (width, failed) = (Word(dim), self.failed());
        let arguments = [
            payload, epsilon, scratch, stride, r, w, k, v, a, g, state, size, width, tokens,
            digests, apart, failed,
        ];
        let kernel = match n {
            32 => "wkv7_32",
            64 => "wkv7_64",
            _ => "wkv7_any",
        };
        self.launch(kernel, [dim / n.max(1), 1], n.next_multiple_of(32), &arguments)
    }

    async fn head(&mut self, x: Span) -> Result<(), CudaError> {
        let skip = self.tokens - (self.logits.len() as u32).min(self.tokens);
        let first = if self.digests { 0 } else { skip };
        let all = self.vectors(x);
        // As in a step whose logits nobody wants.
        if !self.digests && (skip == self.tokens || !(L::WANTED || L::HIDDEN)) {
            return self.check_finite(all, self.stride());
        }
        self.check_finite(Vectors { tokens: first, ..all }, self.stride())?;
        self.section(SectionKind::Head, 0)?;
        self.layer_norm(Id::LnOut, x, x).await?;
        if L::HIDDEN {
            self.show_hidden(x, skip)?;
        }
        if !(L::WANTED || self.digests) {
            return Ok(());
        }
        let vocab = self.dims().vocab;
        let placed = self.record(Shape::matrix(Id::Head, vocab, x.len() as u32))?;
        let slab = self.on.options.slab as u32;
        let mut values = vec![0.0f32; vocab as usize];
        for at in (first..self.tokens).step_by(slab as usize) {
            let tokens = slab.min(self.tokens - at);
            self.logits_of(placed, x, (at, tokens))?;
            if !L::WANTED || at + tokens <= skip {
                continue;
            }
            self.on.check()?;
            for token in at.max(skip)..at + tokens {
                let word = (token - at) as usize * vocab as usize;
                let words = bytemuck::cast_slice_mut(&mut values);
                self.on.driver.download(&self.on.memory.logits, word, words)?;
                if let Some(sink) = self.logits.get_mut((token - skip) as usize) {
                    sink.push(0, &values);
                }
            }
        }
        Ok(())
    }
}
