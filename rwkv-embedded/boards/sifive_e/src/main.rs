//! The RWKV agent on QEMU's `sifive_e`, an FE310 with an RV32IMAC core and no floats.
//!
//! The host speaks over UART0 and loads the image at 0x2044_0000; log frames go to semihosting.
//! See the README for the command.

#![no_std]
#![no_main]

use board_support::{Machine, Tick, uart::Bytewise};
use riscv_rt::entry;

mod uart;

use uart::Uart;

struct SifiveE;

impl Machine for SifiveE {
    const NAME: &'static str = "sifive_e";
    const CORE: &'static str = "RV32IMAC";
    const TICK: Tick = Tick::Instructions(1);
    type Uart = Bytewise<Uart>;

    unsafe fn start() -> (Self, Self::Uart) {
        // SAFETY: taken once.
        unsafe { (Self, Bytewise(Uart::new())) }
    }

    fn now(&self) -> u32 {
        board_support::instructions()
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: this is the first function, and it runs once.
    unsafe { board_support::run::<SifiveE>() }
}
