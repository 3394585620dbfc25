//! Scaling channels before they are rounded.
//!
//! A channel that is divided where it is made, and multiplied by the same where it is read, changes
//! nothing in a float model, exactly so if the factor is a power of two. In four bits it decides
//! which weights of a group are large: those that meet strong inputs lose less then, at the cost
//! of the others.

use std::borrow::Cow;

use rayon::prelude::*;
use rwkv_core::image::{Format, GROUP, Record};

use super::{Correlation, Quantised};

/// The largest factor is two to this power, the smallest its reciprocal.
pub(crate) const MOST: i32 = 4;
/// Parts of the differences between inputs that the weights take over at the start, for single
/// channels alone cannot gain what several can.
const STARTS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// Passes over the channels of a group, at most.
const PASSES: usize = 8;

/// Exact, as are products with it unless they overflow or underflow.
pub(crate) fn two_to(power: i32) -> f32 {
    f32::from_bits((127 + power.clamp(-126, 127)).cast_unsigned() << 23)
}

/// Multiplies the columns of a matrix by powers of two.
pub(crate) fn scale(values: &mut [f32], powers: &[i32]) {
    for row in values.chunks_exact_mut(powers.len().max(1)) {
        row.iter_mut().zip(powers).for_each(|(w, power)| *w *= two_to(*power));
    }
}

/// A row-major matrix of integers that reads the channels.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    /// How it is stored.
    pub(crate) record: Record,
    /// Outputs by channels.
    pub(crate) weights: Vec<f32>,
    /// What it reads.
    pub(crate) inputs: Cow<'a, Correlation>,
}

/// The powers of two that the weights of each channel are to be multiplied by, so that all readers
/// together lose less; `None` if they would not, once they are rounded. They are proposed by what
/// readers in four bits want; others bear them.
pub(crate) fn exponents(readers: &[Reader<'_>]) -> Option<Vec<i32>> {
    let channels = readers.first()?.record.cols as usize;
    let shares: Vec<f64> = readers.iter().map(Reader::share).collect();
    let firsts: Vec<usize> = (0..channels).step_by(GROUP).collect();
    let group = |first: &usize| {
        let len = GROUP.min(channels - first);
        Group { readers, shares: &shares, first: *first, len }.best()
    };
    let powers: Vec<i32> = firsts.par_iter().flat_map_iter(group).collect();
    if powers.iter().all(|power| *power == 0) {
        return None;
    }
    let cost = |readers: &[Reader<'_>]| -> f64 {
        readers.iter().zip(&shares).map(|(reader, share)| share * reader.cost()).sum()
    };
    let scaled: Vec<Reader<'_>> = readers.iter().map(|reader| reader.scaled(&powers)).collect();
    (cost(&scaled) < cost(readers)).then_some(powers)
}

impl Reader<'_> {
    /// One over the power of its outputs, so that readers with large and small ones count alike.
    fn share(&self) -> f64 {
        let channels = self.record.cols as usize;
        let power = |i: usize| {
            let column = self.weights.iter().skip(i).step_by(channels);
            self.inputs.power(i) * column.map(|w| f64::from(*w).powi(2)).sum::<f64>()
        };
        let power: f64 = (0..channels).map(power).sum();
        if power > 0.0 { 1.0 / power } else { 0.0 }
    }

    fn scaled(&self, powers: &[i32]) -> Self {
        let mut reader = self.clone();
        scale(&mut reader.weights, powers);
        reader.inputs = Cow::Owned(self.inputs.divided(powers));
        reader
    }

    /// The errors that rounding makes in its outputs.
    fn cost(&self) -> f64 {
        Quantised::new(&self.weights, &self.record, Some(&self.inputs)).cost
    }
}

/// Channels whose weights share a sub-scale: what happens to others does not matter to them.
struct Group<'a> {
    readers: &'a [Reader<'a>],
    shares: &'a [f64],
    first: usize,
    len: usize,
}

impl Group<'_> {
    /// The best of all starts.
    fn best(&self) -> Vec<i32> {
        let settled = STARTS.map(|start| self.settle(self.start(start)));
        let best = settled.into_iter().reduce(|best, x| if x.0 < best.0 { x } else { best });
        best.map_or_else(Vec::new, |(_, powers)| powers)
    }

    /// Powers that make up for a part of the differences between inputs, which are counted in
    /// factors of two.
    fn start(&self, part: f64) -> Vec<i32> {
        let strength = |i: usize| {
            let readers = self.readers.iter().zip(self.shares);
            let power: f64 = readers.map(|(r, share)| share * r.inputs.power(self.first + i)).sum();
            0.5 * log2(power)
        };
        let strengths: Vec<f64> = (0..self.len).map(strength).collect();
        let mean = strengths.iter().sum::<f64>() / self.len as f64;
        let power = |strength: &f64| {
            (part * (strength - mean)).round_ties_even().clamp(-f64::from(MOST), MOST.into()) as i32
        };
        strengths.iter().map(power).collect()
    }

    /// Moves single channels by a factor of two as long as that helps.
    fn settle(&self, mut powers: Vec<i32>) -> (f64, Vec<i32>) {
        let mut least = self.estimate(&powers);
        for _ in 0..PASSES {
            let before = least;
            for (i, step) in (0..self.len).flat_map(|i| [(i, 1), (i, -1)]) {
                let moved = powers[i] + step;
                let held = std::mem::replace(&mut powers[i], moved);
                let cost = self.estimate(&powers);
                if moved.abs() <= MOST && cost < least {
                    least = cost;
                } else {
                    powers[i] = held;
                }
            }
            if least == before {
                break;
            }
        }
        (least, powers)
    }

    /// The squared errors of plain rounding, up to a factor: the square of a row's step, which its
    /// largest weight decides, times the power of the inputs that meet it.
    fn estimate(&self, powers: &[i32]) -> f64 {
        let factors: Vec<f64> = powers.iter().map(|power| f64::from(two_to(*power))).collect();
        let readers = self.readers.iter().zip(self.shares);
        let readers = readers.filter(|(reader, _)| reader.record.format != Format::Int8);
        let cost = |(reader, share): (&Reader<'_>, &f64)| {
            let input = |(i, f): (usize, &f64)| reader.inputs.power(self.first + i) / (f * f);
            let inputs: f64 = factors.iter().enumerate().map(input).sum();
            let square = |row: &[f32]| {
                let weights = row[self.first..].iter().zip(&factors);
                weights.map(|(w, f)| (f64::from(*w) * f).powi(2)).fold(0.0, f64::max)
            };
            let rows = reader.weights.chunks_exact(reader.record.cols as usize);
            share * inputs * rows.map(square).sum::<f64>()
        };
        readers.map(cost).sum()
    }
}

