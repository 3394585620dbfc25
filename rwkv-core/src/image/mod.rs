//! The flash image: header, sections in the order a token reads them, records, checksums.
//!
//! The layout is normative and written down in the book, chapter *Image format*. Everything is
//! little-endian and made of 32-bit words; a section starts on a 16-byte boundary.
//!
//! **Panic contract.** [`Header::parse`], [`Image::open`] and [`check()`] look at untrusted bytes
//! and return errors. After [`Image::open`] has succeeded, running the model over the same bytes
//! reads no record that was not checked; over a stream, every record header is checked again as it
//! passes.

mod check;
mod checksum;
mod header;
pub mod pack;
mod record;
mod table;

pub(crate) use check::pieces;
pub use check::{Checked, PIECE_WORDS, check};
pub(crate) use checksum::Fold;
pub use checksum::checksum;
pub use header::{
    Dims, FORMAT_VERSION, HEADER_BYTES, Header, MAX_SECTIONS, MathMode, SECTION_BYTES, SectionKind,
    TokenizerKind, Version,
};
pub use record::{Format, GROUP, Id, Layout, RECORD_WORDS, Record, Shape};
pub use table::Section;

use crate::{
    error::{Error, ImageError},
    exec::{
        record::{Plan, Request, run},
        start,
    },
    poll,
    state::StateView,
    stream::InPlace,
    tokenizer::{Tokenizer, Vocabulary},
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
        // Sections end on words; where they do not, the table says so.
        let whole = bytes.get(..bytes.len() / 4 * 4).unwrap_or_default();
        let words: &[u32] = bytemuck::try_cast_slice(whole).map_err(|_| ImageError::Misaligned)?;
        let mut stream = InPlace::new(words);
        poll::once(check::content(&header, &mut stream)).unwrap_or(Err(Error::Internal))?;
        Ok(Self { header, words })
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

    /// Runs the model text on the recording executor beside the records of the image, and hands
    /// on what the text asks for and the record that is there.
    ///
    /// # Errors
    /// The first of `visit`.
    pub fn walk(
        &self,
        mut visit: impl FnMut(&Request, &Found<'a>) -> Result<(), ImageError>,
    ) -> Result<Plan, ImageError> {
        let (mut at, mut sections) = (0, self.sections());
        run(self.header.version, &self.header.dims, |request| {
            if request.opens_section {
                at = sections.next().map_or(at, |section| section.words().start);
            }
            let found = self.record(at, &request.shape())?;
            at += RECORD_WORDS + found.payload.len();
            visit(request, &found)
        })
    }

    /// The fewest words that a stream must have room for to run the image: longer blocks come in
    /// pieces where they may. All others are those of heads, and of narrow matrices with many rows in a
    /// block.
    ///
    /// # Errors
    /// None that [`Image::open`] has not found.
    pub fn least_room(&self) -> Result<usize, ImageError> {
        // The fixed part of the header is read at once.
        let mut least = HEADER_BYTES / 4;
        self.walk(|request, found| {
            least = least.max(request.least_room(&found.record));
            Ok(())
        })?;
        Ok(least)
    }

    /// The record at a word of the image.
    fn record(&self, at: usize, shape: &Shape) -> Result<Found<'a>, ImageError> {
        let offset = at as u32 * 4;
        let damaged = ImageError::Record { offset, expected: shape.id as u8 };
        let rest = self.words.get(at..).unwrap_or_default();
        let (head, rest) = rest.split_first_chunk().ok_or(damaged)?;
        let record = Record::parse(head, shape).ok_or(damaged)?;
        let payload = rest.get(..record.payload_words()).ok_or(damaged)?;
        Ok(Found { record, offset, payload })
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
        let section = self.sections().find(|s| s.kind == SectionKind::StartState)?;
        let found = self.record(section.words().start, &start::shape(&self.header)).ok()?;
        let rows = usize::from(found.record.tile_rows).saturating_add(1);
        let blocks = found.payload.chunks(rows);
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
        self.words.get(section.words())
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
