//! The RWKV agent on QEMU's `mps2-an500`, a Cortex-M7.
//!
//! The host speaks over UART0 and loads the image at 0x0008_0000; log frames go to semihosting.
//! See the README for the command.

#![no_std]
#![no_main]

use board_support::{
    Machine, Tick,
    cmsdk::{Timer, Uart},
    uart::Bytewise,
};
use cortex_m_rt::entry;

struct Mps2An500(Timer);

impl Machine for Mps2An500 {
    const NAME: &'static str = "mps2-an500";
    const CORE: &'static str = "Cortex-M7";
    /// Of the timer's 25 MHz.
    const TICK: Tick = Tick::Instructions(40);
    type Uart = Bytewise<Uart>;

    unsafe fn start() -> (Self, Self::Uart) {
        // SAFETY: TIMER0 and UART0 of this board, taken once.
        unsafe { (Self(Timer::new(0x4000_0000)), Bytewise(Uart::new(0x4000_4000))) }
    }

    fn now(&self) -> u32 {
        self.0.now()
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: this is the first function, and it runs once.
    unsafe { board_support::run::<Mps2An500>() }
}
