//! The tool `rwkv`: one file per command.

mod bake;
mod convert;
mod device;
mod embed;
mod eval;
mod export;
mod generate;
mod info;
mod logits;
mod prefill;
mod prompts;
mod sampling;
mod start;
mod surprise;
mod tokens;

use std::{
    fmt::Display,
    fs,
    io::{self, ErrorKind, IsTerminal, StdoutLock, Write, stderr, stdout},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::ThreadPoolBuilder;
use rwkv_core::{Image, tokenizer::Utf8Stream};
use serde::Serialize;

use crate::{
    file::Input,
    prefill::{Backend, Runner},
    tokenizer::{Tokenizer, TokenizerError},
};

pub use device::{Measured, OnDevice};
pub use prompts::{Prompts, tokens_of};
pub use sampling::{Order, Sampling};
pub use start::{Begun, Start};

/// RWKV language models for microcontrollers: convert, inspect, run, prove.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads that compute on the host; as many as there are cores unless told. No result depends
    /// on it
    #[arg(long, global = true, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn a checkpoint into a flash image
    Convert(convert::ConvertArgs),
    /// Turn an image back into a checkpoint that other runtimes read
    Export(export::ExportArgs),
    /// Say what an image holds and what it needs, or what a trace holds
    Info(info::InfoArgs),
    /// Show how a text is taken apart
    Tokens(tokens::TokensArgs),
    /// Print or save the logits after a prompt
    Logits(logits::LogitsArgs),
    /// Print or save the vector that the model makes of a text
    Embed(embed::EmbedArgs),
    /// Say of each token of a text how much it surprises a model, in bits
    Surprise(surprise::SurpriseArgs),
    /// Save the state after a prompt
    Prefill(prefill::PrefillArgs),
    /// Put the state after a prompt into an image, which then begins there
    Bake(bake::BakeArgs),
    /// Continue a prompt
    Generate(generate::GenerateArgs),
    /// Say how well an image predicts a text, and how close it is to its checkpoint
    Eval(eval::EvalArgs),
    /// Prove that a device computes the same bits as the host
    Validate(crate::validate::ValidateArgs),
    /// Record what an image computes, as digests that later firmware is checked against
    Trace(crate::trace::TraceArgs),
    /// Say what a device spends a token on
    Profile(crate::profile::ProfileArgs),
    /// Say whether a model fits a board, and how fast it can be at most
    Fit(crate::fit::FitArgs),
    /// Measure how fast a device, or this host, computes tokens
    Bench(crate::bench::BenchArgs),
    /// Choose what of an image lies in memory, where only part of it fits, and write it
    Place(crate::fit::PlaceArgs),
}

/// Runs a command.
///
/// # Errors
/// What went wrong, where, and the next step.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Some(threads) = cli.threads else { return execute(cli.command) };
    let pool = ThreadPoolBuilder::new().num_threads(threads.get()).build();
    pool.with_context(|| format!("cannot start {threads} threads"))?
        .install(|| execute(cli.command))
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Convert(args) => convert::command(&args),
        Command::Export(args) => export::command(&args),
        Command::Info(args) => info::command(&args),
        Command::Tokens(args) => tokens::command(&args),
        Command::Logits(args) => logits::command(&args),
        Command::Embed(args) => embed::command(&args),
        Command::Surprise(args) => surprise::command(&args),
        Command::Prefill(args) => prefill::command(&args),
        Command::Bake(args) => bake::command(&args),
        Command::Generate(args) => generate::command(&args),
        Command::Eval(args) => eval::command(&args),
        Command::Validate(args) => return crate::validate::command(&args),
        Command::Trace(args) => return crate::trace::command(&args),
        Command::Profile(args) => return crate::profile::command(&args),
        Command::Fit(args) => return crate::fit::command(&args),
        Command::Bench(args) => return crate::bench::command(&args),
        Command::Place(args) => crate::fit::place_command(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Brings an image to where it is to run, and says what was chosen where that is left open.
///
/// # Errors
/// What is missing for the GPU, if it was asked for by name.
pub(crate) fn runner<'a>(backend: Backend, image: &'a Image<'a>) -> anyhow::Result<Runner<'a>> {
    let (runner, note) = backend.open(image)?;
    if let Some(note) = note {
        eprintln!("{note}");
    }
    Ok(runner)
}

/// A prompt: text, or a file's bytes; a line break unless told.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub struct Prompt {
    /// The prompt as text; a line break if there is no prompt
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// A file that is one prompt, raw bytes
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
}

impl Prompt {
    /// Whether there is one.
    pub const fn is_given(&self) -> bool {
        self.prompt.is_some() || self.prompt_file.is_some()
    }

