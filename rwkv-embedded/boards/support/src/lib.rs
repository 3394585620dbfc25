//! What the emulated boards of the agent have in common.
//!
//! A board implements [`Machine`] and calls [`run`]. Its `memory.x` says where image and arena
//! lie: see [`memory`].

#![no_std]

use core::convert::Infallible;

use defmt_semihosting as _;
use embedded_io::{Read, Write};
use rwkv_embedded::{
    agent::{Agent, Board, Weights},
    selftest,
    stream::{Buffered, Medium},
};
use semihosting::process;

pub use rwkv_embedded::agent::protocol::Tick;

#[cfg_attr(target_arch = "arm", path = "arm.rs")]
#[cfg_attr(target_arch = "riscv32", path = "riscv.rs")]
mod architecture;

pub mod cmsdk;
pub mod memory;
pub mod pl011;
pub mod pl022;
#[cfg(target_arch = "arm")]
pub mod systick;
pub mod uart;

#[cfg(target_arch = "riscv32")]
pub use architecture::instructions;

/// What is particular to a board.
pub trait Machine: Sized {
    /// The name of the board, as in [`Board`].
    const NAME: &'static str;
    /// The name of its core, as in [`Board`].
    const CORE: &'static str;
    /// What a tick of the clock is, in QEMU under `-icount shift=0`, where an instruction takes 1 ns.
    const TICK: Tick;
    /// The line to the host.
    type Uart: Read<Error = Infallible> + Write;

    /// Starts the clock and the line.
    ///
    /// # Safety
    /// To be called once: the peripherals are exclusive.
    unsafe fn start() -> (Self, Self::Uart);

    /// Ticks since some time, wrapping around.
    fn now(&self) -> u32;
}

struct Measured<M>(M);

impl<M: Machine> Board for Measured<M> {
    const NAME: &'static str = M::NAME;
    const CORE: &'static str = M::CORE;

    fn now(&mut self) -> u32 {
        self.0.now()
    }

    fn tick(&self) -> Tick {
        M::TICK
    }

    fn stack_used(&self) -> Option<u32> {
        Some(memory::stack_used())
    }

    fn statics(&self) -> Option<u32> {
        Some(memory::statics())
    }

    fn firmware(&self) -> Option<u32> {
        Some(memory::firmware())
    }
}

/// Runs the agent over the image in flash until the host halts it, then leaves the emulator.
///
/// # Safety
/// To be called once, from the first function, before anything else uses the stack, the memory
/// behind the static variables or the board's peripherals.
pub unsafe fn run<M: Machine>() -> ! {
    // SAFETY: as the caller promises.
    let (arena, machine, uart) = unsafe { start::<M>() };
    answer(Agent::new(Measured(machine), memory::image(), arena), uart)
}

/// As [`run`], with the image at the start of a medium of so many bytes, which `open` takes into
/// use.
///
/// # Safety
/// As there.
pub unsafe fn run_over<M: Machine, D: Medium>(open: impl FnOnce() -> D, bytes: u32) -> ! {
    // SAFETY: as the caller promises.
    let (arena, machine, uart) = unsafe { start::<M>() };
    let agent: Agent<'_, _, Buffered<'_, D>> =
        Agent::over(Measured(machine), open(), 0..bytes, arena);
    answer(agent, uart)
}

/// Arena, clock and line, and floats that were checked.
///
/// # Safety
/// As [`run`].
unsafe fn start<M: Machine>() -> (&'static mut [f32], M, M::Uart) {
    // SAFETY: nothing else has run and each is called once, as the caller promises.
    let (arena, (machine, uart)) = unsafe {
        memory::paint_stack();
        (memory::arena(), M::start())
    };
    check_floats();
    (arena, machine, uart)
}

fn answer<B: Board, W: Weights>(
    mut agent: Agent<'_, B, W>,
    uart: impl Read<Error = Infallible> + Write,
) -> ! {
    match agent.image() {
        Ok(image) => defmt::info!("{}", image),
        Err(error) => defmt::warn!("no image: {}", error),
    }
    let Ok(end) = agent.run(uart);
    defmt::info!("{}", end);
    process::exit(0)
}

/// Refuses to go on where floats are not those of the book.
fn check_floats() {
    architecture::check_float_modes();
    if let Err(error) = selftest::floats() {
        defmt::panic!("float self-test: {}", error);
    }
}

/// Logs the panic and leaves the emulator with a failure.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    defmt::error!("{}", defmt::Display2Format(info));
    process::exit(1)
}

/// `defmt::panic!` has logged its message already.
#[defmt::panic_handler]
fn defmt_panic() -> ! {
    process::exit(1)
}
