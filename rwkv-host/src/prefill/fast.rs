//! Reading a text faster, without the bits of a step: for evaluating images of floats.
//!
//! A matrix is multiplied with all tokens at once, in an order of the machine's liking, and the
//! recurrences of versions 5 to 7 take 16 tokens at once. Everything else is as in
//! [`super::prefill`]. What comes out is close to the exact logits ([`BOUND`]), and depends on the
//! machine.
//!
//! So it is a reader of its own, which keeps its state: no function takes or gives one, and none
//! digests, so that nothing that a device is held to can come from here.

use rwkv_core::{
    Error, Image, ImageError,
    exec::record::Request,
    image::{Format, Id},
    kernel::native,
};
use thiserror::Error;

use super::{cpu::Fast, run};
use crate::memory::Memory;

/// How far a logit may be from the exact one, as a part of the largest magnitude of the token's
/// exact logits. Models that forget stay below 1e-5. Where decays are next to one the distance grows
/// with the text; tests hold it over 3,000 tokens, and an evaluation checks its first ones.
pub const BOUND: f32 = 5e-4;

/// Why an image is not read fast.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FastError {
    /// A matrix of integers.
    #[error(
        "the image holds integers ({id:?}{}, {format:?}), whose exact products are what an \
         evaluation is about: leave --fast away, or convert the checkpoint with --weights f32 or f16",
        .layer.map_or_else(String::new, |layer| format!(" of layer {layer}"))
    )]
    Integers {
        /// The record.
        id: Id,
        /// Its layer.
        layer: Option<u32>,
        /// What it holds.
        format: Format,
    },
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Reads a text with an image of floats.
#[derive(Debug)]
pub struct FastReader<'a> {
    image: &'a Image<'a>,
    memory: Memory,
}

impl<'a> FastReader<'a> {
    /// A reader that begins where the image does.
    ///
    /// # Errors
    /// [`FastError::Integers`] if the image holds any.
    pub fn new(image: &'a Image<'a>) -> Result<Self, FastError> {
        let mut integers = None;
        image.walk(|request: &Request, found| {
            let format = found.record.format;
            if format.is_integer() && integers.is_none() {
                integers = Some((request.id, request.layer, format));
            }
            Ok(())
        })?;
        if let Some((id, layer, format)) = integers {
            return Err(FastError::Integers { id, layer, format });
        }
        Ok(Self { image, memory: Memory::new(image) })
    }

    /// Reads more of the text; `logits` are those after the last tokens of it, one buffer each.
    ///
    /// # Errors
    /// As [`super::prefill`].
    pub fn read(&mut self, tokens: &[u32], logits: &mut [&mut [f32]]) -> Result<(), Error> {
        let state = self.memory.state(self.image)?;
        run(Fast(native()), self.image, state, tokens, (logits, None), &mut ())
    }
}

/// The largest deviation of some logits from the exact ones, as a part of the largest magnitude
/// of the exact ones of the same token. Both are row after row of `vocab`. It is infinite if any of
/// them is not finite, or if there are not as many.
pub fn deviation(exact: &[f32], fast: &[f32], vocab: usize) -> f32 {
    let all_finite = exact.iter().chain(fast).all(|x| x.is_finite());
    if exact.len() != fast.len() || !all_finite {
        return f32::INFINITY;
    }
    let rows = exact.chunks_exact(vocab.max(1)).zip(fast.chunks_exact(vocab.max(1)));
    let of_row = |(exact, fast): (&[f32], &[f32])| {
        let most = exact.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
        let apart = exact.iter().zip(fast).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
        apart / most
    };
    rows.map(of_row).fold(0.0, f32::max)
}
