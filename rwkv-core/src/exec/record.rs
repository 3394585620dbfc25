//! The recording executor: runs the model text without computing anything.
//!
//! The converter writes records in the order it hears of them, [`crate::Image::open`] compares
//! them with what lies in the image, and both learn the scratch that a step needs. So neither can
//! disagree with the model text.

use super::{Bump, Carry, Executor, Input, Output, Shifted, Span, Wkv5, Wkv7, room};
use crate::{
    image::{Dims, GROUP, Id, Record, Shape, Version},
    kernel::room_words,
    model,
    op::Activation,
    poll,
};

/// A record that a token reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Request {
    /// What it holds.
    pub id: Id,
    /// The layer, or `None` in the sections of embedding and head.
    pub layer: Option<u32>,
    /// Whether it is the first of its section.
    pub opens_section: bool,
    shape: Shape,
    /// Whether rows of its product are handed on block by block.
    passes_rows_on: bool,
}

impl Request {
    /// What the model text expects of the record.
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// The fewest words that a stream must have room for ([`crate::stream::Stream::room`]): those of
    /// a piece, or of a block that must come whole.
    pub fn least_room(&self, record: &Record) -> usize {
        room::least_room(record, &self.shape, self.passes_rows_on)
    }
}

/// What a token needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Plan {
    /// Words of scratch for one token.
    pub scratch_words: u32,
}

/// Runs the text of a version and calls `visit` for every record, in image order.
///
/// # Errors
/// The first error of `visit`; the rest of the text is not run.
pub fn run<E>(
    version: Version,
    dims: &Dims,
    mut visit: impl FnMut(&Request) -> Result<(), E>,
) -> Result<Plan, E> {
    // The recorder never waits, so one poll completes it.
    let plan = poll::once(run_async(version, dims, async |request: &Request| visit(request)));
    plan.unwrap_or(Ok(Plan { scratch_words: 0 }))
}

/// As [`run`], where `visit` may wait.
///
/// # Errors
/// As there.
pub async fn run_async<E>(
    version: Version,
    dims: &Dims,
    visit: impl AsyncFnMut(&Request) -> Result<(), E>,
) -> Result<Plan, E> {
    let (dims, bump, layer) = (*dims, Bump::default(), None);
    let (opens_section, passes_rows_on) = (false, false);
    let mut ex = Recorder { dims, bump, layer, opens_section, passes_rows_on, visit };
    model::token(version, &mut ex).await?;
    Ok(Plan { scratch_words: ex.bump.peak() })
}

struct Recorder<F> {
    dims: Dims,
    bump: Bump,
    layer: Option<u32>,
    opens_section: bool,
    passes_rows_on: bool,
    visit: F,
}

/// Scratch that a product needs beside its operands: its shifted, then arranged, input.
pub fn product_room(cols: usize) -> u32 {
    room_words(cols) as u32
}

/// The DeepEmbed table: the rows of a token's layers one after the other.
pub fn deep_table(dims: &Dims) -> Shape {
    let rank = u32::from(dims.deep_rank);
    Shape::table(Id::DeepEmbed, dims.vocab.saturating_mul(dims.layers), rank * rank)
}

/// Scratch that a sparse product needs beside its operands: an accumulator per output, and an
/// offset per group of outputs.
pub fn columns_room(rows: usize) -> u32 {
    (rows + rows.div_ceil(GROUP)) as u32
}

impl<E, F: AsyncFnMut(&Request) -> Result<(), E>> Recorder<F> {
    async fn request(&mut self, shape: Shape) -> Result<(), E> {
        let opens_section = core::mem::take(&mut self.opens_section);
        let passes_rows_on = core::mem::take(&mut self.passes_rows_on);
        let (id, layer) = (shape.id, self.layer);
        (self.visit)(&Request { id, layer, opens_section, shape, passes_rows_on }).await
    }

    fn room(&mut self, words: u32) {
        let span = self.bump.take(words);
        self.bump.release(span);
    }
}

impl<E, F: AsyncFnMut(&Request) -> Result<(), E>> Executor for Recorder<F> {
    type Error = E;

