//! What an error of the weights costs: the correlation of the inputs that they meet.
//!
//! A row of weights `w`, stored as `q`, makes the squared error `e·H·e` over a text, with
//! `e = w - q` and `H = Σ x·xᵀ` over the inputs `x`. With `H = R·Rᵀ` and `R` upper triangular this
//! is the sum over `k` of `R[k][k]²·(e[k] + Σ_{i<k} e[i]·R[i][k]/R[k][k])²`: whoever rounds the weights
//! one after the other can make up for all earlier errors in each.

use rayon::prelude::*;

use super::two_to;

/// Added to the diagonal, in terms of its mean: what calibration has not seen matters too.
const DAMPING: f64 = 0.01;

/// The correlation of the inputs of a matrix.
#[derive(Debug, Clone)]
pub(crate) struct Correlation {
    len: usize,
    /// Row by row; only `j <= i` is kept up.
    sums: Vec<f64>,
}

impl Correlation {
    pub(crate) fn new(len: usize) -> Self {
        Self { len, sums: vec![0.0; len * len] }
    }

    /// Adds inputs, in their order whatever the number of threads.
    pub(crate) fn add(&mut self, inputs: &[&[f32]]) {
        self.sums.par_chunks_exact_mut(self.len.max(1)).enumerate().for_each(|(i, row)| {
            for x in inputs {
                let xi = f64::from(x[i]);
                // Most inputs of a sparse product are.
                if xi != 0.0 {
                    row[..=i].iter_mut().zip(*x).for_each(|(sum, x)| *sum += xi * f64::from(*x));
                }
            }
        });
    }

    /// That of the inputs divided by powers of two.
    pub(crate) fn divided(&self, powers: &[i32]) -> Self {
        let mut sums = self.sums.clone();
        for (row, i) in sums.chunks_exact_mut(self.len.max(1)).zip(powers) {
            row.iter_mut().zip(powers).for_each(|(sum, j)| *sum *= f64::from(two_to(-i - j)));
        }
        Self { len: self.len, sums }
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.sums[i.max(j) * self.len + i.min(j)]
    }

    /// The sum of the squares of an input.
    pub(super) fn power(&self, i: usize) -> f64 {
        self.at(i, i)
    }
}

/// A correlation taken apart, for weights in a certain order.
#[derive(Debug)]
pub(super) struct Metric {
    len: usize,
    /// `H` in that order, whole.
    correlation: Vec<f64>,
    /// In row `k` at `i < k`: `R[i][k]/R[k][k]`.
    feedback: Vec<f64>,
    /// `R[k][k]²`.
    pivots: Vec<f64>,
}

impl Metric {
    /// `None` if no input was ever anything but zero.
    pub(super) fn new(correlation: &Correlation, order: &[usize]) -> Option<Self> {
        let n = order.len();
        let mean = order.iter().map(|i| correlation.power(*i)).sum::<f64>() / n.max(1) as f64;
        if !(mean > 0.0 && mean.is_finite()) {
            return None;
        }
        let mut h: Vec<f64> = Vec::with_capacity(n * n);
        for i in order {
            h.extend(order.iter().map(|j| correlation.at(*i, *j)));
        }
        (0..n).for_each(|k| h[k * n + k] += DAMPING * mean);
        let (feedback, pivots) = decompose(&h, n)?;
        Some(Self { len: n, correlation: h, feedback, pivots })
    }

    /// A row of `H`.
    pub(super) fn correlation(&self, k: usize) -> &[f64] {
        &self.correlation[k * self.len..(k + 1) * self.len]
    }

    /// How much of each error before `k` the weight in place `k` makes up for.
    pub(super) fn feedback(&self, k: usize) -> &[f64] {
        &self.feedback[k * self.len..k * self.len + k]
    }

    /// What a square that is left in place `k` costs.
    pub(super) fn pivot(&self, k: usize) -> f64 {
        self.pivots[k]
    }
}

/// `H = R·Rᵀ` from the last column to the first; then `R` is scaled and transposed.
fn decompose(h: &[f64], n: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    let mut r = vec![0.0; n * n];
    for k in (0..n).rev() {
        let (above, own) = r.split_at_mut(k * n);
        let tail = &own[k + 1..n];
        let square = h[k * n + k] - tail.iter().map(|x| x * x).sum::<f64>();
        if square.is_nan() || square <= 0.0 {
            return None;
        }
        let pivot = square.sqrt();
        own[k] = pivot;
        let tail = &own[k + 1..n];
        let fill = |(i, row): (usize, &mut [f64])| {
            let sum: f64 = row[k + 1..n].iter().zip(tail).map(|(a, b)| a * b).sum();
            row[k] = (h[i * n + k] - sum) / pivot;
        };
        above.par_chunks_exact_mut(n).with_min_len(64).enumerate().for_each(fill);
    }
    let mut feedback = vec![0.0; n * n];
    let pivots: Vec<f64> = (0..n).map(|k| r[k * n + k] * r[k * n + k]).collect();
    for k in 0..n {
        (0..k).for_each(|i| feedback[k * n + i] = r[i * n + k] / r[k * n + k]);
    }
    Some((feedback, pivots))
}
