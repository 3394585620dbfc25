//! The functions of the gates over the exponential of `micromath`, for images that ask for it.
//!
//! Its relative error is up to 2.4e-3. The bits are those of micromath 2.1.0 everywhere: it uses
//! the same operations as [`super`], and the version is pinned. At the ends of the exponents it is
//! wrong, so inputs are cut before; a NaN, which it would lose, is added again.

use micromath::F32;

use super::{DECAY, SIGN};

/// e^x, for x cut to ±87.
#[inline]
pub fn exp(x: f32) -> f32 {
    let x = if x > 87.0 { 87.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    F32(x).exp().0 + 0.0 * x
}

/// Logistic function 1 / (1 + e^-x). Within [0, 1].
#[inline]
pub fn sigmoid(x: f32) -> f32 {
    let e = exp(f32::from_bits(x.to_bits() | SIGN));
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// Hyperbolic tangent. Odd in every bit, within [-1, 1].
#[inline]
pub fn tanh(x: f32) -> f32 {
    let sign = x.to_bits() & SIGN;
    let a = f32::from_bits(x.to_bits() & !SIGN);
    let y = 1.0 - 2.0 / (exp(a + a) + 1.0);
    f32::from_bits(y.to_bits() | sign)
}

/// Version 7's decay, e^(-0.606531·sigmoid(x)).
#[inline]
pub fn decay(x: f32) -> f32 {
    exp(DECAY * sigmoid(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error that micromath is known for, and what follows from it.
    #[test]
    fn functions_are_as_close_as_their_exponential() {
        for i in -8_800..=8_800 {
            let x = i as f32 / 100.0;
            let wide = f64::from(x);
            let (e, cut) = (f64::from(exp(x)), wide.clamp(-87.0, 87.0));
            assert!((e / libm::exp(cut) - 1.0).abs() < 2.5e-3, "exp({x}) = {e}");
            let s = f64::from(sigmoid(x));
            assert!((s - 1.0 / (1.0 + libm::exp(-wide))).abs() < 7e-4, "sigmoid({x}) = {s}");
            let t = f64::from(tanh(x));
            assert!((t - libm::tanh(wide)).abs() < 1.3e-3, "tanh({x}) = {t}");
        }
    }

    #[test]
    fn nothing_leaves_its_range_and_nan_stays() {
        for bits in (0..=u32::MAX).step_by(509) {
            let x = f32::from_bits(bits);
            let (e, s, t, d) = (exp(x), sigmoid(x), tanh(x), decay(x));
            if x.is_nan() {
                assert!(e.is_nan() && s.is_nan() && t.is_nan() && d.is_nan());
                continue;
            }
            assert!(e.is_finite() && e > 0.0, "exp({x:e}) = {e:e}");
            assert!((0.0..=1.0).contains(&s), "sigmoid({x:e}) = {s:e}");
            assert!((-1.0..=1.0).contains(&t) && tanh(-x).to_bits() == (-t).to_bits());
            assert!((0.54..=1.0).contains(&d), "decay({x:e}) = {d:e}");
        }
    }

    /// Input, then exp, sigmoid, tanh and decay of it, as bits.
    const GOLDEN: &str = "\
00000000 3f800000 3f000000 00000000 3f3d0950
80000000 3f800000 3f000000 80000000 3f3d0950
00000001 3f800000 3f000000 00000000 3f3d0950
3c23d70a 3f814953 3f00a3d7 3c23d540 3f3cc006
bdcccccd 3f67a36e 3ef335ee bdcc1e28 3f3febc4
3f000000 3fd30000 3f1f5366 3eec9a9e 3f2f865c
bf317218 3f000000 3eaaaaab bf19999a 3f5123d5
3f800000 402df854 3f3b26a8 3f42f1d2 3f24589c
bf800000 3ebc5ab2 3e89b2b1 bf42f1d2 3f59781d
3fc00000 408f69fd 3f514c8f 3f67b7c5 3f1bf8a4
c0400000 3d4bedda 3d4241ed bf7ebbdf 3f78bdaf
41200000 46ac1448 3f7ffd06 3f800000 3f0bbe6c
c1880000 3331d266 3331d266 bf800000 3f800000
42ae0000 7e36d642 3f800000 3f800000 3f0bbd72
42b00000 7e36d642 3f800000 3f800000 3f0bbd72
c2b00000 00b3399a 00b3399a bf800000 3f800000
7f800000 7e36d642 3f800000 3f800000 3f0bbd72
ff800000 00b3399a 00b3399a bf800000 3f800000
";

    #[test]
    fn bits_are_golden() {
        use std::fmt::Write;
        let mut table = std::string::String::new();
        for line in GOLDEN.lines() {
            let input = line.split(' ').next().unwrap();
            let x = f32::from_bits(u32::from_str_radix(input, 16).unwrap());
            table.push_str(input);
            for f in [exp, sigmoid, tanh, decay] {
                write!(table, " {:08x}", f(x).to_bits()).unwrap();
            }
            table.push('\n');
        }
        assert_eq!(table, GOLDEN, "got\n{table}");
    }
}
