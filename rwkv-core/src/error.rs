//! What can go wrong: small, `Copy`, and precise about where.

use core::fmt;

use crate::{image::FORMAT_VERSION, tokenizer::VocabularyError};

/// Why an image was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ImageError {
    /// The memory that holds the image does not start on a word boundary.
    Misaligned,
    /// The image ends before what it announces: bytes needed and bytes given.
    Truncated {
        /// Bytes that the image needs.
        needed: u32,
        /// Bytes that are there.
        given: u32,
    },
    /// There are more bytes than the image announces.
    TrailingBytes {
        /// Bytes that the image announces.
        expected: u32,
        /// Bytes that are there.
        given: u32,
    },
    /// The first four bytes are not `RWKV`.
    Magic,
    /// The image has a format version that this reader does not know.
    FormatVersion(u16),
    /// The RWKV version is unknown to this reader (the code as it stands in the header).
    Version(u8),
    /// The image wants a math mode that this reader does not have.
    MathMode(u8),
    /// The image wants a state precision that this reader does not have.
    StatePrecision(u8),
    /// The image wants a tokenizer that this reader does not have.
    Tokenizer(u8),
    /// A header field is out of range; the byte offset of the field.
    HeaderField {
        /// Byte offset of the field in the image.
        offset: u16,
    },
    /// The CRC-32 of the header does not match.
    HeaderChecksum,
    /// The section table is not the one that this version and these dimensions ask for.
    SectionTable {
        /// Index into the section table.
        section: u16,
    },
    /// The CRC-32 of a section does not match its bytes.
    SectionChecksum {
        /// Index into the section table.
        section: u16,
    },
    /// A record is damaged or is not the one that the model text reads next.
    Record {
        /// Byte offset of the record in the image.
        offset: u32,
        /// The identifier that was expected.
        expected: u8,
    },
    /// A block of weights does not match its checksum.
    BlockChecksum {
        /// Byte offset of the block in the image.
        offset: u32,
    },
    /// A section ends earlier or later than its records.
    SectionLength {
        /// Index into the section table.
        section: u16,
    },
    /// The scratch or block size in the header is not what the model text needs.
    Plan,
    /// The tokenizer section is of no use.
    Vocabulary(VocabularyError),
    /// A value of the start state is infinite or not a number.
    StartState {
        /// Its index among the words of the state.
        word: u32,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Misaligned => f.write_str("image does not start on a word boundary"),
            Self::Truncated { needed, given } => {
                write!(f, "image is cut short: {needed} bytes expected, {given} found")
            }
            Self::TrailingBytes { expected, given } => {
                write!(
                    f,
                    "image is followed by other data: {expected} bytes expected, {given} found"
                )
            }
            Self::Magic => f.write_str("not an RWKV image: the first four bytes are not `RWKV`"),
            Self::FormatVersion(v) => {
                write!(f, "image format version {v} is unknown: this reader knows {FORMAT_VERSION}")
            }
            Self::Version(v) => write!(f, "RWKV version code {v} is unknown to this reader"),
            Self::MathMode(1) => f.write_str("math mode 1 needs the feature micromath"),
            Self::MathMode(v) => write!(f, "math mode {v} is unknown to this reader"),
            Self::StatePrecision(v) => write!(f, "state precision {v} is unknown to this reader"),
            Self::Tokenizer(v) => write!(f, "tokenizer {v} is unknown to this reader"),
            Self::HeaderField { offset } => {
                write!(f, "header field at byte {offset} is out of range")
            }
            Self::HeaderChecksum => f.write_str("header is damaged: its CRC-32 does not match"),
            Self::SectionTable { section } => {
                write!(f, "section table entry {section} is not the one this model needs")
            }
            Self::SectionChecksum { section } => {
                write!(f, "section {section} is damaged: its CRC-32 does not match")
            }
            Self::Record { offset, expected } => {
                write!(f, "record at byte {offset} is not the expected record {expected}")
            }
            Self::BlockChecksum { offset } => {
                write!(f, "block at byte {offset} is damaged: its checksum does not match")
            }
            Self::SectionLength { section } => {
                write!(f, "section {section} does not end with its last record")
            }
            Self::Plan => {
                f.write_str("scratch or block size in the header is not what the model needs")
            }
            Self::Vocabulary(error) => write!(f, "the vocabulary is damaged: {error}"),
            Self::StartState { word } => {
                write!(f, "word {word} of the start state is infinite or not a number")
            }
        }
    }
}

