//! What logits say of the next token, in bits.

use std::f64::consts::LOG2_E;

/// The largest logit and `ln Σ exp(logit - largest)`, apart so that neither swallows the other.
fn log_sum(logits: &[f32]) -> [f64; 2] {
    let top = logits.iter().fold(f64::NEG_INFINITY, |top, x| top.max(f64::from(*x)));
    [top, logits.iter().map(|x| (f64::from(*x) - top).exp()).sum::<f64>().ln()]
}

/// The bits that the token costs: `-log2` of its probability.
pub(super) fn surprise(logits: &[f32], token: u32) -> f64 {
    let [top, sum] = log_sum(logits);
    ((top - f64::from(logits[token as usize])) + sum) * LOG2_E
}

/// The Kullback-Leibler divergence of `other` from `reference` in bits, `Σ p·log2(p/q)`.
pub(super) fn divergence(reference: &[f32], other: &[f32]) -> f64 {
    let ([p_top, p_sum], [q_top, q_sum]) = (log_sum(reference), log_sum(other));
    let terms = reference.iter().zip(other).map(|(p, q)| {
        let p = (f64::from(*p) - p_top) - p_sum;
        let q = (f64::from(*q) - q_top) - q_sum;
        p.exp() * (p - q)
    });
    // Rounding leaves equal distributions a hair below zero.
    (terms.sum::<f64>() * LOG2_E).max(0.0)
}

/// The most likely token, the first of equals.
pub(super) fn top(logits: &[f32]) -> usize {
    let best = logits.iter().enumerate().reduce(|best, x| if x.1 > best.1 { x } else { best });
    best.map_or(0, |(token, _)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
        for (logits, bits) in [([0.0; 256], 8.0), ([-300.0; 256], 8.0), ([1e30; 256], 8.0)] {
            assert!((surprise(&logits, 255) - bits).abs() < 1e-12);
        }
        assert_eq!(surprise(&[7.0], 0), 0.0);
    }

    /// Probabilities 1/2, 1/4, 1/4 against 1/4, 1/2, 1/4: `(1/2)·1 - (1/4)·1`.
    #[test]
    fn a_case_by_hand() {
        let ln2 = std::f32::consts::LN_2;
        let (p, q) = ([ln2, 0.0, 0.0], [5.0, 5.0 + ln2, 5.0]);
        assert!((surprise(&p, 0) - 1.0).abs() < 1e-6);
        assert!((surprise(&p, 2) - 2.0).abs() < 1e-6);
        assert!((divergence(&p, &q) - 0.25).abs() < 1e-6);
        assert_eq!(divergence(&p, &p), 0.0);
        assert_eq!([top(&p), top(&q), top(&[1.0, 3.0, 3.0])], [0, 1, 1]);
    }
}
