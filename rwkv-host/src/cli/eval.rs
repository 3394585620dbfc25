//! `rwkv eval`.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::Args;
use rwkv_core::Image;

use crate::{
    checkpoint::Checkpoint,
    convert::{self, Folds, Weights, convert},
    eval::{By, Options, Report, Sums, Which, evaluate, merge},
    file::ImageFile,
    tokenizer::Tokenizer,
};

use super::TokenizerFile;

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// The image
    #[arg(required_unless_present = "merge")]
    image: Option<PathBuf>,
    /// The text to predict, raw bytes; read from an empty state
    #[arg(long, value_name = "FILE", required_unless_present = "merge")]
    text: Option<PathBuf>,
    #[command(flatten)]
    tokenizer: TokenizerFile,
    /// The checkpoint that the image was made from, to compare with in f32
    #[arg(long, value_name = "CHECKPOINT")]
    reference: Option<PathBuf>,
    /// Read no more tokens than this
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    tokens: Option<u64>,
    /// What the costs of storing the model are told by; of a shard, the first alone has them
    #[arg(long, value_enum, default_value = "layer", requires = "reference")]
    by: By,
    /// Tokens from the start of the text over which these costs are measured, at most
    #[arg(long, value_name = "N", default_value_t = Options::default().part_tokens, requires = "reference")]
    part_tokens: usize,
    /// Only a shard of the text, such as 2/8 for the second of eight; each begins where the image
    /// does
    #[arg(long, value_name = "INDEX/COUNT")]
    shard: Option<Which>,
    /// For images in f32 or f16: sums in whatever order is fast, with another GEMM, and recurrences
    /// of versions 5 to 7 for 16 tokens at once. The report says how far logits are from the exact ones
    /// at the start of the text. Images of integers are refused: their products are exact
    #[arg(long)]
    fast: bool,
    /// Put the reports of all shards, which --json printed, together
    #[arg(
        long,
        value_name = "FILE.json",
        num_args = 1..,
        conflicts_with_all = ["image", "text", "reference", "tokens", "shard", "tokenizer", "fast"]
    )]
    merge: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl EvalArgs {
    fn tokens(&self, image: &Image<'_>, tokenizer: &Tokenizer<'_>) -> anyhow::Result<Vec<u32>> {
        let path = self.text.as_deref().context("there is no text: give --text")?;
        let text =
            fs::read(path).with_context(|| format!("cannot read text {}", path.display()))?;
        let mut tokens = super::tokens(&text, image, tokenizer)?;
        tokens.truncate(self.tokens.map_or(usize::MAX, |n| n as usize));
        Ok(tokens)
    }

    /// The reference as an f32 image, with the epsilons and the scaled channels of the image that it
    /// is compared with: tensor by tensor, then, both have the same weights.
    fn reference(&self, image: &Image<'_>) -> anyhow::Result<Option<ImageFile>> {
        let Some(path) = &self.reference else { return Ok(None) };
        let checkpoint = Checkpoint::open(path)?;
        let (dims, folds) = (image.header().dims, Folds::of(image)?);
        let options = convert::Options {
            group_norm_eps: (dims.head_size > 0).then_some(dims.group_norm_eps),
            folds: Some(&folds),
            ..convert::Options::new(Weights::F32)
        };
        let bytes = convert(&checkpoint, &options, |_, _| {})
            .with_context(|| format!("cannot convert {}", path.display()))?;
        Ok(Some(ImageFile::new(&bytes)))
    }
}

/// The reports of shards as one.
fn merged(paths: &[PathBuf]) -> anyhow::Result<Report> {
    let report = |path: &PathBuf| {
        let shown = path.display();
        let text = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{shown} is not what rwkv eval --shard --json prints"))
    };
    let reports = paths.iter().map(report).collect::<anyhow::Result<Vec<Sums>>>()?;
    Ok(merge(&reports)?)
}

pub(super) fn command(args: &EvalArgs) -> anyhow::Result<()> {
    if !args.merge.is_empty() {
        return super::print(&merged(&args.merge)?, args.json);
    }
    let path = args.image.as_deref().context("there is no image: give its file")?;
    let file = super::read_image(path)?;
    let image = file.open_named(path)?;
    let tokenizer = args.tokenizer.open(&image)?;
    let tokens = args.tokens(&image, &tokenizer)?;
    let reference = args.reference(&image)?;
    let reference = reference.as_ref().map(ImageFile::open).transpose()?;
    let (by, part_tokens) = (args.by, args.part_tokens);
    let (shard, fast) = (args.shard, args.fast);
    let options = Options { tokenizer: Some(&tokenizer), by, part_tokens, shard, fast };
    let bar = super::progress(0, "reading");
    let report = evaluate(&image, reference.as_ref(), &tokens, &options, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    super::print(&report, args.json)
}
