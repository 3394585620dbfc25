//! The element-wise and reducing operations of RWKV, on plain slices.
//!
//! Both executors call these same functions, so a step and a sequence cannot differ. Parameters
//! of one operation lie interleaved, channel by channel, as they do in the image.

use half::f16;

use crate::error::Error;
use crate::image::{Format, GROUP, Record};
use crate::kernel::nibbles;
use crate::math;

/// Sum with the rule of eight: element `i` goes into accumulator `i mod 8`, all starting at +0;
/// the result is `((0+4)+(2+6)) + ((1+5)+(3+7))`.
pub fn sum(values: impl Iterator<Item = f32>) -> f32 {
    let mut acc = [0f32; 8];
    for (i, v) in values.enumerate() {
        acc[i % 8] += v;
    }
    fold(&acc)
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

fn fold(a: &[f32; 8]) -> f32 {
    ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
}

/// Mean and `1 / sqrt(variance + epsilon)` of a vector, population variance.
pub fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x.iter().copied()) / n;
    let variance = sum(x.iter().map(|x| (x - mean) * (x - mean))) / n;
    (mean, math::rsqrt(variance + epsilon))
}

/// Layer norm of a run of channels: `params` is `[weight, bias]` per channel.
pub fn normalise(x: &[f32], (mean, inverse): (f32, f32), params: &[f32], out: &mut [f32]) {
    for ((y, x), [w, b]) in out.iter_mut().zip(x).zip(params.as_chunks().0) {
        *y = (x - mean) * inverse * w + b;
    }
}

/// As [`normalise`], over the vector itself.
pub fn normalise_in_place(x: &mut [f32], (mean, inverse): (f32, f32), params: &[f32]) {
    for (x, [w, b]) in x.iter_mut().zip(params.as_chunks().0) {
        *x = (*x - mean) * inverse * w + b;
    }
}

/// A row of a table as floats: `value·scale`, or `value·(scale·sub)` with sub-scales.
pub fn dequantise(record: &Record, row: &[u32], out: &mut [f32]) {
    match (record.format, row.split_first()) {
        (Format::F32, _) => {
            out.iter_mut().zip(row).for_each(|(y, w)| *y = f32::from_bits(*w));
        }
        (Format::F16, _) => {
            let row: &[u16] = bytemuck::cast_slice(row);
            out.iter_mut().zip(row).for_each(|(y, w)| *y = f16::from_bits(*w).to_f32());
        }
        (Format::Int8, Some((scale, row))) => {
            let scale = f32::from_bits(*scale);
            let row: &[u8] = bytemuck::cast_slice(row);
            out.iter_mut().zip(row).for_each(|(y, w)| *y = (i32::from(*w) - 128) as f32 * scale);
        }
        (Format::Int4, Some((scale, row))) => {
            let scale = f32::from_bits(*scale);
            let groups = out.len().div_ceil(GROUP);
            let (subs, row) = row.split_at_checked(groups.div_ceil(4)).unwrap_or_default();
            let groups = row.as_chunks::<4>().0.iter().zip(bytemuck::cast_slice::<_, u8>(subs));
            for (out, (group, sub)) in out.chunks_mut(GROUP).zip(groups) {
                let scale = scale * f32::from(*sub);
                out.iter_mut().zip(nibbles(group)).for_each(|(y, w)| *y = w as f32 * scale);
            }
        }
        // No table is interleaved: see `Record::parse`.
        (Format::Int8 | Format::Int4 | Format::Int4Lanes, _) => {}
    }
}

/// Which of the two tokens a token-shift weight multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// Versions 4 and 5: `x·m + prev·(1 - m)`.
    Current,
    /// From version 6 on: `x + (prev - x)·m`.
    Previous,
}

/// Token shift: blends a channel with the same channel of the previous token.
pub fn shift(kind: Shift, x: &[f32], previous: &[f32], mix: &[f32], out: &mut [f32]) {
    let channels = out.iter_mut().zip(x).zip(previous).zip(mix);
    match kind {
        Shift::Current => channels.for_each(|(((y, x), p), m)| *y = x * m + p * (1.0 - m)),
        Shift::Previous => channels.for_each(|(((y, x), p), m)| *y = x + (p - x) * m),
    }
}

/// What follows a product, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

