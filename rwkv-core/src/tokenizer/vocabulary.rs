//! A vocabulary in place: the tokens in the order of their bytes, searched for the longest match.

use core::{cmp::Ordering, fmt};

/// Words ahead of the tables.
const HEAD_WORDS: usize = 4;
/// More ids than this are refused.
const MAX_IDS: u32 = 1 << 16;

/// The tokens of an image's tokenizer section, read where they lie.
///
/// Sorted by their bytes, tokens stand as in a trie that is walked from its leaves to its root:
/// whatever begins a text lies before the text, and the longest of them nearest. The layout is
/// normative and written down in the book, chapter *Image format*.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary<'a> {
    /// Where the bytes of each id lie: offset in the lower 24 bits, length in the upper 8.
    entries: &'a [u32],
    /// The ids that have bytes, in the order of these.
    order: &'a [u16],
    bytes: &'a [u8],
}

impl<'a> Vocabulary<'a> {
    /// Checks a tokenizer section, every table of it, in time linear in its length.
    ///
    /// # Errors
    /// The first [`VocabularyError`].
    pub fn open(words: &'a [u32]) -> Result<Self, VocabularyError> {
        let new = Self::split(words).ok_or(VocabularyError::Size)?;
        let mut used = 0;
        for (token, entry) in (0..).zip(new.entries) {
            let (at, len) = place(*entry);
            if new.bytes.get(at..at + len).is_none() || (len == 0 && at != 0) {
                return Err(VocabularyError::Entry { token });
            }
            used += usize::from(len > 0);
        }
        if used != new.order.len() {
            return Err(VocabularyError::Order { rank: new.order.len() as u32 });
        }
        let mut before: &[u8] = &[];
        let mut singles = 0;
        for (rank, id) in (0..).zip(new.order) {
            // No bytes are before the first token's, which are some; all differ, so no id is there
            // twice and none is left out.
            let bytes = new.get(u32::from(*id)).unwrap_or_default();
            if bytes <= before {
                return Err(VocabularyError::Order { rank });
            }
            singles += usize::from(bytes.len() == 1);
            before = bytes;
        }
        if singles == 256 { Ok(new) } else { Err(VocabularyError::Singles) }
    }

    /// The tables of a section that was checked before; nothing of what they hold.
    pub(crate) fn split(words: &'a [u32]) -> Option<Self> {
        let (head, rest) = words.split_first_chunk::<HEAD_WORDS>()?;
        let [ids, tokens, bytes, 0] = *head else { return None };
        if ids > MAX_IDS || tokens > ids {
            return None;
        }
        let (entries, rest) = rest.split_at_checked(ids as usize)?;
        let (order, rest) = rest.split_at_checked(tokens.div_ceil(2) as usize)?;
        let (order, filling) =
            bytemuck::cast_slice::<u32, u16>(order).split_at_checked(tokens as usize)?;
        let (bytes, end) =
            bytemuck::cast_slice::<u32, u8>(rest).split_at_checked(bytes as usize)?;
        let filled = filling.iter().all(|id| *id == 0) && end.iter().all(|byte| *byte == 0);
        (filled && end.len() < 16).then_some(Self { entries, order, bytes })
    }

    /// How many token ids there are; every id is less.
    pub const fn ids(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The bytes of an id, none if it stands for no text.
    pub fn get(&self, token: u32) -> Option<&'a [u8]> {
        let (at, len) = place(*self.entries.get(token as usize)?);
        self.bytes.get(at..at + len)
    }

    /// The longest token that `text` begins with, and its length, above 0. `None` at the end of
    /// the text, and in a section that was not checked.
    pub(super) fn longest(&self, text: &[u8]) -> Option<(u32, usize)> {
        let (mut text, mut end) = (text, self.order.len());
        loop {
            let nearest = self.last_up_to(text, end)?;
            let token = u32::from(*self.order.get(nearest)?);
            let bytes = self.get(token)?;
            let common = bytes.iter().zip(text).take_while(|(a, b)| a == b).count();
            if common == bytes.len() {
                return (common > 0).then_some((token, common));
            }
            // Whatever begins the text lies before this token too, so it begins what both share:
            // less than before, since the token, at or before the text, is not the text's start.
            (text, end) = (text.get(..common)?, nearest);
        }
    }

    /// The rank of the last of the first `end` tokens that is not after `text`.
    fn last_up_to(&self, text: &[u8], end: usize) -> Option<usize> {
        let (mut low, mut high) = (0, end);
        while low < high {
            let middle = low + (high - low) / 2;
            let id = self.order.get(middle).copied().unwrap_or_default();
            match self.get(u32::from(id)).unwrap_or_default().cmp(text) {
                Ordering::Greater => high = middle,
                Ordering::Less | Ordering::Equal => low = middle + 1,
            }
        }
        low.checked_sub(1)
    }
}

impl fmt::Debug for Vocabulary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vocabulary({} ids)", self.ids())
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Vocabulary<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Vocabulary({} ids)", self.ids());
    }
}

/// Offset and length in bytes.
const fn place(entry: u32) -> (usize, usize) {
    ((entry & 0xff_ffff) as usize, (entry >> 24) as usize)
}

/// Why a tokenizer section was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum VocabularyError {
    /// The tables do not fill the section.
    Size,
    /// The bytes of a token do not lie in the section.
    Entry {
        /// The token.
        token: u32,
    },
    /// The tokens do not stand in the order of their bytes, each once.
    Order {
        /// Where in the order.
        rank: u32,
    },
    /// Some byte is not a token by itself, so that some text would have no tokens.
    Singles,
    /// There are more token ids than the model has.
    Vocab {
        /// Ids of the vocabulary.
        ids: u32,
    },
}

impl fmt::Display for VocabularyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size => f.write_str("its tables do not fill the section"),
            Self::Entry { token } => write!(f, "the bytes of token {token} are not there"),
            Self::Order { rank } => write!(f, "entry {rank} of its order is out of order"),
            Self::Singles => f.write_str("some byte is not a token by itself"),
            Self::Vocab { ids } => write!(f, "its {ids} token ids are more than the model has"),
        }
    }
}

impl core::error::Error for VocabularyError {}
