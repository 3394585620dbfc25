//! A fiddle tune out of an image in flash, on QEMU's mps2-an386.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use rwkv_embedded::rwkv_core::{GenerateError, sampler::SamplerConfig, tokenizer::StopStream};
use semihosting::{eprintln, io::Write, process};

// The image lies in flash; state and scratch have 12 KB, or the firmware does not compile.
rwkv_embedded::model!(mod tunes = "../tunes.rwkv", ram = 12 * 1024);

const PROMPT: &[u8] = b"X:1\nT:The Morning Fair\n";
const SAMPLER: SamplerConfig =
    SamplerConfig { temperature: 0.8, top_k: 40, seed: 3, ..SamplerConfig::GREEDY };

#[entry]
fn main() -> ! {
    static mut MEMORY: tunes::Memory = tunes::Memory::new();
    if let Err(error) = write_tune(MEMORY) {
        eprintln!("{error}");
        process::exit(1);
    }
    process::exit(0)
}

fn write_tune(memory: &mut tunes::Memory) -> Result<(), GenerateError> {
    let mut generator = tunes::start(memory, SAMPLER)?; // checks every byte of the image
    print(PROMPT);
    generator.read(PROMPT)?;
    let mut stop = StopStream::new(&[b"\n\n"])?;
    generator.generate(300, &mut stop, print)?;
    stop.finish(print); // at the limit, what may be the start of the stop text
    Ok(())
}

fn print(text: &[u8]) {
    // Whatever the product writes to: here, the terminal that runs the emulator.
    let _ = semihosting::io::stdout().and_then(|mut out| out.write_all(text));
}
