//! From a checkpoint to a flash image.
//!
//! The recording executor says which records a token reads, in order; for each, `source`
//! gathers the values from the checkpoint and `record` stores them in the wanted format.

mod detect;
mod quantise;
mod record;
mod source;

use rwkv_core::{
    exec::record::{Request, run},
    image::{
        CRC, Dims, Format, HEADER_BYTES, Header, Id, SECTION_BYTES, Section, SectionKind, Shape,
    },
};
use thiserror::Error;

pub use detect::{Detected, detect};
pub(crate) use source::matrix;

use crate::checkpoint::{Checkpoint, CheckpointError};

/// How matrices are stored; vectors are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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
pub struct Options {
    /// How matrices are stored.
    pub weights: Weights,
    /// How four-bit weights lie in a word.
    pub packing: Packing,
    /// Bits of quantised inputs, 8 to 15, instead of the most that cannot overflow.
    pub input_bits: Option<u8>,
    /// Epsilon of the group norm instead of the official 64e-5.
    pub group_norm_eps: Option<f32>,
    /// Bytes of a block, at most, where a row is not longer.
    pub block_bytes: u32,
}

impl Options {
    /// Weights of one kind, the rest as usual.
    pub const fn new(weights: Weights) -> Self {
        Self {
            weights,
            packing: Packing::Pairs,
            input_bits: None,
            group_norm_eps: None,
            block_bytes: 4096,
        }
    }

    /// The format of a record.
    fn format(&self, shape: &Shape) -> Format {
        if shape.precise {
            return Format::F32;
        }
        match (self.weights, self.packing) {
            (Weights::F32, _) => Format::F32,
            (Weights::F16, _) => Format::F16,
            (Weights::Int8, _) => Format::Int8,
            (Weights::Int4, _) if is_delicate(shape.id) => Format::Int8,
            (Weights::Int4, Packing::Lanes) if shape.may_interleave() => Format::Int4Lanes,
            (Weights::Int4, _) => Format::Int4,
        }
    }
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
    #[error("RWKV-{0} checkpoints cannot be converted; versions 4, 5, 6 and 7 can")]
    Unsupported(&'static str),
    /// The checkpoint starts from a tuned state.
    #[error(
        "{0} is a state to start from, which an image cannot hold yet: it would be lost; \
         convert the checkpoint without it"
    )]
    Tuned(String),
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

/// The kind of section that a record lies in.
pub(crate) const fn kind(request: &Request) -> SectionKind {
    match (request.layer, request.id) {
        (Some(_), _) => SectionKind::Layer,
        (None, Id::Embedding) => SectionKind::Embedding,
        (None, Id::DeepEmbed) => SectionKind::DeepEmbed,
        (None, _) => SectionKind::Head,
    }
}

/// A section under construction.
pub(crate) struct Part {
    pub(crate) kind: SectionKind,
    pub(crate) words: Vec<u32>,
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
    // No format takes less, so this is refused before anything is read.
    let least = match options.weights {
        Weights::F32 => 4 * weights,
        Weights::F16 => 2 * weights,
        Weights::Int8 => weights,
        Weights::Int4 => weights / 2,
    };
    if u32::try_from(least).is_err() {
        return Err(too_large());
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut block_words = 0;
    let mut done = 0;
    run(version, &dims, |request: &Request| {
        if request.opens_section {
            parts.push(Part { kind: kind(request), words: Vec::new() });
        }
        let values = source.values(request)?;
        let largest = match parts.last_mut() {
            Some(part) => record::write(request, &values, options, &mut part.words)?,
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

pub(crate) fn assemble(
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
