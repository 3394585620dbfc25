//! Which tokens may be chosen at all.

use super::{Sampler, SamplerError};
use crate::Logits;
use core::slice;

/// Which tokens may be chosen. All others are passed over: they are no candidates, and no part of
/// the sum that probabilities are shares of.
///
/// A mask is borrowed for one row of logits, see [`Sampler::within`], so that a grammar may allow
/// other tokens after each.
///
/// ```
/// use rwkv_core::{Logits, sampler::{Mask, Sampler, SamplerConfig}};
///
/// /// Bytes: a digit after a letter, a letter after a digit.
/// struct Turns { digit: bool }
///
/// impl Mask for Turns {
///     fn allows(&self, token: u32) -> bool {
///         let byte = token as u8;
///         if self.digit { byte.is_ascii_digit() } else { byte.is_ascii_lowercase() }
///     }
/// }
///
/// let mut sampler = Sampler::new(SamplerConfig::GREEDY)?;
/// let mut turns = Turns { digit: false };
/// let mut text = String::new();
/// for _ in 0..4 {
///     sampler.begin();
///     // In firmware: `model.step(state, token, sampler.within(&turns))`.
///     sampler.within(&turns).push(0, &[0.5; 256]);
///     text.push(char::from(sampler.finish()? as u8));
///     turns.digit = !turns.digit;
/// }
/// assert_eq!(text, "a0a0");
/// # Ok::<(), rwkv_core::sampler::SamplerError>(())
/// ```
pub trait Mask {
    /// Whether the token may be chosen. Asked once at most for each, in the order of their ids.
    fn allows(&self, token: u32) -> bool;

    /// Whether every token may be: nobody then asks for each.
    fn allows_all(&self) -> bool {
        false
    }

    /// Hears of a token of the text, read or chosen, in order and before the next row: a grammar
    /// goes on. A [`crate::Generator`] tells its mask; others call it themselves.
    fn advance(&mut self, token: u32) {
        let _ = token;
    }

    /// Hears that another text begins.
    fn restart(&mut self) {}
}

/// For one row: it hears of no token.
impl<M: Mask + ?Sized> Mask for &M {
    fn allows(&self, token: u32) -> bool {
        (**self).allows(token)
    }

    fn allows_all(&self) -> bool {
        (**self).allows_all()
    }
}

impl<M: Mask + ?Sized> Mask for &mut M {
    fn allows(&self, token: u32) -> bool {
        (**self).allows(token)
    }

    fn allows_all(&self) -> bool {
        (**self).allows_all()
    }

    fn advance(&mut self, token: u32) {
        (**self).advance(token);
    }

    fn restart(&mut self) {
        (**self).restart();
    }
}

/// No mask: every token may be chosen.
impl Mask for () {
    fn allows(&self, _: u32) -> bool {
        true
    }

    fn allows_all(&self) -> bool {
        true
    }
}

/// What both allow.
impl<A: Mask, B: Mask> Mask for (A, B) {
    fn allows(&self, token: u32) -> bool {
        self.0.allows(token) && self.1.allows(token)
    }

    fn allows_all(&self) -> bool {
        self.0.allows_all() && self.1.allows_all()
    }

    fn advance(&mut self, token: u32) {
        self.0.advance(token);
        self.1.advance(token);
    }

    fn restart(&mut self) {
        self.0.restart();
        self.1.restart();
    }
}

/// Where there is no mask, every token may be chosen.
impl<M: Mask> Mask for Option<M> {
    fn allows(&self, token: u32) -> bool {
        self.as_ref().is_none_or(|mask| mask.allows(token))
    }

    fn allows_all(&self) -> bool {
        self.as_ref().is_none_or(Mask::allows_all)
    }

    fn advance(&mut self, token: u32) {
        self.iter_mut().for_each(|mask| mask.advance(token));
    }

    fn restart(&mut self) {
        self.iter_mut().for_each(Mask::restart);
    }
}

/// Allows every token but these, by default none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Banned<'a>(&'a [u32]);

impl<'a> Banned<'a> {
    /// Bans tokens, given in ascending order.
    ///
    /// # Errors
    /// [`SamplerError::BannedOrder`].
    pub fn new(tokens: &'a [u32]) -> Result<Self, SamplerError> {
        let ascending = tokens.is_sorted_by(|a, b| a < b);
        if ascending { Ok(Self(tokens)) } else { Err(SamplerError::BannedOrder) }
    }
}

impl Mask for Banned<'_> {
    fn allows(&self, token: u32) -> bool {
        self.0.binary_search(&token).is_err()
    }

    fn allows_all(&self) -> bool {
        self.0.is_empty()
    }
}

/// Allows the tokens whose bit is set: bit `token % 32` of word `token / 32`, and none beyond the
/// last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Allowed<'a>(pub &'a [u32]);

impl Mask for Allowed<'_> {
    fn allows(&self, token: u32) -> bool {
        self.0.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }
}

/// A sampler that sees the allowed tokens of a row only, from [`Sampler::within`].
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Within<'a, M> {
    sampler: &'a mut Sampler,
    mask: M,
}

impl<'a, M> Within<'a, M> {
    pub(super) const fn new(sampler: &'a mut Sampler, mask: M) -> Self {
        Self { sampler, mask }
    }
}

impl<M: Mask> Logits for Within<'_, M> {
    fn push(&mut self, first: u32, logits: &[f32]) {
        if self.mask.allows_all() {
            return self.sampler.push(first, logits);
        }
        for (token, logit) in (first..).zip(logits) {
            if self.mask.allows(token) {
                self.sampler.push(token, slice::from_ref(logit));
            } else {
                self.sampler.skip(token);
            }
        }
    }
}
