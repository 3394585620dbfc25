//! What a conversion may choose.

use rwkv_core::{
    exec::record::Request,
    image::{Format, Id, MathMode, Shape, Version},
};
use serde::Deserialize;

use super::{Folds, source};
use crate::{quantize::Recipe, tokenizer};

/// How matrices are stored; vectors are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Exact: IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// A byte per weight and one scale per row.
    Int8,
    /// Four bits per weight, a sub-scale per group of 32 and one scale per row; the embedding, the
    /// head and low-rank matrices in a byte per weight.
    Int4,
}

/// How four-bit weights lie in a word. Any core reads either and computes the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Packing {
    /// Pairs along a row: for cores with two multipliers of 16 bits, and for vector units.
    Pairs,
    /// Two rows in the halves of a word: for cores with a plain multiplier, best with 8-bit inputs.
    Lanes,
}

/// What a conversion may choose.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// How matrices are stored that no rule of the recipe matches.
    pub weights: Weights,
    /// How single tensors are stored.
    pub recipe: Option<&'a Recipe>,
    /// A text to weigh errors by: integers are chosen so that products with the inputs that it
    /// leads to change least. Without a recipe, tensors that four bits cost much are kept in eight.
    pub calibration: Option<&'a [u32]>,
    /// How four-bit weights lie in a word.
    pub packing: Packing,
    /// Bits of quantised inputs, 8 to 15, instead of the most that cannot overflow.
    pub input_bits: Option<u8>,
    /// Epsilon of the group norm instead of the official 64e-5.
    pub group_norm_eps: Option<f32>,
    /// How channels are scaled; a calibration chooses it anew.
    pub folds: Option<&'a Folds>,
    /// With which functions devices compute the gates.
    pub math: MathMode,
    /// How text becomes tokens.
    pub tokenizer: &'a tokenizer::Choice,
    /// Bytes of a block, at most, where a row is not longer.
    pub block_bytes: u32,
}

impl Options<'_> {
    /// Weights of one kind, the rest as usual.
    pub const fn new(weights: Weights) -> Self {
        Self {
            weights,
            recipe: None,
            calibration: None,
            packing: Packing::Pairs,
            input_bits: None,
            group_norm_eps: None,
            folds: None,
            math: MathMode::Exact,
            tokenizer: &tokenizer::Choice::Bytes,
            block_bytes: 4096,
        }
    }

    /// How a record is stored.
    pub(super) fn choose(&self, version: Version, request: &Request) -> Choice {
        let shape = request.shape();
        if shape.precise {
            return Choice::EXACT;
        }
        let name = source::matrix(version, request);
        let rule = name.and_then(|name| self.recipe.and_then(|recipe| recipe.rule(&name)));
        let (weights, bits) = match rule {
            Some(rule) => (rule.weights, rule.input_bits),
            None if self.weights == Weights::Int4 && is_delicate(shape.id) => (Weights::Int8, None),
            None => (self.weights, None),
        };
        Choice {
            format: self.format(weights, &shape),
            input_bits: bits.or(self.input_bits),
            automatic: rule.is_none(),
        }
    }

    fn format(&self, weights: Weights, shape: &Shape) -> Format {
        match (weights, self.packing) {
            (Weights::F32, _) => Format::F32,
            (Weights::F16, _) => Format::F16,
            (Weights::Int8, _) => Format::Int8,
            (Weights::Int4, Packing::Lanes) if shape.may_interleave() => Format::Int4Lanes,
            (Weights::Int4, _) => Format::Int4,
        }
    }
}

/// How a record is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) format: Format,
    /// Of a quantised input, instead of the most that cannot overflow.
    pub(super) input_bits: Option<u8>,
    /// Whether no rule asked for it, so that it may be kept finer.
    pub(super) automatic: bool,
}

impl Choice {
    pub(super) const EXACT: Self = Self { format: Format::F32, input_bits: None, automatic: false };
}

/// Small matrices that lose much and tables whose rows are read one by one.
const fn is_delicate(id: Id) -> bool {
    use Id::{
        AttA1, AttA2, AttG1, AttG2, AttMix1, AttMixG2, AttMixK2, AttMixR2, AttMixV2, AttMixW2,
        AttV1, AttV2, AttW1, AttW2, DeepEmbed, Embedding, FfnS1, FfnS2, Head,
    };
    let low_rank = matches!(id, AttW1 | AttW2 | AttA1 | AttA2 | AttV1 | AttV2 | AttG1 | AttG2);
    let shift = matches!(id, AttMix1 | AttMixW2 | AttMixK2 | AttMixV2 | AttMixR2 | AttMixG2);
    low_rank || shift || matches!(id, DeepEmbed | Embedding | FfnS1 | FfnS2 | Head)
}
