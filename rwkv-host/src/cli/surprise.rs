//! `rwkv surprise`.

use std::{fmt, path::PathBuf};

use clap::Args;
use rwkv_core::Surprise;
use serde::Serialize;

use super::{Begun, Start, tokens::Piece};
use crate::prefill::prefill;

/// Tokens whose logits are held at once.
const PIECE: usize = 256;

/// The longest bar, in bits.
const LONGEST: f32 = 24.0;

#[derive(Debug, Args)]
pub(super) struct SurpriseArgs {
    /// The image
    image: PathBuf,
    #[command(flatten)]
    start: Start,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A token, and what it costs.
#[derive(Debug, Serialize)]
struct Cost<'a> {
    #[serde(flatten)]
    piece: Piece<'a>,
    /// `None` of the first one, before which the model has seen nothing of the text.
    bits: Option<f32>,
}

/// A text, token by token.
#[derive(Debug, Serialize)]
struct Report<'a> {
    tokens: Vec<Cost<'a>>,
    /// The mean over all tokens but the first.
    bits_per_token: f64,
    bits_per_byte: f64,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Cost { piece, bits } in &self.tokens {
            let bar = "#".repeat(bits.map_or(0, |bits| bits.min(LONGEST).round() as usize));
            match bits {
                Some(bits) => write!(f, "{bits:>7.2}")?,
                None => write!(f, "{:>7}", "-")?,
            }
            let line = format!("{:<12} {bar}", piece.shown());
            writeln!(f, "  {}", line.trim_end())?;
        }
        let Self { tokens, bits_per_token, bits_per_byte } = self;
        let counted = tokens.len() - 1;
        write!(
            f,
            "{bits_per_token:.3} bits per token, {bits_per_byte:.3} per byte, over {counted} tokens"
        )
    }
}

pub(super) fn command(args: &SurpriseArgs) -> anyhow::Result<()> {
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.start.tokenizer.open(&image)?;
    let Begun { mut memory, tokens, .. } = args.start.begin(&image, &tokenizer)?;
    anyhow::ensure!(
        tokens.len() > 1,
        "the first token of a text has nothing before it that it could surprise: give a longer one"
    );
    let (inputs, nexts) = (&tokens[..tokens.len() - 1], &tokens[1..]);
    let mut bits = vec![None];
    for (inputs, nexts) in inputs.chunks(PIECE).zip(nexts.chunks(PIECE)) {
        let mut sinks: Vec<Surprise> = nexts.iter().map(|next| Surprise::of(*next)).collect();
        prefill(&image, memory.state(&image)?, inputs, &mut sinks)?;
        bits.extend(sinks.iter().map(Surprise::bits));
    }
    let bytes: usize = nexts.iter().map(|token| tokenizer.decode(*token).len()).sum();
    let sum: f64 = bits.iter().flatten().map(|bits| f64::from(*bits)).sum();
    let costs = tokens.iter().zip(bits);
    let report = Report {
        tokens: costs.map(|(id, bits)| Cost { piece: Piece::of(*id, &tokenizer), bits }).collect(),
        bits_per_token: sum / nexts.len() as f64,
        bits_per_byte: sum / bytes.max(1) as f64,
    };
    super::print(&report, args.json)
}
