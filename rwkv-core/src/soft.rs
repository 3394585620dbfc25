//! The float expressions of the integer kernels, in integers: the same bits at a fraction of the
//! price on a core without a floating-point unit.
//!
//! Both follow the float operations where those could round twice or leave the normal numbers;
//! tests compare them with the floats that they stand for.

use core::{hint::cold_path, mem::offset_of};

use crate::math;

/// The hidden bit of a significand.
const HIDDEN: u32 = 1 << 23;
const SIGN: u32 = 1 << 31;

/// `round_half_even(x * factor)`, for a normal or zero `factor` and a result of at most 2^14.
#[inline]
pub(crate) fn round_product(x: f32, factor: f32) -> i32 {
    let (bits, factor_bits) = (x.to_bits(), factor.to_bits());
    // In 2^29 .. 2^31, where 2^shift stands for 1.
    let product = high(bits << 8 | SIGN, significand(factor_bits) << 7);
    let shift = 283u32.wrapping_sub(exponent(bits)).wrapping_sub(exponent(factor_bits));
    if shift > 31 {
        return 0;
    }
    // The product is rounded to 24 bits before it is rounded to an integer, and `high` may be three
    // short: both matter only within 67 of halfway between two integers.
    const MARGIN: u32 = 128;
    let sum = product.wrapping_add(1 << (shift.wrapping_sub(1) & 31)).wrapping_sub(MARGIN);
    let rounded = sum >> shift;
    if sum.wrapping_add(2 * MARGIN) >> shift != rounded {
        return math::round_half_even(x * factor);
    }
    let rounded = rounded as i32;
    if (bits as i32) < 0 { -rounded } else { rounded }
}

/// Turns wrapping sums into floats: `sum as f32 * (input * scale)`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Rescaler {
    /// The exponents of the scales that are *usual*: their products with the input, and theirs with
    /// any sum, are normal whatever the significands. The lowest, and how many.
    lowest: u32,
    exponents: u32,
    /// Of the input.
    significand: u32,
    /// The exponent of a result, less that of the scale: for a sum whose topmost bit is bit 31 and
    /// products of significands below 2. It makes room for the hidden bit.
    offset: u32,
    input: f32,
}

// Assembly reads the first four words.
const _: () = {
    assert!(offset_of!(Rescaler, lowest) == 0 && offset_of!(Rescaler, exponents) == 4);
    assert!(offset_of!(Rescaler, significand) == 8 && offset_of!(Rescaler, offset) == 12);
};

impl Rescaler {
    pub(crate) fn new(input: f32) -> Self {
        let bits = input.to_bits();
        // The products of a scale with exponent e have exponents from e + shift to e + shift + 34.
        let shift = exponent(bits) as i32 - 127;
        let lowest = if shift < 0 { 1 - shift } else { 1 };
        let highest = if shift < -34 { 254 } else { 254 - 34 - shift };
        let all = matches!(shift, -126..=127) && (bits as i32) >= 0 && lowest <= highest;
        Self {
            lowest: lowest as u32,
            exponents: if all { (highest - lowest + 1) as u32 } else { 0 },
            significand: significand(bits),
            offset: (shift + 31 - 1) as u32,
            input,
        }
    }

    /// One sum.
    #[inline]
    pub(crate) fn apply(self, sum: i32, scale: f32) -> f32 {
        match cfg!(rwkv_soft_float) {
            true => self.integers(sum, scale),
            false => self.floats(sum, scale),
        }
    }

    #[inline]
    fn integers(self, sum: i32, scale: f32) -> f32 {
        let (bits, magnitude) = (scale.to_bits(), sum.unsigned_abs());
        let usual = exponent(bits).wrapping_sub(self.lowest) < self.exponents;
        let mut zeros = magnitude.leading_zeros();
        if sum == 0 || !usual {
            return self.floats(sum, scale);
        }
        let mut magnitude = magnitude << zeros;
        if magnitude & 0xff != 0 {
            magnitude = magnitude.wrapping_add(0x7f + (magnitude >> 8 & 1)) & !0xff;
            // Zero is 2^32.
            zeros = zeros.wrapping_sub((magnitude == 0).into());
            magnitude |= SIGN;
        }
        let (both, carry) = product(bits << 8 | SIGN, self.significand << 7);
        let (all, another) = product(magnitude, both << 7);
        let exponent = exponent(bits)
            .wrapping_sub(zeros)
            .wrapping_add(self.offset)
            .wrapping_add(carry)
            .wrapping_add(another);
        f32::from_bits(((bits ^ sum as u32) & SIGN) | (exponent << 23).wrapping_add(all))
    }

