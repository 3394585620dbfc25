//! The element-wise and reducing operations of RWKV, on plain slices.
//!
//! Both executors call these same functions, so a step and a sequence cannot differ. Parameters
//! of one operation lie interleaved, channel by channel, as they do in the image.

mod wkv;

use half::f16;

use crate::error::Error;
use crate::image::{Format, GROUP, MathMode, Record};
use crate::kernel::{
    floats::{self, scalar::fold},
    lane_nibbles, nibbles,
};
use crate::math;
use crate::soft;

pub use wkv::{Head5, Head7, wkv4, wkv5, wkv7};

/// Sum with the rule of eight: element `i` goes into accumulator `i mod 8`, all starting at +0;
/// the result is `((0+4)+(2+6)) + ((1+5)+(3+7))`.
pub fn sum(values: impl Iterator<Item = f32>) -> f32 {
    let mut acc = [0f32; 8];
    add_up(&mut acc, values);
    fold(&acc)
}

/// Adds values to the eight sums of [`sum`], from the first on.
#[inline]
pub(crate) fn add_up(acc: &mut [f32; 8], values: impl Iterator<Item = f32>) {
    for (i, v) in values.enumerate() {
        acc[i % 8] += v;
    }
}

/// Dot product with the rule of eight.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [0f32; 8];
    let ((a8, a_tail), (b8, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a8.iter().zip(b8) {
        for ((acc, a), b) in acc.iter_mut().zip(a).zip(b) {
            *acc += a * b;
        }
    }
    for ((acc, a), b) in acc.iter_mut().zip(a_tail).zip(b_tail) {
        *acc += a * b;
    }
    fold(&acc)
}

/// Mean and `1 / sqrt(variance + epsilon)` of a vector, population variance.
pub fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = floats::sum(x) / n;
    let variance = floats::squares(x, mean) / n;
    (mean, math::rsqrt(variance + epsilon))
}

/// Layer norm of a run of channels: `params` is `[weight, bias]` per channel.
pub fn normalise(x: &[f32], moments: (f32, f32), params: &[f32], out: &mut [f32]) {
    floats::copy(x, out);
    floats::normalise(out, moments, params);
}

/// As [`normalise`], over the vector itself.
pub fn normalise_in_place(x: &mut [f32], moments: (f32, f32), params: &[f32]) {
    floats::normalise(x, moments, params);
}

/// A row of a table as floats: `value·scale`, or `value·(scale·sub)` with sub-scales.
pub fn dequantise(record: &Record, row: &[u32], out: &mut [f32]) {
    let (scale, row) = row.split_at_checked(record.scale_words()).unwrap_or_default();
    let (subs, weights) = row.split_at_checked(record.sub_words()).unwrap_or_default();
    let scale = f32::from_bits(scale.first().copied().unwrap_or_default());
    dequantise_part(record.format, (scale, subs), (0, weights), out);
}

/// As [`dequantise`], of the words of a row from `first` on: a multiple of a group's.
pub(crate) fn dequantise_part(
    format: Format,
    (scale, subs): (f32, &[u32]),
    (first, words): (usize, &[u32]),
    out: &mut [f32],
) {
    let out = out.get_mut(first * format.weights_per_word()..).unwrap_or_default();
    match format {
        Format::F32 => {
            out.iter_mut().zip(words).for_each(|(y, w)| *y = f32::from_bits(*w));
        }
        Format::F16 => {
            let words: &[u16] = bytemuck::cast_slice(words);
            out.iter_mut().zip(words).for_each(|(y, w)| *y = f16::from_bits(*w).to_f32());
        }
        Format::Int8 => {
            let words: &[u8] = bytemuck::cast_slice(words);
            out.iter_mut().zip(words).for_each(|(y, w)| *y = (i32::from(*w) - 128) as f32 * scale);
        }
        Format::Int4 => {
            let subs = bytemuck::cast_slice::<_, u8>(subs).get(first / 4..).unwrap_or_default();
            let groups = words.as_chunks::<4>().0.iter().zip(subs);
            for (out, (group, sub)) in out.chunks_mut(GROUP).zip(groups) {
                let scale = scale * f32::from(*sub);
                out.iter_mut().zip(nibbles(group)).for_each(|(y, w)| *y = w as f32 * scale);
            }
        }
        // No table is interleaved: see `Record::parse`, and `dequantise_lane`.
        Format::Int4Lanes => {}
    }
}

/// One of the two rows that lie in a line of [`Format::Int4Lanes`], as floats.
pub fn dequantise_lane(line: &[u32], lane: usize, scale: f32, out: &mut [f32]) {
    let groups = out.len().div_ceil(GROUP);
    let (subs, line) = line.split_at_checked(2 * groups.div_ceil(4)).unwrap_or_default();
    let subs = bytemuck::cast_slice::<_, u8>(subs).iter().skip(lane).step_by(2);
    for (out, (group, sub)) in out.chunks_mut(GROUP).zip(line.as_chunks::<8>().0.iter().zip(subs)) {
        let scale = scale * f32::from(*sub);
        out.iter_mut().zip(lane_nibbles(group, lane)).for_each(|(y, w)| *y = w as f32 * scale);
    }
}