impl Activation {
    /// Applies the function in place.
    pub fn apply(self, x: &mut [f32]) {
        let f: fn(f32) -> f32 = match self {
            Self::Identity => return,
            Self::Sigmoid => math::sigmoid,
            Self::Tanh => math::tanh,
            Self::SquaredRelu => |x| if x < 0.0 { 0.0 } else { x * x },
            Self::Decay => |x| math::exp(-0.606_531 * math::sigmoid(x)),
        };
        x.iter_mut().for_each(|x| *x = f(*x));
    }
}

/// `x += bias`, one parameter per channel.
pub fn add(x: &mut [f32], bias: &[f32]) {
    x.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
}

/// `x += (target - x)·weight`.
pub fn lerp(x: &mut [f32], target: &[f32], weight: &[f32]) {
    for ((x, t), w) in x.iter_mut().zip(target).zip(weight) {
        *x += (t - *x) * w;
    }
}

/// The rule by which a vector is quantised.
///
/// `m = max|x|`; below 2^-100 all zeros; else `q = round-half-even(x · (Q/m))` with
/// `Q = 2^(bits-1) - 1`. A product with `Q/m` exceeds `Q` by rounding only, so `q` does not.
#[derive(Debug, Clone, Copy, PartialEq)]
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
        let top = x.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
        if top >= 0x7f80_0000 {
            return Err(Error::NonFinite);
        }
        let m = f32::from_bits(top);
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

/// The recurrence of version 4 for a run of channels, and the receptance gate on top.
///
/// `params` is `[decay, first]` per channel with `decay = -e^time_decay`; the state is numerator,
/// denominator and exponent. `r` comes in as the receptance and leaves as `r ⊙ wkv`.
pub fn wkv4(params: &[f32], k: &[f32], v: &[f32], r: &mut [f32], state: [&mut [f32]; 3]) {
    let [num, den, exponent] = state;
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let inputs = k.iter().zip(v).zip(params.as_chunks().0);
    let states = num.iter_mut().zip(den).zip(exponent);
    for ((r, ((&k, &v), &[w, u])), ((a, b), p)) in r.iter_mut().zip(inputs).zip(states) {
        let q = larger(*p, u + k);
        let (e1, e2) = (math::exp(*p - q), math::exp(u + k - q));
        *r *= (e1 * *a + e2 * v) / (e1 * *b + e2);
        let q = larger(*p + w, k);
        let (e1, e2) = (math::exp(*p + w - q), math::exp(k - q));
        *a = e1 * *a + e2 * v;
        *b = e1 * *b + e2;
        *p = q;
    }
}

/// The vectors of one head that version 7's recurrence reads and overwrites, all of head size.
#[derive(Debug)]
pub struct Head7<'a> {
    /// Receptance in, gated output out.
    pub r: &'a mut [f32],
    /// Decay.
    pub w: &'a [f32],
    /// Key in, modified key out.
    pub k: &'a mut [f32],
    /// Value.
    pub v: &'a [f32],
    /// In-context learning rate in, `kk ⊙ a` out.
    pub a: &'a mut [f32],
    /// Gate.
    pub g: &'a [f32],
    /// Room for the normalised removal key, then for the output before its norm.
    pub kk: &'a mut [f32],
    /// Room for one value per value index.
    pub sa: &'a mut [f32],
}

