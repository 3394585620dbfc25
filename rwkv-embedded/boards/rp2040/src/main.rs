//! The RWKV agent on the RP2040, a Cortex-M0+, in the simulator rp2040js.
//!
//! The host speaks over UART0 and puts the image at 0x1008_0000; log frames go to semihosting. See
//! the README for the command.

#![no_std]
#![no_main]

use board_support::{Machine, Tick};
use cortex_m_rt::entry;
use rp2040_hal::{Timer, Watchdog, clocks::init_clocks_and_plls, pac::Peripherals};

mod uart;

use uart::Uart;

/// Sets up the flash; the ROM runs it first.
#[unsafe(link_section = ".boot2")]
#[used]
static BOOT2: [u8; 256] = rp2040_boot2::BOOT_LOADER_W25Q080;

/// The crystal of a Raspberry Pi Pico, in Hz.
const CRYSTAL: u32 = 12_000_000;

struct Rp2040(Timer);

impl Machine for Rp2040 {
    const NAME: &'static str = "rp2040";
    const CORE: &'static str = "Cortex-M0+";
    /// TIMER counts microseconds, the core runs at 125 MHz.
    const TICK: Tick = Tick::SimulatedCycles(125);
    type Uart = Uart;

    unsafe fn start() -> (Self, Uart) {
        // SAFETY: taken once.
        let mut p = unsafe { Peripherals::steal() };
        let mut watchdog = Watchdog::new(p.WATCHDOG);
        let clocks = init_clocks_and_plls(
            CRYSTAL,
            p.XOSC,
            p.CLOCKS,
            p.PLL_SYS,
            p.PLL_USB,
            &mut p.RESETS,
            &mut watchdog,
        );
        let Ok(clocks) = clocks else { defmt::panic!("the clocks of a Pico cannot be set") };
        let timer = Timer::new(p.TIMER, &mut p.RESETS, &clocks);
        (Self(timer), Uart::new(p.UART0, p.SIO, p.IO_BANK0, p.PADS_BANK0, &mut p.RESETS, &clocks))
    }

    fn now(&self) -> u32 {
        self.0.get_counter_low()
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: this is the first function, and it runs once.
    unsafe { board_support::run::<Rp2040>() }
}
