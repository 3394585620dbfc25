//! Rounding weights one after the other, each making up for the errors of those before it.
//!
//! All arithmetic is binary64 in a fixed order, so that an image depends on nothing but its
//! checkpoint, its text and its options.

use std::ops::Range;

use rayon::prelude::*;
use rwkv_core::image::GROUP;

use super::metric::Metric;

/// Sub-scales are tried down to this part of the one that clips nothing.
const CLIPPING: f64 = 0.7;
/// Scales to start from, in terms of the one that clips nothing: which integers groups of weights
/// then come by is luck, and the best draw is kept.
const STARTS: [f64; 5] = [1.0, 0.93, 0.86, 1.08, 1.16];
/// Rounds of fitting the scale and moving single weights.
const ROUNDS: usize = 2;
/// Passes over the weights of a row in each round.
const PASSES: usize = 8;

/// The integers that a weight may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    /// The least.
    pub(super) low: f64,
    /// The largest.
    pub(super) high: f64,
    /// The largest sub-scale of a group, 1 if there are none.
    pub(super) top_sub: f64,
}

impl Grid {
    fn nearest(self, x: f64) -> f64 {
        x.round_ties_even().clamp(self.low, self.high)
    }

    /// Sub-scales worth trying for a group of weights up to `largest`, in units of the scale.
    fn subs(self, largest: f64) -> impl Iterator<Item = f64> {
        let most = (largest / self.high).ceil().clamp(1.0, self.top_sub);
        let least = (most * CLIPPING).floor().max(1.0);
        (0..).map(move |i| most - f64::from(i)).take_while(move |sub| *sub >= least)
    }
}

/// A row of weights as integers, in the order in which they were rounded. A weight stands for
/// `value·(scale·sub)`.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) scale: f32,
    pub(super) subs: Vec<f64>,
    pub(super) values: Vec<f64>,
    errors: Vec<f64>,
    /// What they cost, where several attempts were compared.
    pub(super) cost: f64,
}

impl Row {
    fn zeros(weights: &[f64], scale: f32) -> Self {
        let n = weights.len();
        Self {
            scale,
            subs: vec![1.0; n],
            values: vec![0.0; n],
            errors: weights.to_vec(),
            cost: 0.0,
        }
    }

    /// What an integer stands for in place `k`.
    fn step(&self, k: usize) -> f64 {
        f64::from(self.scale) * self.subs[k]
    }
}

/// Rounds the rows of a matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounder<'a> {
    pub(super) grid: Grid,
    /// What errors cost; without one all weights count alike.
    pub(super) metric: Option<&'a Metric>,
}