/// Which of the two tokens a token-shift weight multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Shift {
    /// Versions 4 and 5: `x·m + prev·(1 - m)`.
    Current,
    /// From version 6 on: `x + (prev - x)·m`.
    Previous,
}

/// Token shift: blends a channel with the same channel of the previous token.
pub fn shift(kind: Shift, x: &[f32], previous: &[f32], mix: &[f32], out: &mut [f32]) {
    match kind {
        Shift::Current => {
            for (((y, x), p), m) in out.iter_mut().zip(x).zip(previous).zip(mix) {
                *y = x * m + p * (1.0 - m);
            }
        }
        Shift::Previous => {
            floats::copy(x, out);
            floats::lerp(out, previous, mix);
        }
    }
}

/// Token shift of the form [`Shift::Previous`], over its own weights.
pub fn shift_in_place(x: &[f32], previous: &[f32], mix: &mut [f32]) {
    for ((m, x), p) in mix.iter_mut().zip(x).zip(previous) {
        *m = x + (p - x) * *m;
    }
}

/// What follows a product, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `max(x, 0)²`.
    SquaredRelu,
    /// Version 7's decay: `e^(-0.606531·sigmoid(x))`.
    Decay,
    /// `x·sigmoid(x)`.
    Silu,
    /// Version 6's decay: `e^(-e^x)`.
    ExpNegExp,
}

impl Activation {
    /// Applies the function in place.
    pub fn apply(self, mode: MathMode, x: &mut [f32]) {
        match mode {
            MathMode::Exact => self.exact(x),
            // Where there is no such function there is no such image: `Header::parse` refuses it.
            MathMode::Micromath => self.fast(x),
        }
    }

    fn exact(self, x: &mut [f32]) {
        match self {
            Self::Identity => {}
            Self::Sigmoid => floats::sigmoid(x),
            Self::Tanh => map(x, math::tanh),
            Self::SquaredRelu => map(x, |x| if x < 0.0 { 0.0 } else { x * x }),
            Self::Decay => floats::decay(x),
            Self::Silu => map(x, |x| x * math::sigmoid(x)),
            Self::ExpNegExp => map(x, |x| math::exp(-math::exp(x))),
        }
    }

    #[cfg(feature = "micromath")]
    fn fast(self, x: &mut [f32]) {
        use math::fast;
        match self {
            Self::Identity | Self::SquaredRelu => self.exact(x),
            Self::Sigmoid => map(x, fast::sigmoid),
            Self::Tanh => map(x, fast::tanh),
            Self::Decay => map(x, fast::decay),
            Self::Silu => map(x, |x| x * fast::sigmoid(x)),
            Self::ExpNegExp => map(x, |x| fast::exp(-fast::exp(x))),
        }
    }

    #[cfg(not(feature = "micromath"))]
    fn fast(self, x: &mut [f32]) {
        self.exact(x);
    }
}

fn map(x: &mut [f32], f: impl Fn(f32) -> f32) {
    x.iter_mut().for_each(|x| *x = f(*x));
}

/// `out = x`.
pub fn copy(x: &[f32], out: &mut [f32]) {
    floats::copy(x, out);
}

/// `x += bias`, one parameter per channel.
pub fn add(x: &mut [f32], bias: &[f32]) {
    floats::add(x, bias);
}

/// `x *= gate`.
pub fn multiply(x: &mut [f32], gate: &[f32]) {
    x.iter_mut().zip(gate).for_each(|(x, g)| *x *= g);
}

/// `out[j] = Σ x[i]·matrix[i][j]`, in natural order from +0.
pub fn product_by(x: &[f32], matrix: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (x, row) in x.iter().zip(matrix.chunks_exact(out.len().max(1))) {
        out.iter_mut().zip(row).for_each(|(y, w)| *y += w * x);
    }
}

/// `x += (target - x)·weight`.
pub fn lerp(x: &mut [f32], target: &[f32], weight: &[f32]) {
    floats::lerp(x, target, weight);
}

/// The rule by which a vector is quantised.
///
/// `m = max|x|`; below 2^-100 all zeros; else `q = round-half-even(x · (Q/m))` with
/// `Q = 2^(bits-1) - 1`. A product with `Q/m` exceeds `Q` by rounding only, so `q` does not.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Quantiser {
    factor: f32,
    scale: f32,
}

