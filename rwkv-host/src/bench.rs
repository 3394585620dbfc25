//! `rwkv bench`: how fast a device computes, without the cost of proof, or the host itself.

use std::{fmt, num::NonZeroU32, process::ExitCode, time::Instant};

use anyhow::ensure;
use rwkv_core::{
    Image, Model,
    sampler::{Sampler, SamplerConfig},
    stream::InPlace,
};
use rwkv_embedded::agent::protocol::{Info, SamplerSettings, Tick};
use serde::Serialize;

use crate::{
    cli,
    device::Device,
    memory::Memory,
    prefill::{
        fast::{BOUND, FastError, FastReader, deviation},
        pays_for_one, prefill,
    },
    validate::{Host, Reference},
};

/// Measure how fast a device computes tokens
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// What is measured, behind a prompt that is read before the clock runs
    #[command(flatten)]
    pub measured: cli::Measured,
    /// Measure this host instead of a device: reading the prompt, and writing behind it
    #[arg(long, conflicts_with_all = ["device", "firmware", "timeout", "Sampling"])]
    pub host: bool,
    /// Read N tokens without meaning in place of a prompt, the same ones every time
    #[arg(long, value_name = "N", requires = "host", conflicts_with_all = ["prompt", "prompt_file", "tokenizer"])]
    pub prompt_tokens: Option<NonZeroU32>,
}

/// What a device took for some tokens.
#[derive(Debug, Clone, Serialize)]
pub struct Speed {
    /// Who the device is and what it runs.
    pub info: Info,
    /// Tokens that were read before.
    pub prompt: usize,
    /// Tokens that were measured.
    pub tokens: usize,
    /// What the device counted in all of them.
    pub ticks: u64,
    /// What is counted.
    pub unit: &'static str,
    /// How many of these a token took.
    pub per_token: f64,
    /// Where the unit is time.
    pub tokens_per_second: Option<f64>,
}

impl Speed {
    fn new(info: &Info, prompt: usize, tokens: usize, ticks: u64) -> Self {
        let (unit, each) = match info.tick {
            Tick::Instructions(each) => ("instructions", each),
            Tick::SimulatedCycles(each) => ("simulated cycles", each),
            Tick::Nanoseconds(each) => ("nanoseconds", each),
        };
        let per_token = ticks as f64 * f64::from(each) / tokens.max(1) as f64;
        let is_time = matches!(info.tick, Tick::Nanoseconds(_)) && ticks > 0;
        let tokens_per_second = is_time.then(|| 1e9 / per_token);
        let info = info.clone();
        Self { info, prompt, tokens, ticks, unit, per_token, tokens_per_second }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { info, prompt, tokens, unit, per_token, .. } = self;
        writeln!(f, "{} ({}), {tokens} tokens after {prompt}", info.board, info.core)?;
        match self.tokens_per_second {
            Some(speed) => writeln!(f, "{speed:.1} tokens/s, {:.3} ms per token", per_token / 1e6),
            None => {
                let counted = cli::Grouped(per_token.round() as u64);
                writeln!(f, "{counted} {unit} per token, which is no time")
            }
        }
    }
}

/// Has `device` read `prompt`, and what the host continues it with, and measures the latter.
///
/// # Errors
/// If the host cannot continue the prompt, or the device cannot be used.
pub fn bench(
    device: &mut Device,
    image: &Image<'_>,
    sampler: SamplerSettings,
    prompt: &[u32],
    count: u32,
) -> anyhow::Result<Speed> {
    let mut host = Host::parallel(image, sampler.clone())?;
    host.feed(prompt)?;
    let mut tokens = Vec::new();
    for _ in 0..count {
        let token = host.choose()?;
        host.feed(&[token])?;
        tokens.push(token);
    }
    device.reset(sampler)?;
    device.feed(prompt, |_| {})?;
    let ticks = device.benchmark(&tokens)?;
    Ok(Speed::new(device.info(), prompt.len(), tokens.len(), ticks))
}

/// How often the host is measured; the best time counts, since others may use its cores.
const TRIES: usize = 3;

/// How fast the host reads and writes.
#[derive(Debug, Clone, Serialize)]
pub struct HostSpeed {
    /// Threads.
    pub threads: usize,
    /// Tokens that were read.
    pub prompt: usize,
    /// Of these, as a sequence.
    pub prompt_tokens_per_second: f64,
    /// Tokens that were written behind them, the likeliest each.
    pub tokens: usize,
    /// Of these, one after the other.
    pub tokens_per_second: f64,
    /// The most memory that the program had, image included, where the system says so.
    pub peak_bytes: Option<u64>,
    /// The prompt, read as `rwkv eval --fast` does it; of images of floats.
    pub fast: Option<FastSpeed>,
}

/// How fast the host reads without the bits of a step.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FastSpeed {
    /// Of the prompt's tokens.
    pub prompt_tokens_per_second: f64,
    /// How many times as fast that is.
    pub ratio: f64,
    /// How far the last logits are from the exact ones, as a part of the largest.
    pub deviation: f32,
}

/// The most memory that this program ever had at once.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(1024 * kilobytes)
}

