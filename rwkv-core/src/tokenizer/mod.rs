//! Between text and tokens.
//!
//! A [`Tokenizer`] maps bytes to token ids and back. A token may end inside a character, so text
//! for a person goes through a [`Utf8Stream`], and through a [`StopStream`] before that where a
//! text ends it.

mod stop;
mod utf8;
mod vocabulary;

pub use stop::{EmptyStopText, StopStream};
pub use utf8::Utf8Stream;
pub(crate) use vocabulary::check as check_vocabulary;
pub use vocabulary::{Vocabulary, VocabularyError};

use core::fmt;

/// What turns bytes into tokens.
///
/// Every vocabulary covers each single byte, so that any text, valid UTF-8 or not, has an encoding
/// and encoding cannot fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Tokenizer<'a> {
    /// One token per byte, its id being the byte.
    Bytes,
    /// The longest token that the rest of a text begins with, again and again.
    Vocabulary(Vocabulary<'a>),
}

impl<'a> Tokenizer<'a> {
    /// How many token ids there are; every id is less. A model may have more.
    pub const fn vocab(&self) -> u32 {
        match self {
            Self::Bytes => 256,
            Self::Vocabulary(vocabulary) => vocabulary.ids(),
        }
    }

    /// The token that ends a text: 0 in a vocabulary where that stands for no bytes, as in the
    /// World vocabulary. No text encodes to it.
    pub fn end_of_text(&self) -> Option<u32> {
        match self {
            Self::Bytes => None,
            Self::Vocabulary(vocabulary) => vocabulary.get(0)?.is_empty().then_some(0),
        }
    }

    /// The tokens of `text`, one at a time.
    pub const fn encode<'t>(&self, text: &'t [u8]) -> Encode<'a, 't> {
        Encode { tokenizer: *self, rest: text }
    }

    /// The bytes of a token; none for an id below [`vocab`](Self::vocab) that stands for no text.
    ///
    /// # Errors
    /// The vocabulary has no such token.
    pub fn decode(&self, token: u32) -> Result<&'a [u8], TokenizerError> {
        let bytes = match self {
            Self::Bytes => BYTES.chunks(1).nth(token as usize),
            Self::Vocabulary(vocabulary) => vocabulary.get(token),
        };
        bytes.ok_or(TokenizerError::UnknownToken { token })
    }
}

/// What the tokens of [`Tokenizer::Bytes`] borrow from.
static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = i as u8;
        i += 1;
    }
    bytes
};

/// The tokens of a text, from [`Tokenizer::encode`].
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Encode<'a, 't> {
    tokenizer: Tokenizer<'a>,
    rest: &'t [u8],
}

impl Iterator for Encode<'_, '_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (token, len) = match self.tokenizer {
            Tokenizer::Bytes => (u32::from(*self.rest.first()?), 1),
            Tokenizer::Vocabulary(vocabulary) => vocabulary.longest(self.rest)?,
        };
        self.rest = self.rest.get(len..)?;
        Some(token)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        /// The longest token has 255 bytes.
        const LONGEST: usize = 255;
        let bytes = self.rest.len();
        match self.tokenizer {
            Tokenizer::Bytes => (bytes, Some(bytes)),
            Tokenizer::Vocabulary(_) => (bytes.div_ceil(LONGEST), Some(bytes)),
        }
    }
}

impl core::iter::FusedIterator for Encode<'_, '_> {}

/// What a tokenizer refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TokenizerError {
    /// The vocabulary has no such token.
    UnknownToken {
        /// The id asked for.
        token: u32,
    },
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownToken { token } => write!(f, "no token {token} in the vocabulary"),
        }
    }
}

impl core::error::Error for TokenizerError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn every_byte_is_a_token() {
        let tokenizer = Tokenizer::Bytes;
        let text: Vec<u8> = (0..=255).collect();
        let tokens: Vec<u32> = tokenizer.encode(&text).collect();
        assert_eq!(tokens, (0..tokenizer.vocab()).collect::<Vec<_>>());
        let back: Vec<u8> =
            tokens.iter().flat_map(|&t| tokenizer.decode(t).unwrap()).copied().collect();
        assert_eq!(back, text);
    }

    #[test]
    fn unknown_tokens_are_refused() {
        for token in [256, u32::MAX] {
            let refusal = Err(TokenizerError::UnknownToken { token });
            assert_eq!(Tokenizer::Bytes.decode(token), refusal);
        }
    }
}
