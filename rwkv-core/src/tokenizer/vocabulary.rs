//! A vocabulary in place: the tokens in the order of their bytes, searched for the longest match.

use core::{cmp::Ordering, fmt, ops::Range};

use crate::{
    error::{Error, ImageError},
    image::pieces,
    poll,
    stream::{InPlace, Stream},
};

/// Words ahead of the tables.
const HEAD_WORDS: usize = 4;
/// More ids than this are refused.
const MAX_IDS: u32 = 1 << 16;
/// Bytes of a token, at most: their number has eight bits.
const MAX_LEN: usize = 255;
/// A section ends with fewer zeros than this, in bytes.
const FILLING: usize = 16;

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
        let mut stream = InPlace::new(words);
        match poll::once(check(&mut stream, 0..words.len())) {
            Some(Err(Error::Image(ImageError::Vocabulary(error)))) => Err(error),
            _ => Self::split(words).ok_or(VocabularyError::Size),
        }
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
        (filled && end.len() < FILLING).then_some(Self { entries, order, bytes })
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

/// Checks the tokenizer section at these words of a stream, every table of it. Returns how many
/// token ids there are. The tokens are read one by one, in the order of their bytes.
///
/// # Errors
/// The first [`VocabularyError`], and those of the stream.
pub(crate) async fn check<S: Stream>(stream: &mut S, section: Range<usize>) -> Result<u32, Error> {
    let tables = Tables::find(stream, section).await?;
    tables.check_entries(stream).await?;
    tables.check_order(stream).await?;
    Ok(tables.ids)
}

/// The tables of a section: how long they are, and the words at which they begin.
struct Tables {
    ids: u32,
    tokens: u32,
    bytes: usize,
    entries: usize,
    order: usize,
    text: usize,
}

impl Tables {
    async fn find<S: Stream>(stream: &mut S, section: Range<usize>) -> Result<Self, Error> {
        let size = || refused(VocabularyError::Size);
        if section.len() < HEAD_WORDS {
            return Err(size());
        }
        let head = stream.read_at(section.start, HEAD_WORDS).await?;
        let Some(&[ids, tokens, bytes, 0]) = head.first_chunk() else { return Err(size()) };
        if ids > MAX_IDS || tokens > ids {
            return Err(size());
        }
        let bytes = bytes as usize;
        let entries = section.start + HEAD_WORDS;
        let order = entries + ids as usize;
        let text = order + tokens.div_ceil(2) as usize;
        let room = section.end.checked_sub(text).ok_or_else(size)?;
        let filling = (4 * room).checked_sub(bytes).filter(|filling| *filling < FILLING);
        let filling = filling.ok_or_else(size)?;
        let mut filled = tokens.is_multiple_of(2) || word(stream, text - 1).await? >> 16 == 0;
        if filling > 0 {
            let first = text + bytes / 4;
            let end = stream.read_at(first, section.end - first).await?;
            let end = bytemuck::cast_slice::<u32, u8>(end);
            filled &= end.iter().skip(bytes % 4).all(|byte| *byte == 0);
        }
        if filled { Ok(Self { ids, tokens, bytes, entries, order, text }) } else { Err(size()) }
    }

    /// Every token's bytes are there.
    async fn check_entries<S: Stream>(&self, stream: &mut S) -> Result<(), Error> {
        let (mut token, mut used, mut wrong) = (0, 0, None);
        stream.seek(self.entries).await?;
        let all = pieces(stream, self.ids as usize, |entries| {
            for entry in entries {
                let (at, len) = place(*entry);
                if at + len > self.bytes || (len == 0 && at != 0) {
                    wrong = wrong.or(Some(token));
                }
                used += u32::from(len > 0);
                token += 1;
            }
        });
        all.await?;
        match wrong {
            Some(token) => Err(refused(VocabularyError::Entry { token })),
            None if used != self.tokens => {
                Err(refused(VocabularyError::Order { rank: self.tokens }))
            }
            None => Ok(()),
        }
    }

    /// Each stands behind the one before, so all differ, no id is there twice and none is left
    /// out; and every byte is one of them.
    async fn check_order<S: Stream>(&self, stream: &mut S) -> Result<(), Error> {
        let (mut before, mut before_len) = ([0; MAX_LEN], 0);
        let mut singles = 0;
        for rank in 0..self.tokens {
            let wrong = refused(VocabularyError::Order { rank });
            let pair = word(stream, self.order + rank as usize / 2).await?;
            let id = pair >> (rank % 2 * 16) & 0xffff;
            // No bytes are before the first token's, which are some.
            let entry = match id < self.ids {
                true => word(stream, self.entries + id as usize).await?,
                false => 0,
            };
            let (at, len) = place(entry);
            if len == 0 {
                return Err(wrong);
            }
            let (word, skipped) = (self.text + at / 4, at % 4);
            let words = stream.read_at(word, (skipped + len).div_ceil(4)).await?;
            let bytes = bytemuck::cast_slice(words).get(skipped..skipped + len);
            let last = before.get(..before_len).unwrap_or_default();
            let bytes: &[u8] = bytes.filter(|bytes| *bytes > last).ok_or(wrong)?;
            singles += usize::from(len == 1);
            before.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            before_len = len;
        }
        if singles == 256 { Ok(()) } else { Err(refused(VocabularyError::Singles)) }
    }
}

async fn word<S: Stream>(stream: &mut S, at: usize) -> Result<u32, Error> {
    stream.read_at(at, 1).await?.first().copied().ok_or(Error::Internal)
}

const fn refused(error: VocabularyError) -> Error {
    Error::Image(ImageError::Vocabulary(error))
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
