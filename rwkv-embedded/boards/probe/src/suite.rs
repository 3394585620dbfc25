//! `suite N`: N cases of every operation, the kernels of this machine against the reference.

use core::fmt::Write;

use rwkv_core::kernel::{
    Kernel,
    cases::{self, OPERATIONS},
};

use crate::{Memory, failure::Failure, platform::Out};

/// Compares bits until the first difference.
pub fn run(kernel: impl Kernel, memory: Memory<'_>, count: u32) -> Result<(), Failure> {
    cases::run(kernel, memory.arena, count).map_err(Failure::Difference)?;
    let _ = writeln!(Out, "equal {} operations, {count} cases each", OPERATIONS.len());
    Ok(())
}
