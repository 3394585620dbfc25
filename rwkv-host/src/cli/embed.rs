//! `rwkv embed`.

use std::{io::Write, path::PathBuf};

use clap::{Args, ValueEnum};
use rwkv_core::Hidden;
use serde::Serialize;

use super::{Begun, Start};
use crate::{convert::Folds, prefill::prefill};

/// Tokens whose hidden vectors are held at once.
const PIECE: usize = 256;

/// Which of a text's hidden vectors make its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Pool {
    /// The one after the last token, which has read all the others.
    Last,
    /// The mean over all tokens.
    Mean,
}

#[derive(Debug, Args)]
pub(super) struct EmbedArgs {
    /// The image
    image: PathBuf,
    #[command(flatten)]
    start: Start,
    /// Which hidden vectors count
    #[arg(long, value_enum, default_value = "last")]
    pool: Pool,
    /// Write little-endian f32 here instead of text to standard output
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Embedding<'a> {
    tokens: usize,
    pool: Pool,
    vector: &'a [f32],
}

pub(super) fn command(args: &EmbedArgs) -> anyhow::Result<()> {
    args.start.check_output(args.output.as_deref(), &args.image)?;
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.start.tokenizer.open(&image)?;
    let Begun { mut memory, tokens, .. } = args.start.begin(&image, &tokenizer)?;

    let dim = image.header().dims.dim as usize;
    let mut vector = vec![0.0f32; dim];
    match args.pool {
        Pool::Last => {
            prefill(&image, memory.state(&image)?, &tokens, &mut [Hidden(&mut vector)])?;
        }
        Pool::Mean => {
            let mut sums = vec![0.0f64; dim];
            let mut rows = vec![0.0f32; dim * PIECE.min(tokens.len())];
            for piece in tokens.chunks(PIECE) {
                let rows = &mut rows[..dim * piece.len()];
                let mut sinks: Vec<Hidden<'_>> = rows.chunks_mut(dim).map(Hidden).collect();
                prefill(&image, memory.state(&image)?, piece, &mut sinks)?;
                for row in rows.chunks(dim) {
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
                }
            }
            let count = tokens.len() as f64;
            vector.iter_mut().zip(sums).for_each(|(x, sum)| *x = (sum / count) as f32);
        }
    }
    Folds::of(&image)?.unscale_hidden(&mut vector);

    if !args.json {
        return super::floats(args.output.as_deref(), &vector);
    }
    let embedding = Embedding { tokens: tokens.len(), pool: args.pool, vector: &vector };
    let json = serde_json::to_string(&embedding)?;
    super::show(|out| writeln!(out, "{json}"))
}
