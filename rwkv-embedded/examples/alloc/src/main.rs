//! One firmware for whatever image lies behind it in flash, on QEMU's mps2-an386.
//!
//! State and scratch come from a heap, in the size that the image's header asks for. The last line
//! is the digest of the state, which every machine computes alike.

#![no_std]
#![no_main]

use core::{mem::MaybeUninit, ptr, slice};

use cortex_m as _; // the critical section of the heap
use cortex_m_rt::entry;
use embedded_alloc::LlffHeap;
use rwkv_embedded::{
    firmware::HeapMemory,
    rwkv_core::{Digest, GenerateError, Image, sampler::SamplerConfig, tokenizer::StopStream},
};
use semihosting::{eprintln, io::Write, println, process};

/// Bytes of the heap.
const HEAP_BYTES: usize = 96 * 1024;
const PROMPT: &[u8] = b"X:1\nT:";
const SAMPLER: SamplerConfig =
    SamplerConfig { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 3, ..SamplerConfig::GREEDY };
const TOKENS: usize = 200;

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

#[entry]
fn main() -> ! {
    static mut MEMORY: [MaybeUninit<u8>; HEAP_BYTES] = [MaybeUninit::uninit(); HEAP_BYTES];
    // SAFETY: this is the first function, so nothing was allocated before, and cortex-m-rt hands
    // out the memory once.
    unsafe { HEAP.init(MEMORY.as_mut_ptr().expose_provenance(), HEAP_BYTES) }
    match write() {
        Ok(Digest(low, high)) => println!("\ndigest {low:08x}{high:08x}"),
        Err(error) => fail(&error),
    }
    process::exit(0)
}

/// Continues the prompt; returns the digest of the state.
fn write() -> Result<Digest, GenerateError> {
    let image = Image::open_prefix(flash())?; // checks every byte
    let mut memory = HeapMemory::new(image.header()).unwrap_or_else(|error| fail(&error));
    println!("{} layers, {} bytes of heap", image.header().dims.layers, memory.bytes());
    let mut generator = memory.start(&image, SAMPLER)?;
    print(PROMPT);
    generator.read(PROMPT)?;
    generator.generate(TOKENS, &mut StopStream::default(), print)?;
    generator.read(&[])?; // the last token, which is pending
    Ok(Digest::token(image.header(), &generator.state(), Digest::default())?)
}

/// The flash behind the firmware.
fn flash() -> &'static [u8] {
    // Of these only the addresses mean something.
    unsafe extern "C" {
        static _image_start: u8;
        static _image_end: u8;
    }
    let start = (&raw const _image_start).addr();
    let len = (&raw const _image_end).addr() - start;
    // SAFETY: flash up to its end, which the linker leaves alone and nothing writes to.
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), len) }
}

fn print(text: &[u8]) {
    let _ = semihosting::io::stdout().and_then(|mut out| out.write_all(text));
}

fn fail(error: &dyn core::error::Error) -> ! {
    eprintln!("{error}");
    process::exit(1)
}
