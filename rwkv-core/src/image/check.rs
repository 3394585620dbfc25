//! Checking an image as it comes over a stream, in pieces of a fixed size.
//!
//! This is the only place where images are checked: [`Image::open`](super::Image::open) does it
//! over the memory that it is given.

use super::{
    CRC, HEADER_BYTES, Header, RECORD_WORDS, Record, SECTION_BYTES, Section, SectionKind, Shape,
    checksum::Fold,
    table::{Table, table_end},
};
use crate::{
    error::{Error, ImageError, StreamError},
    exec::{
        record::{self, Request},
        start,
    },
    stream::{Blocks, Stream},
    tokenizer::{VocabularyError, check_vocabulary},
};

/// Words that a check asks a stream for at once, at most, whatever the image says of itself.
pub const PIECE_WORDS: usize = 128;

/// An image whose every byte was checked over a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Checked {
    /// Its header.
    pub header: Header,
    /// The CRC-32 in the header, as [`Image::identity`](super::Image::identity).
    pub identity: u32,
    /// The fewest words that a stream must have room for, as
    /// [`Image::least_room`](super::Image::least_room); of no meaning where nothing comes in pieces.
    pub least_room: usize,
}

/// Checks the image at word 0 of a stream, on a medium of `given` bytes, as
/// [`Image::open_prefix`](super::Image::open_prefix) does in memory: header, sections, every
/// record and block, start state and vocabulary. The image is read twice, and the vocabulary
/// besides, token by token in the order of their bytes. No more than [`PIECE_WORDS`] words are
/// asked for at once.
///
/// # Errors
/// [`Error::Image`] with what `open_prefix` says of the same bytes; [`Error::Stream`] if they
/// could not be read.
pub async fn check<S: Stream>(stream: &mut S, given: u32) -> Result<Checked, Error> {
    let needed = HEADER_BYTES as u32;
    if given < needed {
        return Err(ImageError::Truncated { needed, given }.into());
    }
    let words = stream.read_at(0, HEADER_BYTES / 4).await?;
    let header = Header::parse(bytemuck::cast_slice(words))?;
    let needed = header.bytes();
    if given < needed {
        return Err(ImageError::Truncated { needed, given }.into());
    }
    content(&header, stream).await
}

/// Checks all that a header that was parsed does not say itself.
pub(super) async fn content<S: Stream>(header: &Header, stream: &mut S) -> Result<Checked, Error> {
    let (at, end) = (0, 0);
    // The fixed part of the header is read at once.
    let (section, blocks, least_room, optional) = (0, 0, HEADER_BYTES / 4, [None; 2]);
    let mut check = Check { header, stream, at, end, section, blocks, least_room, optional };
    let identity = check.table().await?;
    check.sections().await?;
    let walk = async |request: &Request| check.visit(request).await;
    let plan = record::run_async(header.version, &header.dims, walk).await?;
    check.close().await?;
    check.start_state().await?;
    // A later plan may need less; far more is no plan at all.
    let scratch = plan.scratch_words..=plan.scratch_words.saturating_mul(2);
    if !scratch.contains(&header.scratch_words) || check.blocks != header.block_words {
        return Err(ImageError::Plan.into());
    }
    check.vocabulary().await?;
    Ok(Checked { header: *header, identity, least_room: check.least_room })
}

struct Check<'s, S> {
    header: &'s Header,
    stream: &'s mut S,
    /// The word that comes next, and the end of the section that it lies in.
    at: usize,
    end: usize,
    /// The section behind that one.
    section: u16,
    /// Words of the largest block.
    blocks: u32,
    /// The most of what any record must have room for.
    least_room: usize,
    /// Start state and tokenizer: index and entry.
    optional: [Option<(u16, Section)>; 2],
}

