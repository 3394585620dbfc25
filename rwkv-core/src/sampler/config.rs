//! What a sampler is told.

use super::{MAX_CANDIDATES, SamplerError};

/// In which order the settings take effect. Each of them is said in full in [`crate::sampler`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Order {
    /// Temperature first, then top-k, top-p and min-p, as most libraries do it.
    #[default]
    Common,
    /// Top-p, min-p and top-k first and temperature last, as RWKV's own package does it.
    Official,
}

/// How to choose a token.
///
/// A setting that is not named is best taken from [`GREEDY`](Self::GREEDY), where each is off:
///
/// ```
/// # use rwkv_core::sampler::{Order, SamplerConfig};
/// let warm = SamplerConfig { temperature: 0.8, top_k: 40, seed: 3, ..SamplerConfig::GREEDY };
/// let official = SamplerConfig { top_p: 0.5, presence: 0.4, frequency: 0.4, penalty_decay: 0.996,
///     order: Order::Official, ..warm };
/// # assert!(warm.validate().is_ok() && official.validate().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SamplerConfig {
    /// Divides the logits. 0 is greedy: the largest logit wins, penalties included, and `top_k`,
    /// `top_p`, `min_p`, `order` and `seed` are unused.
    pub temperature: f32,
    /// Choose among this many, up to [`MAX_CANDIDATES`], which 0 stands for.
    pub top_k: u16,
    /// Probability mass to choose from, in 0..=1. 1 is off, and spares one `exp` per token.
    pub top_p: f32,
    /// Least probability, as a share of the most likely token's, in 0..=1. 0 is off.
    pub min_p: f32,
    /// Divides positive logits of tokens that were generated, and multiplies the others: a
    /// positive normal number. 1 is off.
    pub repetition: f32,
    /// Is subtracted from the logits of tokens that were generated. 0 is off.
    pub presence: f32,
    /// Is subtracted so often from the logit of a token as it was generated. 0 is off.
    pub frequency: f32,
    /// What is left of every count after one more token, in 0..=1. 1 forgets nothing.
    pub penalty_decay: f32,
    /// Which setting takes effect first.
    pub order: Order,
    /// Where the random numbers start.
    pub seed: u64,
}

impl SamplerConfig {
    /// Always the most likely token; no randomness, and every other setting off.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition: 1.0,
        presence: 0.0,
        frequency: 0.0,
        penalty_decay: 1.0,
        order: Order::Common,
        seed: 0,
    };

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The one that names the first field out of its range.
    pub const fn validate(&self) -> Result<(), SamplerError> {
        const fn is_share(x: f32) -> bool {
            x >= 0.0 && x <= 1.0
        }
        const fn is_positive(x: f32) -> bool {
            x >= f32::MIN_POSITIVE && x <= f32::MAX
        }
        // The reciprocal of a subnormal temperature may overflow.
        if !(self.temperature == 0.0 || is_positive(self.temperature)) {
            return Err(SamplerError::Temperature);
        }
        if self.top_k as usize > MAX_CANDIDATES {
            return Err(SamplerError::TopK);
        }
        if !is_share(self.top_p) {
            return Err(SamplerError::TopP);
        }
        if !is_share(self.min_p) {
            return Err(SamplerError::MinP);
        }
        if !is_positive(self.repetition) {
            return Err(SamplerError::Repetition);
        }
        if !(self.presence.is_finite() && self.frequency.is_finite()) {
            return Err(SamplerError::Penalty);
        }
        if !is_share(self.penalty_decay) {
            return Err(SamplerError::PenaltyDecay);
        }
        Ok(())
    }

    /// Whether any penalty is on.
    pub const fn penalises(&self) -> bool {
        self.repetition != 1.0 || self.presence != 0.0 || self.frequency != 0.0
    }

    pub(super) const fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// The logit of a token that was generated `count` times.
    pub(super) fn penalised(&self, logit: f32, count: f32) -> f32 {
        let positive = logit > 0.0;
        let logit = if positive { logit / self.repetition } else { logit * self.repetition };
        logit - (self.presence + count * self.frequency)
    }
}