    fn dims(&self) -> Dims {
        self.dims
    }

    fn take(&mut self, len: u32) -> Span {
        self.bump.take(len)
    }

    fn release(&mut self, span: Span) {
        self.bump.release(span);
    }

    async fn embed(&mut self, out: Span) -> Result<(), E> {
        self.opens_section = true;
        self.request(Shape::table(Id::Embedding, self.dims.vocab, out.len() as u32)).await?;
        if self.dims.deep_rank > 0 {
            self.opens_section = true;
            self.request(deep_table(&self.dims)).await?;
        }
        Ok(())
    }

    async fn deep_row(&mut self, _: Span) -> Result<(), E> {
        Ok(())
    }

    async fn layer(&mut self, layer: u32) -> Result<(), E> {
        self.opens_section = true;
        self.layer = Some(layer);
        Ok(())
    }

    async fn layer_norm(&mut self, id: Id, x: Span, _: Span) -> Result<(), E> {
        self.request(Shape::vectors(id, x.len() as u32, 2)).await
    }

    async fn shift(&mut self, s: Shifted, _: Span) -> Result<(), E> {
        self.request(Shape::vectors(s.id, s.x.len() as u32, 1)).await
    }

    fn shift_by(&mut self, _: Span, _: Span, _: Carry) -> Result<(), E> {
        Ok(())
    }

    async fn vector(&mut self, id: Id, out: Span) -> Result<(), E> {
        self.request(Shape::vectors(id, out.len() as u32, 1)).await
    }

    async fn product(&mut self, id: Id, x: Input, out: Output) -> Result<(), E> {
        self.room(product_room(x.len()));
        if let Input::Shifted(s) = x {
            self.request(Shape::vectors(s.id, s.x.len() as u32, 1)).await?;
        }
        let shape = Shape::matrix(id, out.len() as u32, x.len() as u32);
        self.passes_rows_on = matches!(out, Output::Add(_));
        self.request(shape).await
    }

    async fn sparse_product(&mut self, id: Id, k: Span, _: Option<Span>, x: Span) -> Result<(), E> {
        self.room(columns_room(x.len()));
        self.request(Shape::columns(id, x.len() as u32, k.len() as u32)).await
    }

    async fn bias(&mut self, id: Id, x: Span, _: Activation) -> Result<(), E> {
        self.request(Shape::vectors(id, x.len() as u32, 1)).await
    }

    fn copy(&mut self, _: Span, _: Span) -> Result<(), E> {
        Ok(())
    }

    fn product_by(&mut self, _: Span, _: Span, _: Span) -> Result<(), E> {
        Ok(())
    }

    fn multiply(&mut self, _: Span, _: Span) -> Result<(), E> {
        Ok(())
    }

    fn lerp(&mut self, _: Span, _: Span, _: Span) -> Result<(), E> {
        Ok(())
    }

    fn keep(&mut self, _: Span, _: Carry) -> Result<(), E> {
        Ok(())
    }

    async fn wkv4(&mut self, k: Span, _: Span, _: Span) -> Result<(), E> {
        self.request(Shape::vectors(Id::AttWkv4, k.len() as u32, 2)).await
    }

    async fn wkv5(&mut self, vectors: Wkv5) -> Result<(), E> {
        self.room(self.dims.head_size);
        self.request(Shape::heads(Id::AttWkv5, vectors.r.len() as u32, 3, self.dims.head_size))
            .await
    }

    async fn wkv7(&mut self, vectors: Wkv7) -> Result<(), E> {
        self.room(2 * self.dims.head_size);
        self.request(Shape::heads(Id::AttWkv7, vectors.r.len() as u32, 5, self.dims.head_size))
            .await
    }

    async fn head(&mut self, x: Span) -> Result<(), E> {
        self.opens_section = true;
        self.layer = None;
        self.layer_norm(Id::LnOut, x, x).await?;
        self.room(product_room(x.len()));
        self.passes_rows_on = true;
        self.request(Shape::matrix(Id::Head, self.dims.vocab, x.len() as u32)).await
    }
}
