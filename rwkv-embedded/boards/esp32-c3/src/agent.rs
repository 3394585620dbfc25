//! The RWKV agent on an ESP32-C3, a RISC-V core without floats, its weights read from the flash.
//!
//! The host speaks over UART0, GPIO 20 and 21, at 115,200 baud. The image lies at 0x11_0000 of the
//! flash, in a partition of its own.
//!
//! *Built, not run*: no emulator of this part runs the project's tests, and nobody has reported a board.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

use esp_hal::{
    main,
    system::software_reset,
    time::Instant,
    uart::{Config, Uart},
};
use esp_storage::FlashStorage;
use rwkv_embedded::{
    agent::{Agent, Board, protocol::Tick},
    selftest,
    stream::{Buffered, Nor},
};
use static_cell::ConstStaticCell;

esp_bootloader_esp_idf::esp_app_desc!();

/// Where in the flash the image begins, and where its partition ends.
const IMAGE: core::ops::Range<u32> = 0x11_0000..0x40_0000;

/// Words for state, scratch and a block of weights: 192 KB.
static ARENA: ConstStaticCell<[f32; 48 << 10]> = ConstStaticCell::new([0.0; 48 << 10]);

struct Esp32C3;

impl Board for Esp32C3 {
    const NAME: &'static str = "esp32-c3";
    const CORE: &'static str = "RV32IMC";

    fn now(&mut self) -> u32 {
        Instant::now().duration_since_epoch().as_micros() as u32
    }

    fn tick(&self) -> Tick {
        Tick::Nanoseconds(1000)
    }
}

#[main]
fn main() -> ! {
    let p = esp_hal::init(esp_hal::Config::default());
    let Ok(uart) = Uart::new(p.UART0, Config::default()) else { software_reset() };
    let mut uart = uart.with_rx(p.GPIO20).with_tx(p.GPIO21);
    if selftest::floats().is_err() {
        software_reset()
    }
    let flash = Nor(FlashStorage::new(p.FLASH));
    let mut agent = Agent::<_, Buffered<'_, _, true>>::over(Esp32C3, flash, IMAGE, ARENA.take());
    loop {
        // A line that was disturbed is a line again: the host finds its way back.
        let _ = agent.run(&mut uart);
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    software_reset()
}
