//! Reads checkpoints of RWKV models: PyTorch zip files, safetensors, rwkv.cpp files and GGUF.
//!
//! A [`Checkpoint`] lists its tensors under their official names and decodes them one at a time
//! from a memory map, so that a checkpoint larger than the memory converts. Whatever a container
//! does to a tensor (strides, shared storages, transposed or joined matrices) is expressed as a
//! strided view of the file, which is checked when the file is opened: reading cannot fail then.
//!
//! Nothing in a file is trusted: no input causes a panic, executes code, or takes more memory than
//! a constant times the file's length.

mod blocks;
mod error;
mod gguf;
mod map;
mod names;
mod opcode;
mod pickle;
mod rwkv_cpp;
mod safetensors;
mod shards;
mod tensor;
mod torch;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

pub use blocks::Blocks;
pub use error::{CheckpointError, PickleError};
pub use tensor::{Dtype, Entry, Tensor};

use crate::file::is_state;
use map::File;
pub(crate) use map::Map;

/// An open checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// The file, or the shards.
    files: Vec<Map>,
    container: Container,
    index: Index,
}

/// How the values of `att.time_decay` are stored, relative to the raw values that training sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecayForm {
    /// As trained.
    Raw,
    /// `-exp(raw)`: rwkv.cpp files of version 4.
    NegExp,
    /// `exp(-exp(raw))`: rwkv.cpp files of version 5. In such a file of version 5.0,
    /// `att.time_first` is `exp(raw)`.
    ExpNegExp,
}

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// What `torch.save` writes since PyTorch 1.6.
    TorchZip,
    /// A safetensors file, or several with an index.
    Safetensors,
    /// A `.bin` file of rwkv.cpp.
    RwkvCpp,
    /// A file of llama.cpp.
    Gguf,
}

impl Container {
    /// Recognises a container by its first bytes.
    fn recognise(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(torch::MAGIC) {
            Some(Self::TorchZip)
        } else if bytes.starts_with(rwkv_cpp::MAGIC) {
            Some(Self::RwkvCpp)
        } else if bytes.starts_with(gguf::MAGIC) {
            Some(Self::Gguf)
        } else if safetensors::recognise(bytes) {
            Some(Self::Safetensors)
        } else {
            None
        }
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchZip => "PyTorch zip checkpoint",
            Self::Safetensors => "safetensors file",
            Self::RwkvCpp => "rwkv.cpp file",
            Self::Gguf => "GGUF file",
        })
    }
}

/// What a container holds.
#[derive(Debug)]
struct Index {
    entries: BTreeMap<String, Entry>,
    /// Names of what cannot be a weight, and what it is instead.
    skipped: BTreeMap<String, String>,
    decay_form: DecayForm,
    layer_norm_eps: Option<f32>,
}

impl Index {
    fn new(decay_form: DecayForm) -> Self {
        Self {
            entries: BTreeMap::new(),
            skipped: BTreeMap::new(),
            decay_form,
            layer_norm_eps: None,
        }
    }

    fn read(file: File<'_>) -> Result<(Container, Self), CheckpointError> {
        let Some(container) = Container::recognise(file.bytes) else {
            return Err(if file.bytes.starts_with(IMAGE) {
                file.unsupported(
                    "an RWKV image, as `rwkv convert` makes it, is",
                    "a checkpoint",
                    "give the checkpoint that it was made from, or make one of it with `rwkv export`",
                )
            } else if is_state(file.bytes) {
                file.unsupported(
                    "a saved state is",
                    "a checkpoint",
                    "give the checkpoint of the model",
                )
            } else if torch::is_legacy(file.bytes) {
                file.unsupported(
                    "the PyTorch format from before version 1.6 is",
                    "the zip format",
                    "load it in PyTorch 1.6 or later and save it again with `torch.save`",
                )
            } else {
                let start = file.bytes.iter().copied().take(8).collect();
                CheckpointError::Unrecognised { path: file.path.into(), start }
            });
        };
        let index = match container {
            Container::TorchZip => torch::index(file),
            Container::Safetensors => safetensors::index(file),
            Container::RwkvCpp => rwkv_cpp::index(file),
            Container::Gguf => gguf::index(file),
        }?;
        if index.entries.is_empty() {
            return Err(CheckpointError::Empty { path: file.path.into(), container });
        }
        Ok((container, index))
    }

    /// Checks that the tensors together are not far longer than the files they lie in, `len`
    /// bytes: those of hostile files may share what little there is.
    fn bound(&self, path: &Path, len: usize) -> Result<(), CheckpointError> {
        let total = self.entries.values().map(Entry::bytes).fold(0, usize::saturating_add);
        if total <= len.saturating_mul(SHARING) {
            return Ok(());
        }
        Err(CheckpointError::Shared { path: path.into(), total, len })
    }
}

/// How an image begins.
const IMAGE: &[u8] = b"RWKV";

/// A value of a file belongs to so many tensors, on average and at most: embedding and head may
/// be one, and so may a model and its running mean.
const SHARING: usize = 4;

impl Checkpoint {
    /// Opens a checkpoint and lists its tensors: a file, an index of shards, or the folder that
    /// holds either under its usual name. The container is recognised by content, never by the
    /// file's extension. No file may change while it is open.
    ///
    /// # Errors
    /// A file cannot be opened, belongs to no known container, is damaged, does not fit its index,
    /// holds tensors of a quantised type, or no floating-point tensor at all.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let path = shards::locate(path)?;
        let map = Map::open(&path)?;
        let file = map.file();
        let (files, container, mut index) = if shards::recognise(file.bytes) {
            shards::open(file)?
        } else {
            let (container, index) = Index::read(file)?;
            (vec![map], container, index)
        };
        names::official(&path, &mut index)?;
        index.bound(&path, files.iter().map(|map| map.bytes().len()).sum())?;
        Ok(Self { path, files, container, index })
    }

    /// The format of the file.
    pub fn container(&self) -> Container {
        self.container
    }

    /// The files that it is read from: one, or the index and the shards.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let shards = self.files.iter().map(|map| map.file().path);
        std::iter::once(self.path.as_path()).chain(shards)
    }

    /// How the values of `att.time_decay` are stored.
    pub fn decay_form(&self) -> DecayForm {
        self.index.decay_form
    }

    /// The epsilon of the layer norm, if the file says it.
    pub fn layer_norm_eps(&self) -> Option<f32> {
        self.index.layer_norm_eps
    }

    /// The tensors of floats, by name.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.index.entries
    }

    /// The names of all tensors, also of those that cannot be weights.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.index.entries.keys().chain(self.index.skipped.keys())
    }

    /// Shape and type of a tensor, if there is one of this name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.index.entries.get(name)
    }

    /// Whether something has this name, be it no tensor that can be read.
    pub fn holds(&self, name: &str) -> bool {
        self.index.entries.contains_key(name) || self.index.skipped.contains_key(name)
    }

    /// Decodes one tensor: row-major, in the official orientation.
    ///
    /// # Errors
    /// No tensor has this name, or it does not hold floats of 16 or 32 bits.
    pub fn read(&self, name: &str) -> Result<Tensor, CheckpointError> {
        if let Some(entry) = self.get(name) {
            return Ok(entry.read(self.files[entry.file].file().bytes));
        }
        let (path, tensor) = (self.path.clone(), name.into());
        Err(match self.index.skipped.get(name) {
            Some(found) => CheckpointError::NotWeights { path, tensor, found: found.clone() },
            None => CheckpointError::Missing { path, tensor, count: self.index.entries.len() },
        })
    }
}
