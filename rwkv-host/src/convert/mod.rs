//! From a checkpoint to a flash image.
//!
//! The recording executor says which records a token reads, in order; for each, `source`
//! gathers the values from the checkpoint and `record` stores them in the wanted format.

mod assemble;
mod calibrate;
mod detect;
mod fold;
mod options;
mod record;
pub(crate) mod source;
mod start;

use std::{
    borrow::Borrow,
    io::{self, BufWriter, Cursor, Seek, Write},
    path::Path,
};

use rwkv_core::{
    Image,
    exec::record::{Plan, Request, run},
    image::{Dims, Header, Layout, MathMode, Record, SectionKind, TokenizerKind, Version},
};
use thiserror::Error;

use assemble::Writer;
pub use assemble::with_section;
pub(crate) use assemble::{Part, assemble, kind};
pub use detect::{Detected, detect};
pub use fold::Folds;
pub use options::{Options, Packing, Weights};
pub(crate) use source::matrix;
pub(crate) use start::section as start_section;
pub use start::{tuned, with_start};

use crate::{
    checkpoint::{Checkpoint, CheckpointError, Map},
    eval::EvalError,
    file::{self, ImageFile},
    quantize::{Correlation, RecipeError},
    tokenizer,
};
use options::Choice;
use record::Stored;

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
    /// The package `rwkv` saved it, after its own conversion.
    #[error(
        "this is a checkpoint that the PyPI package rwkv converted for one machine ({0}): its \
         embedding is normalised, its matrices are transposed and rescaled; \
         give the original checkpoint"
    )]
    Prepared(&'static str),
    /// A tuned state is of no use.
    #[error("{name} is a state to start from, but {problem}")]
    Tuned {
        /// The tensor.
        name: String,
        /// Why not.
        problem: String,
    },
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
    /// The recipe is of no use for this model.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The text cannot be read by the model, or not beside it.
    #[error("cannot calibrate")]
    Calibration(#[source] Box<EvalError>),
    /// An image does not say properly how its channels are scaled.
    #[error(
        "the metadata of the image are wrong where they say how `{0}` is scaled; convert it again"
    )]
    Scaled(String),
    /// The finished image was refused by the reader.
    #[error("the finished image was refused")]
    Image(#[from] rwkv_core::ImageError),
    /// The image could not be written.
    #[error("the image cannot be written; look for room where it is to lie, and for permission")]
    Write(#[from] io::Error),
}

/// Converts a checkpoint to an image in memory; `progress` hears of every step and of how many
/// there are.
///
/// # Errors
/// See [`ConvertError`].
pub fn convert(
    checkpoint: &Checkpoint,
    options: &Options<'_>,
    progress: impl FnMut(usize, usize),
) -> Result<Vec<u8>, ConvertError> {
    let mut image = Cursor::new(Vec::new());
    write(checkpoint, options, &mut image, progress)?;
    let image = image.into_inner();
    ImageFile::new(&image).open()?;
    Ok(image)
}

/// Converts a checkpoint to a file, which may be larger than the memory: only one tensor at a time
/// is in it, unless the options ask for a calibration. The image is written to a file of another
/// name beside it, read back, and only renamed if it is whole.
///
/// # Errors
/// See [`ConvertError`].
pub fn convert_to(
    path: &Path,
    checkpoint: &Checkpoint,
    options: &Options<'_>,
    progress: impl FnMut(usize, usize),
) -> Result<Header, ConvertError> {
    let mut file = file::temporary(path)?;
    write(checkpoint, options, BufWriter::new(&mut file), progress)?;
    let map = Map::open(file.path())?;
    let header = *Image::open(map.bytes())?.header();
    drop(map);
    file::keep(file, path)?;
    Ok(header)
}

/// Writes the image of a checkpoint, which the reader has yet to accept.
fn write(
    checkpoint: &Checkpoint,
    options: &Options<'_>,
    out: impl Write + Seek,
    mut progress: impl FnMut(usize, usize),
) -> Result<(), ConvertError> {
    let mut model = Model::new(checkpoint, options)?;
    let choices = model.choices(options)?;
    let total = choices.len();
    let Some(tokens) = options.calibration else {
        return model.write(out, |index| {
            let stored = model.store(index, &choices[index], None)?;
            progress(index + 1, total);
            Ok(stored)
        });
    };
    let stored = calibrate::store(&mut model, choices, tokens, &mut progress)?;
    model.write(out, |index| Ok(&stored[index]))
}

/// What is converted: the tensors, and the records that they make.
struct Model<'a> {
    source: source::Source<'a>,
    version: Version,
    dims: Dims,
    math: MathMode,
    tokenizer: &'a tokenizer::Choice,
    plan: Plan,
    requests: Vec<Request>,
    folds: Folds,
    block_bytes: u32,
    /// The words of the start state, if it was tuned.
    start: Option<Vec<f32>>,
}

impl<'a> Model<'a> {
    fn new(checkpoint: &'a Checkpoint, options: &Options<'a>) -> Result<Self, ConvertError> {
        let Detected { version, mut dims } = detect(checkpoint)?;
        if let Some(eps) = options.group_norm_eps
            && dims.head_size > 0
        {
            dims.group_norm_eps = eps;
        }
        let source = source::Source::new(checkpoint, version, dims);
        source.complete()?;
        let start = start::tuned(checkpoint, version, &dims)?;
        let mut requests = Vec::new();
        let plan = run(version, &dims, |request| -> Result<(), ConvertError> {
            requests.push(*request);
            Ok(())
        })?;
        let block_bytes = options.block_bytes;
        let (math, tokenizer) = (options.math, options.tokenizer);
        let folds = options.folds.cloned().unwrap_or_default();
        Ok(Self {
            source,
            version,
            dims,
            math,
            tokenizer,
            plan,
            requests,
            folds,
            block_bytes,
            start,
        })
    }

