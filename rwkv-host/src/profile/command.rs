//! `rwkv profile`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use super::{picture, profile};
use crate::{cli, file};

/// Say what a device spends a token on
#[derive(Debug, Clone, clap::Args)]
pub struct ProfileArgs {
    /// The image
    pub image: PathBuf,
    /// The device
    #[command(flatten)]
    pub at: cli::OnDevice,
    /// The prompt
    #[command(flatten)]
    pub prompt: cli::Prompt,
    /// The tokenizer
    #[command(flatten)]
    pub tokenizer: cli::TokenizerFile,
    /// Tokens to generate after the prompt
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 64)]
    pub tokens: u32,
    /// How the following tokens are chosen
    #[command(flatten)]
    pub sampling: cli::Sampling,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Draw a picture: section, operation, part
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

impl ProfileArgs {
    fn inputs(&self) -> impl Iterator<Item = file::Input<'_>> {
        let files = self.prompt.input().into_iter().chain(self.tokenizer.input());
        let files = files.chain(self.at.input());
        files.chain([("image", self.image.as_path())])
    }
}

/// Runs `rwkv profile`.
///
/// # Errors
/// Whatever leaves no profile, or a picture that cannot be written.
pub fn command(args: &ProfileArgs) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.svg {
        file::check_output(path, args.inputs())?;
    }
    let file = cli::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.tokenizer.open(&image)?;
    let prompt = args.prompt.tokens(&image, &tokenizer)?;
    let sampler = args.sampling.settings(&image, &tokenizer)?;
    let mut device = args.at.open(&image, None)?;
    let bar = cli::progress(2 * (prompt.len() as u64 + u64::from(args.tokens)), "profiling");
    let profile = profile(&mut device, &image, sampler, &prompt, args.tokens, || bar.inc(1));
    bar.finish_and_clear();
    let profile = profile?;
    // The profile stands, however the device ends.
    let _ = device.halt();
    if let Some(path) = &args.svg {
        file::write_whole(path, picture(&profile).as_bytes())?;
    }
    if args.json {
        let json = serde_json::to_string_pretty(&profile)?;
        cli::show(|out| writeln!(out, "{json}"))?;
    } else {
        cli::show(|out| write!(out, "{profile}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
