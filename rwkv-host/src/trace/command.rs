//! `rwkv trace`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use rwkv_core::Image;

use super::{Trace, check};
use crate::{cli, file};

/// Record what an image computes, as digests that later firmware is checked against
#[derive(Debug, Clone, clap::Args)]
pub struct TraceArgs {
    /// The image
    pub image: PathBuf,
    /// What is read
    #[command(flatten)]
    pub prompt: cli::Prompt,
    /// Many of these
    #[command(flatten)]
    pub prompts: cli::Prompts,
    /// The tokenizer
    #[command(flatten)]
    pub tokenizer: cli::TokenizerFile,
    /// Tokens to generate after each prompt that does not say how many
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 64)]
    pub tokens: u32,
    /// How they are chosen
    #[command(flatten)]
    pub sampling: cli::Sampling,
    /// The trace to write
    #[arg(short, long, value_name = "OUT.trace", required_unless_present = "check")]
    pub output: Option<PathBuf>,
    /// Compute a trace anew on this host, and compare
    #[arg(
        long,
        value_name = "TRACE",
        conflicts_with_all = ["output", "Prompt", "Prompts", "TokenizerFile", "Sampling", "tokens"]
    )]
    pub check: Option<PathBuf>,
    /// Print what the check finds as JSON
    #[arg(long, requires = "check")]
    pub json: bool,
}

/// Runs `rwkv trace`: success if it was written, or is what this host computes.
///
/// # Errors
/// What leaves no trace, or no verdict on one.
pub fn command(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    let file = cli::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    match &args.check {
        Some(path) => compare(args, &image, &Trace::read(path)?),
        None => record(args, &image),
    }
}

fn record(args: &TraceArgs, image: &Image<'_>) -> anyhow::Result<ExitCode> {
    let output = args.output.as_deref().context("there is no file to write to: give -o")?;
    let inputs = args.prompt.input().into_iter().chain(args.prompts.input());
    let inputs = inputs.chain(args.tokenizer.input());
    file::check_output(output, inputs.chain([("image", args.image.as_path())]))?;
    let tokenizer = args.tokenizer.open(image)?;
    let cases = args.prompts.cases(&args.prompt, image, &tokenizer, args.tokens)?;
    let sampler = args.sampling.settings(image, &tokenizer)?;
    let bar = cli::progress(cli::tokens_of(&cases), "tracing");
    let trace = Trace::record(image, sampler, &cases, |tokens| bar.inc(tokens as u64));
    bar.finish_and_clear();
    let trace = trace?;
    trace.write(output)?;
    let (tokens, prompts) = (cli::Grouped(trace.tokens() as u64), trace.prompts.len());
    let shown = output.display();
    eprintln!(
        "{shown}: {tokens} tokens, prompts: {prompts}, image {:08x}; next: \
         rwkv validate {} --golden {shown} --device DEVICE",
        trace.image.identity,
        args.image.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn compare(args: &TraceArgs, image: &Image<'_>, trace: &Trace) -> anyhow::Result<ExitCode> {
    let bar = cli::progress(trace.tokens() as u64, "checking");
    let found = check(image, trace, |tokens| bar.inc(tokens as u64));
    bar.finish_and_clear();
    let found = found?;
    cli::print(&found, args.json)?;
    Ok(if found.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