    /// The name of the matrix in a record; `None` for vectors.
    fn name(&self, index: usize) -> Option<String> {
        matrix(self.version, &self.requests[index])
    }

    /// How each record is stored. What cannot be is refused before anything is read.
    fn choices(&self, options: &Options<'_>) -> Result<Vec<Choice>, ConvertError> {
        if let Some(recipe) = options.recipe {
            let names: Vec<String> =
                (0..self.requests.len()).filter_map(|index| self.name(index)).collect();
            recipe.check(&names)?;
        }
        let choose = |request| options.choose(self.version, request);
        let choices: Vec<Choice> = self.requests.iter().map(choose).collect();
        let bytes = self.requests.iter().zip(&choices).map(|(request, choice)| {
            let shape = request.shape();
            let (lines, len) = match shape.layout {
                Layout::RowMajor => (shape.rows, shape.cols),
                Layout::InputMajor => (shape.cols, shape.rows),
            };
            4 * u64::from(lines) * choice.format.line_words(len as usize) as u64
        });
        match u32::try_from(bytes.sum::<u64>()) {
            Ok(_) => Ok(choices),
            Err(_) => Err(assemble::too_large()),
        }
    }

    fn store(
        &self,
        index: usize,
        choice: &Choice,
        inputs: Option<&Correlation>,
    ) -> Result<Stored, ConvertError> {
        let request = &self.requests[index];
        let mut values = self.source.values(request)?;
        self.folds.apply(self.version, request, &mut values);
        let inputs = inputs.map(|inputs| self.folds.inputs(request, inputs));
        record::store(request, choice, &values, inputs.as_deref(), self.block_bytes)
    }

    /// The image of these records in memory.
    fn image<S: Borrow<Stored>>(
        &self,
        record: impl FnMut(usize) -> Result<S, ConvertError>,
    ) -> Result<ImageFile, ConvertError> {
        let mut image = Cursor::new(Vec::new());
        self.write(&mut image, record)?;
        Ok(ImageFile::new(image.get_ref()))
    }

    /// Writes an image of the records that `record` gives, which is asked for each in order.
    fn write<S: Borrow<Stored>>(
        &self,
        out: impl Write + Seek,
        mut record: impl FnMut(usize) -> Result<S, ConvertError>,
    ) -> Result<(), ConvertError> {
        let needed = self.requests.iter().filter(|request| request.opens_section).count();
        let vocabulary = matches!(self.tokenizer, tokenizer::Choice::Vocabulary(_));
        let optional = usize::from(vocabulary) + usize::from(self.start.is_some()) + 1;
        let mut writer = Writer::new(out, needed + optional)?;
        let mut largest = 0;
        for (index, request) in self.requests.iter().enumerate() {
            if request.opens_section {
                writer.open(kind(request))?;
            }
            let stored = record(index)?;
            let Stored { words, largest: own } = stored.borrow();
            writer.words(words)?;
            largest = largest.max(*own);
        }
        for Part { kind, words } in self.optional(largest)? {
            writer.open(kind)?;
            writer.words(&words)?;
        }
        writer.finish(self.header(largest))
    }

    /// The sections that follow the head, in the order of their codes; blocks have `largest` words
    /// at most.
    fn optional(&self, largest: u32) -> Result<Vec<Part>, ConvertError> {
        let mut parts = Vec::new();
        if let tokenizer::Choice::Vocabulary(words) = self.tokenizer {
            parts.push(Part { kind: SectionKind::Tokenizer, words: words.clone() });
        }
        if let Some(words) = &self.start {
            let words = start_section(words, largest);
            parts.push(Part { kind: SectionKind::StartState, words });
        }
        parts.push(assemble::metadata(&self.source, &self.folds)?);
        Ok(parts)
    }

    /// The header, for blocks of `largest` words at most.
    fn header(&self, largest: u32) -> Header {
        let mut header = Header::new(self.version, self.dims, self.plan.scratch_words, largest);
        header.math = self.math;
        header.tokenizer = match self.tokenizer {
            tokenizer::Choice::Bytes => TokenizerKind::Bytes,
            tokenizer::Choice::Vocabulary(_) => TokenizerKind::Vocabulary,
            tokenizer::Choice::Host(_) => TokenizerKind::Host,
        };
        header
    }
}

/// The records of a model in order, without their values: the bits of inputs are those that are
/// asked for, or the most that there can be.
pub(crate) fn planned(
    version: Version,
    dims: &Dims,
    options: &Options<'_>,
) -> Vec<(Request, Record)> {
    let mut records = Vec::new();
    // Nothing refuses a record here.
    let _ = run::<()>(version, dims, |request| {
        let choice = options.choose(version, request);
        records.push((*request, record::planned(request, &choice, options.block_bytes)));
        Ok(())
    });
    records
}

/// A few names, for an error message.
pub(crate) fn sample<'a>(names: impl Iterator<Item = &'a str>) -> String {
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
