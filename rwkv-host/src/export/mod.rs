//! From a flash image back to a checkpoint with official names, for any other runtime to check.
//!
//! What conversion did is undone: integers become floats, channels that were scaled are scaled
//! back, decays are what training sees, and the embedding is one that `ln0` normalises.

mod record;
mod tensors;
mod undo;

use std::{cell::RefCell, collections::HashMap, path::Path};

use anyhow::Context;
use rwkv_core::{
    Image,
    exec::record::Request,
    image::{Found, Version},
};
use safetensors::tensor::serialize_to_file;
use thiserror::Error;

use crate::{
    convert::{ConvertError, Folds},
    file,
};
pub use record::values;
use tensors::Tensor;

/// Why an image cannot be exported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The image does not say what `ln0` was.
    #[error(
        "the image's metadata do not hold the weights of ln0, which its embedding was normalised by; \
         convert the checkpoint again"
    )]
    NoLn0,
    /// A vector has a value that training cannot lead to.
    #[error("{name} has the value {value} at index {index}, which no parameter stands for")]
    Value {
        /// The tensor.
        name: String,
        /// Where.
        index: usize,
        /// What the image holds.
        value: f32,
    },
    /// The image cannot be taken apart.
    #[error(transparent)]
    Image(#[from] rwkv_core::ImageError),
    /// What conversion did is not known.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

/// What becomes of the state that an image begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It has read nothing: there is nothing to write.
    Empty,
    /// It is written as a tuned state.
    Tuned,
    /// No checkpoint can hold it, since it has token-shift rows or is of version 4: it is left
    /// out.
    LeftOut,
}

/// An image, taken apart.
pub struct Export<'a> {
    version: Version,
    tensors: Vec<(String, Tensor)>,
    records: Vec<(Request, Found<'a>)>,
    start: Start,
    folds: Folds,
    ln0: [Vec<f32>; 2],
    layer_norm_eps: f32,
    group_norm_eps: f32,
}

impl<'a> Export<'a> {
    /// Takes an image apart; nothing large is decoded yet.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub fn new(image: &Image<'a>) -> Result<Self, ExportError> {
        let mut records = Vec::new();
        image.walk(|request, found| {
            records.push((*request, *found));
            Ok(())
        })?;
        let header = image.header();
        let mut export = Self {
            version: header.version,
            tensors: Vec::new(),
            records,
            start: Start::Empty,
            folds: Folds::of(image)?,
            ln0: undo::ln0(image).ok_or(ExportError::NoLn0)?,
            layer_norm_eps: header.dims.layer_norm_eps,
            group_norm_eps: header.dims.group_norm_eps,
        };
        export.tensors = export.list(&header.dims)?;
        if let Some(words) = image.start_state() {
            let tuned = tensors::tuned(header.version, &header.dims, &words.collect::<Vec<_>>());
            export.start = if tuned.is_some() { Start::Tuned } else { Start::LeftOut };
            export.tensors.extend(tuned.unwrap_or_default());
        }
        Ok(export)
    }

    /// What becomes of the start state.
    pub const fn start(&self) -> Start {
        self.start
    }

    /// How many tensors there are.
    pub const fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Writes them into a `.safetensors` file, whole or not at all, in f32. `progress` hears of
    /// each. One tensor at a time is held.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path, progress: impl FnMut()) -> anyhow::Result<()> {
        let about = serde_json::json!({
            "generator": concat!("rwkv ", env!("CARGO_PKG_VERSION")),
            "version": self.version.name(),
            "layer_norm_eps": self.layer_norm_eps.to_string(),
            "group_norm_eps": self.group_norm_eps.to_string(),
        });
        // The library writes entries in no order, so there is one: the same image, the same bytes.
        let metadata = HashMap::from([("rwkv".into(), about.to_string())]);
        let progress = RefCell::new(progress);
        let views = self.tensors.iter().map(|(name, tensor)| {
            (name.as_str(), tensors::Lazy { export: self, tensor, progress: &progress })
        });
        let whole = || -> anyhow::Result<()> {
            let file = file::temporary(path)?;
            serialize_to_file(views, Some(metadata), file.path())?;
            Ok(file::keep(file, path)?)
        };
        whole().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The values of a record as floats, outputs by inputs, no channel scaled.
    fn values(&self, index: usize) -> Vec<f32> {
        let (request, found) = &self.records[index];
        let mut values = values(found);
        self.folds.undo(self.version, request, &mut values);
        values
    }
}

impl std::fmt::Debug for Export<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("version", &self.version).finish_non_exhaustive()
    }
}
