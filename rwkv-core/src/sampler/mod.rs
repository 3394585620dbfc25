//! From logits to a token, without a buffer for the logits.
//!
//! The head of the network is walked row by row, and the sampler sees each logit once, in token id
//! order. It keeps the [`MAX_CANDIDATES`] best and, when top-p needs it, the normaliser of the
//! softmax over the whole vocabulary.
//!
//! Two things come before all else: a [`Mask`] takes tokens out of the row, and penalties lower
//! the logits of tokens that were generated before, `count` times:
//!
//! ```text
//! logit = if logit > 0 { logit / repetition } else { logit * repetition }
//! logit = logit - (presence + count * frequency)
//! ```
//!
//! Then the settings take effect, in [`Order::Common`]:
//!
//! 1. p = softmax(logits / T) over all tokens;
//! 2. top-k keeps the k largest, ties going to the lower id;
//! 3. top-p keeps the shortest prefix of those whose probabilities add up to at least `top_p`,
//!    never fewer than one; where all of them fall short, all stay;
//! 4. min-p keeps those with at least `min_p` times the largest probability.
//!
//! And in [`Order::Official`], which is that of RWKV's own package:
//!
//! 1. p = softmax(logits) over all tokens;
//! 2. top-p as above, and tokens as likely as the last one of the prefix stay as well;
//! 3. min-p as above;
//! 4. top-k as above;
//! 5. p = p^(1/T).
//!
//! In both, what is left is renormalised, and one number of 24 random bits picks a token.
//!
//! Counts are of tokens that [`Sampler::finish`] chose: a prompt is not counted. Before a token is
//! counted, all counts are multiplied by `penalty_decay`. No token is an exception. The sampler
//! remembers [`MAX_HISTORY`] tokens, and forgets the one with the least count first.
//!
//! Host and device draw the same tokens: every step is [`crate::math`] in a fixed order.

mod abc;
mod candidates;
mod config;
mod error;
mod history;
mod mask;
mod normaliser;
mod rng;

pub use abc::{Abc, Tunes};
pub use candidates::{Candidate, Candidates};
pub use config::{Order, SamplerConfig};
pub use error::SamplerError;
pub use history::MAX_HISTORY;
pub use mask::{Allowed, Banned, Mask, Within};
pub(crate) use normaliser::Normaliser;
pub use rng::Xoshiro128StarStar;

use crate::math;
use history::History;

/// The most tokens a sampler chooses from.
pub const MAX_CANDIDATES: usize = 64;

/// Chooses one token per row of logits. Takes about 1.1 KB of RAM.
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
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sampler {
    config: SamplerConfig,
    /// 1 / T; unused when greedy.
    scale: f32,
    rng: Xoshiro128StarStar,
    candidates: Candidates,
    /// Empty while no penalty is on.
    history: History,
}

impl Sampler {
    /// A sampler of the most likely token: [`SamplerConfig::GREEDY`].
    pub const GREEDY: Self = Self {
        config: SamplerConfig::GREEDY,
        scale: 1.0,
        rng: Xoshiro128StarStar::from_seed(SamplerConfig::GREEDY.seed),
        candidates: Candidates::new(1, None),
        history: History::EMPTY,
    };

    /// A sampler ready for its first row.
    ///
    /// # Errors
    /// What [`SamplerConfig::validate`] finds.
    pub const fn new(config: SamplerConfig) -> Result<Self, SamplerError> {
        let mut sampler = Self::GREEDY;
        match sampler.reset(config) {
            Ok(()) => Ok(sampler),
            Err(error) => Err(error),
        }
    }

    /// Begins anew with these settings, as a new sampler would; untouched if they are out of range.
    ///
    /// # Errors
    /// What [`SamplerConfig::validate`] finds.
    pub const fn reset(&mut self, config: SamplerConfig) -> Result<(), SamplerError> {
        if let Err(error) = config.validate() {
            return Err(error);
        }
        let greedy = config.is_greedy();
        self.scale = if greedy { 1.0 } else { 1.0 / config.temperature };
        let limit = match config.top_k {
            _ if greedy => 1,
            0 => MAX_CANDIDATES,
            k => k as usize,
        };
        let normaliser = match config.order {
            _ if greedy || config.top_p == 1.0 => None,
            Order::Common => Some(self.scale),
            Order::Official => Some(1.0),
        };
        self.candidates.reset(limit, normaliser);
        self.rng = Xoshiro128StarStar::from_seed(config.seed);
        self.history.clear();
        self.config = config;
        Ok(())
    }

    /// Starts another text: forgets the tokens that were counted for the penalties, and starts a
    /// row. The random numbers go on.
    pub fn forget(&mut self) {
        self.history.clear();
        self.begin();
    }

