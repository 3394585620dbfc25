//! Compares the bits of the first NVIDIA GPU with those of steps on the CPU, then times both.
//!
//! The program needs no files but the driver's, so it can be copied to the machine that has the GPU.

use std::{process::ExitCode, time::Instant};

use rwkv_core::{Digest, Image, StateView};
use rwkv_host::{
    convert::Weights,
    memory::Memory,
    prefill::{
        Runner,
        cuda::{CudaError, Driver, Options, Prefill, device::Device},
    },
};
use rwkv_tests::{cuda, image, random, text};

/// Nothing was compared.
const NO_DEVICE: u8 = 2;

fn main() -> ExitCode {
    let device = match Device::open() {
        Ok(device) => device,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(NO_DEVICE);
        }
    };
    println!("{}, {}", device.name(), device.origin());
    let (mut equal, mut different) = (0, 0);
    let open = |_| &device;
    let mut done = |name: &str, result: Result<(), String>| match result {
        Ok(()) => equal += 1,
        Err(error) => {
            println!("DIFFERENT: {name}: {error}");
            different += 1;
        }
    };
    cuda::versions(&open, &mut done);
    cuda::released(&open, &mut done);
    cuda::lengths(&open, &mut done);
    println!("cases with equal bits: {equal}, with different ones: {different}");
    if different > 0 {
        return ExitCode::FAILURE;
    }
    match time(&device) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints how long a prompt takes on both, digests included, after a shorter one; whether both
/// computed the same.
fn time(device: &Device) -> Result<bool, CudaError> {
    const TOKENS: usize = 4096;
    println!(
        "\nversion 7, 2 layers, width 768, random weights, {TOKENS} tokens with a digest each:\n"
    );
    println!("| weights | GPU, tokens per second | CPU, tokens per second |\n|---|---|---|");
    let checkpoint = random::wider("7", 16);
    for weights in [Weights::F32, Weights::Int8, Weights::Int4] {
        let file = image(checkpoint.path(), weights);
        let image = file.open().map_err(|error| CudaError::Model(error.into()))?;
        let on = Prefill::new(device, &image, Options::default())?;
        let gpu = rate(&mut Memory::new(&image), &image, TOKENS, |state, tokens| {
            on.digests::<&mut [f32]>(state, tokens, &mut [])
        })?;
        let on = Runner::Cpu(&image);
        let cpu = rate(&mut Memory::new(&image), &image, TOKENS, |state, tokens| {
            on.digests::<&mut [f32]>(state, tokens, &mut [])
        })?;
        if gpu.1 != cpu.1 {
            println!("DIFFERENT: the digest of the last token, {weights:?}");
            return Ok(false);
        }
        println!("| {weights:?} | {:.0} | {:.0} |", gpu.0, cpu.0);
    }
    Ok(true)
}

/// Tokens per second, and the digest of the last token.
fn rate(
    memory: &mut Memory,
    image: &Image<'_>,
    tokens: usize,
    run: impl Fn(StateView<'_>, &[u32]) -> Result<Vec<Digest>, CudaError>,
) -> Result<(f64, Option<Digest>), CudaError> {
    run(memory.state(image)?, &text(64, 1))?;
    let prompt = text(tokens, 2);
    let start = Instant::now();
    let digests = run(memory.state(image)?, &prompt)?;
    Ok((tokens as f64 / start.elapsed().as_secs_f64(), digests.last().copied()))
}
