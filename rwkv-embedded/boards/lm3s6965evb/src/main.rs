//! The RWKV agent on QEMU's `lm3s6965evb`, a Cortex-M3 with the image on an SD card.
//!
//! The host speaks over UART0; the image begins with the first sector of the card behind SSI0. Log
//! frames go to semihosting. See the README for the command.

#![no_std]
#![no_main]

use core::ptr;

use board_support::{Machine, Tick, pl011::Uart, pl022::Spi, systick::Clock, uart::Bytewise};
use cortex_m_rt::entry;
use rwkv_embedded::stream::{SdCard, Sectors};

mod card;

use card::Bus;

const SSI0: usize = 0x4000_8000;
const UART0: usize = 0x4000_c000;

/// Clocks of the peripherals: UART0 and SSI0 in RCGC1, port D in RCGC2.
const RCGC1: *mut u32 = 0x400f_e104 as *mut u32;
const RCGC2: *mut u32 = 0x400f_e108 as *mut u32;
const RCGC1_UART0_SSI0: u32 = 1 << 0 | 1 << 4;
const RCGC2_PORT_D: u32 = 1 << 3;

/// Where the image ends at the latest, in bytes.
const MEDIUM_BYTES: u32 = 1 << 31;

struct Lm3s6965Evb(Clock);

impl Machine for Lm3s6965Evb {
    const NAME: &'static str = "lm3s6965evb";
    const CORE: &'static str = "Cortex-M3";
    /// The core's clock is at its reset value of 12.5 MHz.
    const TICK: Tick = Tick::Instructions(80);
    type Uart = Bytewise<Uart>;

    unsafe fn start() -> (Self, Self::Uart) {
        // SAFETY: registers of the system control, which nobody else uses; SysTick and UART0 are
        // taken once.
        unsafe {
            ptr::write_volatile(RCGC1, RCGC1_UART0_SSI0);
            ptr::write_volatile(RCGC2, RCGC2_PORT_D);
            (Self(Clock::new()), Bytewise(Uart::new(UART0)))
        }
    }

    fn now(&self) -> u32 {
        self.0.now()
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: this is the first function, and it runs once; SSI0 and the card are taken once, when
    // the clocks run.
    unsafe {
        let open = || Sectors(SdCard::new(Bus::new(Spi::new(SSI0))));
        board_support::run_over::<Lm3s6965Evb, _>(open, MEDIUM_BYTES)
    }
}
