//! The tokenizer that a conversion puts into an image.

use std::path::Path;

use rwkv_core::tokenizer::{self, Vocabulary, VocabularyError};

use super::{List, Tokenizer, TokenizerError, host::fits};

/// The tokenizer of a model that is converted.
#[derive(Debug, Clone)]
pub enum Choice {
    /// One token per byte.
    Bytes,
    /// A vocabulary that goes into the image: the words of its section.
    Vocabulary(Vec<u32>),
    /// A tokenizer that stays on the host.
    Host(Box<Tokenizer<'static>>),
}

impl Choice {
    /// Reads the tokenizer of a model with `vocab` tokens from a file: `.json` in the form of the
    /// crate `tokenizers`, others as a list of tokens.
    ///
    /// # Errors
    /// If it cannot be read, or belongs to another model.
    pub fn read(file: &Path, vocab: u32) -> Result<Self, TokenizerError> {
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            return Ok(Self::Host(Box::new(Tokenizer::read(file, vocab)?)));
        }
        let refused = |reason: String| TokenizerError::File { path: file.to_owned(), reason };
        let list = List::read(file).map_err(|error| refused(error.to_string()))?;
        fits(file, list.ids() as u32, vocab)?;
        Ok(Self::Vocabulary(list.section()))
    }

    /// The tokenizer itself.
    ///
    /// # Errors
    /// If the words are not those of a vocabulary.
    pub fn tokenizer(&self) -> Result<Tokenizer<'_>, VocabularyError> {
        Ok(match self {
            Self::Bytes => Tokenizer::InImage(tokenizer::Tokenizer::Bytes),
            Self::Vocabulary(words) => {
                Tokenizer::InImage(tokenizer::Tokenizer::Vocabulary(Vocabulary::open(words)?))
            }
            Self::Host(tokenizer) => (**tokenizer).clone(),
        })
    }
}
