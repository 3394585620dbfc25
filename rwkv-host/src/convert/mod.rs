//! From a checkpoint to a flash image.
//!
//! The recording executor says which records a token reads, in order; for each, `source`
//! gathers the values from the checkpoint and `record` stores them in the wanted format.

mod detect;
mod record;
mod source;

use rwkv_core::{
    exec::record::{Request, run},
    image::{CRC, Dims, HEADER_BYTES, Header, SECTION_BYTES, Section, SectionKind},
};
use thiserror::Error;

pub use detect::{Detected, detect};

use crate::checkpoint::{Checkpoint, CheckpointError};

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Weights {
    /// Exact: IEEE binary32.
    F32,
    /// A signed byte per weight and one scale per row; vectors stay f32.
    Int8,
}

/// What a conversion may choose.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How matrices are stored.
    pub weights: Weights,
    /// Epsilon of the group norm instead of the official 64e-5.
    pub group_norm_eps: Option<f32>,
    /// Bytes of a block, at most, where a row is not longer.
    pub block_bytes: u32,
}

impl Options {
    /// Weights of one kind, the rest as usual.
    pub const fn new(weights: Weights) -> Self {
        Self { weights, group_norm_eps: None, block_bytes: 4096 }
    }
}

/// Why a checkpoint could not be converted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No known version has these names.
    #[error(
        "this is not an RWKV checkpoint with official names: {missing} missing; found instead: {found}"
    )]
    Unknown {
        /// What every version has.
        missing: String,
        /// Some of the names that are there.
        found: String,
    },
    /// The version is known and not supported.
    #[error("RWKV-{0} checkpoints cannot be converted yet; versions 4 and 7 can")]
    Unsupported(&'static str),
    /// Tensors are missing.
    #[error(
        "this RWKV-{version} checkpoint is not complete: missing {}; found instead: {found}",
        missing.join(", ")
    )]
    Missing {
        /// The version.
        version: &'static str,
        /// The names that are missing.
        missing: Vec<String>,
        /// Some of the names that are there and not used.
        found: String,
    },
    /// A tensor has an unexpected shape.
    #[error("{name} has shape {found:?}, but {expected} was expected")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What fits the other tensors.
        expected: String,
    },
    /// A value cannot be stored.
    #[error("{name} has a value that is infinite or not a number at index {index}")]
    NonFinite {
        /// The tensor.
        name: String,
        /// Where.
        index: usize,
    },
    /// The model is larger than the format can say.
    #[error("{0}")]
    Limit(String),
    /// The finished image was refused by the reader.
    #[error("the finished image was refused")]
    Image(#[from] rwkv_core::ImageError),
}

/// A section under construction.
struct Part {
    kind: SectionKind,
    words: Vec<u32>,
}

/// Converts a checkpoint; `progress` hears of every record and of how many there are.
///
/// # Errors
/// See [`ConvertError`].
pub fn convert(
    checkpoint: &Checkpoint,
    options: &Options,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<u8>, ConvertError> {
    let Detected { version, mut dims } = detect(checkpoint)?;
    if let Some(eps) = options.group_norm_eps
        && dims.head_size > 0
    {
        dims.group_norm_eps = eps;
    }
    let source = source::Source::new(checkpoint, version, dims);
    source.complete()?;

    let (mut total, mut weights) = (0, 0u64);
    let plan = run(version, &dims, |request| -> Result<(), ConvertError> {
        total += 1;
        weights += u64::from(request.shape().rows) * u64::from(request.shape().cols);
        Ok(())
    })?;
    // No format takes less than a byte, so this is refused before anything is read.
    let least = match options.weights {
        Weights::F32 => 4 * weights,
        Weights::Int8 => weights,
    };
    if u32::try_from(least).is_err() {
        return Err(too_large());
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut block_words = 0;
    let mut done = 0;
    run(version, &dims, |request: &Request| {
        if request.opens_section {
            let kind = match (request.layer, parts.is_empty()) {
                (Some(_), _) => SectionKind::Layer,
                (None, true) => SectionKind::Embedding,
                (None, false) => SectionKind::Head,
            };
            parts.push(Part { kind, words: Vec::new() });
        }
        let values = source.values(request)?;
        let largest = match parts.last_mut() {
            Some(part) => record::write(request, &values, options, &mut part.words),
            None => 0,
        };
        block_words = block_words.max(largest);
        done += 1;
        progress(done, total);
        Ok::<_, ConvertError>(())
    })?;
    parts.push(metadata(&source)?);

    let image = assemble(version, dims, plan.scratch_words, block_words, parts)?;
    crate::file::ImageFile::new(&image).open()?;
    Ok(image)
}

/// JSON padded with spaces: nothing in it depends on the container the weights came from, so the
/// same weights give the same image.
fn metadata(source: &source::Source<'_>) -> Result<Part, ConvertError> {
    let [weight, bias] = source.ln0()?;
    let json = serde_json::json!({
        "generator": concat!("rwkv ", env!("CARGO_PKG_VERSION")),
        "parameters": source.parameters()?,
        "ln0": { "weight": weight, "bias": bias },
    });
    let mut bytes = json.to_string().into_bytes();
    bytes.resize(bytes.len().next_multiple_of(16), b' ');
    let words = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    Ok(Part { kind: SectionKind::Metadata, words })
}

fn too_large() -> ConvertError {
    ConvertError::Limit("the image would be larger than 4 GB".into())
}

fn assemble(
    version: rwkv_core::image::Version,
    dims: Dims,
    scratch_words: u32,
    block_words: u32,
    parts: Vec<Part>,
) -> Result<Vec<u8>, ConvertError> {
    let mut offset = HEADER_BYTES + parts.len() * SECTION_BYTES;
    let mut sections = Vec::new();
    let mut body: Vec<u8> = Vec::new();
    let mut layer = 0;
    for Part { kind, mut words } in parts {
        words.resize(words.len().next_multiple_of(4), 0);
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        let index = if kind == SectionKind::Layer { layer } else { 0 };
        layer += u16::from(kind == SectionKind::Layer);
        sections.push(Section {
            kind,
            index,
            offset: u32::try_from(offset).map_err(|_| too_large())?,
            length: u32::try_from(bytes.len()).map_err(|_| too_large())?,
            crc: CRC.checksum(bytes),
        });
        offset += bytes.len();
        u32::try_from(offset).map_err(|_| too_large())?;
        body.extend_from_slice(bytes);
    }
    let mut header = Header::new(version, dims, scratch_words, block_words);
    let mut image = Vec::with_capacity(offset);
    header.write(&sections, &mut image);
    image.append(&mut body);
    Ok(image)
}

/// A few names, for an error message.
fn sample<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = names.collect();
    let mut text = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        text.push_str("nothing");
    } else if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
