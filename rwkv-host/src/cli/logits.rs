//! `rwkv logits`.

use std::path::PathBuf;

use clap::Args;

use super::{Begun, Start};
use crate::prefill::prefill;

#[derive(Debug, Args)]
pub(super) struct LogitsArgs {
    /// The image
    image: PathBuf,
    #[command(flatten)]
    start: Start,
    /// Write little-endian f32 here instead of text to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn command(args: &LogitsArgs) -> anyhow::Result<()> {
    args.start.check_output(args.output.as_deref(), &args.image)?;
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.start.tokenizer.open(&image)?;
    let Begun { mut memory, tokens, .. } = args.start.begin(&image, &tokenizer)?;
    let mut logits = vec![0.0f32; image.header().dims.vocab as usize];
    prefill(&image, memory.state(&image)?, &tokens, &mut [logits.as_mut_slice()])?;
    super::floats(args.output.as_deref(), &logits)
}
