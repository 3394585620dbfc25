//! The RWKV agent on QEMU's `ast1030-evb`, a Cortex-M4F with the image in a SPI NOR.
//!
//! The host speaks over UART5; the image begins with the first byte of the chip behind the flash
//! controller. Log frames go to semihosting. See the README for the command.

#![no_std]
#![no_main]

use board_support::{Machine, Tick, systick::Clock};
use cortex_m_rt::entry;
use rwkv_embedded::stream::Nor;

mod fmc;
mod uart;

use fmc::Fmc;
use uart::Uart;

struct Ast1030Evb(Clock);

impl Machine for Ast1030Evb {
    const NAME: &'static str = "ast1030-evb";
    const CORE: &'static str = "Cortex-M4F";
    /// The core runs at 200 MHz.
    const TICK: Tick = Tick::Instructions(5);
    type Uart = Uart;

    unsafe fn start() -> (Self, Uart) {
        // SAFETY: SysTick and UART5 are taken once.
        unsafe { (Self(Clock::new()), Uart::new()) }
    }

    fn now(&self) -> u32 {
        self.0.now()
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: this is the first function, and it runs once; the controller is taken once.
    unsafe { board_support::run_over::<Ast1030Evb, _>(|| Nor(Fmc::new()), fmc::CAPACITY) }
}
