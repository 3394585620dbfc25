//! From logits to a token, without a buffer for the logits.
//!
//! The head of the network is walked row by row, and the sampler sees each logit once, in token id
//! order. It keeps the [`MAX_CANDIDATES`] best and, when top-p needs it, the normaliser of the
//! softmax over the whole vocabulary. Temperature comes first:
//!
//! 1. p = softmax(logits / T) over all tokens;
//! 2. top-k keeps the k largest, ties going to the lower id;
//! 3. top-p keeps the shortest prefix of those whose probabilities add up to at least `top_p`,
//!    never fewer than one; where all of them fall short, all stay;
//! 4. what is left is renormalised, and one number of 24 random bits picks a token.
//!
//! Host and device draw the same tokens: every step is [`crate::math`] in a fixed order.

mod candidates;
mod rng;

pub use candidates::{Candidate, Candidates};
pub use rng::Xoshiro128StarStar;

use crate::math;
use core::fmt;

/// The most tokens a sampler chooses from.
pub const MAX_CANDIDATES: usize = 64;

/// How to choose a token.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SamplerConfig {
    /// Divides the logits. 0 is greedy: the largest logit wins, the rest of this is unused.
    pub temperature: f32,
    /// Choose among this many, up to [`MAX_CANDIDATES`], which 0 stands for.
    pub top_k: u16,
    /// Probability mass to choose from, in 0..=1. 1 is off, and spares one `exp` per token.
    pub top_p: f32,
    /// Where the random numbers start.
    pub seed: u64,
}

impl SamplerConfig {
    /// Always the most likely token; no randomness.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };

    /// Checks every field against its range.
    pub const fn validate(&self) -> Result<(), SamplerError> {
        // The reciprocal of a subnormal temperature may overflow.
        let t = self.temperature;
        if !(t == 0.0 || (t >= f32::MIN_POSITIVE && t <= f32::MAX)) {
            return Err(SamplerError::Temperature);
        }
        if self.top_k as usize > MAX_CANDIDATES {
            return Err(SamplerError::TopK);
        }
        if !(self.top_p >= 0.0 && self.top_p <= 1.0) {
            return Err(SamplerError::TopP);
        }
        Ok(())
    }
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SamplerError {
    /// The temperature is negative, subnormal or not finite.
    Temperature,
    /// `top_k` exceeds [`MAX_CANDIDATES`].
    TopK,
    /// `top_p` is outside 0..=1.
    TopP,
    /// A logit is infinite or NaN.
    NonFiniteLogit {
        /// Whose logit it is.
        token: u32,
    },
    /// Logits came out of order, or with a gap.
    OutOfOrder {
        /// The token whose logit was due.
        expected: u32,
        /// The token whose logit came.
        found: u32,
    },
    /// No logit was pushed.
    NoLogits,
}

impl fmt::Display for SamplerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Temperature => f.write_str("temperature must be 0 or a positive normal number"),
            Self::TopK => write!(f, "top_k must be at most {MAX_CANDIDATES}"),
            Self::TopP => f.write_str("top_p must lie in 0..=1"),
            Self::NonFiniteLogit { token } => write!(f, "logit of token {token} is not finite"),
            Self::OutOfOrder { expected, found } => {
                write!(f, "logits of token {found} came where {expected} was due")
            }
            Self::NoLogits => f.write_str("no logits to choose from"),
        }
    }
}

impl core::error::Error for SamplerError {}

/// Chooses one token per row of logits.
///
/// ```
/// # use rwkv_core::sampler::{Sampler, SamplerConfig};
/// let mut sampler = Sampler::new(SamplerConfig::GREEDY)?;
/// sampler.begin();
/// sampler.push(0, &[0.5, -1.0]);
/// sampler.push(2, &[3.0]);
/// assert_eq!(sampler.finish()?, 2);
/// # Ok::<(), rwkv_core::sampler::SamplerError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplerConfig,
    /// 1 / T; unused when greedy.
    scale: f32,
    rng: Xoshiro128StarStar,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler ready for its first row.
    ///
    /// # Errors
    /// What [`SamplerConfig::validate`] finds.
    pub const fn new(config: SamplerConfig) -> Result<Self, SamplerError> {
        if let Err(error) = config.validate() {
            return Err(error);
        }
        let greedy = config.temperature == 0.0;
        let scale = if greedy { 1.0 } else { 1.0 / config.temperature };
        let limit = match config.top_k {
            _ if greedy => 1,
            0 => MAX_CANDIDATES,
            k => k as usize,
        };
        let normalise = !greedy && config.top_p < 1.0;
        let candidates = Candidates::new(limit, if normalise { Some(scale) } else { None });
        Ok(Self { config, scale, rng: Xoshiro128StarStar::from_seed(config.seed), candidates })
    }

    /// Starts a row.
    pub fn begin(&mut self) {
        self.candidates.clear();
    }

    /// Takes the logits of the tokens from `first` on. Rows start at token 0 and have no gaps; an
    /// error is kept for [`finish`](Self::finish).
    pub fn push(&mut self, first: u32, logits: &[f32]) {
        self.candidates.push(first, logits);
    }

    /// The best candidates so far, best first, before top-p.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn candidates(&self) -> Result<&[Candidate], SamplerError> {
        self.candidates.best()
    }

    /// Chooses a token. Takes exactly one random number, or none when greedy or on an error.
    /// Another call before [`begin`](Self::begin) chooses again from the same row.
    ///
    /// # Errors
    /// A logit was not finite, logits came out of order, or there were none.
    pub fn finish(&mut self) -> Result<u32, SamplerError> {
        if self.config.temperature == 0.0 {
            let best = self.candidates.best()?;
            return best.first().map(|best| best.token).ok_or(SamplerError::NoLogits);
        }
        let mut cumulative = [0.0; MAX_CANDIDATES];
        let (kept, total) = self.keep(&mut cumulative)?;
        // Below `total`, since the random number is at most 1 - 2^-24.
        let drawn = self.rng.next_unit() * total;
        let chosen = cumulative.iter().take(kept).position(|&sum| sum > drawn).unwrap_or(0);
        self.candidates.best()?.get(chosen).map(|c| c.token).ok_or(SamplerError::NoLogits)
    }

    /// How many candidates top-p leaves, and the sum of their masses, the first one's mass being 1.
    /// `cumulative[i]` receives the sum of the masses 0..=i.
    fn keep(&self, cumulative: &mut [f32; MAX_CANDIDATES]) -> Result<(usize, f32), SamplerError> {
        let best = self.candidates.best()?;
        let max = best.first().map_or(0.0, |best| best.logit);
        let wanted = if self.config.top_p < 1.0 {
            self.config.top_p * self.candidates.normaliser()
        } else {
            f32::INFINITY
        };
        let (mut kept, mut total) = (0, 0.0);
        for (candidate, sum) in best.iter().zip(cumulative) {
            total += math::exp((candidate.logit - max) * self.scale);
            *sum = total;
            kept += 1;
            if total >= wanted {
                break;
            }
        }
        Ok((kept, total))
    }
}

#[cfg(test)]
mod tests;
