//! The recording executor: runs the model text without computing anything.
//!
//! The converter writes records in the order it hears of them, [`crate::Image::open`] compares
//! them with what lies in the image, and both learn the scratch that a step needs. So neither can
//! disagree with the model text.

use core::convert::Infallible;

use super::{Bump, Carry, Executor, Input, Output, Shifted, Span, Wkv7};
use crate::{
    error::ImageError,
    image::{Dims, Id, Shape, Version},
    model,
    op::Activation,
    poll,
};

/// A record that a token reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What it holds.
    pub id: Id,
    /// The layer, or `None` in the sections of embedding and head.
    pub layer: Option<u32>,
    /// Whether it is the first of its section.
    pub opens_section: bool,
    shape: Shape,
}

impl Request {
    /// What the model text expects of the record.
    pub const fn shape(&self) -> Shape {
        self.shape
    }
}

/// What a token needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Words of scratch for one token.
    pub scratch_words: u32,
}

/// Runs the text of a version and calls `visit` for every record, in image order.
///
/// # Errors
/// The first error of `visit`; the rest of the text is not run.
pub fn run<E: From<ImageError>>(
    version: Version,
    dims: &Dims,
    visit: impl FnMut(&Request) -> Result<(), E>,
) -> Result<Plan, E> {
    let mut ex = Recorder {
        dims: *dims,
        bump: Bump::default(),
        layer: None,
        opens_section: false,
        visit: Visit { visit, error: None },
    };
    // The recorder never waits, so one poll completes it.
    let _ = poll::once(model::token(version, &mut ex));
    match ex.visit.error {
        Some(error) => Err(error),
        None => Ok(Plan { scratch_words: ex.bump.peak() }),
    }
}

struct Visit<E, F: FnMut(&Request) -> Result<(), E>> {
    visit: F,
    error: Option<E>,
}

struct Recorder<E, F: FnMut(&Request) -> Result<(), E>> {
    dims: Dims,
    bump: Bump,
    layer: Option<u32>,
    opens_section: bool,
    visit: Visit<E, F>,
}

/// Scratch that a product needs beside its operands: its shifted, then quantised, input.
pub fn product_room(cols: usize) -> u32 {
    cols.next_multiple_of(32) as u32
}

impl<E, F: FnMut(&Request) -> Result<(), E>> Recorder<E, F> {
    fn request(&mut self, shape: Shape) {
        let request =
            Request { id: shape.id, layer: self.layer, opens_section: self.opens_section, shape };
        self.opens_section = false;
        let visit = &mut self.visit;
        if visit.error.is_none()
            && let Err(error) = (visit.visit)(&request)
        {
            visit.error = Some(error);
        }
    }

    fn room(&mut self, words: u32) {
        let span = self.bump.take(words);
        self.bump.release(span);
    }
}

impl<E, F: FnMut(&Request) -> Result<(), E>> Executor for Recorder<E, F> {
    type Error = Infallible;

    fn dims(&self) -> Dims {
        self.dims
    }

    fn take(&mut self, len: u32) -> Span {
        self.bump.take(len)
    }

    fn release(&mut self, span: Span) {
        self.bump.release(span);
    }

    async fn embed(&mut self, out: Span) -> Result<(), Infallible> {
        self.opens_section = true;
        self.request(Shape::table(Id::Embedding, self.dims.vocab, out.len() as u32));
        Ok(())
    }

    async fn layer(&mut self, layer: u32) -> Result<(), Infallible> {
        self.opens_section = true;
        self.layer = Some(layer);
        Ok(())
    }

    async fn layer_norm(&mut self, id: Id, x: Span, _: Span) -> Result<(), Infallible> {
        self.request(Shape::vectors(id, x.len() as u32, 2));
        Ok(())
    }

    async fn shift(&mut self, s: Shifted, _: Span) -> Result<(), Infallible> {
        self.request(Shape::vectors(s.id, s.x.len() as u32, 1));
        Ok(())
    }

    async fn product(&mut self, id: Id, x: Input, out: Output) -> Result<(), Infallible> {
        self.room(product_room(x.len()));
        if let Input::Shifted(s) = x {
            self.request(Shape::vectors(s.id, s.x.len() as u32, 1));
        }
        self.request(Shape::matrix(id, out.len() as u32, x.len() as u32));
        Ok(())
    }

    async fn sparse_product(
        &mut self,
        id: Id,
        k: Span,
        _: Option<Span>,
        x: Span,
    ) -> Result<(), Infallible> {
        self.room(x.len() as u32);
        self.request(Shape::columns(id, x.len() as u32, k.len() as u32));
        Ok(())
    }

    async fn bias(&mut self, id: Id, x: Span, _: Activation) -> Result<(), Infallible> {
        self.request(Shape::vectors(id, x.len() as u32, 1));
        Ok(())
    }

    fn copy(&mut self, _: Span, _: Span) -> Result<(), Infallible> {
        Ok(())
    }

    fn lerp(&mut self, _: Span, _: Span, _: Span) -> Result<(), Infallible> {
        Ok(())
    }

    fn keep(&mut self, _: Span, _: Carry) -> Result<(), Infallible> {
        Ok(())
    }

    async fn wkv4(&mut self, k: Span, _: Span, _: Span) -> Result<(), Infallible> {
        self.request(Shape::vectors(Id::AttWkv4, k.len() as u32, 2));
        Ok(())
    }

    async fn wkv7(&mut self, vectors: Wkv7) -> Result<(), Infallible> {
        self.room(2 * self.dims.head_size);
        self.request(Shape::heads(Id::AttWkv7, vectors.r.len() as u32, 5, self.dims.head_size));
        Ok(())
    }

    async fn head(&mut self, x: Span) -> Result<(), Infallible> {
        self.opens_section = true;
        self.layer = None;
        self.layer_norm(Id::LnOut, x, x).await?;
        self.room(product_room(x.len()));
        self.request(Shape::matrix(Id::Head, self.dims.vocab, x.len() as u32));
        Ok(())
    }
}