/// The recurrence of version 7 for one head, with its group norm, bonus and gate.
///
/// `params` is `[k_k, k_a, r_k, weight, bias]` per channel, the last two of the group norm.
/// `state` is key-major, `S[key][value]`: sums over the key index run in natural order and the
/// lanes of a vector unit hold independent value indices.
pub fn wkv7(params: &[f32], epsilon: f32, head: Head7<'_>, state: &mut [f32]) {
    let Head7 { r, w, k, v, a, g, kk, sa } = head;
    let n = r.len();
    let params = params.as_chunks::<5>().0;
    if n == 0 {
        return;
    }

    for ((kk, k), [k_k, ..]) in kk.iter_mut().zip(&*k).zip(params) {
        *kk = k * k_k;
    }
    let norm = math::sqrt(dot(kk, kk));
    let inverse = 1.0 / if norm > 1e-12 { norm } else { 1e-12 };
    kk.iter_mut().for_each(|kk| *kk *= inverse);
    for ((k, a), (kk, [_, k_a, ..])) in k.iter_mut().zip(&mut *a).zip(kk.iter().zip(params)) {
        *k *= 1.0 + (*a - 1.0) * k_a;
        *a *= kk;
    }

    sa.fill(0.0);
    for (row, kk) in state.chunks_exact(n).zip(&*kk) {
        sa.iter_mut().zip(row).for_each(|(sa, s)| *sa += s * kk);
    }
    let bonus = sum(r.iter().zip(&*k).zip(params).map(|((r, k), [_, _, r_k, ..])| r * k * r_k));
    let y = kk;
    y.fill(0.0);
    let keys = w.iter().zip(&*k).zip(&*a).zip(&*r);
    for (row, (((w, k), b), r)) in state.chunks_exact_mut(n).zip(keys) {
        for (((s, sa), v), y) in row.iter_mut().zip(&*sa).zip(v).zip(&mut *y) {
            *s = *s * w - sa * b + v * k;
            *y += *s * r;
        }
    }

    let (mean, inverse) = moments(y, epsilon);
    let outputs = r.iter_mut().zip(&*y).zip(v).zip(g).zip(params);
    for ((((r, y), v), g), [_, _, _, weight, bias]) in outputs {
        *r = ((y - mean) * inverse * weight + bias + bonus * v) * g;
    }
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

    /// Version 7 against its formulas in f64, with the matrix in the official orientation.
    #[test]
    fn wkv7_is_the_formula() {
        const N: usize = 12;
        let vector = |seed: usize, lo: f32, hi: f32| -> [f32; N] {
            core::array::from_fn(|i| {
                let x = ((i * 7919 + seed * 104_729 + 17) % 1009) as f32 / 1009.0;
                lo + (hi - lo) * x
            })
        };
        let (r0, w, k0) = (vector(1, -1.0, 1.0), vector(2, 0.55, 1.0), vector(3, -1.0, 1.0));
        let (v, a0, g) = (vector(4, -1.0, 1.0), vector(5, 0.0, 1.0), vector(6, -1.0, 1.0));
        let parameters: [[f32; N]; 5] = core::array::from_fn(|i| vector(10 + i, -1.0, 1.0));
        let mut flat = [0f32; 5 * N];
        for i in 0..N {
            for (j, p) in parameters.iter().enumerate() {
                flat[5 * i + j] = p[i];
            }
        }
        let mut state: [f32; N * N] = core::array::from_fn(|i| (i % 13) as f32 / 13.0 - 0.5);
        let official = |state: &[f32], value: usize, key: usize| f64::from(state[key * N + value]);
        let before = state;

        let d = |x: f32| f64::from(x);
        let [k_k, k_a, r_k, weight, bias] = parameters;
        let mut kk: [f64; N] = core::array::from_fn(|j| d(k0[j]) * d(k_k[j]));
        let norm = kk.iter().map(|x| x * x).sum::<f64>().sqrt();
        kk.iter_mut().for_each(|x| *x /= norm);
        let k: [f64; N] = core::array::from_fn(|j| d(k0[j]) * (1.0 + (d(a0[j]) - 1.0) * d(k_a[j])));
        let mut y = [0f64; N];
        let mut after = [[0f64; N]; N];
        for i in 0..N {
            let sa = -(0..N).map(|j| official(&before, i, j) * kk[j]).sum::<f64>();
            for (j, new) in after[i].iter_mut().enumerate() {
                *new = official(&before, i, j) * d(w[j]) + sa * kk[j] * d(a0[j]) + d(v[i]) * k[j];
                y[i] += *new * d(r0[j]);
            }
        }
        let mean = y.iter().sum::<f64>() / N as f64;
        let var = y.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / N as f64;
        let bonus: f64 = (0..N).map(|j| d(r0[j]) * k[j] * d(r_k[j])).sum();

        let (mut r, mut k32, mut a) = (r0, k0, a0);
        let (mut kk32, mut sa) = ([0.0; N], [0.0; N]);
        let head = Head7 {
            r: &mut r,
            w: &w,
            k: &mut k32,
            v: &v,
            a: &mut a,
            g: &g,
            kk: &mut kk32,
            sa: &mut sa,
        };
        wkv7(&flat, 64e-5, head, &mut state);
        for i in 0..N {
            let normed = (y[i] - mean) / (var + 64e-5).sqrt() * d(weight[i]) + d(bias[i]);
            let expected = (normed + bonus * d(v[i])) * d(g[i]);
            assert!((d(r[i]) - expected).abs() < 2e-5, "{i}: {} {expected}", r[i]);
            for (j, after) in after[i].iter().enumerate() {
                assert!((official(&state, i, j) - after).abs() < 2e-6);
            }
        }
    }
}
