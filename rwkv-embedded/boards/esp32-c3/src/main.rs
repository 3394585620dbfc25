//! Text on an ESP32-C3, a RISC-V core without floats, its weights read from the flash.
//!
//! The image lies at 0x11_0000 of the flash, in a partition of its own. Whoever writes a line to
//! UART0 is answered.
//!
//! *Built, not run*: no emulator of this part runs the project's tests, and nobody has reported a board.

#![no_std]
#![no_main]

use core::{convert::Infallible, fmt::Display, panic::PanicInfo};

use embedded_io::{Read, Write};
use esp_hal::{
    Blocking, main,
    system::software_reset,
    uart::{Config, Uart},
};
use esp_storage::FlashStorage;
use rwkv_core::{
    Error, Header, ImageError, StreamError,
    image::{self, HEADER_BYTES, TokenizerKind},
    poll,
    sampler::{Sampler, SamplerConfig},
};
use rwkv_embedded::{
    firmware::in_arena,
    stream::{Buffered, Nor},
};
use static_cell::ConstStaticCell;

esp_bootloader_esp_idf::esp_app_desc!();

/// Where in the flash the image begins, and the bytes of its partition.
const IMAGE: u32 = 0x11_0000;
const SIZE: u32 = 0x2f_0000;
/// Tokens of an answer.
const COUNT: u32 = 200;
const SAMPLER: SamplerConfig =
    SamplerConfig { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 7, ..SamplerConfig::GREEDY };

/// Words for state and scratch: 160 KB.
static ARENA: ConstStaticCell<[f32; 40 << 10]> = ConstStaticCell::new([0.0; 40 << 10]);
/// Words for a block of weights.
static BLOCK: ConstStaticCell<[u32; 4 << 10]> = ConstStaticCell::new([0; 4 << 10]);

#[main]
fn main() -> ! {
    let p = esp_hal::init(esp_hal::Config::default());
    let Ok(uart) = Uart::new(p.UART0, Config::default()) else { software_reset() };
    let mut uart = uart.with_rx(p.GPIO20).with_tx(p.GPIO21);
    if let Err(error) = rwkv_embedded::selftest::floats() {
        end(&mut uart, error)
    }
    let Err(error) = answer(FlashStorage::new(p.FLASH), &mut uart);
    end(&mut uart, error)
}

/// Reads lines and continues them, byte by byte, for models whose tokens are bytes.
fn answer(mut flash: FlashStorage<'_>, uart: &mut Uart<'_, Blocking>) -> Result<Infallible, Error> {
    let mut header = [0; HEADER_BYTES];
    let read = flash.read_nor(IMAGE, &mut header);
    read.map_err(|_| StreamError::Medium { offset: IMAGE })?;
    let header = Header::parse(&header)?;

    let mut stream = Buffered::<_, true>::new(Nor(flash), IMAGE, header.bytes(), BLOCK.take())?;
    poll::once(image::check(&mut stream, SIZE)).unwrap_or(Err(Error::Internal))?;
    if header.tokenizer != TokenizerKind::Bytes {
        say(uart, b"this firmware writes tokens as bytes: convert a model without vocabulary\n");
        return Err(ImageError::Tokenizer(header.tokenizer as u8).into());
    }
    let mut ready = false;
    let (mut model, mut state) = in_arena(header, stream, ARENA.take(), &mut ready)?;
    let Ok(mut sampler) = Sampler::new(SAMPLER) else { return Err(Error::Internal) };

    model.reset(state.reborrow())?;
    loop {
        let mut byte = [0];
        while byte != *b"\n" {
            if uart.read_exact(&mut byte).is_err() {
                continue;
            }
            sampler.begin();
            model.step(state.reborrow(), byte[0].into(), &mut sampler)?;
        }
        for _ in 0..COUNT {
            let Ok(token) = sampler.finish() else { return Err(Error::Internal) };
            say(uart, &[token as u8]);
            sampler.begin();
            model.step(state.reborrow(), token, &mut sampler)?;
        }
    }
}

/// Sends bytes; what the line loses is lost.
fn say(uart: &mut Uart<'_, Blocking>, bytes: &[u8]) {
    let _ = uart.write_all(bytes);
}

/// Says what is wrong, and begins anew.
fn end(uart: &mut Uart<'_, Blocking>, error: impl Display) -> ! {
    let _ = writeln!(uart, "{error}");
    let _ = uart.flush();
    software_reset()
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    software_reset()
}
