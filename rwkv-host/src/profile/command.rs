//! `rwkv profile`.

use std::{path::PathBuf, process::ExitCode};

use super::{picture, profile};
use crate::{cli, file};

/// Say what a device spends a token on
#[derive(Debug, Clone, clap::Args)]
pub struct ProfileArgs {
    /// What is measured
    #[command(flatten)]
    pub measured: cli::Measured,
    /// Draw a picture: section, operation, part
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Runs `rwkv profile`.
///
/// # Errors
/// Whatever leaves no profile, or a picture that cannot be written.
pub fn command(args: &ProfileArgs) -> anyhow::Result<ExitCode> {
    let ProfileArgs { measured, svg } = args;
    if let Some(path) = svg {
        file::check_output(path, measured.inputs())?;
    }
    let profile = measured.on_device(|device, image, sampler, prompt| {
        let count = 2 * (prompt.len() as u64 + u64::from(measured.tokens));
        let bar = cli::progress(count, "profiling");
        let profile = profile(device, image, sampler, prompt, measured.tokens, || bar.inc(1));
        bar.finish_and_clear();
        Ok(profile?)
    })?;
    if let Some(path) = svg {
        file::write_whole(path, picture(&profile).as_bytes())?;
    }
    measured.show(&profile)?;
    Ok(ExitCode::SUCCESS)
}
