//! The tokenizer of an image, wherever it is.

use std::path::{Path, PathBuf};

use rwkv_core::{Image, image::TokenizerKind, tokenizer};
use thiserror::Error;

#[cfg(feature = "neox")]
use super::neox::Neox;

/// Between text and tokens on the host.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Tokenizer<'a> {
    /// One that an image holds.
    InImage(tokenizer::Tokenizer<'a>),
    /// One that only a file holds.
    #[cfg(feature = "neox")]
    Neox(Box<Neox>),
}

/// Why there is no tokenizer, or no token.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The image has a tokenizer.
    #[error("the image holds its tokenizer: leave {} out", .0.display())]
    Needless(PathBuf),
    /// The image has no tokenizer.
    #[error("the image does not hold its tokenizer: name its file with --tokenizer FILE.json")]
    Missing,
    /// This program cannot read it.
    #[error(
        "{} cannot be read by this program: build it with \
         cargo build --release --package rwkv-host --features neox", .0.display()
    )]
    Feature(PathBuf),
    /// The file is not a tokenizer.
    #[error("{} is not a tokenizer: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer of another model.
    #[error("{} has {ids} tokens, the model has {vocab}: it belongs to another model", path.display())]
    Vocab {
        /// The file.
        path: PathBuf,
        /// Its token ids.
        ids: u32,
        /// The model's.
        vocab: u32,
    },
    /// The text is not one that this tokenizer reads.
    #[error("this tokenizer reads UTF-8, and the text is not, from byte {0} on")]
    Utf8(usize),
    /// The tokenizer failed.
    #[error("the text cannot be taken apart: {0}")]
    Encode(String),
}

impl<'a> Tokenizer<'a> {
    /// The one that the image holds, if it does.
    pub const fn in_image(&self) -> Option<tokenizer::Tokenizer<'a>> {
        match self {
            Self::InImage(tokenizer) => Some(*tokenizer),
            #[cfg(feature = "neox")]
            Self::Neox(_) => None,
        }
    }

    /// The tokenizer of an image; `file` names it if the image does not hold it.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn of(image: &Image<'a>, file: Option<&Path>) -> Result<Self, TokenizerError> {
        match (image.tokenizer(), file) {
            (Some(tokenizer), None) => Ok(Self::InImage(tokenizer)),
            (Some(_), Some(file)) => Err(TokenizerError::Needless(file.to_owned())),
            (None, None) => Err(TokenizerError::Missing),
            (None, Some(file)) => Self::read(file, image.header().dims.vocab),
        }
    }

    /// Reads the tokenizer, in the form of the crate `tokenizers`, of a model with `vocab` tokens.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn read(file: &Path, vocab: u32) -> Result<Self, TokenizerError> {
        #[cfg(feature = "neox")]
        {
            let neox = Neox::read(file)?;
            fits(file, neox.ids(), vocab)?;
            Ok(Self::Neox(Box::new(neox)))
        }
        #[cfg(not(feature = "neox"))]
        {
            let _ = vocab;
            Err(TokenizerError::Feature(file.to_owned()))
        }
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// [`TokenizerError::Utf8`] and [`TokenizerError::Encode`], never for a tokenizer in an image.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, TokenizerError> {
        match self {
            Self::InImage(tokenizer) => Ok(tokenizer.encode(text).collect()),
            #[cfg(feature = "neox")]
            Self::Neox(neox) => neox.encode(text),
        }
    }

    /// The bytes of a token; none if it stands for no text or is not in the vocabulary.
    pub fn decode(&self, token: u32) -> &[u8] {
        match self {
            Self::InImage(tokenizer) => tokenizer.decode(token).unwrap_or_default(),
            #[cfg(feature = "neox")]
            Self::Neox(neox) => neox.decode(token),
        }
    }

    /// The token that ends a text, if there is one.
    pub fn end_of_text(&self) -> Option<u32> {
        match self {
            Self::InImage(tokenizer) => tokenizer.end_of_text(),
            #[cfg(feature = "neox")]
            Self::Neox(neox) => neox.end_of_text(),
        }
    }
}

/// What people call it.
pub fn name(kind: TokenizerKind) -> &'static str {
    match kind {
        TokenizerKind::Bytes => "byte",
        TokenizerKind::Vocabulary => "vocabulary",
        TokenizerKind::Host => "host",
    }
}

/// Whether a vocabulary is that of a model: a model may have a few tokens more, up to a multiple
/// of 256.
pub(super) fn fits(path: &Path, ids: u32, vocab: u32) -> Result<(), TokenizerError> {
    if (ids..=ids.next_multiple_of(256)).contains(&vocab) {
        return Ok(());
    }
    Err(TokenizerError::Vocab { path: path.to_owned(), ids, vocab })
}