impl Quantiser {
    /// The rule for a vector, in `bits` (8 to 15, sign included).
    ///
    /// # Errors
    /// [`Error::NonFinite`] if an element is infinite or not a number.
    pub fn new(x: &[f32], bits: u8) -> Result<Self, Error> {
        // As integers the magnitudes of floats keep their order, with infinity and NaN on top.
        Self::from_peak(x.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0), bits)
    }

    /// The rule for a vector whose greatest magnitude has these bits.
    ///
    /// # Errors
    /// As [`Quantiser::new`].
    pub fn from_peak(peak: u32, bits: u8) -> Result<Self, Error> {
        if peak >= 0x7f80_0000 {
            return Err(Error::NonFinite);
        }
        let m = f32::from_bits(peak);
        const TINY: f32 = f32::from_bits((127 - 100) << 23);
        if m < TINY {
            return Ok(Self { factor: 0.0, scale: 0.0 });
        }
        let limit = ((1u32 << (bits.clamp(8, 15) - 1)) - 1) as f32;
        Ok(Self { factor: limit / m, scale: m / limit })
    }

    /// What an element is multiplied by before it is rounded; 0 where all elements become 0.
    pub const fn factor(self) -> f32 {
        self.factor
    }

    /// What a quantised element of 1 stands for.
    pub const fn scale(self) -> f32 {
        self.scale
    }

    /// A quantised element.
    pub fn value(self, x: f32) -> i32 {
        if cfg!(rwkv_soft_float) {
            return soft::round_product(x, self.factor);
        }
        math::round_half_even(x * self.factor)
    }
}

/// Quantises a vector **in place**: the words that held the floats hold half as many words of
/// `i16` pairs afterwards. Returns the scale that undoes it, and the wrapping sum of the elements.
///
/// # Errors
/// [`Error::NonFinite`], as [`Quantiser::new`].
pub fn quantise(x: &mut [f32], bits: u8) -> Result<(f32, i32), Error> {
    let quantiser = Quantiser::new(x, bits)?;
    let words: &mut [u32] = bytemuck::cast_slice_mut(x);
    let mut sum = 0i32;
    for i in 0..words.len().div_ceil(2) {
        // Word i takes elements 2i and 2i+1: they are read before anything overwrites them.
        let mut at = |j: usize| {
            let q = words.get(j).map_or(0, |bits| quantiser.value(f32::from_bits(*bits)));
            sum = sum.wrapping_add(q);
            q as u32 & 0xffff
        };
        let pair = at(2 * i) | at(2 * i + 1) << 16;
        if let Some(word) = words.get_mut(i) {
            *word = pair;
        }
    }
    Ok((quantiser.scale(), sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn quantised_values_are_the_definition(
            x in vec(prop_oneof![-9f32..9.0, -1e-3f32..1e-3, Just(0.0)], 1..80),
            bits in 8u8..=15,
        ) {
            let mut buffer = x.clone();
            let (scale, sum) = quantise(&mut buffer, bits).unwrap();
            let q: &[i16] = bytemuck::cast_slice(&buffer);
            let limit = (1 << (bits - 1)) - 1;
            let m = x.iter().fold(0f32, |m, x| if x.abs() > m { x.abs() } else { m });
            for (i, x) in x.iter().enumerate() {
                let expected =
                    if m < 2f32.powi(-100) { 0.0 } else { (x * (limit as f32 / m)).round_ties_even() };
                prop_assert_eq!(i32::from(q[i]), (expected as i32).clamp(-limit, limit));
                prop_assert!((f32::from(q[i]) * scale - x).abs() <= 0.51 * m / limit as f32);
            }
            prop_assert_eq!(sum, q[..x.len()].iter().map(|q| i32::from(*q)).sum::<i32>());
        }

        /// Half to even: the magic addition is checked on the ties themselves.
        #[test]
        fn ties_go_to_even(n in -126i16..=126) {
            let mut buffer = [127.0, f32::from(n) + 0.5];
            quantise(&mut buffer, 8).unwrap();
            let q: &[i16] = bytemuck::cast_slice(&buffer);
            prop_assert_eq!(q[1], (f32::from(n) + 0.5).round_ties_even() as i16);
        }

        /// The largest element never leaves the range, whatever its bits.
        #[test]
        fn the_largest_element_becomes_the_limit(
            bits in 8u8..=15,
            exponent in 27u32..=254,
            fraction in 0u32..1 << 23,
        ) {
            let x = f32::from_bits(exponent << 23 | fraction);
            let limit = (1 << (bits - 1)) - 1;
            let quantiser = Quantiser::new(&[x], bits).unwrap();
            prop_assert_eq!([quantiser.value(x), quantiser.value(-x)], [limit, -limit]);
        }
    }

    #[test]
    fn quantise_refuses_what_is_not_finite_and_flattens_what_is_tiny() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(quantise(&mut [1.0, bad], 8), Err(Error::NonFinite));
        }
        let mut tiny = [f32::MIN_POSITIVE, -1e-31];
        assert_eq!(quantise(&mut tiny, 15), Ok((0.0, 0)));
        assert_eq!(tiny[0].to_bits(), 0);
    }
}
