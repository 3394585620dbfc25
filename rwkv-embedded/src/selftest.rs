//! Checks at boot that a core's floats are those of the book: IEEE binary32, round to nearest
//! even, subnormals kept.

use core::hint::black_box;

/// Why a core must not compute: its numbers would differ from those of every other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SelfTestError {
    /// A subnormal operand counts as zero.
    SubnormalInput,
    /// A subnormal result becomes zero.
    SubnormalOutput,
    /// Results are not rounded to nearest, ties to even.
    Rounding,
    /// A product is not rounded before it is added: multiply and add are fused.
    Contraction,
}

impl core::fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::SubnormalInput => "a subnormal operand counts as zero",
            Self::SubnormalOutput => "a subnormal result becomes zero",
            Self::Rounding => "results are not rounded to nearest even",
            Self::Contraction => "multiply and add are fused",
        })
    }
}

impl core::error::Error for SelfTestError {}

/// Computes a few sums and products whose bits tell whether the floating-point unit is in the
/// mode that the book asks for. The compiler sees none of the values, so the core computes them.
///
/// # Errors
/// The first rule that the core breaks.
pub fn floats() -> Result<(), SelfTestError> {
    let smallest = black_box(f32::from_bits(1));
    if (smallest + black_box(0.0)).to_bits() != 1 {
        return Err(SelfTestError::SubnormalInput);
    }
    let product = black_box(1e-38_f32) * black_box(0.1_f32);
    if product.to_bits() != 0x000A_E398 {
        return Err(SelfTestError::SubnormalOutput);
    }
    // 1 + 2^-24 is a tie and goes down to the even 1; one step above 1 it goes up to an even one.
    let half_step = black_box(f32::EPSILON / 2.0);
    let (one, odd) = (black_box(1.0_f32), black_box(1.0 + f32::EPSILON));
    if one + half_step != 1.0 || odd + half_step != 1.0 + 2.0 * f32::EPSILON {
        return Err(SelfTestError::Rounding);
    }
    // (1 + 2^-12)² is 1 + 2^-11 + 2^-24: a tie whose last term rounding takes away.
    let (factor, rounded) = (black_box(1.0 + 1.0 / 4096.0_f32), black_box(1.0 + 1.0 / 2048.0_f32));
    if factor * factor - rounded != 0.0 {
        return Err(SelfTestError::Contraction);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_host_passes() {
        assert_eq!(super::floats(), Ok(()));
    }
}
