//! Which version a checkpoint is, and its dimensions: from names and shapes alone.

use rwkv_core::image::{Dims, MAX_SECTIONS, Version};

use super::{ConvertError, sample, source::LN0};
use crate::checkpoint::{Checkpoint, CheckpointError};

/// What a checkpoint is.
#[derive(Debug, Clone, Copy)]
pub struct Detected {
    /// The version.
    pub version: Version,
    /// The dimensions, with the official epsilons where the checkpoint says no others.
    pub dims: Dims,
}

/// Sections for embedding, DeepEmbed, head, tokenizer, start state and metadata are left free.
const MAX_LAYERS: u32 = MAX_SECTIONS as u32 - 6;

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
/// [`ConvertError::Unknown`], [`ConvertError::Unsupported`], [`ConvertError::Prepared`],
/// [`ConvertError::Missing`], [`ConvertError::Shape`] or [`ConvertError::Limit`].
pub fn detect(checkpoint: &Checkpoint) -> Result<Detected, ConvertError> {
    let has = |name: &str| checkpoint.holds(name);
    refuse(checkpoint)?;
    let missing: Vec<&str> = COMMON.into_iter().filter(|name| !has(name)).collect();
    if !missing.is_empty() {
        let found = sample(checkpoint.entries().keys().map(String::as_str));
        return Err(ConvertError::Unknown { missing: missing.join(", "), found });
    }
    let version = version(has);

    let shape = |name: &str, rank: usize| -> Result<&[usize], ConvertError> {
        let Some(entry) = checkpoint.get(name) else {
            readable(checkpoint, name)?;
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
    let head_size = match version {
        Version::V4 => 0,
        Version::V50 | Version::V52 => {
            let heads = checkpoint.get("blocks.0.att.time_decay").and_then(|e| e.shape.first());
            emb[1] / heads.copied().unwrap_or(1).max(1)
        }
        Version::V6 => shape("blocks.0.att.time_faaaa", 2)?[1],
        _ => shape("blocks.0.att.r_k", 2)?[1],
    };
    let ranks = match version {
        Version::V6 => {
            let decay = rank(shape("blocks.0.att.time_decay_w1", 2)?[1])?;
            [decay, rank(shape("blocks.0.att.time_maa_w2", 3)?[1])?, 0, 0]
        }
        Version::V7 | Version::V7a => {
            let of = |part: &str| rank(shape(&format!("blocks.{part}"), 2)?[1]);
            let value = if layers > 1 { of("1.att.v1")? } else { 0 };
            [of("0.att.w1")?, of("0.att.a1")?, value, of("0.att.g1")?]
        }
        _ => [0; 4],
    };
    let deep_rank = match version.is_deep() {
        true => rank(shape("blocks.0.ffn.s1", 2)?[1])?,
        false => 0,
    };
    if deep_rank > 256 {
        return Err(ConvertError::Limit(format!("a DeepEmbed of rank {deep_rank} is above 256")));
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
        deep_rank,
        layer_norm_eps: checkpoint.layer_norm_eps().unwrap_or(1e-5),
        group_norm_eps: if version.has_heads() { 64e-5 } else { 0.0 },
    };
    if version.has_heads()
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

fn rank(n: usize) -> Result<u16, ConvertError> {
    u16::try_from(n)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| ConvertError::Limit(format!("rank {n} is not within 1 to 65535")))
}

/// Refuses a name that holds something other than weights; there may be nothing of that name.
pub(super) fn readable(checkpoint: &Checkpoint, name: &str) -> Result<(), CheckpointError> {
    if checkpoint.get(name).is_none() && checkpoint.holds(name) {
        return checkpoint.read(name).map(|_| ());
    }
    Ok(())
}

/// What only unsupported versions have.
const UNSUPPORTED: [(&str, &str); 2] = [("blocks.0.rosa", "8"), ("blocks.0.qkv.", "7b")];

/// What the package `rwkv` writes beside the tensors that it converted for itself.
const PREPARED: [(&str, &str); 3] = [
    ("_strategy", "it holds `_strategy`"),
    ("_rescale_layer", "it holds `_rescale_layer`"),
    ("_version", "it holds `_version`"),
];

/// Refuses what is known and not supported.
fn refuse(checkpoint: &Checkpoint) -> Result<(), ConvertError> {
    let names = || checkpoint.entries().keys();
    for (prefix, version) in UNSUPPORTED {
        if names().any(|name| name.starts_with(prefix)) {
            return Err(ConvertError::Unsupported(version));
        }
    }
    let prepared = PREPARED.into_iter().find(|(name, _)| checkpoint.holds(name));
    let no_ln0 = || {
        let rest = COMMON.into_iter().all(|name| checkpoint.holds(name));
        let there = LN0.into_iter().any(|name| checkpoint.holds(name));
        (rest && !there).then_some("it has no blocks.0.ln0")
    };
    match prepared.map(|name| name.1).or_else(no_ln0) {
        Some(sign) => Err(ConvertError::Prepared(sign)),
        None => Ok(()),
    }
}

fn version(has: impl Fn(&str) -> bool) -> Version {
    if has("blocks.0.ffn.s_emb.weight") {
        Version::V7a
    } else if has("blocks.0.att.r_k") || has("blocks.0.att.k_k") {
        Version::V7
    } else if has("blocks.0.att.time_maa_x") {
        Version::V6
    } else if has("blocks.0.att.gate.weight") {
        Version::V52
    } else if has("blocks.0.att.ln_x.weight") {
        Version::V50
    } else {
        Version::V4
    }
}
