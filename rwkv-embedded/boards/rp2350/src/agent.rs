//! The RWKV agent on a Raspberry Pi Pico 2, an RP2350 with a Cortex-M33.
//!
//! The host speaks over UART0, GPIO 0 and 1, at 115,200 baud. The image lies at 512 KB of the flash,
//! where the core addresses it.
//!
//! *Built, not run*: no emulator of this part runs the project's tests, and nobody has reported a board.

#![no_std]
#![no_main]

use core::slice;

use cortex_m_rt::entry;
use defmt_rtt as _;
use embassy_rp::{
    bind_interrupts,
    peripherals::UART0,
    uart::{BufferedInterruptHandler, BufferedUart, Config},
};
use embassy_time::Instant;
use panic_probe as _;
use rwkv_embedded::{
    agent::{Agent, Board, protocol::Tick},
    selftest,
};
use static_cell::ConstStaticCell;

/// Where the core finds the image, and the bytes from there to the end of the flash.
const IMAGE: *const u8 = 0x1008_0000 as *const u8;
const ROOM: usize = (4 << 20) - (512 << 10);

/// Words for state and scratch: 448 KB.
static ARENA: ConstStaticCell<[f32; 112 << 10]> = ConstStaticCell::new([0.0; 112 << 10]);

/// Bytes to be sent, and those that were received and not yet read.
static QUEUES: [ConstStaticCell<[u8; 512]>; 2] = [const { ConstStaticCell::new([0; 512]) }; 2];

bind_interrupts!(struct Interrupts {
    UART0_IRQ => BufferedInterruptHandler<UART0>;
});

struct Pico2;

impl Board for Pico2 {
    const NAME: &'static str = "rp2350";
    const CORE: &'static str = "Cortex-M33";

    fn now(&mut self) -> u32 {
        Instant::now().as_micros() as u32
    }

    fn tick(&self) -> Tick {
        Tick::Nanoseconds(1000)
    }
}

#[entry]
fn main() -> ! {
    let p = embassy_rp::init(embassy_rp::config::Config::default());
    let [sent, received] = QUEUES.each_ref().map(|queue| queue.take());
    let (tx, rx) = (p.PIN_0, p.PIN_1);
    let mut uart =
        BufferedUart::new(p.UART0, tx, rx, Interrupts, sent, received, Config::default());
    if let Err(error) = selftest::floats() {
        panic!("{}", error);
    }
    // SAFETY: the flash of the chip lies there, of this size, and nobody writes to it.
    let flash = unsafe { slice::from_raw_parts(IMAGE, ROOM) };
    let mut agent = Agent::new(Pico2, flash, ARENA.take());
    loop {
        // A line that was disturbed is a line again: the host finds its way back.
        let _ = agent.run(&mut uart);
    }
}
