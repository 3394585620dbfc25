//! The RWKV agent on QEMU's `mps2-an386`, a Cortex-M4F.
//!
//! The host speaks over UART0 and loads the image at 0x0008_0000; log frames go to semihosting.
//! See the README for the command.

#![no_std]
#![no_main]

use cortex_m_rt::{ExceptionFrame, entry, exception};
use defmt_semihosting as _;
use rwkv_embedded::{
    agent::{Agent, Board, protocol::Tick},
    selftest,
};
use semihosting::process;

mod memory;
mod timer;
mod uart;

use timer::{INSTRUCTIONS_PER_TICK, Timer};
use uart::Uart;

/// Flush-to-zero and default-NaN in FPSCR: both must be off.
const FPSCR_MODES: u32 = 1 << 24 | 1 << 25;

struct Mps2An386 {
    timer: Timer,
}

impl Board for Mps2An386 {
    const NAME: &'static str = "mps2-an386";
    const CORE: &'static str = "Cortex-M4F";

    fn now(&mut self) -> u32 {
        self.timer.now()
    }

    fn tick(&self) -> Tick {
        Tick::Instructions(INSTRUCTIONS_PER_TICK)
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

#[entry]
fn main() -> ! {
    // SAFETY: this is the first function, nothing else has run, and each is called once.
    let (arena, timer, uart) = unsafe {
        memory::paint_stack();
        (memory::arena(), Timer::new(), Uart::new())
    };
    check_floats();

    let mut agent = Agent::new(Mps2An386 { timer }, memory::image(), arena);
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
    let modes = fpscr() & FPSCR_MODES;
    if modes != 0 {
        defmt::panic!("FPSCR has flush-to-zero or default-NaN set: {:#x}", modes);
    }
    if let Err(error) = selftest::floats() {
        defmt::panic!("float self-test: {}", error);
    }
}

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
