//! `suite N`: N cases of every operation, the kernels of this machine against the reference.

use core::fmt::Write;

use rwkv_core::kernel::{
    Kernel,
    cases::{self, OPERATIONS},
};

use crate::{Memory, failure::Failure, functions, platform::Out};

/// Compares bits until the first difference.
pub fn run(kernel: impl Kernel, memory: Memory<'_>, count: u32) -> Result<(), Failure> {
    cases::run(kernel, memory.arena, count).map_err(Failure::Difference)?;
    let _ = writeln!(Out, "equal {} operations, {count} cases each", OPERATIONS.len());
    let digest = functions::digest();
    let _ = writeln!(Out, "functions {:08x}{:08x}", digest.0, digest.1);
    Ok(())
}
