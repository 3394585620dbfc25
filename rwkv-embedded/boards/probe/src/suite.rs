//! `suite N`: N cases of every operation, the kernels of this machine against the reference.

use core::fmt::Write;

use rwkv_core::{
    Digest,
    exec::Logits,
    kernel::{
        Kernel,
        cases::{self, OPERATIONS, Random},
    },
    math,
};

use crate::{Memory, failure::Failure, platform::Out};

/// Compares bits until the first difference.
pub fn run(kernel: impl Kernel, memory: Memory<'_>, count: u32) -> Result<(), Failure> {
    cases::run(kernel, memory.arena, count).map_err(Failure::Difference)?;
    let _ = writeln!(Out, "equal {} operations, {count} cases each", OPERATIONS.len());
    let digest = digest();
    let _ = writeln!(Out, "functions {:08x}{:08x}", digest.0, digest.1);
    Ok(())
}

/// The bits of every function over many inputs: equal on every machine.
fn digest() -> Digest {
    let functions =
        [math::exp, math::ln, math::tanh, math::sigmoid, math::softplus, math::sqrt, math::rsqrt];
    let (mut digest, mut random) = (Digest::default(), Random(3));
    for position in 0..4096 {
        // Every bit pattern, and within ±16.
        let word = random.word();
        let x = if position % 2 == 0 {
            f32::from_bits(word)
        } else {
            word as i32 as f32 / (1u32 << 27) as f32
        };
        for (index, f) in functions.iter().enumerate() {
            let y = f(x);
            // No bits of a NaN are part of the norm.
            let y = if y.is_nan() { 0.0 } else { y };
            digest.push(position * functions.len() as u32 + index as u32, &[y]);
        }
    }
    digest
}