    /// Starts a row.
    pub fn begin(&mut self) {
        self.candidates.clear();
    }

    /// Takes the logits of the tokens from `first` on. Rows start at token 0 and have no gaps; an
    /// error is kept for [`finish`](Self::finish).
    pub fn push(&mut self, first: u32, logits: &[f32]) {
        let (mut first, mut rest) = (first, logits);
        while let Some(entry) = self.history.at_or_after(first) {
            let before = entry.token.wrapping_sub(first) as usize;
            let Some((plain, behind)) = rest.split_at_checked(before) else { break };
            let Some((&logit, behind)) = behind.split_first() else { break };
            self.candidates.push(first, plain);
            self.candidates.push(entry.token, &[self.config.penalised(logit, entry.count)]);
            (first, rest) = (entry.token.wrapping_add(1), behind);
        }
        self.candidates.push(first, rest);
    }

    /// Passes over a token that must not be chosen, in its turn.
    pub fn skip(&mut self, token: u32) {
        self.candidates.skip(token);
    }

    /// As a sink for a row's logits, sees only the tokens that `mask` allows.
    pub const fn within<M: Mask>(&mut self, mask: M) -> Within<'_, M> {
        Within::new(self, mask)
    }

    /// The best candidates so far, best first, before top-p and min-p.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn candidates(&self) -> Result<&[Candidate], SamplerError> {
        self.candidates.best()
    }

    /// Chooses a token, and counts it for the penalties. Takes exactly one random number, or none
    /// when greedy or on an error. Another call before [`begin`](Self::begin) chooses again from the
    /// same row.
    ///
    /// # Errors
    /// A logit was not finite, logits came out of order, there were none, or no token was allowed.
    pub fn finish(&mut self) -> Result<u32, SamplerError> {
        let best = self.candidates.best()?;
        let chosen = if self.config.is_greedy() {
            0
        } else {
            let mut cumulative = [0.0; MAX_CANDIDATES];
            let (kept, total) = self.keep(best, &mut cumulative);
            // Below `total`, since the random number is at most 1 - 2^-24.
            let drawn = self.rng.next_unit() * total;
            cumulative.iter().take(kept).position(|&sum| sum > drawn).unwrap_or(0)
        };
        let chosen = best.get(chosen).map(|best| best.token);
        let token = chosen.ok_or(SamplerError::NoLogits)?;
        self.count(token);
        Ok(token)
    }

    /// Counts a token for the penalties as if it had been chosen here, for text that is generated
    /// in another way. Does nothing while no penalty is on.
    pub fn count(&mut self, token: u32) {
        if self.config.penalises() {
            self.history.count(token, self.config.penalty_decay);
        }
    }

    /// How many candidates are left to choose from, and the sum of their masses, the first one's
    /// mass being 1. `cumulative[i]` receives the sum of the masses 0..=i.
    fn keep(&self, best: &[Candidate], cumulative: &mut [f32; MAX_CANDIDATES]) -> (usize, f32) {
        let SamplerConfig { top_p, min_p, order, .. } = self.config;
        let wanted = if top_p < 1.0 { top_p * self.candidates.normaliser() } else { f32::INFINITY };
        match order {
            Order::Common => Cut { min_p, wanted, ties: false }.walk(best, self.scale, cumulative),
            Order::Official => {
                let (kept, _) = Cut { min_p, wanted, ties: true }.walk(best, 1.0, cumulative);
                let kept = best.get(..kept).unwrap_or_default();
                Cut::NONE.walk(kept, self.scale, cumulative)
            }
        }
    }
}

/// Where the candidates end.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// The least mass, as a share of the first one's.
    min_p: f32,
    /// The sum of masses that is enough.
    wanted: f32,
    /// Whether those stay that are as likely as the one that makes it enough.
    ties: bool,
}

impl Cut {
    const NONE: Self = Self { min_p: 0.0, wanted: f32::INFINITY, ties: false };

    /// How many candidates come before the cut, and the sum of their masses at `scale`.
    fn walk(
        self,
        best: &[Candidate],
        scale: f32,
        cumulative: &mut [f32; MAX_CANDIDATES],
    ) -> (usize, f32) {
        let max = best.first().map_or(0.0, |best| best.logit);
        let (mut kept, mut total, mut least) = (0, 0.0, self.min_p);
        for (candidate, sum) in best.iter().zip(cumulative) {
            let mass = math::exp((candidate.logit - max) * scale);
            if mass < least {
                break;
            }
            total += mass;
            *sum = total;
            kept += 1;
            if total >= self.wanted {
                if !self.ties {
                    break;
                }
                least = mass;
            }
        }
        (kept, total)
    }
}

#[cfg(test)]
mod tests;
