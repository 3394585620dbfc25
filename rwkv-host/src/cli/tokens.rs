//! `rwkv tokens`.

use std::{io::Write, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::{Prompt, TokenizerFile};

#[derive(Debug, Args)]
pub(super) struct TokensArgs {
    /// The image
    image: PathBuf,
    #[command(flatten)]
    prompt: Prompt,
    #[command(flatten)]
    tokenizer: TokenizerFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A token and what it stands for.
#[derive(Debug, Serialize)]
struct Piece<'a> {
    id: u32,
    bytes: &'a [u8],
    /// The bytes as text; what is no whole character is shown as U+FFFD.
    text: String,
}

pub(super) fn command(args: &TokensArgs) -> anyhow::Result<()> {
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.tokenizer.open(&image)?;
    let tokens = args.prompt.tokens(&image, &tokenizer)?;
    let piece = |id: &u32| {
        let bytes = tokenizer.decode(*id);
        Piece { id: *id, bytes, text: String::from_utf8_lossy(bytes).into_owned() }
    };
    let pieces: Vec<Piece<'_>> = tokens.iter().map(piece).collect();
    if args.json {
        let json = serde_json::to_string_pretty(&pieces)?;
        return super::show(|out| writeln!(out, "{json}"));
    }
    super::show(|out| {
        pieces.iter().try_for_each(|Piece { id, bytes, text }| match std::str::from_utf8(bytes) {
            Ok(_) => writeln!(out, "{id:>6}  {text:?}"),
            Err(_) => writeln!(out, "{id:>6}  b\"{}\"", bytes.escape_ascii()),
        })
    })
}
