//! Measures rwkv-core and proves its bits, on every core that can be emulated and on the host.
//!
//! One program: firmware for the boards whose memory maps lie in `memory/`, a plain executable
//! elsewhere. Arguments, output and exit code go through semihosting on a board. See the README
//! for the modes.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg_attr(target_os = "none", path = "bare/mod.rs")]
#[cfg_attr(not(target_os = "none"), path = "hosted.rs")]
mod platform;

#[cfg(feature = "cmsis-nn")]
mod cmsis_nn;
mod cost;
mod exactness;
mod failure;
#[cfg(feature = "functions")]
mod functions;
mod kernels;
mod options;
mod suite;

use failure::Failure;
use options::{Mode, Options};
use rwkv_core::kernel::Kernel;

/// The memory that a mode works with.
struct Memory<'a> {
    /// What the emulator's loader, or `--image`, has put there.
    window: &'a [u8],
    /// RAM for everything.
    arena: &'a mut [f32],
}

/// Does what the arguments ask for.
fn run(options: &Options<'_>, memory: Memory<'_>, kernel: impl Kernel) -> Result<(), Failure> {
    match options.mode {
        #[cfg(feature = "cmsis-nn")]
        Mode::CmsisNn => cmsis_nn::run(memory),
        Mode::Exactness => exactness::run(kernel, memory, options.count.unwrap_or(2000)),
        #[cfg(feature = "functions")]
        Mode::Functions => functions::run(kernel, memory),
        Mode::Kernels => kernels::run(kernel, memory),
        Mode::Suite => suite::run(kernel, memory, options.count.unwrap_or(200)),
        Mode::Tokens => exactness::tokens(kernel, memory, options.count.unwrap_or(32)),
    }
}

/// Parts of the arena, one behind the other.
fn carve<const N: usize>(arena: &mut [f32], sizes: [usize; N]) -> Result<[&mut [f32]; N], Failure> {
    let (needed, given) = (sizes.iter().sum(), arena.len());
    if needed > given {
        return Err(Failure::Arena { needed, given });
    }
    let mut rest = arena;
    Ok(sizes.map(|size| {
        let (part, behind) = core::mem::take(&mut rest).split_at_mut(size);
        rest = behind;
        part
    }))
}

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    platform::main()
}
