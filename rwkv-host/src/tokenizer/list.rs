//! Lists of tokens: `rwkv_vocab_v20230424.txt`, and vocabularies trained in the same form.

use std::{collections::HashMap, path::Path};

use thiserror::Error;

use super::literal;

/// A token is no longer than this.
const MAX_LEN: usize = 255;
/// A list longer than this is refused; that of the World vocabulary has 1.1 MB.
const MAX_FILE: usize = 16 << 20;
const MAX_ID: usize = 65_535;

/// Why a list cannot be a vocabulary.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] std::io::Error),
    /// It is larger than any vocabulary.
    #[error("it has {0} bytes: a vocabulary has at most {MAX_FILE}")]
    Large(usize),
    /// It is not text.
    #[error("line {line} is not UTF-8")]
    Utf8 {
        /// The line, from 1 on.
        line: usize,
    },
    /// A line is not `id literal length`.
    #[error("line {line} is not `id literal length`: {reason}")]
    Line {
        /// The line, from 1 on.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Some text would have no tokens.
    #[error("no token is the single byte {0:#04x}: every byte must be a token by itself")]
    Single(u8),
}

/// The bytes of each token id; none where an id stands for no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    pub(super) tokens: Vec<Vec<u8>>,
}

impl List {
    /// Reads a file of lines `id literal length`.
    ///
    /// # Errors
    /// See [`ListError`].
    pub fn read(path: &Path) -> Result<Self, ListError> {
        let size = std::fs::metadata(path)?.len();
        if size > MAX_FILE as u64 {
            return Err(ListError::Large(usize::try_from(size).unwrap_or(usize::MAX)));
        }
        Self::parse(&std::fs::read(path)?)
    }

    /// As [`List::read`]. Lines end in LF or CRLF.
    ///
    /// # Errors
    /// See [`ListError`].
    pub fn parse(text: &[u8]) -> Result<Self, ListError> {
        if text.len() > MAX_FILE {
            return Err(ListError::Large(text.len()));
        }
        let mut tokens: Vec<Vec<u8>> = Vec::new();
        let mut ids: HashMap<Vec<u8>, usize> = HashMap::new();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        for (line, bytes) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            let content = std::str::from_utf8(bytes).map_err(|_| ListError::Utf8 { line })?;
            let wrong = |reason| ListError::Line { line, reason };
            let (id, token) = entry(content).map_err(wrong)?;
            if tokens.len() <= id {
                tokens.resize(id + 1, Vec::new());
            }
            if !tokens[id].is_empty() {
                return Err(wrong(format!("the id {id} is there already")));
            }
            if let Some(other) = ids.insert(token.clone(), id) {
                return Err(wrong(format!("the token is there already, as {other}")));
            }
            tokens[id] = token;
        }
        match (0..=255u8).find(|byte| !ids.contains_key([*byte].as_slice())) {
            Some(byte) => Err(ListError::Single(byte)),
            None => Ok(Self { tokens }),
        }
    }

    /// How many token ids there are, those without bytes included.
    pub const fn ids(&self) -> usize {
        self.tokens.len()
    }
}

fn entry(line: &str) -> Result<(usize, Vec<u8>), String> {
    let parts = line.split_once(' ').and_then(|(id, rest)| {
        let (literal, length) = rest.rsplit_once(' ')?;
        Some((id, literal.trim(), length))
    });
    let (id, literal, length) = parts.ok_or("there are not three parts")?;
    let id: usize = id.parse().map_err(|_| format!("{id:?} is not an id"))?;
    if id > MAX_ID {
        return Err(format!("the id {id} is above {MAX_ID}"));
    }
    let token = literal::parse(literal)?;
    if length.parse() != Ok(token.len()) {
        return Err(format!("the token has {} bytes, not {length}", token.len()));
    }
    match token.len() {
        0 => Err("the token is empty".into()),
        1..=MAX_LEN => Ok((id, token)),
        len => Err(format!("the token has {len} bytes: {MAX_LEN} are the most")),
    }
}
