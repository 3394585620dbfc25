//! Executors: what the model text runs on.
//!
//! A version of RWKV is written once, as a sequence of the operations of [`Executor`] (see
//! [`crate::model`]). [`Step`] computes one token in fixed memory, [`record`] computes nothing and
//! learns which records a token reads and how much scratch it needs; the host adds a sequence
//! executor. Operations that read weights name the records they expect, in the order in which
//! they lie in the image.

pub(crate) mod blocks;
mod logits;
pub mod record;
mod room;
mod rows;
pub(crate) mod start;
mod step;
mod work;

pub use logits::{Hidden, Logits};
pub use rows::{Inputs, Lane, TILE_ROWS, tile_rows_of_many};
pub use step::{Columns, Step, check, finite};
pub use work::{Numbered, Part, Work, Written};

use crate::{
    image::{Dims, Id},
    op::{Activation, Shift},
};

/// A vector in an executor's scratch: the place is the same for every token of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// Its range in the scratch of a token.
    pub const fn range(self) -> core::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// Elements.
    pub const fn len(self) -> usize {
        self.len as usize
    }

    /// Whether it has no elements.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// A part of it: `len` elements from `first`, cut at its end.
    #[must_use]
    pub const fn part(self, first: usize, len: usize) -> Self {
        let first = if first as u32 > self.len { self.len } else { first as u32 };
        let rest = self.len - first;
        let len = if len as u32 > rest { rest } else { len as u32 };
        Self { start: self.start + first, len }
    }
}

/// Hands out scratch in stack order and remembers the peak. Every executor has one, so that
/// spans lie at the same place on all of them.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Bump {
    top: u32,
    peak: u32,
}

impl Bump {
    /// Takes `len` words. Whether they are there shows when the span is used: see [`Lane::get`].
    pub fn take(&mut self, len: u32) -> Span {
        let span = Span { start: self.top, len };
        self.top = self.top.saturating_add(len);
        if self.top > self.peak {
            self.peak = self.top;
        }
        span
    }

    /// Gives back `span` and all that was taken after it.
    pub fn release(&mut self, span: Span) {
        self.top = span.start;
    }

    /// The most words that were ever taken.
    pub const fn peak(&self) -> u32 {
        self.peak
    }
}

/// One of the two token-shift rows of a layer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Carry {
    /// The time mix's normalised input at the previous token.
    Att,
    /// The channel mix's normalised input at the previous token.
    Ffn,
}

/// Token shift: the record of its weights, the vector, the state row that holds its predecessor.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Shifted {
    /// The record of the weights.
    pub id: Id,
    /// The vector of the current token.
    pub x: Span,
    /// Where the previous token's vector is kept.
    pub previous: Carry,
    /// Which of the two the weights multiply.
    pub kind: Shift,
}

/// The input of a product.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Input {
    /// A vector as it is.
    Plain(Span),
    /// A vector after its token shift.
    Shifted(Shifted),
}

impl Input {
    /// Elements.
    pub const fn len(&self) -> usize {
        match self {
            Self::Plain(x) => x.len(),
            Self::Shifted(s) => s.x.len(),
        }
    }

    /// Whether it has no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where the rows of a product go.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Output {
    /// `y = f(W·x)`.
    Set(Span, Activation),
    /// `y += W·x`.
    Add(Span),
}

impl Output {
    /// Elements.
    pub const fn len(&self) -> usize {
        match self {
            Self::Set(y, _) | Self::Add(y) => y.len(),
        }
    }

    /// Whether it has no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The vectors of the recurrence of versions 5 and 6, all of model width.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Wkv5 {
    /// Receptance in, output out.
    pub r: Span,
    /// Decay.
    pub w: Span,
    /// Key.
    pub k: Span,
    /// Value.
    pub v: Span,
}

