//! Text on a Raspberry Pi Pico or Pico 2, in an embassy executor beside a task that blinks.
//!
//! The image lies at 512 KB of the flash. Its weights come by DMA through the stream of the flash
//! controller, and the core computes meanwhile. Whoever writes a line to UART0 is answered.
//!
//! *Built, not run*: rp2040js has no stream of the flash controller, and nobody has reported a board.

#![no_std]
#![no_main]

use core::convert::Infallible;

use defmt_rtt as _;
use embassy_executor::Spawner;
use embassy_rp::{
    bind_interrupts, dma,
    flash::{self, Flash},
    gpio::{Level, Output},
    peripherals::{DMA_CH0, FLASH, UART0},
    uart::{self, BufferedInterruptHandler, BufferedUart},
};
use embassy_time::Timer;
use embedded_io_async::{Read, Write};
use panic_probe as _;
use rwkv_core::{
    Error, Header, ImageError,
    image::{self, HEADER_BYTES, TokenizerKind},
    sampler::{Sampler, SamplerConfig},
};
use rwkv_embedded::{
    firmware::in_arena,
    stream::{Medium, NorAsync, ReadAhead},
};
use static_cell::ConstStaticCell;

/// Bytes of the flash, and where in it the image begins.
const SIZE: usize = if cfg!(feature = "flash-4m") { 4 << 20 } else { 2 << 20 };
const IMAGE: u32 = 512 << 10;
/// Tokens of an answer.
const COUNT: u32 = 200;
const SAMPLER: SamplerConfig =
    SamplerConfig { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 7, ..SamplerConfig::GREEDY };

/// Words for state and scratch: 160 KB.
static ARENA: ConstStaticCell<[f32; 40 << 10]> = ConstStaticCell::new([0.0; 40 << 10]);
/// Words for a block of weights, twice, and for a row of the embedding.
static BLOCKS: [ConstStaticCell<[u32; 4 << 10]>; 2] =
    [const { ConstStaticCell::new([0; 4 << 10]) }; 2];
static ROW: ConstStaticCell<[u32; 1 << 10]> = ConstStaticCell::new([0; 1 << 10]);
/// Bytes that were received and not yet read, and to be sent.
static QUEUES: [ConstStaticCell<[u8; 128]>; 2] = [const { ConstStaticCell::new([0; 128]) }; 2];

bind_interrupts!(struct Interrupts {
    DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>;
    UART0_IRQ => BufferedInterruptHandler<UART0>;
});

#[embassy_executor::task]
async fn blink(mut light: Output<'static>) {
    loop {
        light.toggle();
        Timer::after_millis(500).await;
    }
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    defmt::unwrap!(rwkv_embedded::selftest::floats());
    let p = embassy_rp::init(Default::default());
    spawner.spawn(defmt::unwrap!(blink(Output::new(p.PIN_25, Level::Low))));
    let [sent, received] = QUEUES.each_ref().map(ConstStaticCell::take);
    let config = uart::Config::default();
    let uart = BufferedUart::new(p.UART0, p.PIN_0, p.PIN_1, Interrupts, sent, received, config);
    let flash = Flash::<_, flash::Async, SIZE>::new(p.FLASH, p.DMA_CH0, Interrupts);
    let Err(error) = answer(flash, uart).await;
    defmt::panic!("{}", error);
}

/// Reads lines and continues them, byte by byte, for models whose tokens are bytes.
async fn answer(
    flash: Flash<'static, FLASH, flash::Async, SIZE>,
    mut uart: BufferedUart,
) -> Result<Infallible, Error> {
    let mut flash = NorAsync(flash);
    let mut header = [0; HEADER_BYTES];
    flash.read(IMAGE, &mut header).await?;
    let header = Header::parse(&header)?;
    defmt::info!("{}", header);

    let blocks = BLOCKS.each_ref().map(|block| &mut block.take()[..]);
    let ahead = ReadAhead::new(flash, IMAGE, header.bytes(), blocks, ROW.take())?;
    let given = SIZE as u32 - IMAGE;
    ahead.drive(image::check(&mut ahead.stream::<true>(), given)).await?;
    if header.tokenizer != TokenizerKind::Bytes {
        defmt::error!("this firmware writes tokens as bytes: convert a model without vocabulary");
        return Err(ImageError::Tokenizer(header.tokenizer as u8).into());
    }
    let mut ready = false;
    let stream = ahead.stream::<true>();
    let (mut model, mut state) = in_arena(header, stream, ARENA.take(), &mut ready)?;
    let mut sampler = defmt::unwrap!(Sampler::new(SAMPLER));

    ahead.drive(model.reset_async(state.reborrow())).await?;
    loop {
        let mut byte = [0];
        while byte != *b"\n" {
            // Noise on the line, or an overrun.
            if uart.read_exact(&mut byte).await.is_err() {
                continue;
            }
            sampler.begin();
            let token = byte[0].into();
            ahead.drive(model.step_async(state.reborrow(), token, &mut sampler)).await?;
        }
        for _ in 0..COUNT {
            let token = defmt::unwrap!(sampler.finish());
            // What the line loses is lost.
            let _ = uart.write_all(&[token as u8]).await;
            sampler.begin();
            ahead.drive(model.step_async(state.reborrow(), token, &mut sampler)).await?;
        }
    }
}