    /// As [`Rescaler::apply`], whatever the numbers.
    #[cfg_attr(rwkv_soft_float, cold, inline(never))]
    pub(crate) fn floats(self, sum: i32, scale: f32) -> f32 {
        sum as f32 * (self.input * scale)
    }
}

/// The product of two significands, the topmost bits 31 and 30: rounded to 24 bits, and 1 if it is
/// twice as large as they say. May round up to 2^24, a significand like any other.
#[inline]
fn product(a: u32, b: u32) -> (u32, u32) {
    let wide = u64::from(a) * u64::from(b);
    let (mut high, mut low) = ((wide >> 32) as u32, wide as u32);
    let carry = high >> 30;
    if carry == 0 {
        high = high << 1 | low >> 31;
        low <<= 1;
    }
    let mut rounded = (high + 64) >> 7;
    if high << 25 == SIGN {
        cold_path();
        if low == 0 {
            rounded &= !1;
        }
    }
    (rounded, carry)
}

/// The upper half of a product, or up to three less.
#[inline]
fn high(a: u32, b: u32) -> u32 {
    match cfg!(rwkv_isa = "armv6m") {
        true => high_in_parts(a, b),
        false => ((u64::from(a) * u64::from(b)) >> 32) as u32,
    }
}

/// As [`high`], from products of one word.
#[inline]
const fn high_in_parts(a: u32, b: u32) -> u32 {
    let [a_low, a_high, b_low, b_high] = [a & 0xffff, a >> 16, b & 0xffff, b >> 16];
    (a_high * b_high) + ((a_high * b_low) >> 16) + ((a_low * b_high) >> 16)
}

#[inline]
pub(crate) const fn significand(bits: u32) -> u32 {
    bits & (HIDDEN - 1) | HIDDEN
}

#[inline]
pub(crate) const fn exponent(bits: u32) -> u32 {
    bits >> 23 & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Quantiser;

    /// Words that look random.
    fn words() -> impl Iterator<Item = u32> {
        let mut x = 0x2545_F491u32;
        core::iter::repeat_with(move || {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x
        })
    }

    /// Any bits, few bits, so that ties abound, or those of a number between 1 and 2.
    fn float(word: u32, kind: u32) -> f32 {
        f32::from_bits(match kind % 4 {
            0 => word,
            1 => word & 0xfff0_0000,
            2 => word & 0xfff8_0000 | 1,
            _ => word & 0x807f_ffff | 0x3f80_0000,
        })
    }

    #[test]
    fn elements_are_rounded_as_floats() {
        let mut words = words();
        let mut word = || words.next().unwrap();
        for _ in 0..200_000 {
            let m = f32::from_bits(float(word(), word()).to_bits() & 0x7fff_ffff);
            let bits = 8 + (word() % 8) as u8;
            let Ok(quantiser) = Quantiser::new(&[m], bits) else { continue };
            let factor = quantiser.factor();
            let check = |x: f32| {
                let x = if x.abs() <= m { x } else { m };
                let (found, expected) =
                    (round_product(x, factor), math::round_half_even(x * factor));
                assert_eq!(found, expected, "{x:e} * {factor:e}");
            };
            for x in [0.0, -0.0, m, -m, 1e-45, f32::MIN_POSITIVE, float(word(), word())] {
                check(x);
            }
            for _ in 0..8 {
                check(m * (word() as i32 as f32 / 2147483648.0));
                // Next to halfway between two integers.
                let half = (word() % (1 << (bits - 1))) as f32 - 0.5;
                let x = (half * quantiser.scale()).to_bits();
                (x.saturating_sub(3)..x.saturating_add(4)).for_each(|x| check(f32::from_bits(x)));
            }
        }
    }

    #[test]
    fn sums_are_rescaled_as_floats() {
        let mut words = words();
        let mut word = || words.next().unwrap();
        for _ in 0..2_000_000 {
            let (a, b) = (float(word(), word()), float(word(), word()));
            let sum = word() as i32 >> (word() % 32);
            for sum in [sum, 0, 1, -1, 1 << 24, i32::MIN, i32::MAX, sum | 1] {
                let (found, expected) = (Rescaler::new(a).integers(sum, b), sum as f32 * (a * b));
                let same = found.to_bits() == expected.to_bits();
                assert!(same || found.is_nan() && expected.is_nan(), "{sum} * ({a:e} * {b:e})");
            }
        }
    }
}
