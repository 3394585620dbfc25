//! The RWKV agent on QEMU's `microbit`, an nRF51822 with a Cortex-M0.
//!
//! The host speaks over the UART and loads the image at 0x0001_8800; log frames go to
//! semihosting. See the README for the command.

#![no_std]
#![no_main]

use board_support::{Machine, Tick, uart::Bytewise};
use cortex_m_rt::entry;

mod timer;
mod uart;

use timer::{INSTRUCTIONS_PER_TICK, Timer};
use uart::Uart;

struct Microbit(Timer);

impl Machine for Microbit {
    const NAME: &'static str = "microbit";
    const CORE: &'static str = "Cortex-M0";
    const TICK: Tick = Tick::Instructions(INSTRUCTIONS_PER_TICK);
    type Uart = Bytewise<Uart>;

    unsafe fn start() -> (Self, Self::Uart) {
        // SAFETY: taken once.
        unsafe { (Self(Timer::new()), Bytewise(Uart::new())) }
    }

    fn now(&self) -> u32 {
        self.0.now()
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: this is the first function, and it runs once.
    unsafe { board_support::run::<Microbit>() }
}