impl core::error::Error for ImageError {}

/// Why a stream could not deliver words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StreamError {
    /// A read past the end of the medium.
    OutOfBounds {
        /// Byte offset of the read.
        offset: u32,
    },
    /// The medium reported a failure.
    Medium {
        /// Byte offset of the read.
        offset: u32,
    },
    /// The stream's buffer is smaller than the block that was asked for.
    Buffer {
        /// Words asked for.
        words: u32,
    },
    /// The image does not begin with a unit that the medium reads.
    Misplaced {
        /// Byte offset of the image in the medium.
        offset: u32,
    },
    /// Another card is there than the one that was read first.
    Changed {
        /// Byte offset of the read.
        offset: u32,
    },
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OutOfBounds { offset } => {
                write!(f, "read past the end of the medium at byte {offset}")
            }
            Self::Medium { offset } => write!(f, "the medium failed at byte {offset}"),
            Self::Buffer { words } => {
                write!(f, "the stream's buffer is too small for a block of {words} words")
            }
            Self::Misplaced { offset } => {
                write!(
                    f,
                    "an image at byte {offset} does not begin with a unit that the medium reads"
                )
            }
            Self::Changed { offset } => {
                write!(f, "another card is there at byte {offset}: put the first one back")
            }
        }
    }
}

impl core::error::Error for StreamError {}

/// Why a token could not be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The image is damaged or not the expected one.
    Image(ImageError),
    /// The weights could not be read.
    Stream(StreamError),
    /// The token is not in the vocabulary.
    Token {
        /// The token.
        token: u32,
        /// Number of tokens in the vocabulary.
        vocab: u32,
    },
    /// The state has another shape than the image needs, in words.
    StateSize {
        /// Words that the image needs.
        needed: u32,
        /// Words that were given.
        given: u32,
    },
    /// The scratch memory is smaller than the image needs, in words.
    ScratchSize {
        /// Words that the image needs.
        needed: u32,
        /// Words that were given.
        given: u32,
    },
    /// The buffer for logits is shorter than the vocabulary.
    LogitsSize {
        /// Tokens in the vocabulary.
        needed: u32,
    },
    /// A value became infinite or not a number.
    NonFinite,
    /// The state was never set, or an earlier token failed half-way: reset or restore it first.
    BrokenState,
    /// The executor was driven by something other than the model text.
    Internal,
}

impl From<ImageError> for Error {
    fn from(e: ImageError) -> Self {
        Self::Image(e)
    }
}

impl From<StreamError> for Error {
    fn from(e: StreamError) -> Self {
        Self::Stream(e)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Image(e) => e.fmt(f),
            Self::Stream(e) => e.fmt(f),
            Self::Token { token, vocab } => {
                write!(f, "token {token} is not in the vocabulary of {vocab}")
            }
            Self::StateSize { needed, given } => {
                write!(f, "state has {given} words, the image needs {needed}")
            }
            Self::ScratchSize { needed, given } => {
                write!(f, "scratch has {given} words, the image needs {needed}")
            }
            Self::LogitsSize { needed } => {
                write!(f, "the buffer for logits is shorter than the vocabulary of {needed}")
            }
            Self::NonFinite => f.write_str("a value became infinite or not a number"),
            Self::BrokenState => {
                f.write_str("the state was never set or a token failed: reset or restore it first")
            }
            Self::Internal => f.write_str("the executor was driven out of order"),
        }
    }
}

impl core::error::Error for Error {}
