//! Why there is no token.

use super::MAX_CANDIDATES;
use core::fmt;

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
    /// A logit is infinite or NaN, or penalties made it so.
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
    /// `min_p` is outside 0..=1.
    MinP,
    /// The repetition penalty is negative, zero, subnormal or not finite.
    Repetition,
    /// The presence or the frequency penalty is not finite.
    Penalty,
    /// `penalty_decay` is outside 0..=1.
    PenaltyDecay,
    /// Banned tokens do not stand in ascending order, or one stands twice.
    BannedOrder,
    /// The mask allowed none of the row's tokens.
    NothingAllowed,
}

impl fmt::Display for SamplerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Temperature => f.write_str("temperature must be 0 or a positive normal number"),
            Self::TopK => write!(f, "top_k must be at most {MAX_CANDIDATES}"),
            Self::TopP => f.write_str("top_p must lie in 0..=1"),
            Self::NonFiniteLogit { token } => {
                write!(f, "logit of token {token}, penalties included, is not finite")
            }
            Self::OutOfOrder { expected, found } => {
                write!(f, "logits of token {found} came where {expected} was due")
            }
            Self::NoLogits => f.write_str("no logits to choose from"),
            Self::MinP => f.write_str("min_p must lie in 0..=1"),
            Self::Repetition => {
                f.write_str("the repetition penalty must be a positive normal number; 1 is off")
            }
            Self::Penalty => {
                f.write_str("the presence and the frequency penalty must be finite; 0 is off")
            }
            Self::PenaltyDecay => f.write_str("penalty_decay must lie in 0..=1"),
            Self::BannedOrder => {
                f.write_str("banned tokens must stand in ascending order, each once")
            }
            Self::NothingAllowed => f.write_str("the mask allows no token of the vocabulary"),
        }
    }
}

impl core::error::Error for SamplerError {}
