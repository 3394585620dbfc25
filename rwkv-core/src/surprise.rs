//! How surprising a text is to a model.

use crate::{Logits, sampler::Normaliser};

const LOG2_E: f32 = core::f32::consts::LOG2_E;

/// How much a token surprises: `-log2` of the probability that a model gave it. A sink for the row
/// of logits before that token; it takes 20 bytes, and no buffer for the row.
///
/// What is usual in a log, a text or a stream of events costs few bits, what is not costs many.
/// The bits are the same everywhere, so a threshold is, too. The book's chapter *Sampling* has the
/// formula.
///
/// ```
/// use rwkv_core::{Logits, Surprise};
///
/// let mut surprise = Surprise::of(2);
/// // In firmware: `model.step(state, token, &mut surprise)`.
/// surprise.push(0, &[0.0, 0.0]);
/// surprise.push(2, &[0.0, 0.0]);
/// assert_eq!(surprise.bits(), Some(2.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Surprise {
    next: u32,
    logit: Option<f32>,
    all: Normaliser,
}

impl Surprise {
    /// Of this token, if it comes next.
    pub const fn of(next: u32) -> Self {
        Self { next, logit: None, all: Normaliser::new() }
    }

    /// The token.
    pub const fn token(&self) -> u32 {
        self.next
    }

    /// The bits, 0 or more; `None` if the row was not seen or has no such token.
    pub fn bits(&self) -> Option<f32> {
        self.logit.map(|logit| ((self.all.max() - logit) + self.all.ln()) * LOG2_E)
    }
}

/// Each row begins at token 0 and forgets the one before.
impl Logits for Surprise {
    fn push(&mut self, first: u32, logits: &[f32]) {
        if first == 0 {
            *self = Self::of(self.next);
        }
        logits.iter().for_each(|logit| self.all.push(*logit, 1.0));
        let at = self.next.checked_sub(first).and_then(|at| logits.get(at as usize));
        self.logit = at.copied().or(self.logit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(next: u32, row: &[f32], piece: usize) -> Option<f32> {
        let mut surprise = Surprise::of(next);
        // What came before leaves nothing.
        surprise.push(0, &[9.0; 4]);
        for (index, logits) in row.chunks(piece).enumerate() {
            surprise.push((index * piece) as u32, logits);
        }
        surprise.bits()
    }

    #[test]
    fn it_is_the_logarithm_of_the_probability() {
        let row: std::vec::Vec<f32> = (0..300).map(|i| ((i * 37) % 101) as f32 * 0.2).collect();
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        for (token, logit) in row.iter().enumerate() {
            let found = f64::from(bits(token as u32, &row, 300).unwrap());
            let wanted = (sum.ln() - f64::from(*logit)) * core::f64::consts::LOG2_E;
            assert!(found >= 0.0 && (found - wanted).abs() < 1e-5, "{token}: {found}, {wanted}");
        }
    }

    #[test]
    fn pieces_change_no_bit() {
        let row: std::vec::Vec<f32> = (0..100).map(|i| (i as f32 * 1.7).sin() * 30.0).collect();
        for token in [0, 42, 99] {
            let whole = bits(token, &row, 100).unwrap();
            for piece in [1, 7, 64] {
                assert_eq!(bits(token, &row, piece).unwrap().to_bits(), whole.to_bits());
            }
        }
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Surprise>(), 20);
    }

    #[test]
    fn a_token_that_is_not_there_has_none() {
        assert_eq!(Surprise::of(1).bits(), None);
        assert_eq!(bits(4, &[0.0; 3], 3), None);
        assert_eq!(bits(0, &[5.0], 1), Some(0.0));
    }
}
