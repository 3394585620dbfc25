//! The flash image: header, sections in the order a token reads them, records, checksums.
//!
//! The layout is normative and written down in the book, chapter *Image format*. Everything is
//! little-endian and made of 32-bit words; a section starts on a 16-byte boundary.
//!
//! **Panic contract.** [`Header::parse`] and [`Image::open`] look at untrusted bytes and return
//! errors. After [`Image::open`] has succeeded, running the model over the same bytes reads no
//! record that was not checked; over a stream, every record header is checked again as it passes.

mod header;
pub mod pack;
mod record;

pub use header::{
    Dims, FORMAT_VERSION, HEADER_BYTES, Header, MAX_SECTIONS, MathMode, SECTION_BYTES, Section,
    SectionKind, TokenizerKind, Version,
};
pub use record::{Format, GROUP, Id, Layout, RECORD_WORDS, Record, Shape, checksum};

use crate::{
    error::{Error, ImageError},
    exec::{
        record::{Plan, Request},
        start,
    },
    poll,
    state::StateView,
    stream::InPlace,
    tokenizer::{Tokenizer, Vocabulary, VocabularyError},
};

/// The CRC-32 of header and sections (ISO-HDLC, as in zip and PNG).
pub static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// A whole image in memory whose every byte has been checked.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    header: Header,
    words: &'a [u32],
}

crate::brief!([] Image<'_>, |image| "Image({=u32:08x}, {})", image.identity(), image.header);

impl<'a> Image<'a> {
    /// Checks an image that fills `bytes` exactly.
    ///
    /// # Errors
    /// Any [`ImageError`]: see there.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let image = Self::open_prefix(bytes)?;
        if image.header.bytes() as usize != bytes.len() {
            return Err(ImageError::TrailingBytes {
                expected: image.header.bytes(),
                given: bytes.len() as u32,
            });
        }
        Ok(image)
    }

    /// Checks an image at the start of a larger memory, as in a flash partition.
    ///
    /// # Errors
    /// Any [`ImageError`] but [`ImageError::TrailingBytes`].
    pub fn open_prefix(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let header = Header::parse(bytes)?;
        let Some(bytes) = bytes.get(..header.bytes() as usize) else {
            return Err(ImageError::Truncated {
                needed: header.bytes(),
                given: bytes.len() as u32,
            });
        };
        header.verify(bytes)?;
        let words: &[u32] = bytemuck::try_cast_slice(bytes).map_err(|_| ImageError::Misaligned)?;
        let mut sections = 0..header.section_count();
        for (index, section) in sections.by_ref().zip(header.sections(bytes)) {
            let content = bytes.get(section.range()).unwrap_or_default();
            if CRC.checksum(content) != section.crc {
                return Err(ImageError::SectionChecksum { section: index });
            }
        }
        let image = Self { header, words };
        image.walk(|_, _| Ok(()))?;
        image.check_vocabulary()?;
        Ok(image)
    }

    fn check_vocabulary(&self) -> Result<(), ImageError> {
        let Some(words) = self.section_words(SectionKind::Tokenizer) else { return Ok(()) };
        let ids = Vocabulary::open(words).map_err(ImageError::Vocabulary)?.ids();
        if ids <= self.header.dims.vocab {
            Ok(())
        } else {
            Err(ImageError::Vocabulary(VocabularyError::Vocab { ids }))
        }
    }

    /// The header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The image as words, for an in-place stream.
    pub const fn words(&self) -> &'a [u32] {
        self.words
    }

    /// The image as bytes.
    pub fn bytes(&self) -> &'a [u8] {
        bytemuck::cast_slice(self.words)
    }

    /// The sections, in order.
    pub fn sections(&self) -> impl Iterator<Item = Section> + use<'a> {
        self.header.sections(self.bytes())
    }

    /// Runs the model text on the recording executor beside the records of the image, compares
    /// each with what the text asks for, verifies its block checksums, and hands both on. The
    /// start state is verified as well.
    ///
    /// # Errors
    /// The first difference.
    pub fn walk(
        &self,
        mut visit: impl FnMut(&Request, &Found<'a>) -> Result<(), ImageError>,
    ) -> Result<Plan, ImageError> {
        let mut cursor = Cursor { image: self, at: 0, end: 0, section: 0, blocks: 0 };
        let plan = crate::exec::record::run(self.header.version, &self.header.dims, |request| {
            if request.opens_section {
                cursor.next_section()?;
            }
            let found = cursor.record(&request.shape())?;
            visit(request, &found)
        })?;
        cursor.close()?;
        cursor.start_state()?;
        // A later plan may need less; far more is no plan at all.
        let scratch = plan.scratch_words..=plan.scratch_words.saturating_mul(2);
        if !scratch.contains(&self.header.scratch_words) || cursor.blocks != self.header.block_words
        {
            return Err(ImageError::Plan);
        }
        Ok(plan)
    }

    /// The CRC-32 in the header. It covers the CRC of every section, so it changes with any weight
    /// as far as 32 bits can tell, and names the image.
    pub fn identity(&self) -> u32 {
        self.words.get(3).copied().unwrap_or_default()
    }

    /// Sets a state to where the image begins: at its start state, if it has one, else where
    /// nothing was read. [`crate::Model::reset`] does the same over any stream.
    ///
    /// # Errors
    /// [`Error::StateSize`], which leaves the state as it was.
    pub fn reset(&self, state: StateView<'_>) -> Result<(), Error> {
        let mut stream = InPlace::new(self.words);
        poll::once(start::begin(&self.header, &mut stream, state)).unwrap_or(Err(Error::Internal))
    }

    /// The words of the start state, in the order of [`StateView::words`]; `None` if the image
    /// begins where nothing was read.
    pub fn start_state(&self) -> Option<impl Iterator<Item = f32> + use<'a>> {
        let words = self.section_words(SectionKind::StartState)?;
        let (head, blocks) = words.split_first_chunk::<RECORD_WORDS>()?;
        let record = Record::parse(head, &start::shape(&self.header))?;
        let rows = usize::from(record.tile_rows).saturating_add(1);
        let blocks = blocks.get(..record.payload_words())?.chunks(rows);
        let values = blocks.flat_map(|block| block.get(1..).unwrap_or_default());
        Some(values.map(|word| f32::from_bits(*word)))
    }

    /// The tokenizer; `None` for a model whose tokenizer the host has.
    pub fn tokenizer(&self) -> Option<Tokenizer<'a>> {
        match self.header.tokenizer {
            TokenizerKind::Bytes => Some(Tokenizer::Bytes),
            TokenizerKind::Vocabulary => {
                let words = self.section_words(SectionKind::Tokenizer)?;
                Vocabulary::split(words).map(Tokenizer::Vocabulary)
            }
            TokenizerKind::Host => None,
        }
    }

    /// Finds the bytes of the first section of a kind.
    pub fn section(&self, kind: SectionKind) -> Option<&'a [u8]> {
        let section = self.sections().find(|s| s.kind == kind)?;
        self.bytes().get(section.range())
    }

    /// As [`Image::section`], in words.
    pub fn section_words(&self, kind: SectionKind) -> Option<&'a [u32]> {
        let section = self.sections().find(|s| s.kind == kind)?;
        let bytes = section.range();
        self.words.get(bytes.start / 4..bytes.end / 4)
    }
}

