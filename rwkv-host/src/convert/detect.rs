//! Which version a checkpoint is, and its dimensions: from names and shapes alone.

use rwkv_core::image::{Dims, MAX_SECTIONS, Version};

use super::{ConvertError, sample};
use crate::checkpoint::Checkpoint;

/// What a checkpoint is.
#[derive(Debug, Clone, Copy)]
pub struct Detected {
    /// The version.
    pub version: Version,
    /// The dimensions, with the official epsilons.
    pub dims: Dims,
}

/// Sections for embedding, head and metadata are left free.
const MAX_LAYERS: u32 = MAX_SECTIONS as u32 - 3;

/// Names that every version has.
const COMMON: [&str; 5] = [
    "emb.weight",
    "blocks.0.ln1.weight",
    "blocks.0.ffn.key.weight",
    "ln_out.weight",
    "head.weight",
];

/// Finds version and dimensions.
///
/// # Errors
/// [`ConvertError::Unknown`], [`ConvertError::Unsupported`], [`ConvertError::Missing`] or
/// [`ConvertError::Shape`].
pub fn detect(checkpoint: &Checkpoint) -> Result<Detected, ConvertError> {
    let has = |name: &str| checkpoint.get(name).is_some();
    let missing: Vec<&str> = COMMON.into_iter().filter(|name| !has(name)).collect();
    if !missing.is_empty() {
        let found = sample(checkpoint.entries().keys().map(String::as_str));
        return Err(ConvertError::Unknown { missing: missing.join(", "), found });
    }
    let version = version(has)?;

    let shape = |name: &str, rank: usize| -> Result<&[usize], ConvertError> {
        let Some(entry) = checkpoint.get(name) else {
            let found = sample(checkpoint.entries().keys().map(String::as_str));
            let missing = vec![name.to_owned()];
            return Err(ConvertError::Missing { version: version.name(), missing, found });
        };
        if entry.shape.len() != rank {
            let expected = format!("{rank} dimensions");
            let found = entry.shape.clone();
            return Err(ConvertError::Shape { name: name.into(), found, expected });
        }
        Ok(&entry.shape)
    };
    let emb = shape("emb.weight", 2)?;
    let ffn = shape("blocks.0.ffn.key.weight", 2)?[0];
    let layers = (0..).take_while(|l| has(&format!("blocks.{l}.ln1.weight"))).count();
    let (mut head_size, mut ranks) = (0, [0; 4]);
    if version == Version::V7 {
        head_size = shape("blocks.0.att.r_k", 2)?[1];
        ranks = [
            rank(shape("blocks.0.att.w1", 2)?)?,
            rank(shape("blocks.0.att.a1", 2)?)?,
            0,
            rank(shape("blocks.0.att.g1", 2)?)?,
        ];
        if layers > 1 {
            ranks[2] = rank(shape("blocks.1.att.v1", 2)?)?;
        }
    }
    let dims = Dims {
        layers: u32::try_from(layers).ok().filter(|n| *n <= MAX_LAYERS).ok_or_else(|| {
            ConvertError::Limit(format!("{layers} layers are more than {MAX_LAYERS}"))
        })?,
        dim: size(emb[1], "model width")?,
        ffn: size(ffn, "channel mix width")?,
        vocab: size(emb[0], "vocabulary")?,
        head_size: head_size as u32,
        ranks,
        layer_norm_eps: 1e-5,
        group_norm_eps: if head_size > 0 { 64e-5 } else { 0.0 },
    };
    if version == Version::V7
        && (!dims.head_size.is_multiple_of(4)
            || dims.head_size == 0
            || !dims.dim.is_multiple_of(dims.head_size))
    {
        return Err(ConvertError::Limit(format!(
            "heads of {} channels: the size of a head must be a multiple of 4 and divide the width {}",
            dims.head_size, dims.dim
        )));
    }
    Ok(Detected { version, dims })
}

fn size(n: usize, what: &str) -> Result<u32, ConvertError> {
    u32::try_from(n)
        .ok()
        .filter(|n| (1..=1 << 16).contains(n))
        .ok_or_else(|| ConvertError::Limit(format!("{what} of {n} is not within 1 to 65536")))
}

fn rank(shape: &[usize]) -> Result<u16, ConvertError> {
    u16::try_from(shape[1])
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| ConvertError::Limit(format!("rank {} is not within 1 to 65535", shape[1])))
}

fn version(has: impl Fn(&str) -> bool) -> Result<Version, ConvertError> {
    if has("blocks.0.att.r_k") || has("blocks.0.att.k_k") {
        return Ok(Version::V7);
    }
    Err(ConvertError::Unsupported(if has("blocks.0.att.time_maa_x") {
        "6"
    } else if has("blocks.0.att.gate.weight") {
        "5.1 or 5.2"
    } else if has("blocks.0.att.ln_x.weight") {
        "5.0"
    } else {
        return Ok(Version::V4);
    }))
}
