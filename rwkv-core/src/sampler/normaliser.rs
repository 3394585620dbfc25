//! What probabilities are shares of.

use crate::math;

/// The sum over a row of exp((logit - largest logit) * scale), kept while the row passes by.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Normaliser {
    max: f32,
    /// 0 before the first logit, then at least 1.
    pub(super) sum: f32,
}

impl Normaliser {
    /// Of no logits.
    pub(crate) const fn new() -> Self {
        Self { max: 0.0, sum: 0.0 }
    }

    /// The largest logit.
    pub(crate) const fn max(&self) -> f32 {
        self.max
    }

    /// The natural logarithm of the sum.
    pub(crate) fn ln(&self) -> f32 {
        math::ln(self.sum)
    }

    /// Takes the next logit of the row. Costs about one `exp`; the scale is the same for all.
    pub(crate) fn push(&mut self, logit: f32, scale: f32) {
        /// exp of it is below 2^-24: half an ulp of a sum that is at least 1.
        const LOST: f32 = -17.0;
        if self.sum == 0.0 {
            (self.max, self.sum) = (logit, 1.0);
        } else if logit > self.max {
            self.sum = self.sum * math::exp((self.max - logit) * scale) + 1.0;
            self.max = logit;
        } else {
            let x = (logit - self.max) * scale;
            // The addition would not change a bit, so the `exp` is saved.
            if x > LOST {
                self.sum += math::exp(x);
            }
        }
    }
}