/// The vectors of version 7's recurrence, all of model width.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Wkv7 {
    /// Receptance in, gated output out.
    pub r: Span,
    /// Decay.
    pub w: Span,
    /// Key; overwritten.
    pub k: Span,
    /// Value.
    pub v: Span,
    /// In-context learning rate; overwritten.
    pub a: Span,
    /// Gate.
    pub g: Span,
}

/// The operations of a token.
#[expect(async_fn_in_trait, reason = "executors are used by value, never through dyn or threads")]
pub trait Executor {
    /// Why an operation failed.
    type Error;

    /// The dimensions of the model.
    fn dims(&self) -> Dims;

    /// Takes a vector from scratch; its content is undefined.
    fn take(&mut self, len: u32) -> Span;

    /// Gives back `span` and all that was taken after it.
    fn release(&mut self, span: Span);

    /// `out = embedding[token]`, normalised by the folded `ln0`.
    async fn embed(&mut self, out: Span) -> Result<(), Self::Error>;

    /// `out` = the row of the DeepEmbed table for the token and the layer.
    async fn deep_row(&mut self, out: Span) -> Result<(), Self::Error>;

    /// Enters the section of a layer; its state is the one the following operations use.
    async fn layer(&mut self, layer: u32) -> Result<(), Self::Error>;

    /// `out = LN(x)` with the record `id`.
    async fn layer_norm(&mut self, id: Id, x: Span, out: Span) -> Result<(), Self::Error>;

    /// `out` = the vector after its token shift, with the record the shift names.
    async fn shift(&mut self, shifted: Shifted, out: Span) -> Result<(), Self::Error>;

    /// `weights` = the vector after its token shift with these weights, of the form
    /// [`Shift::Previous`].
    fn shift_by(&mut self, weights: Span, x: Span, previous: Carry) -> Result<(), Self::Error>;

    /// `out` = the vector in the record `id`.
    async fn vector(&mut self, id: Id, out: Span) -> Result<(), Self::Error>;

    /// The product of the row-major matrix `id` with a vector. A shift's record comes first.
    async fn product(&mut self, id: Id, x: Input, out: Output) -> Result<(), Self::Error>;

    /// `x += gate ⊙ (W·k)` with the input-major matrix `id`; `k` is overwritten. Columns whose
    /// input is zero are skipped.
    async fn sparse_product(
        &mut self,
        id: Id,
        k: Span,
        gate: Option<Span>,
        x: Span,
    ) -> Result<(), Self::Error>;

    /// `x = f(x + bias)` with the record `id`.
    async fn bias(&mut self, id: Id, x: Span, f: Activation) -> Result<(), Self::Error>;

    /// `out = x`.
    fn copy(&mut self, x: Span, out: Span) -> Result<(), Self::Error>;

    /// `out[j] = Σ x[i]·matrix[i][j]`.
    fn product_by(&mut self, x: Span, matrix: Span, out: Span) -> Result<(), Self::Error>;

    /// `x *= gate`.
    fn multiply(&mut self, x: Span, gate: Span) -> Result<(), Self::Error>;

    /// `x += (target - x)·weight`.
    fn lerp(&mut self, x: Span, target: Span, weight: Span) -> Result<(), Self::Error>;

    /// Stores the vector as the previous token's.
    fn keep(&mut self, x: Span, previous: Carry) -> Result<(), Self::Error>;

    /// Version 4's recurrence; `r` becomes `r ⊙ wkv`. See [`crate::op::wkv4`].
    async fn wkv4(&mut self, k: Span, v: Span, r: Span) -> Result<(), Self::Error>;

    /// The recurrence of versions 5 and 6; `r` becomes its output. See [`crate::op::wkv5`].
    async fn wkv5(&mut self, vectors: Wkv5) -> Result<(), Self::Error>;

    /// Version 7's recurrence; `r` becomes its gated output. See [`crate::op::wkv7`].
    async fn wkv7(&mut self, vectors: Wkv7) -> Result<(), Self::Error>;

    /// `logits = W·LN(x)`, handed on row by row. Enters the head's section.
    async fn head(&mut self, x: Span) -> Result<(), Self::Error>;
}