impl<S: Stream> Check<'_, S> {
    /// The header's CRC, and its table. Returns the CRC.
    async fn table(&mut self) -> Result<u32, Error> {
        let end = table_end(self.header);
        if end > self.header.bytes() as usize {
            return Err(ImageError::HeaderField { offset: 56 }.into());
        }
        self.stream.seek(0).await?;
        let Some(&[magic, length, bytes, identity]) = self.stream.next(4).await?.first_chunk()
        else {
            return Err(Error::Internal);
        };
        let mut digest = CRC.digest();
        digest.update(bytemuck::bytes_of(&[magic, length, bytes, 0]));
        let rest = pieces(self.stream, end / 4 - 4, |words| {
            digest.update(bytemuck::cast_slice(words));
        });
        rest.await?;
        if digest.finalize() != identity {
            return Err(ImageError::HeaderChecksum.into());
        }
        let mut table = Table::new(self.header, (length >> 16) as u16)?;
        for index in 0..self.header.section_count() {
            let Some(section) = self.entry(index).await? else { break };
            table.entry(&section)?;
        }
        table.end()?;
        Ok(identity)
    }

    async fn entry(&mut self, index: u16) -> Result<Option<Section>, StreamError> {
        let at = HEADER_BYTES + usize::from(index) * SECTION_BYTES;
        let words = self.stream.read_at(at / 4, SECTION_BYTES / 4).await?;
        Ok(bytemuck::cast_slice(words).first_chunk().and_then(Section::parse))
    }

    /// The CRC of every section.
    async fn sections(&mut self) -> Result<(), Error> {
        for index in 0..self.header.section_count() {
            let wrong = ImageError::SectionChecksum { section: index };
            let section = self.entry(index).await?.ok_or(wrong)?;
            let words = section.words();
            let mut digest = CRC.digest();
            self.stream.seek(words.start).await?;
            let all = pieces(self.stream, words.len(), |words| {
                digest.update(bytemuck::cast_slice(words));
            });
            all.await?;
            if digest.finalize() != section.crc {
                return Err(wrong.into());
            }
            let [start, tokenizer] = &mut self.optional;
            match section.kind {
                SectionKind::StartState => *start = Some((index, section)),
                SectionKind::Tokenizer => *tokenizer = Some((index, section)),
                _ => {}
            }
        }
        Ok(())
    }

    /// What the model text reads next.
    async fn visit(&mut self, request: &Request) -> Result<(), Error> {
        if request.opens_section {
            self.close().await?;
            let section = self.entry(self.section).await?;
            let section = section.ok_or(ImageError::SectionTable { section: self.section })?;
            self.open(self.section, &section).await?;
        }
        let record = self.record(&request.shape()).await?;
        // In memory, nobody asks.
        if S::Blocks::CUT {
            self.least_room = self.least_room.max(request.least_room(&record));
        }
        Ok(())
    }

    async fn open(&mut self, index: u16, section: &Section) -> Result<(), StreamError> {
        let words = section.words();
        (self.at, self.end, self.section) = (words.start, words.end, index + 1);
        self.stream.seek(self.at).await
    }

    /// What is left of a section may only be the zeros that fill its last 16 bytes.
    async fn close(&mut self) -> Result<(), Error> {
        let left = self.end.saturating_sub(self.at);
        if left == 0 {
            return Ok(());
        }
        if left < 4 && self.stream.next(left).await?.iter().all(|word| *word == 0) {
            return Ok(());
        }
        Err(ImageError::SectionLength { section: self.section.saturating_sub(1) }.into())
    }

    async fn record(&mut self, shape: &Shape) -> Result<Record, Error> {
        let offset = self.at as u32 * 4;
        let damaged = ImageError::Record { offset, expected: shape.id as u8 };
        let left = self.end.saturating_sub(self.at).checked_sub(RECORD_WORDS).ok_or(damaged)?;
        let head = self.stream.next(RECORD_WORDS).await?;
        let record = head.first_chunk().and_then(|head| Record::parse(head, shape));
        let record = record.filter(|record| record.payload_words() <= left).ok_or(damaged)?;
        self.at += RECORD_WORDS;
        for words in record.blocks() {
            self.block(words).await?;
        }
        Ok(record)
    }

    /// A block, and its checksum.
    async fn block(&mut self, words: usize) -> Result<(), Error> {
        let mut first = None;
        let mut sum = Fold::new(words.saturating_sub(1));
        let all = pieces(self.stream, words, |mut piece| {
            if first.is_none() {
                (first, piece) = match piece.split_first() {
                    Some((checksum, rest)) => (Some(*checksum), rest),
                    None => (None, piece),
                };
            }
            sum.add(piece);
        });
        all.await?;
        if first != Some(sum.end()) {
            return Err(ImageError::BlockChecksum { offset: self.at as u32 * 4 }.into());
        }
        self.at += words;
        self.blocks = self.blocks.max(words as u32);
        Ok(())
    }

    /// The section of the start state, if there is one.
    async fn start_state(&mut self) -> Result<(), Error> {
        let [Some((index, section)), _] = self.optional else { return Ok(()) };
        self.open(index, &section).await?;
        let record = self.record(&start::shape(self.header)).await?;
        self.close().await?;
        self.stream.seek(section.words().start + RECORD_WORDS).await?;
        let (mut word, mut wrong) = (0, None);
        for (_, rows) in record.tiles() {
            self.stream.skip(1).await?;
            let all = pieces(self.stream, rows, |words| {
                for bits in words {
                    if !f32::from_bits(*bits).is_finite() {
                        wrong = wrong.or(Some(word));
                    }
                    word += 1;
                }
            });
            all.await?;
        }
        match wrong {
            Some(word) => Err(ImageError::StartState { word }.into()),
            None => Ok(()),
        }
    }

    /// The tokenizer section, if there is one.
    async fn vocabulary(&mut self) -> Result<(), Error> {
        let [_, Some((_, section))] = self.optional else { return Ok(()) };
        let ids = check_vocabulary(self.stream, section.words()).await?;
        if ids <= self.header.dims.vocab {
            Ok(())
        } else {
            Err(ImageError::Vocabulary(VocabularyError::Vocab { ids }).into())
        }
    }
}

/// The next `left` words, piece by piece.
pub(crate) async fn pieces<S: Stream>(
    stream: &mut S,
    mut left: usize,
    mut visit: impl FnMut(&[u32]),
) -> Result<(), StreamError> {
    while left > 0 {
        let words = left.min(PIECE_WORDS);
        visit(stream.next(words).await?);
        left -= words;
    }
    Ok(())
}
