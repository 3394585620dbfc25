//! The recurrences, with what surrounds them.

use super::moments;
use crate::{
    kernel::{Kernel, Keys5, Keys7, floats},
    math,
};

/// The recurrence of version 4 for a run of channels, and the receptance gate on top.
///
/// `params` is `[decay, first]` per channel with `decay = -e^time_decay`; the state is numerator,
/// denominator and exponent. `r` comes in as the receptance and leaves as `r ⊙ wkv`.
pub fn wkv4(params: &[f32], k: &[f32], v: &[f32], r: &mut [f32], state: [&mut [f32]; 3]) {
    let [num, den, exponent] = state;
    let inputs = k.iter().zip(v).zip(params.as_chunks().0);
    let states = num.iter_mut().zip(den).zip(exponent);
    for ((r, ((&k, &v), &[w, u])), ((a, b), p)) in r.iter_mut().zip(inputs).zip(states) {
        let (_, e1, e2) = weights(*p, u + k);
        *r *= (e1 * *a + e2 * v) / (e1 * *b + e2);
        let (q, e1, e2) = weights(*p + w, k);
        *a = e1 * *a + e2 * v;
        *b = e1 * *b + e2;
        *p = q;
    }
}

/// `q`, the larger of both, then `e^(a - q)` and `e^(b - q)`: one of them is `e^0`, which is 1, or
/// NaN if `q` is not finite.
#[inline(always)]
fn weights(a: f32, b: f32) -> (f32, f32, f32) {
    let (q, e) = (if a > b { a } else { b }, math::exp_of_negative(a - b));
    let one = 1.0 + 0.0 * q;
    if a > b { (q, one, e) } else { (q, e, one) }
}

/// The vectors of one head that the recurrence of versions 5 and 6 reads and overwrites, all of
/// head size.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Head5<'a> {
    /// Receptance in, output out.
    pub r: &'a mut [f32],
    /// Decay.
    pub w: &'a [f32],
    /// Key.
    pub k: &'a [f32],
    /// Value.
    pub v: &'a [f32],
    /// Room for the output before its norm.
    pub y: &'a mut [f32],
}

/// The recurrence of versions 5 and 6 for one head, with its bonus and group norm.
///
/// `params` is `[bonus, weight, bias]` per channel, the last two of the group norm. The state lies
/// as in [`wkv7`], and sums run alike. The output is of the state before this token, whose own
/// part, the bonus, is a sum over the keys that all values share.
pub fn wkv5(
    kernel: impl Kernel,
    params: &[f32],
    epsilon: f32,
    mut head: Head5<'_>,
    state: &mut [f32],
) {
    let bonus = head.open(params);
    let Head5 { r, w, k, v, y } = &mut head;
    kernel.wkv5(Keys5 { w, k, r }, v, state, y);
    head.close(params, epsilon, bonus);
}

impl Head5<'_> {
    /// What comes before the state is read: the bonus, which the values share.
    #[inline]
    pub fn open(&mut self, params: &[f32]) -> f32 {
        let inputs = self.r.iter().zip(self.k).zip(params.as_chunks::<3>().0);
        for (y, ((r, k), [u, ..])) in self.y.iter_mut().zip(inputs) {
            *y = r * k * u;
        }
        floats::sum(self.y)
    }

    /// What comes after, with the outputs of the state in `y`: bonus and group norm.
    #[inline]
    pub fn close(self, params: &[f32], epsilon: f32, bonus: f32) {
        let Self { r, v, y, .. } = self;
        y.iter_mut().zip(v).for_each(|(y, v)| *y += bonus * v);
        let (mean, inverse) = moments(y, epsilon);
        for ((r, y), [_, weight, bias]) in r.iter_mut().zip(&*y).zip(params.as_chunks::<3>().0) {
            *r = (y - mean) * inverse * weight + bias;
        }
    }
}

/// The vectors of one head that version 7's recurrence reads and overwrites, all of head size.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
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
    /// Room for the normalised removal key.
    pub kk: &'a mut [f32],
    /// Room for the output before its norm.
    pub y: &'a mut [f32],
}

/// The recurrence of version 7 for one head, with its group norm, bonus and gate.
///
/// `params` is `[k_k, k_a, r_k, weight, bias]` per channel, the last two of the group norm.
/// `state` is key-major, `S[key][value]`: sums over the key index run in natural order and the
/// lanes of a vector unit hold independent value indices.
pub fn wkv7(
    kernel: impl Kernel,
    params: &[f32],
    epsilon: f32,
    mut head: Head7<'_>,
    state: &mut [f32],
) {
    let bonus = head.open(params);
    let Head7 { r, w, k, v, a, kk, y, .. } = &mut head;
    kernel.wkv7(Keys7 { w, k, kk, b: a, r }, v, state, y);
    head.close(params, epsilon, bonus);
}

