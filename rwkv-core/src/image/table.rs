//! The section table, entry by entry.

use super::{HEADER_BYTES, Header, MAX_SECTIONS, SECTION_BYTES, SectionKind, TokenizerKind};
use crate::error::ImageError;

/// One entry of the section table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Which one of its kind: the layer.
    pub index: u16,
    /// Byte offset in the image.
    pub offset: u32,
    /// Length in bytes, a multiple of 16.
    pub length: u32,
    /// CRC-32 of its bytes.
    pub crc: u32,
}

impl Section {
    /// Reads an entry; `None` if its kind is unknown.
    pub(super) fn parse(entry: &[u8; SECTION_BYTES]) -> Option<Self> {
        let [kind, kind_high, index, index_high, rest @ ..] = *entry;
        let [offset, length, crc] = bytemuck::cast::<[u8; 12], [[u8; 4]; 3]>(rest);
        let kind = u16::from_le_bytes([kind, kind_high]);
        Some(Self {
            kind: SectionKind::from_code(u8::try_from(kind).ok()?)?,
            index: u16::from_le_bytes([index, index_high]),
            offset: u32::from_le_bytes(offset),
            length: u32::from_le_bytes(length),
            crc: u32::from_le_bytes(crc),
        })
    }

    /// Its place in the image, in bytes.
    pub const fn range(&self) -> core::ops::Range<usize> {
        self.offset as usize..self.offset as usize + self.length as usize
    }

    /// Its place in the image, in words.
    pub(super) const fn words(&self) -> core::ops::Range<usize> {
        let first = self.offset as usize / 4;
        first..first + self.length as usize / 4
    }
}

/// Compares the entries of a table, one after the other, with those that a header needs.
pub(super) struct Table<'h> {
    header: &'h Header,
    seen: u16,
    /// Byte offset of the next section.
    expected: u32,
    /// The code of the last optional section.
    optional: Option<u8>,
    vocabulary: bool,
    start: u32,
}

impl<'h> Table<'h> {
    /// `length` is the header's with its table, as the header gives it.
    pub(super) fn new(header: &'h Header, length: u16) -> Result<Self, ImageError> {
        let end = table_end(header);
        if usize::from(length) != end || header.section_count() > MAX_SECTIONS {
            return Err(ImageError::HeaderField { offset: 6 });
        }
        let (expected, optional) = (end as u32, None);
        Ok(Self { header, seen: 0, expected, optional, vocabulary: false, start: 0 })
    }

    /// The next entry.
    pub(super) fn entry(&mut self, section: &Section) -> Result<(), ImageError> {
        let wrong = ImageError::SectionTable { section: self.seen };
        let layers = self.header.dims.layers;
        let first = 1 + u32::from(self.header.version.is_deep());
        let place = match u32::from(self.seen) {
            0 => (SectionKind::Embedding, 0),
            i if i < first => (SectionKind::DeepEmbed, 0),
            i if i < first + layers => (SectionKind::Layer, i - first),
            i if i == first + layers => (SectionKind::Head, 0),
            _ if section.kind.is_optional() && self.optional < Some(section.kind as u8) => {
                self.optional = Some(section.kind as u8);
                (section.kind, 0)
            }
            _ => return Err(wrong),
        };
        let end = section.offset.checked_add(section.length);
        let end = end.filter(|end| *end <= self.header.bytes()).ok_or(wrong)?;
        let fits = (section.kind, u32::from(section.index)) == place
            && section.offset == self.expected
            && section.length.is_multiple_of(16)
            && (u32::from(self.seen) != first || section.offset == self.header.layers_offset);
        if !fits {
            return Err(wrong);
        }
        match section.kind {
            SectionKind::Tokenizer => self.vocabulary = true,
            SectionKind::StartState => self.start = section.offset,
            _ => {}
        }
        self.expected = end;
        self.seen += 1;
        Ok(())
    }

    /// Behind the last entry, or the first that is none.
    pub(super) fn end(&self) -> Result<(), ImageError> {
        let header = self.header;
        let first = 1 + u32::from(header.version.is_deep());
        let complete = self.seen == header.section_count()
            && u32::from(self.seen) > first + header.dims.layers
            && self.expected == header.bytes();
        match (header.tokenizer, self.vocabulary) {
            _ if !complete => Err(ImageError::SectionTable { section: self.seen }),
            _ if self.start != header.start_offset => Err(ImageError::HeaderField { offset: 76 }),
            (TokenizerKind::Vocabulary, true) => Ok(()),
            (TokenizerKind::Bytes | TokenizerKind::Host, false) => Ok(()),
            _ => Err(ImageError::HeaderField { offset: 19 }),
        }
    }
}

/// Bytes of a header and its table.
pub(super) const fn table_end(header: &Header) -> usize {
    HEADER_BYTES + header.section_count() as usize * SECTION_BYTES
}
