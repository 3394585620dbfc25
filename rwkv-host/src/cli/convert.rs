//! `rwkv convert`.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use rwkv_core::image::MathMode;

use crate::{
    checkpoint::Checkpoint,
    convert::{Options, Packing, Weights, convert_to, detect},
    file::{self, Input},
    quantize::Recipe,
    tokenizer::Choice,
};

/// The math modes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MathKind {
    /// Within 2 ulp of the true values.
    Exact,
    /// Coarse gates of the crate micromath: fewer instructions on some cores without an FPU.
    /// Firmware needs the feature of that name.
    Micromath,
}

#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// A checkpoint: a torch `.pth`, a `.safetensors`, an rwkv.cpp `.bin` or a `.gguf`; an index of
    /// shards, such as model.safetensors.index.json; or the folder that holds either
    input: PathBuf,
    /// The image to write
    #[arg(short, long, value_name = "OUT.rwkv")]
    output: PathBuf,
    /// How matrices are stored; vectors are always f32
    #[arg(long, value_enum, required_unless_present = "recipe")]
    weights: Option<Weights>,
    /// How single tensors are stored, in TOML; others as --weights says, or in f32
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// A text such as the model will read: integers are chosen so that it changes little
    #[arg(long, value_name = "TEXT")]
    calibrate: Option<PathBuf>,
    /// How four-bit weights lie in a word; any core reads either and computes the same
    #[arg(long, value_enum, default_value = "pairs")]
    packing: Packing,
    /// Bits of quantised inputs, sign included, instead of the most that cannot overflow; 8 with
    /// --packing lanes, whose cores are fast with those
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(8..=15))]
    input_bits: Option<u8>,
    /// With which functions devices compute sigmoid, tanh and the decays
    #[arg(long, value_enum, default_value = "exact")]
    math: MathKind,
    /// How text becomes tokens: `byte`, a list of tokens such as rwkv_vocab_v20230424.txt, or a
    /// tokenizer.json that stays on the host; `byte` for 256 tokens
    #[arg(long, value_name = "byte|FILE")]
    tokenizer: Option<PathBuf>,
    /// Epsilon of the group norm, where the checkpoint was trained with another than the official 64e-5
    #[arg(long, value_name = "X", value_parser = epsilon)]
    group_norm_eps: Option<f32>,
    /// Largest block in bytes, where a row is not longer: what a streaming device must buffer
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(64..))]
    block_bytes: u32,
}

/// Bits of the inputs of weights in lanes: a group's sums then end within half a word.
const LANES_BITS: u8 = 8;

fn epsilon(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(x) if x > 0.0 && x < 1.0 => Ok(x),
        _ => Err("a number between 0 and 1, such as 1e-5".into()),
    }
}

impl ConvertArgs {
    /// The files that are read beside the checkpoint.
    fn inputs(&self) -> impl Iterator<Item = Input<'_>> {
        [("recipe", &self.recipe), ("text", &self.calibrate), ("tokenizer", &self.tokenizer)]
            .into_iter()
            .filter_map(|(what, path)| Some((what, path.as_deref()?)))
    }

    fn recipe(&self) -> anyhow::Result<Option<Recipe>> {
        let Some(path) = &self.recipe else { return Ok(None) };
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read recipe {}", path.display()))?;
        let recipe = Recipe::parse(&text);
        Ok(Some(recipe.with_context(|| format!("{} is of no use", path.display()))?))
    }

    /// The tokenizer for a model with so many tokens.
    fn tokenizer(&self, vocab: u32) -> anyhow::Result<Choice> {
        let is_byte =
            |path: &PathBuf| ["byte", "bytes"].iter().any(|name| path.as_os_str() == *name);
        match &self.tokenizer {
            Some(path) if !is_byte(path) => Ok(Choice::read(path, vocab)?),
            None if vocab != 256 => anyhow::bail!(
                "this model has {vocab} tokens: name {} with --tokenizer",
                match vocab {
                    65_536 => "rwkv_vocab_v20230424.txt, which the PyPI package rwkv ships,",
                    50_277 => "20B_tokenizer.json",
                    _ => "its list of tokens",
                }
            ),
            _ if vocab != 256 => anyhow::bail!(
                "the byte tokenizer needs a vocabulary of 256 tokens, this model has {vocab}"
            ),
            _ => Ok(Choice::Bytes),
        }
    }

    fn calibration(&self, tokenizer: &Choice) -> anyhow::Result<Option<Vec<u32>>> {
        let Some(path) = &self.calibrate else { return Ok(None) };
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(tokenizer.tokenizer()?.encode(&text)?))
    }
}

pub(super) fn command(args: &ConvertArgs) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(&args.input)?;
    let files = checkpoint.paths().map(|path| ("checkpoint", path));
    file::check_output(&args.output, files.chain(args.inputs()))?;
    let detected =
        detect(&checkpoint).with_context(|| format!("cannot convert {}", args.input.display()))?;
    let tokenizer = args.tokenizer(detected.dims.vocab)?;
    anyhow::ensure!(
        args.group_norm_eps.is_none() || detected.dims.head_size > 0,
        "RWKV-{} has no group norm: leave --group-norm-eps out",
        detected.version.name()
    );
    let (recipe, calibration) = (args.recipe()?, args.calibration(&tokenizer)?);
    let options = Options {
        weights: args.weights.unwrap_or(Weights::F32),
        recipe: recipe.as_ref(),
        calibration: calibration.as_deref(),
        packing: args.packing,
        input_bits: args.input_bits.or((args.packing == Packing::Lanes).then_some(LANES_BITS)),
        group_norm_eps: args.group_norm_eps,
        folds: None,
        math: match args.math {
            MathKind::Exact => MathMode::Exact,
            MathKind::Micromath => MathMode::Micromath,
        },
        tokenizer: &tokenizer,
        block_bytes: args.block_bytes,
    };
    let bar = super::progress(0, "converting");
    let header = convert_to(&args.output, &checkpoint, &options, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })
    .with_context(|| {
        format!("cannot convert {} to {}", args.input.display(), args.output.display())
    })?;
    bar.finish_and_clear();
    eprintln!(
        "{}: RWKV-{}, {} layers of {}, {}; next: rwkv info {}",
        args.output.display(),
        header.version.name(),
        header.dims.layers,
        header.dims.dim,
        super::bytes(header.bytes().into()),
        args.output.display(),
    );
    Ok(())
}
