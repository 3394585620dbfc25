//! What is remembered of a row of logits: the best few, and the softmax normaliser of all.

use super::{MAX_CANDIDATES, SamplerError, normaliser::Normaliser};

/// A token and its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Candidate {
    /// The token's id.
    pub token: u32,
    /// Its logit, after penalties and before temperature.
    pub logit: f32,
}

/// Collects logits in token id order, without a buffer for the row.
///
/// The result depends on the row alone, not on how it was sliced.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Candidates {
    entries: [Candidate; MAX_CANDIDATES],
    len: usize,
    limit: usize,
    /// What the normaliser's logits are multiplied by, or `None` where nobody asks for it.
    scale: Option<f32>,
    normaliser: Normaliser,
    next: u32,
    error: Option<SamplerError>,
}

impl Candidates {
    /// Keeps the `limit` best, at most [`MAX_CANDIDATES`]. With a `scale`, such as 1 / T, the
    /// normaliser is kept too, at the cost of about one `exp` per token.
    pub const fn new(limit: usize, scale: Option<f32>) -> Self {
        let mut new = Self {
            entries: [Candidate { token: 0, logit: 0.0 }; MAX_CANDIDATES],
            len: 0,
            limit: 0,
            scale: None,
            normaliser: Normaliser::new(),
            next: 0,
            error: None,
        };
        new.reset(limit, scale);
        new
    }

    /// Forgets everything and begins as [`new`](Self::new) does.
    pub const fn reset(&mut self, limit: usize, scale: Option<f32>) {
        self.limit = if limit > MAX_CANDIDATES { MAX_CANDIDATES } else { limit };
        self.scale = scale;
        self.clear();
    }

    /// Forgets the row.
    pub const fn clear(&mut self) {
        self.len = 0;
        self.normaliser = Normaliser::new();
        self.next = 0;
        self.error = None;
    }

    /// Takes the logits of the tokens from `first` on; the first error sticks until
    /// [`clear`](Self::clear).
    pub fn push(&mut self, first: u32, logits: &[f32]) {
        if !self.is_due(first) {
            return;
        }
        for (token, &logit) in (self.next..).zip(logits) {
            if !logit.is_finite() {
                self.error = Some(SamplerError::NonFiniteLogit { token });
                return;
            }
            if let Some(scale) = self.scale {
                self.normaliser.push(logit, scale);
            }
            if self.is_among_the_best(logit) {
                self.insert(Candidate { token, logit });
            }
        }
        self.next = self.next.wrapping_add(logits.len() as u32);
    }

    /// Passes over a token that must not be chosen. Its logit is not looked at.
    pub fn skip(&mut self, token: u32) {
        if self.is_due(token) {
            self.next = self.next.wrapping_add(1);
        }
    }

    /// Whether it is this token's turn, and there was no error.
    fn is_due(&mut self, token: u32) -> bool {
        if token != self.next {
            let error = SamplerError::OutOfOrder { expected: self.next, found: token };
            self.error.get_or_insert(error);
        }
        self.error.is_none()
    }

    /// The candidates, best first; equal logits stand in id order.
    pub fn best(&self) -> Result<&[Candidate], SamplerError> {
        match (self.error, self.entries.get(..self.len)) {
            (Some(error), _) => Err(error),
            (None, None | Some([])) if self.next == 0 => Err(SamplerError::NoLogits),
            (None, None | Some([])) => Err(SamplerError::NothingAllowed),
            (None, Some(best)) => Ok(best),
        }
    }

    /// The sum over all tokens of exp((logit - largest logit) * scale), at least 1. Zero without a
    /// scale, or before the first logit.
    pub fn normaliser(&self) -> f32 {
        self.normaliser.sum
    }

    /// Whether it is kept; of most logits of a row no more is asked.
    fn is_among_the_best(&self, logit: f32) -> bool {
        let kept = self.entries.get(..self.len).unwrap_or_default();
        self.len < self.limit || kept.last().is_some_and(|worst| logit > worst.logit)
    }

    #[inline(never)]
    fn insert(&mut self, new: Candidate) {
        let kept = self.entries.get(..self.len).unwrap_or_default();
        let full = self.len >= self.limit;
        let at = kept.partition_point(|kept| kept.logit >= new.logit);
        self.len = if full { self.limit } else { self.len + 1 };
        let mut moved = new;
        for entry in self.entries.iter_mut().take(self.len).skip(at) {
            core::mem::swap(entry, &mut moved);
        }
    }
}
