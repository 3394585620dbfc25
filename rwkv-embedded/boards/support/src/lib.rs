//! What the emulated boards of the agent have in common.
//!
//! A board implements [`Machine`] and calls [`run`]. Its `memory.x` says where image and arena
//! lie: see [`memory`].

#![no_std]

use core::convert::Infallible;

use cortex_m_rt::{ExceptionFrame, exception};
use defmt_semihosting as _;
use embedded_io::{Read, Write};
use rwkv_embedded::{
    agent::{Agent, Board},
    selftest,
};
use semihosting::process;

pub use rwkv_embedded::agent::protocol::Tick;

pub mod cmsdk;
pub mod memory;

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

/// Runs the agent until the host halts it, then leaves the emulator.
///
/// # Safety
/// To be called once, from the first function, before anything else uses the stack, the memory
/// behind the static variables or the board's peripherals.
pub unsafe fn run<M: Machine>() -> ! {
    // SAFETY: nothing else has run and each is called once, as the caller promises.
    let (arena, (machine, uart)) = unsafe {
        memory::paint_stack();
        (memory::arena(), M::start())
    };
    check_floats();

    let mut agent = Agent::new(Measured(machine), memory::image(), arena);
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
    #[cfg(target_abi = "eabihf")]
    {
        /// Flush-to-zero and default-NaN in FPSCR: both must be off.
        const FPSCR_MODES: u32 = 1 << 24 | 1 << 25;
        let modes = fpscr() & FPSCR_MODES;
        if modes != 0 {
            defmt::panic!("FPSCR has flush-to-zero or default-NaN set: {:#x}", modes);
        }
    }
    if let Err(error) = selftest::floats() {
        defmt::panic!("float self-test: {}", error);
    }
}

#[cfg(target_abi = "eabihf")]
fn fpscr() -> u32 {
    let value;
    // SAFETY: reads the status register of the floating-point unit, which the start-up code has
    // switched on.
    unsafe {
        core::arch::asm!("vmrs {}, fpscr", out(reg) value, options(nomem, nostack));
    }
    value
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

/// Logs where the fault came from and leaves the emulator with a failure.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    defmt::error!("hard fault at {:#010x}", frame.pc());
    process::exit(1)
}