impl fmt::Display for HostSpeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { threads, prompt, prompt_tokens_per_second, tokens, tokens_per_second, .. } =
            self;
        writeln!(f, "this host, {threads} threads, best of {TRIES}")?;
        writeln!(f, "reading: {prompt_tokens_per_second:.1} tokens/s, {prompt} tokens")?;
        if let Some(FastSpeed { prompt_tokens_per_second, ratio, deviation }) = self.fast {
            writeln!(
                f,
                "reading --fast: {prompt_tokens_per_second:.1} tokens/s, {ratio:.2} times as fast; \
                 logits within {deviation:.1e} of the largest (bound {BOUND:.0e})"
            )?;
        }
        writeln!(f, "writing: {tokens_per_second:.1} tokens/s, {tokens} tokens")?;
        match self.peak_bytes {
            Some(bytes) => writeln!(f, "memory: {} at most, image included", cli::bytes(bytes)),
            None => Ok(()),
        }
    }
}

/// Measures this host.
///
/// # Errors
/// If a token cannot be computed.
pub fn bench_host(image: &Image<'_>, prompt: &[u32], count: u32) -> anyhow::Result<HostSpeed> {
    let (mut read, mut written) = (f64::INFINITY, f64::INFINITY);
    let parallel = pays_for_one(image);
    let mut exact = vec![0.0; image.header().dims.vocab as usize];
    for _ in 0..TRIES {
        let mut memory = Memory::new(image);
        let mut sampler = Sampler::new(SamplerConfig::GREEDY)?;
        sampler.begin();
        let start = Instant::now();
        let sink = (&mut sampler, exact.as_mut_slice());
        prefill(image, memory.state(image)?, prompt, &mut [sink])?;
        read = read.min(start.elapsed().as_secs_f64());
        let (mut state, scratch) = memory.split(image)?;
        let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch)?;
        let start = Instant::now();
        for _ in 0..count {
            let token = sampler.finish()?;
            sampler.begin();
            if parallel {
                prefill(image, state.reborrow(), &[token], &mut [&mut sampler])?;
            } else {
                model.step(state.reborrow(), token, &mut sampler)?;
            }
        }
        written = written.min(start.elapsed().as_secs_f64());
    }
    // Of the exact path: the other comes after it.
    let peak_bytes = peak_bytes();
    Ok(HostSpeed {
        threads: rayon::current_num_threads(),
        prompt: prompt.len(),
        prompt_tokens_per_second: prompt.len() as f64 / read,
        tokens: count as usize,
        tokens_per_second: f64::from(count) / written,
        peak_bytes,
        fast: bench_fast(image, prompt, (read, &exact))?,
    })
}

/// The fast path, beside the seconds of the exact one and its last logits; `None` if the image is not
/// for it.
fn bench_fast(
    image: &Image<'_>,
    prompt: &[u32],
    (read, exact): (f64, &[f32]),
) -> anyhow::Result<Option<FastSpeed>> {
    let (mut fast, mut logits) = (f64::INFINITY, vec![0.0; exact.len()]);
    for _ in 0..TRIES {
        let mut reader = match FastReader::new(image) {
            Err(FastError::Integers { .. }) => return Ok(None),
            reader => reader?,
        };
        let start = Instant::now();
        reader.read(prompt, &mut [logits.as_mut_slice()])?;
        fast = fast.min(start.elapsed().as_secs_f64());
    }
    Ok(Some(FastSpeed {
        prompt_tokens_per_second: prompt.len() as f64 / fast,
        ratio: read / fast,
        deviation: deviation(exact, &logits, exact.len()),
    }))
}

/// Runs `rwkv bench`.
///
/// # Errors
/// Whatever leaves no figure.
pub fn command(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let count = args.measured.tokens;
    ensure!(count > 0, "nothing to measure: give -n at least 1");
    if args.host {
        let file = cli::read_image(&args.measured.image)?;
        let image = file.open_named(&args.measured.image)?;
        let vocab = image.header().dims.vocab;
        let prompt = match args.prompt_tokens {
            Some(tokens) => {
                (1..=tokens.get()).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect()
            }
            None => {
                let tokenizer = args.measured.tokenizer.open(&image)?;
                args.measured.prompt.tokens(&image, &tokenizer)?
            }
        };
        args.measured.show(&bench_host(&image, &prompt, count)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let speed = args
        .measured
        .on_device(|device, image, sampler, prompt| bench(device, image, sampler, prompt, count))?;
    args.measured.show(&speed)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(tick: Tick, ticks: u64) -> Speed {
        let image = Err(rwkv_core::Error::Internal);
        let [board, core] = ["b", "c"].map(|name| name.try_into().expect("it is short"));
        Speed::new(&Info { protocol: 4, board, core, tick, image }, 3, 4, ticks)
    }

    #[test]
    fn only_time_gives_a_speed() {
        let timed = speed(Tick::Nanoseconds(1000), 4 << 32);
        assert_eq!(timed.per_token, 1000.0 * f64::from(2.0_f32.powi(32)));
        assert!(
            speed(Tick::Nanoseconds(250), 8000).to_string().contains("2000.0 tokens/s, 0.500 ms")
        );
        let counted = speed(Tick::Instructions(40), 100_000);
        assert_eq!((counted.per_token, counted.tokens_per_second), (1e6, None));
        assert!(counted.to_string().contains("1,000,000 instructions per token, which is no time"));
    }
}