/// A record as it lies in the image.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its header.
    pub record: Record,
    /// Byte offset of its header in the image.
    pub offset: u32,
    /// Its blocks.
    pub payload: &'a [u32],
}

crate::brief!([] Found<'_>, |found| "Found({} at {})", found.record, found.offset);

struct Cursor<'i, 'a> {
    image: &'i Image<'a>,
    at: usize,
    end: usize,
    section: u16,
    blocks: u32,
}

impl<'a> Cursor<'_, 'a> {
    fn next_section(&mut self) -> Result<(), ImageError> {
        self.close()?;
        let next = self.image.sections().nth(self.section.into());
        let section = next.ok_or(ImageError::SectionTable { section: self.section })?;
        self.at = section.offset as usize / 4;
        self.end = self.at + section.length as usize / 4;
        self.section += 1;
        Ok(())
    }

    /// What is left of a section may only be the zeros that fill its last 16 bytes.
    fn close(&self) -> Result<(), ImageError> {
        match self.image.words.get(self.at..self.end) {
            Some(rest) if rest.len() < 4 && rest.iter().all(|w| *w == 0) => Ok(()),
            _ => Err(ImageError::SectionLength { section: self.section.saturating_sub(1) }),
        }
    }

    /// The section of the start state, if there is one.
    fn start_state(&mut self) -> Result<(), ImageError> {
        let sections = self.image.sections();
        let found = (0..).zip(sections).find(|(_, s)| s.kind == SectionKind::StartState);
        let Some((index, section)) = found else { return Ok(()) };
        let range = section.range();
        (self.at, self.end, self.section) = (range.start / 4, range.end / 4, index + 1);
        let found = self.record(&start::shape(&self.image.header))?;
        self.close()?;
        let mut word = 0;
        for block in found.payload.chunks(usize::from(found.record.tile_rows).saturating_add(1)) {
            for bits in block.iter().skip(1) {
                if !f32::from_bits(*bits).is_finite() {
                    return Err(ImageError::StartState { word });
                }
                word += 1;
            }
        }
        Ok(())
    }

    fn record(&mut self, shape: &Shape) -> Result<Found<'a>, ImageError> {
        let offset = self.at as u32 * 4;
        let damaged = ImageError::Record { offset, expected: shape.id as u8 };
        let rest = self.image.words.get(self.at..self.end).ok_or(damaged)?;
        let (head, rest) = rest.split_first_chunk::<RECORD_WORDS>().ok_or(damaged)?;
        let record = Record::parse(head, shape).ok_or(damaged)?;
        let payload = rest.get(..record.payload_words()).ok_or(damaged)?;
        let mut left = payload;
        for words in record.blocks() {
            let (block, rest) = left.split_at_checked(words).ok_or(damaged)?;
            let offset = self.at + RECORD_WORDS + (payload.len() - left.len());
            verify(block, offset)?;
            self.blocks = self.blocks.max(words as u32);
            left = rest;
        }
        self.at += RECORD_WORDS + payload.len();
        Ok(Found { record, offset, payload })
    }
}

/// Compares a block with the checksum in its first word; `at` is its place in words.
///
/// # Errors
/// [`ImageError::BlockChecksum`].
pub fn verify(block: &[u32], at: usize) -> Result<(), ImageError> {
    match block.split_first() {
        Some((sum, words)) if checksum(words) == *sum => Ok(()),
        _ => Err(ImageError::BlockChecksum { offset: (at as u32).wrapping_mul(4) }),
    }
}

/// Opening errors are image errors; the recording executor knows no other.
impl From<Error> for ImageError {
    fn from(e: Error) -> Self {
        match e {
            Error::Image(e) => e,
            _ => Self::Plan,
        }
    }
}
