//! The scratch of the tokens of a sequence.

use rayon::prelude::*;
use rwkv_core::{
    Error,
    exec::{Lane, Span},
};

/// The scratch of some tokens, one behind the other.
pub(in crate::prefill) struct Lanes<'a> {
    words: &'a mut [f32],
    stride: usize,
}

impl<'a> Lanes<'a> {
    /// `stride` words of each token.
    pub(super) const fn new(words: &'a mut [f32], stride: usize) -> Self {
        Self { words, stride }
    }

    /// Tokens.
    pub(super) const fn len(&self) -> usize {
        self.words.len() / self.stride
    }

    /// Words from a token to the next.
    pub(super) const fn stride(&self) -> usize {
        self.stride
    }

    /// Only the last `count` tokens.
    pub(super) fn last(self, count: usize) -> Result<Self, Error> {
        let first = self.len().saturating_sub(count) * self.stride;
        Ok(Self { words: self.words.get_mut(first..).ok_or(Error::Internal)?, ..self })
    }

    /// All of it.
    pub(super) const fn words(&self) -> &[f32] {
        self.words
    }

    /// A vector of every token.
    pub(super) fn vectors(&self, span: Span) -> Result<Vec<&[f32]>, Error> {
        let lanes = self.words.chunks_exact(self.stride).map(|lane| lane.get(span.range()));
        lanes.collect::<Option<_>>().ok_or(Error::Internal)
    }

    /// One by one.
    pub(super) fn each(&mut self) -> impl Iterator<Item = Lane<'_>> {
        self.words.chunks_exact_mut(self.stride).map(Lane)
    }

    /// One by one, in parallel.
    pub(super) fn parallel(&mut self) -> impl IndexedParallelIterator<Item = Lane<'_>> {
        self.words.par_chunks_exact_mut(self.stride).map(Lane)
    }

    /// Runs of `tokens`, in parallel.
    pub(super) fn runs(&mut self, tokens: usize) -> impl IndexedParallelIterator<Item = Lanes<'_>> {
        let stride = self.stride;
        self.words.par_chunks_mut(stride * tokens).map(move |words| Lanes { words, stride })
    }

    /// Shows `visit` what was computed for each token: of some runs of rows, the first row, how
    /// many there are, and their outputs, a token's behind those of the one before.
    pub(super) fn deliver<S: Send>(
        &mut self,
        runs: &[(usize, usize, &mut [f32])],
        sinks: &mut [S],
        visit: &(impl Fn(&mut Lane<'_>, &mut S, usize, &[f32]) -> Result<(), Error> + Sync),
    ) -> Result<(), Error> {
        self.parallel().zip(sinks).enumerate().try_for_each(|(token, (mut lane, sink))| {
            runs.iter().try_for_each(|(first, rows, outputs)| {
                let y = outputs.get(token * rows..(token + 1) * rows);
                visit(&mut lane, sink, *first, y.ok_or(Error::Internal)?)
            })
        })
    }
}
