//! `rwkv tokens`.

use std::{io::Write, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::{Prompt, TokenizerFile};
use crate::tokenizer::Tokenizer;

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
pub(super) struct Piece<'a> {
    id: u32,
    bytes: &'a [u8],
    /// The bytes as text; what is no whole character is shown as U+FFFD.
    text: String,
}

impl<'a> Piece<'a> {
    pub(super) fn of(id: u32, tokenizer: &'a Tokenizer<'_>) -> Self {
        let bytes = tokenizer.decode(id);
        Self { id, bytes, text: String::from_utf8_lossy(bytes).into_owned() }
    }

    /// The text between quotation marks, or the bytes if they are no whole characters.
    pub(super) fn shown(&self) -> String {
        match std::str::from_utf8(self.bytes) {
            Ok(_) => format!("{:?}", self.text),
            Err(_) => format!("b\"{}\"", self.bytes.escape_ascii()),
        }
    }
}

pub(super) fn command(args: &TokensArgs) -> anyhow::Result<()> {
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.tokenizer.open(&image)?;
    let tokens = args.prompt.tokens(&image, &tokenizer)?;
    let pieces: Vec<Piece<'_>> = tokens.iter().map(|id| Piece::of(*id, &tokenizer)).collect();
    if args.json {
        let json = serde_json::to_string_pretty(&pieces)?;
        return super::show(|out| writeln!(out, "{json}"));
    }
    super::show(|out| {
        pieces.iter().try_for_each(|piece| writeln!(out, "{:>6}  {}", piece.id, piece.shown()))
    })
}
