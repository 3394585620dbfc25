//! The RWKV agent on QEMU's `virt` with an RV32IMAFC core, which has floats in hardware.
//!
//! The host speaks over the UART and loads the image at 0x8008_0000; log frames go to
//! semihosting. See the README for the command.

#![no_std]
#![no_main]

use core::num::NonZeroUsize;

use board_support::{Machine, Tick};
use embedded_io::Write;
use riscv_rt::entry;
use uart_16550::{Config, Uart16550, backend::MmioBackend};

/// The NS16550, whose registers are bytes side by side.
const UART: NonZeroUsize = NonZeroUsize::new(0x1000_0000).expect("it is not zero");
const STRIDE: u8 = 1;

struct Virt;

impl Machine for Virt {
    const NAME: &'static str = "virt";
    const CORE: &'static str = "RV32IMAFC";
    const TICK: Tick = Tick::Instructions(1);
    type Uart = Uart16550<MmioBackend>;

    unsafe fn start() -> (Self, Self::Uart) {
        // SAFETY: the UART of this board, taken once.
        let uart = unsafe { Uart16550::new_mmio_from_address(UART, STRIDE) };
        let mut uart = uart.expect("the address is one of a UART");
        uart.init(Config::DEFAULT).expect("the UART is there");
        // Bytes that came before are lost: an empty frame tells the host that it listens now.
        let Ok(_) = uart.write(&[0]);
        (Self, uart)
    }

    fn now(&self) -> u32 {
        board_support::instructions()
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: this is the first function, and it runs once.
    unsafe { board_support::run::<Virt>() }
}