impl Rounder<'_> {
    /// A row in one group, rounded to nearest with the scale that clips nothing.
    pub(super) fn plain(&self, weights: &[f64]) -> Row {
        // In binary32: the bits of images that were made before errors were weighed.
        let scale = largest(weights) as f32 / self.grid.high as f32;
        let mut row = Row::zeros(weights, scale);
        for (value, w) in row.values.iter_mut().zip(weights) {
            let unit = if scale > 0.0 { *w as f32 / scale } else { 0.0 };
            *value = self.grid.nearest(unit.into());
        }
        row
    }

    /// Rows whose groups of weights with a common sub-scale lie within them.
    pub(super) fn rows(&self, weights: &[Vec<f64>], groups: &[Range<usize>]) -> Vec<Row> {
        let round = |w: &Vec<f64>| {
            let unit = largest(w) / (self.grid.high * self.grid.top_sub);
            if !(unit as f32).is_normal() {
                return Row::zeros(w, 0.0);
            }
            let attempt = |start: f64| {
                let mut row = self.within(w, (unit * start) as f32, groups);
                self.fit(w, &mut row);
                let mut row = self.within(w, row.scale, groups);
                self.settle(w, &mut row);
                row.cost = self.cost(&row);
                (row.cost, row)
            };
            cheapest(attempt)
        };
        weights.par_iter().map(round).collect()
    }

    /// Rows whose groups lie across them: a column of 32 rows has a common sub-scale.
    pub(super) fn columns(&self, weights: &[Vec<f64>]) -> Vec<Row> {
        let round = |run: &[Vec<f64>]| {
            let rms = |w: &Vec<f64>| (dot(w, w) / w.len() as f64).sqrt();
            let rms: Vec<f64> = run.iter().map(rms).collect();
            let peaks = run.iter().zip(&rms).filter(|(_, rms)| **rms > 0.0);
            let peak = peaks.fold(0f64, |peak, (w, rms)| peak.max(largest(w) / rms));
            let unit = peak / (self.grid.high * self.grid.top_sub);
            let attempt = |start: f64| {
                let scales = rms.iter().map(|rms| (rms * unit * start) as f32);
                let scales = scales.map(|scale| if scale.is_normal() { scale } else { 0.0 });
                let mut rows = self.across(run, &scales.collect::<Vec<_>>());
                rows.iter_mut().zip(run).for_each(|(row, w)| self.fit(w, row));
                let scales: Vec<f32> = rows.iter().map(|row| row.scale).collect();
                let mut rows = self.across(run, &scales);
                rows.iter_mut().zip(run).for_each(|(row, w)| self.settle(w, row));
                (rows.iter().map(|row| self.cost(row)).sum(), rows)
            };
            cheapest(attempt)
        };
        weights.par_chunks(GROUP).flat_map(round).collect()
    }

    /// The weight in place `k` with what makes up for the errors before it, from `first` on.
    fn target(&self, weight: f64, k: usize, first: usize, errors: &[f64]) -> f64 {
        let feedback = |m: &Metric| dot(errors, &m.feedback(k)[first..first + errors.len()]);
        weight + self.metric.map_or(0.0, feedback)
    }

    fn within(&self, weights: &[f64], scale: f32, groups: &[Range<usize>]) -> Row {
        let mut row = Row::zeros(weights, scale);
        for group in groups {
            let start = group.start;
            // What groups before this one ask of it is the same for all its sub-scales.
            let target = |k: usize| self.target(weights[k], k, 0, &row.errors[..start]);
            let targets: Vec<f64> = group.clone().map(target).collect();
            let mut best = f64::INFINITY;
            for sub in self.grid.subs(largest(&targets) / f64::from(scale)) {
                let step = f64::from(scale) * sub;
                let (mut values, mut errors, mut cost) = (Vec::new(), Vec::new(), 0.0);
                for (k, target) in group.clone().zip(&targets) {
                    let target = self.target(*target, k, start, &errors);
                    let value = self.grid.nearest(target / step);
                    let missed = target - step * value;
                    cost += missed * missed * self.metric.map_or(1.0, |m| m.pivot(k));
                    errors.push(weights[k] - step * value);
                    values.push(value);
                }
                if cost < best {
                    best = cost;
                    row.values[group.clone()].copy_from_slice(&values);
                    row.errors[group.clone()].copy_from_slice(&errors);
                    row.subs[group.clone()].fill(sub);
                }
            }
        }
        row
    }

    fn across(&self, weights: &[Vec<f64>], scales: &[f32]) -> Vec<Row> {
        let rows = weights.iter().zip(scales).map(|(w, scale)| Row::zeros(w, *scale));
        let mut rows: Vec<Row> = rows.collect();
        for k in 0..weights.first().map_or(0, Vec::len) {
            let target = |(row, w): (&Row, &Vec<f64>)| self.target(w[k], k, 0, &row.errors[..k]);
            let targets: Vec<f64> = rows.iter().zip(weights).map(target).collect();
            let value = |target: f64, step: f64| match step > 0.0 {
                true => self.grid.nearest(target / step),
                false => 0.0,
            };
            let scaled = targets.iter().zip(scales).filter(|(_, scale)| **scale > 0.0);
            let peak = scaled.fold(0f64, |m, (t, scale)| m.max(t.abs() / f64::from(*scale)));
            let cost = |sub: f64| -> f64 {
                let missed = targets.iter().zip(scales).map(|(target, scale)| {
                    let step = f64::from(*scale) * sub;
                    target - step * value(*target, step)
                });
                missed.map(|missed| missed * missed).sum()
            };
            let tried = self.grid.subs(peak).map(|sub| (cost(sub), sub));
            let best = tried.reduce(|best, x| if x.0 < best.0 { x } else { best });
            let sub = best.map_or(1.0, |(_, sub)| sub);
            for ((row, target), w) in rows.iter_mut().zip(&targets).zip(weights) {
                row.subs[k] = sub;
                row.values[k] = value(*target, row.step(k));
                row.errors[k] = w[k] - row.step(k) * row.values[k];
            }
        }
        rows
    }

    /// Fits the scale and moves single weights, by turns.
    fn settle(&self, weights: &[f64], row: &mut Row) {
        for _ in 0..ROUNDS {
            self.fit(weights, row);
            if let Some(metric) = self.metric {
                self.descend(weights, row, metric);
            }
        }
    }

    /// The scale with which the integers cost least.
    fn fit(&self, weights: &[f64], row: &mut Row) {
        let units: Vec<f64> = row.subs.iter().zip(&row.values).map(|(sub, v)| sub * v).collect();
        let scale = (self.form(weights, &units) / self.form(&units, &units)) as f32;
        if scale.is_normal() && scale > 0.0 {
            row.scale = scale;
            for ((error, w), unit) in row.errors.iter_mut().zip(weights).zip(&units) {
                *error = w - f64::from(scale) * unit;
            }
        }
    }

    /// Moves each weight to where it is best, given all others, until none moves.
    fn descend(&self, weights: &[f64], row: &mut Row, metric: &Metric) {
        let slope = |k| dot(metric.correlation(k), &row.errors);
        let mut slopes: Vec<f64> = (0..weights.len()).map(slope).collect();
        for _ in 0..PASSES {
            let mut moved = false;
            for k in 0..weights.len() {
                let (step, h) = (row.step(k), metric.correlation(k));
                if step <= 0.0 {
                    continue;
                }
                let wanted = weights[k] - row.errors[k] + slopes[k] / h[k];
                let value = self.grid.nearest(wanted / step);
                let change = (row.values[k] - value) * step;
                if change != 0.0 {
                    row.values[k] = value;
                    row.errors[k] += change;
                    slopes.iter_mut().zip(h).for_each(|(slope, h)| *slope += h * change);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// What the errors of a row cost.
    fn cost(&self, row: &Row) -> f64 {
        self.form(&row.errors, &row.errors)
    }

    /// `a·H·b`.
    fn form(&self, a: &[f64], b: &[f64]) -> f64 {
        match self.metric {
            None => dot(a, b),
            Some(m) => (0..).zip(a).map(|(k, a)| a * dot(m.correlation(k), b)).sum(),
        }
    }
}

/// The attempt that costs least, the first of equals.
fn cheapest<T>(attempt: impl Fn(f64) -> (f64, T)) -> T {
    let [first, rest @ ..] = STARTS;
    let pick = |best: (f64, T), x: (f64, T)| if x.0 < best.0 { x } else { best };
    rest.into_iter().map(&attempt).fold(attempt(first), pick).1
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0f64, |m, w| m.max(w.abs()))
}