    /// The file that it is read from.
    pub fn input(&self) -> Option<Input<'_>> {
        self.prompt_file.as_deref().map(|path| ("prompt", path))
    }

    /// The bytes of the prompt.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        match (&self.prompt_file, &self.prompt) {
            (Some(path), _) => {
                fs::read(path).with_context(|| format!("cannot read prompt {}", path.display()))
            }
            (None, Some(text)) => Ok(text.clone().into_bytes()),
            (None, None) => Ok(b"\n".to_vec()),
        }
    }

    /// The tokens of the prompt, at least one.
    ///
    /// # Errors
    /// If the file cannot be read, or the prompt is empty or not in the vocabulary.
    pub fn tokens(&self, image: &Image<'_>, tokenizer: &Tokenizer<'_>) -> anyhow::Result<Vec<u32>> {
        let tokens = tokens(&self.bytes()?, image, tokenizer)?;
        anyhow::ensure!(!tokens.is_empty(), "the prompt is empty: give at least one byte");
        Ok(tokens)
    }
}

/// The file of a tokenizer that is not in the image.
#[derive(Debug, Clone, Args)]
pub struct TokenizerFile {
    /// The tokenizer, where the image does not hold it
    #[arg(long, value_name = "FILE.json")]
    pub tokenizer: Option<PathBuf>,
}

impl TokenizerFile {
    /// The file, if there is one.
    pub fn input(&self) -> Option<Input<'_>> {
        self.tokenizer.as_deref().map(|path| ("tokenizer", path))
    }

    /// The tokenizer of an image.
    ///
    /// # Errors
    /// If it is neither in the image nor in the file.
    pub fn open<'a>(&self, image: &Image<'a>) -> Result<Tokenizer<'a>, TokenizerError> {
        Tokenizer::of(image, self.tokenizer.as_deref())
    }
}

/// The tokens of a text, all of them in the model's vocabulary.
fn tokens(text: &[u8], image: &Image<'_>, tokenizer: &Tokenizer<'_>) -> anyhow::Result<Vec<u32>> {
    let tokens = tokenizer.encode(text)?;
    let vocab = image.header().dims.vocab;
    if let Some(token) = tokens.iter().find(|t| **t >= vocab) {
        anyhow::bail!("token {token} is not in the model's vocabulary of {vocab} tokens");
    }
    Ok(tokens)
}

/// Text on standard output as its tokens come, never half a character.
#[derive(Debug, Default)]
pub struct Text {
    decoder: Utf8Stream,
    begun: bool,
}

impl Text {
    /// Prints the characters that a token's bytes complete. A reader that has gone away is no
    /// reason to stop.
    pub fn push(&mut self, bytes: &[u8]) {
        self.begun = true;
        let mut piece = String::new();
        // Writing to a String cannot fail.
        let _ = self.decoder.push(bytes, &mut piece);
        let mut out = stdout().lock();
        let _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
    }

    /// Ends the text with a line break, if there was any.
    pub fn finish(&mut self) {
        if self.begun {
            let mut piece = String::new();
            let _ = self.decoder.finish(&mut piece);
            let _ = writeln!(stdout(), "{piece}");
        }
    }
}

/// Writes to standard output. A reader that has gone away, such as `head`, ends it quietly.
///
/// # Errors
/// If it cannot be written for another reason.
pub fn show(write: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.context("cannot write to standard output"),
    }
}

/// Prints what was found: as people read it, or as JSON.
///
/// # Errors
/// Those of the output.
pub fn print(what: &(impl Display + Serialize), json: bool) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(what)? } else { what.to_string() };
    show(|out| writeln!(out, "{text}"))
}

/// Numbers: little-endian f32 in a file, or a line each on standard output.
///
/// # Errors
/// If they cannot be written.
pub fn floats(output: Option<&Path>, values: &[f32]) -> anyhow::Result<()> {
    match output {
        Some(path) => {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            crate::file::write_whole(path, &bytes)
        }
        None => show(|out| values.iter().try_for_each(|x| writeln!(out, "{x}"))),
    }
}

/// A progress bar on stderr, quiet where that is not a terminal.
pub fn progress(len: u64, what: &'static str) -> ProgressBar {
    let target = if stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(len), target);
    let style = ProgressStyle::with_template("{msg} [{bar:32}] {pos}/{len} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(what)
}

/// A size as people read it.
pub fn bytes(n: u64) -> String {
    match n {
        0..=9_999 => format!("{n} B"),
        10_000..=9_999_999 => format!("{:.1} KB", n as f64 / 1024.0),
        _ => format!("{:.1} MB", n as f64 / (1024.0 * 1024.0)),
    }
}

/// A number with its thousands apart.
#[derive(Debug, Clone, Copy)]
pub struct Grouped(pub u64);

impl std::fmt::Display for Grouped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (left, digit) in (0..digits.len()).rev().zip(digits.chars()) {
            text.push(digit);
            if left > 0 && left % 3 == 0 {
                text.push(',');
            }
        }
        f.pad(&text)
    }
}

/// Reads an image file.
///
/// # Errors
/// If it cannot be read.
pub fn read_image(path: &Path) -> anyhow::Result<crate::file::ImageFile> {
    crate::file::ImageFile::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(Grouped(number).to_string(), text);
        }
    }
}
