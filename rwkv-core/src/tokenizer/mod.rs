//! Between text and tokens.
//!
//! A [`Tokenizer`] maps bytes to token ids and back. A token may end inside a character, so text
//! for a person goes through a [`Utf8Stream`].

mod utf8;

pub use utf8::Utf8Stream;

use core::fmt;

/// A vocabulary.
///
/// Every vocabulary covers each single byte, so that any text, valid UTF-8 or not, has an encoding
/// and encoding cannot fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Tokenizer {
    /// One token per byte, its id being the byte.
    Bytes,
}

impl Tokenizer {
    /// How many token ids there are; every id is less.
    pub const fn vocab(&self) -> u32 {
        match self {
            Self::Bytes => 256,
        }
    }

    /// The tokens of `text`, one at a time.
    pub const fn encode<'a>(&'a self, text: &'a [u8]) -> Encode<'a> {
        Encode { tokenizer: self, rest: text }
    }

    /// The bytes of a token.
    ///
    /// # Errors
    /// The vocabulary has no such token.
    pub fn decode(&self, token: u32) -> Result<&[u8], TokenizerError> {
        match self {
            Self::Bytes => {
                BYTES.chunks(1).nth(token as usize).ok_or(TokenizerError::UnknownToken { token })
            }
        }
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
pub struct Encode<'a> {
    tokenizer: &'a Tokenizer,
    rest: &'a [u8],
}

impl Iterator for Encode<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match self.tokenizer {
            Tokenizer::Bytes => {
                let (&byte, rest) = self.rest.split_first()?;
                self.rest = rest;
                Some(u32::from(byte))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.tokenizer {
            Tokenizer::Bytes => (self.rest.len(), Some(self.rest.len())),
        }
    }
}

impl core::iter::FusedIterator for Encode<'_> {}

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
