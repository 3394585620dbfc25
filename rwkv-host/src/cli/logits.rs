//! `rwkv logits`.

use std::{io::Write, path::PathBuf};

use clap::Args;

use super::{Begun, Start};
use crate::{file, prefill::prefill};

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
    if let Some(path) = &args.output {
        let image = ("image", args.image.as_path());
        let state = args.start.state_input();
        file::check_output(path, args.start.inputs().chain(state).chain([image]))?;
    }
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.start.tokenizer.open(&image)?;
    let Begun { mut memory, tokens, .. } = args.start.begin(&image, &tokenizer)?;
    let mut logits = vec![0.0f32; image.header().dims.vocab as usize];
    prefill(&image, memory.state(&image)?, &tokens, &mut [logits.as_mut_slice()])?;
    match &args.output {
        Some(path) => {
            let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
            file::write_whole(path, &bytes)
        }
        None => super::show(|out| logits.iter().try_for_each(|x| writeln!(out, "{x}"))),
    }
}