impl Head7<'_> {
    /// What comes before the state is read: the keys as the recurrence takes them, and the bonus,
    /// which the values share.
    #[inline]
    pub fn open(&mut self, params: &[f32]) -> f32 {
        let Self { r, k, a, kk, y, .. } = self;
        let params = params.as_chunks::<5>().0;
        for ((kk, k), [k_k, ..]) in kk.iter_mut().zip(&**k).zip(params) {
            *kk = k * k_k;
        }
        let norm = math::sqrt(floats::squares(kk, 0.0));
        let inverse = 1.0 / if norm > 1e-12 { norm } else { 1e-12 };
        let keys = kk.iter_mut().zip(&mut **k).zip(&mut **a).zip(params);
        for ((((kk, k), a), [_, k_a, r_k, ..]), (y, r)) in keys.zip(y.iter_mut().zip(&**r)) {
            let (removal, rate) = (*kk * inverse, *a);
            let key = *k * (1.0 + (rate - 1.0) * k_a);
            *y = r * key * r_k;
            (*kk, *k, *a) = (removal, key, rate * removal);
        }
        floats::sum(y)
    }

    /// What comes after, with the outputs of the state in `y`: group norm, bonus and gate.
    #[inline]
    pub fn close(self, params: &[f32], epsilon: f32, bonus: f32) {
        let Self { r, v, g, y, .. } = self;
        let (mean, inverse) = moments(y, epsilon);
        let outputs = r.iter_mut().zip(&*y).zip(v).zip(g).zip(params.as_chunks::<5>().0);
        for ((((r, y), v), g), [_, _, _, weight, bias]) in outputs {
            *r = ((y - mean) * inverse * weight + bias + bonus * v) * g;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use std::vec::Vec;

    use super::*;
    use crate::kernel::Generic;

    /// Numbers in a range, the same for a seed.
    fn numbers(n: usize, seed: usize, lo: f32, hi: f32) -> Vec<f32> {
        let x = |i| ((i * 7919 + seed * 104_729 + 17) % 1009) as f32 / 1009.0;
        (0..n).map(|i| lo + (hi - lo) * x(i)).collect()
    }

    /// Versions 5 and 6 against their formulas in f64, for a head of `n` channels.
    fn wkv5_is_the_formula_for(n: usize, seed: usize) {
        let vector = |index: usize, lo, hi| numbers(n, seed + index, lo, hi);
        let (r0, w, k) = (vector(1, -1.0, 1.0), vector(2, 0.0, 1.0), vector(3, -1.0, 1.0));
        let v = vector(4, -1.0, 1.0);
        let parameters: [Vec<f32>; 3] = core::array::from_fn(|i| vector(10 + i, -1.0, 1.0));
        let flat: Vec<f32> = (0..n).flat_map(|i| parameters.iter().map(move |p| p[i])).collect();
        let before: Vec<f32> = (0..n * n).map(|i| (i % 13) as f32 / 13.0 - 0.5).collect();

        let d = |x: f32| f64::from(x);
        let [u, weight, bias] = &parameters;
        let s = |i: usize, j: usize| d(before[i * n + j]);
        let kv = |i: usize, j: usize| d(k[i]) * d(v[j]);
        let y: Vec<f64> = (0..n)
            .map(|j| (0..n).map(|i| d(r0[i]) * (d(u[i]) * kv(i, j) + s(i, j))).sum())
            .collect();
        let mean = y.iter().sum::<f64>() / n as f64;
        let var = y.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / n as f64;

        let (mut r, mut state, mut room) = (r0.clone(), before.clone(), std::vec![0.0; n]);
        let head = Head5 { r: &mut r, w: &w, k: &k, v: &v, y: &mut room };
        wkv5(Generic, &flat, 64e-5, head, &mut state);
        for j in 0..n {
            let expected = (y[j] - mean) / (var + 64e-5).sqrt() * d(weight[j]) + d(bias[j]);
            assert!((d(r[j]) - expected).abs() < 2e-5, "{n}, {j}: {} {expected}", r[j]);
            for i in 0..n {
                let after = kv(i, j) + d(w[i]) * s(i, j);
                assert!((d(state[i * n + j]) - after).abs() < 1e-6, "{n}, {i}, {j}");
            }
        }
    }

    #[test]
    fn wkv5_is_the_formula() {
        for n in [4, 8, 12, 16, 32, 64, 128] {
            (0..3).for_each(|head| wkv5_is_the_formula_for(n, 100 * head));
        }
    }

    /// Version 7 against its formulas in f64, with the matrix in the official orientation, for a
    /// head of `n` channels.
    fn wkv7_is_the_formula_for(n: usize, seed: usize) {
        let vector = |index: usize, lo, hi| numbers(n, seed + index, lo, hi);
        let (r0, w, k0) = (vector(1, -1.0, 1.0), vector(2, 0.55, 1.0), vector(3, -1.0, 1.0));
        let (v, a0, g) = (vector(4, -1.0, 1.0), vector(5, 0.0, 1.0), vector(6, -1.0, 1.0));
        let parameters: [Vec<f32>; 5] = core::array::from_fn(|i| vector(10 + i, -1.0, 1.0));
        let flat: Vec<f32> = (0..n).flat_map(|i| parameters.iter().map(move |p| p[i])).collect();
        let mut state: Vec<f32> = (0..n * n).map(|i| (i % 13) as f32 / 13.0 - 0.5).collect();
        let official = |state: &[f32], value: usize, key: usize| f64::from(state[key * n + value]);
        let before = state.clone();

        let d = |x: f32| f64::from(x);
        let [k_k, k_a, r_k, weight, bias] = &parameters;
        let mut kk: Vec<f64> = (0..n).map(|j| d(k0[j]) * d(k_k[j])).collect();
        let norm = kk.iter().map(|x| x * x).sum::<f64>().sqrt();
        kk.iter_mut().for_each(|x| *x /= norm);
        let k: Vec<f64> = (0..n).map(|j| d(k0[j]) * (1.0 + (d(a0[j]) - 1.0) * d(k_a[j]))).collect();
        let mut y = std::vec![0f64; n];
        let mut after = std::vec![std::vec![0f64; n]; n];
        for i in 0..n {
            let sa = -(0..n).map(|j| official(&before, i, j) * kk[j]).sum::<f64>();
            for (j, new) in after[i].iter_mut().enumerate() {
                *new = official(&before, i, j) * d(w[j]) + sa * kk[j] * d(a0[j]) + d(v[i]) * k[j];
                y[i] += *new * d(r0[j]);
            }
        }
        let mean = y.iter().sum::<f64>() / n as f64;
        let var = y.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / n as f64;
        let bonus: f64 = (0..n).map(|j| d(r0[j]) * k[j] * d(r_k[j])).sum();

        let (mut r, mut k32, mut a) = (r0, k0, a0);
        let (mut kk32, mut y32) = (std::vec![0.0; n], std::vec![0.0; n]);
        let head = Head7 {
            r: &mut r,
            w: &w,
            k: &mut k32,
            v: &v,
            a: &mut a,
            g: &g,
            kk: &mut kk32,
            y: &mut y32,
        };
        wkv7(Generic, &flat, 64e-5, head, &mut state);
        for i in 0..n {
            let normed = (y[i] - mean) / (var + 64e-5).sqrt() * d(weight[i]) + d(bias[i]);
            let expected = (normed + bonus * d(v[i])) * d(g[i]);
            assert!((d(r[i]) - expected).abs() < 2e-5, "{n}, {i}: {} {expected}", r[i]);
            for (j, after) in after[i].iter().enumerate() {
                assert!((official(&state, i, j) - after).abs() < 2e-6, "{n}, {i}, {j}");
            }
        }
    }

    #[test]
    fn wkv7_is_the_formula() {
        for n in [4, 8, 12, 16, 32, 64, 128] {
            (0..3).for_each(|head| wkv7_is_the_formula_for(n, 100 * head));
        }
    }

    /// Version 4 as the book has it, with four exponentials.
    fn wkv4_of_the_book([w, u, k, v, r]: [f32; 5], [a, b, p]: [f32; 3]) -> [f32; 4] {
        let larger = |a: f32, b: f32| if a > b { a } else { b };
        let q = larger(p, u + k);
        let (e1, e2) = (math::exp(p - q), math::exp(u + k - q));
        let r = r * ((e1 * a + e2 * v) / (e1 * b + e2));
        let q = larger(p + w, k);
        let (e1, e2) = (math::exp(p + w - q), math::exp(k - q));
        [r, e1 * a + e2 * v, e1 * b + e2, q]
    }

    fn value() -> impl Strategy<Value = f32> {
        let far = prop_oneof![-1e30f32..1e30, Just(-1e30), Just(f32::INFINITY), any::<f32>()];
        prop_oneof![4 => -9f32..9.0, 1 => Just(0.0), 1 => far]
    }

    proptest! {
        #[test]
        fn wkv4_has_the_bits_of_the_book(
            channels in vec(([value(), value(), value(), value(), value()], [value(), value(), value()]), 1..9),
        ) {
            let column = |i: usize| channels.iter().map(|c| c.0[i]).collect::<Vec<_>>();
            let row = |i: usize| channels.iter().map(|c| c.1[i]).collect::<Vec<_>>();
            let params: Vec<f32> = channels.iter().flat_map(|c| [c.0[0], c.0[1]]).collect();
            let (k, v, mut r) = (column(2), column(3), column(4));
            let (mut a, mut b, mut p) = (row(0), row(1), row(2));
            wkv4(&params, &k, &v, &mut r, [&mut a, &mut b, &mut p]);
            for (i, (inputs, state)) in channels.iter().enumerate() {
                let expected = wkv4_of_the_book(*inputs, *state);
                for (found, expected) in [r[i], a[i], b[i], p[i]].into_iter().zip(expected) {
                    let same = found.to_bits() == expected.to_bits();
                    prop_assert!(same || found.is_nan() && expected.is_nan(), "{found} {expected}");
                }
            }
        }
    }
}
