//! `rwkv validate`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::ensure;

use super::{Begin, Host, Verdict, bisect::is_written, validate};
use crate::{
    cli,
    device::{Fault, Flip},
    prefill::Backend,
};

/// Prove that a device computes the same bits as the host
#[derive(Debug, Clone, clap::Args)]
pub struct ValidateArgs {
    /// The image
    pub image: PathBuf,
    /// The device
    #[command(flatten)]
    pub at: cli::OnDevice,
    /// Where both begin, and the prompt
    #[command(flatten)]
    pub start: cli::Start,
    /// Where the host computes; the bits are the same
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Tokens to generate after the prompt
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 64)]
    pub tokens: usize,
    /// How the following tokens are chosen, on both sides
    #[command(flatten)]
    pub sampling: cli::Sampling,
    /// Print the text as the device produces it
    #[arg(long, conflicts_with = "json")]
    pub stream: bool,
    /// Print the verdict as JSON
    #[arg(long)]
    pub json: bool,
    /// Flip a bit of the simulated device's flash after the image was checked
    #[arg(long, value_name = "OFFSET[:BIT]")]
    pub sim_flip_bit: Option<Flip>,
    /// Have the simulated device compute a bit wrong, of every token or of the one with a number;
    /// sections are 0 for the embedding, then the layers from 1 on, then the head, and the bit is 0
    /// if none is given
    #[arg(long, value_name = "[TOKEN@]SECTION:OPERATION:ELEMENT[:BIT]")]
    pub sim_fault: Option<Fault>,
    /// Show what the device printed
    #[arg(long)]
    pub device_log: bool,
}

/// Runs `rwkv validate`: success if all bits are equal.
///
/// # Errors
/// Whatever leaves no verdict.
pub fn command(args: ValidateArgs) -> anyhow::Result<ExitCode> {
    let file = cli::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.start.tokenizer.open(&image)?;
    let cli::Begun { mut memory, tokens: prompt, .. } = args.start.begin(&image, &tokenizer)?;
    let words = memory.state(&image)?.words().concat();
    let sampler = args.sampling.settings(&image, &tokenizer)?;
    if let Some(Fault { written, element, .. }) = args.sim_fault {
        let name = format!("{}:{}:{element}", written.section, written.operation);
        ensure!(
            is_written(&image, written, element)?,
            "a token of this image writes no value {name}: sections are 0 to {}, and operations and elements count from 0",
            image.header().dims.layers + 1
        );
    }
    let mut device = args.at.open(&image, args.sim_flip_bit, args.sim_fault)?;
    let runner = cli::runner(args.backend, &image)?;
    let mut reference = Host::on(runner, &image, sampler.clone())?;
    let bar = cli::progress((prompt.len() + args.tokens) as u64, "validating");
    let mut text = cli::Text::default();
    let begin = Begin { sampler, state: args.start.state.is_some().then_some(&words) };
    let verdict = validate(&mut device, &mut reference, begin, &prompt, args.tokens, |token| {
        if args.stream {
            text.push(tokenizer.decode(token.token));
        } else {
            bar.inc(1);
        }
    });
    bar.finish_and_clear();
    text.finish();
    if args.device_log {
        eprint!("{}", device.log().0);
    }
    let verdict = verdict?;
    // The verdict stands, however the device ends.
    let _ = device.halt();
    show(&verdict, args.json)?;
    Ok(if verdict.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(verdict: &Verdict, json: bool) -> anyhow::Result<()> {
    if json {
        let json = serde_json::to_string_pretty(verdict)?;
        cli::show(|out| writeln!(out, "{json}"))?;
    } else {
        cli::show(|out| writeln!(out, "{verdict}"))?;
    }
    Ok(())
}