/// About the logarithm, by no library's function: exact at powers of two, linear between them.
fn log2(x: f64) -> f64 {
    const FRACTION: u64 = (1 << 52) - 1;
    let bits = x.max(f64::MIN_POSITIVE).to_bits();
    let mantissa = f64::from_bits(bits & FRACTION | 1f64.to_bits());
    (bits >> 52) as f64 - 1023.0 + (mantissa - 1.0)
}

#[cfg(test)]
mod tests {
    use rwkv_core::image::{Id, Layout};

    use super::*;

    const ROWS: usize = 8;
    const COLS: usize = 64;

    /// Noise that meets inputs of these strengths, which know nothing of each other.
    fn reader(strength: impl Fn(usize) -> f32) -> Reader<'static> {
        let mut x = 1u32;
        let mut noise = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let weights = (0..ROWS * COLS).map(|_| noise()).collect();
        let mut inputs = Correlation::new(COLS);
        for _ in 0..200 {
            let token: Vec<f32> = (0..COLS).map(|i| strength(i) * noise()).collect();
            inputs.add(&[&token]);
        }
        let record = Record {
            id: Id::AttKey,
            format: Format::Int4,
            layout: Layout::RowMajor,
            bits: 0,
            rows: ROWS as u32,
            cols: COLS as u32,
            tile_rows: 1,
        };
        Reader { record, weights, inputs: Cow::Owned(inputs) }
    }

    #[test]
    fn strong_inputs_meet_finer_steps() {
        let readers = [reader(|i| if i % 16 == 3 { 12.0 } else { 1.0 })];
        let powers = exponents(&readers).expect("it helps");
        let strong = |i: usize| i % 16 == 3;
        assert!((0..COLS).filter(|i| strong(*i)).all(|i| powers[i] > 0), "{powers:?}");
        let weak: i32 = (0..COLS).filter(|i| !strong(*i)).map(|i| powers[i]).sum();
        assert!(weak < COLS as i32 / 4, "{powers:?}");
        let scaled = readers[0].scaled(&powers);
        assert!(scaled.cost() < 0.9 * readers[0].cost(), "{}", scaled.cost() / readers[0].cost());
    }

    /// A matrix in eight bits wants nothing, and nothing is done where it would lose more than
    /// one in four bits gains.
    #[test]
    fn readers_in_eight_bits_are_counted() {
        let strength = |i: usize| if i % 16 == 3 { 12.0 } else { 1.0 };
        let coarse = reader(strength);
        let mut fine = reader(strength);
        fine.record.format = Format::Int8;
        assert_eq!(exponents(&[fine.clone()]), None);
        assert!(exponents(&[coarse.clone(), fine.clone()]).is_some());
        // Its weak channels have the large weights: a step of the whole row grows with one.
        for row in fine.weights.chunks_exact_mut(COLS) {
            (0..COLS).filter(|i| i % 16 != 3).for_each(|i| row[i] *= 1e-3);
        }
        let scaled = fine.scaled(&exponents(&[coarse]).expect("it helps"));
        assert!(scaled.cost() > fine.cost());
    }

    #[test]
    fn even_inputs_and_no_readers_want_none() {
        assert_eq!(exponents(&[reader(|_| 1.0)]), None);
        assert_eq!(exponents(&[]), None);
        assert_eq!(exponents(&[reader(|_| 0.0)]), None);
    }

    #[test]
    fn powers_are_exact() {
        for (power, expected) in [(0, 1.0), (1, 2.0), (-3, 0.125), (127, f32::MAX / 2.0 + 1e31)] {
            assert!((two_to(power) / expected - 1.0).abs() < 1e-6);
        }
        let values = [1.1f32, -2.3, 5e-7, 0.0];
        let mut scaled = values;
        scale(&mut scaled, &[4, -4, 3, 1]);
        assert_eq!(scaled[1], -2.3 / 16.0);
        scale(&mut scaled, &[-4, 4, -3, -1]);
        assert_eq!(scaled, values);
    }
}
