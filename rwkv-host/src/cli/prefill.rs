//! `rwkv prefill`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{Start, start::Begun};
use crate::{
    file,
    prefill::Backend,
    state::{self, Place},
};

#[derive(Debug, Args)]
pub(super) struct PrefillArgs {
    /// The image
    image: PathBuf,
    #[command(flatten)]
    start: Start,
    /// Where the prompt runs; the bits are the same
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
    /// The state to write
    #[arg(short, long, value_name = "OUT.state")]
    output: PathBuf,
}

pub(super) fn command(args: &PrefillArgs) -> anyhow::Result<()> {
    let image = ("image", args.image.as_path());
    file::check_output(&args.output, args.start.inputs().chain([image]))?;
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.start.tokenizer.open(&image)?;
    let Begun { mut memory, position, tokens, .. } = args.start.begin(&image, &tokenizer)?;
    // The last token is read by whoever goes on: only reading it gives its logits.
    let (pending, read) = tokens.split_last().context("there is no token to read")?;
    let runner = super::runner(args.backend, &image)?;
    runner.prefill::<&mut [f32]>(memory.state(&image)?, read, &mut [])?;
    let position = position.saturating_add(read.len() as u64);
    let place = Place { position, pending: Some(*pending) };
    state::write(&args.output, &image, &mut memory, place)?;
    eprintln!(
        "{}: {position} tokens read, one pending; next: rwkv generate {} --state {}",
        args.output.display(),
        args.image.display(),
        args.output.display(),
    );
    Ok(())
}
