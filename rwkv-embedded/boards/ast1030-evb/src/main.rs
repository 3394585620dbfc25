//! The RWKV agent on QEMU's `ast1030-evb`, a Cortex-M4F with the image in a SPI NOR.
//!
//! The host speaks over UART5; the image begins with the first byte of the chip behind the flash
//! controller. Log frames go to semihosting. See the README for the command.

#![no_std]
#![no_main]

use core::num::NonZeroUsize;

use board_support::{Machine, Tick, systick::Clock};
use cortex_m_rt::entry;
use embedded_io::Write;
use rwkv_embedded::stream::Nor;
use uart_16550::{Config, Uart16550, backend::MmioBackend};

mod fmc;

use fmc::Fmc;

/// UART5, a 16550 with a register in every fourth byte.
const UART5: NonZeroUsize = NonZeroUsize::new(0x7e78_4000).expect("it is not zero");
const STRIDE: u8 = 4;

struct Ast1030Evb(Clock);

impl Machine for Ast1030Evb {
    const NAME: &'static str = "ast1030-evb";
    const CORE: &'static str = "Cortex-M4F";
    /// The core runs at 200 MHz.
    const TICK: Tick = Tick::Instructions(5);
    type Uart = Uart16550<MmioBackend>;

    unsafe fn start() -> (Self, Self::Uart) {
        // SAFETY: SysTick and UART5 are taken once.
        let (clock, uart) =
            unsafe { (Clock::new(), Uart16550::new_mmio_from_address(UART5, STRIDE)) };
        let mut uart = uart.expect("the address is one of a UART");
        uart.init(Config::DEFAULT).expect("the UART is there");
        // Bytes that came before are lost: an empty frame tells the host that it listens now.
        let Ok(_) = uart.write(&[0]);
        (Self(clock), uart)
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
