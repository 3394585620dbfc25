//! The header: fixed fields and the section table, readable in a `const`.

use super::{
    CRC,
    record::codes,
    table::{Section, Table, table_end},
};
use crate::error::ImageError;

/// Bytes of the fixed part of the header.
pub const HEADER_BYTES: usize = 80;
/// Bytes of an entry of the section table.
pub const SECTION_BYTES: usize = 16;
/// More sections than this are refused.
pub const MAX_SECTIONS: u16 = 1024;

const MAGIC: &[u8; 4] = b"RWKV";
/// The version of the image format that this crate reads and writes.
pub const FORMAT_VERSION: u16 = 2;
const MAX_DIM: u32 = 1 << 16;
/// A row of the DeepEmbed table is no longer than a row of another may be.
const MAX_DEEP_RANK: u16 = 256;

codes! {
    /// The RWKV version; the code is ten times the number.
    #[non_exhaustive]
    Version {
        /// RWKV-4, "Dove".
        V4 = 40,
        /// RWKV-5.0, without a gate.
        V50 = 50,
        /// RWKV-5.1 and 5.2, "Eagle".
        V52 = 52,
        /// RWKV-6, "Finch".
        V6 = 60,
        /// RWKV-7, "Goose".
        V7 = 70,
        /// RWKV-7a: version 7 with DeepEmbed.
        V7a = 71,
    }
}

impl Version {
    /// Whether the recurrence has heads, with a matrix of state and a group norm each.
    pub const fn has_heads(self) -> bool {
        !matches!(self, Self::V4)
    }

    /// Which of [`Dims::ranks`] there are.
    pub const fn has_ranks(self, layers: u32) -> [bool; 4] {
        match self {
            Self::V4 | Self::V50 | Self::V52 => [false; 4],
            Self::V6 => [true, true, false, false],
            // A single layer has no value residual.
            Self::V7 | Self::V7a => [true, true, layers > 1, true],
        }
    }

    /// Whether there is a DeepEmbed.
    pub const fn is_deep(self) -> bool {
        matches!(self, Self::V7a)
    }

    /// Rows of recurrent state per layer, each one model width long.
    pub const fn state_width(self, dims: &Dims) -> u32 {
        if self.has_heads() { dims.head_size } else { 3 }
    }

    /// The number that people use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "4",
            Self::V50 => "5.0",
            Self::V52 => "5.2",
            Self::V6 => "6",
            Self::V7 => "7",
            Self::V7a => "7a",
        }
    }
}

codes! {
    /// With which functions the gates are computed.
    MathMode {
        /// Those of [`crate::math`].
        Exact = 0,
        /// Those of [`crate::math::fast`](crate::math), with the feature `micromath`.
        Micromath = 1,
    }
}

impl MathMode {
    /// Whether this build has it.
    pub const fn is_available(self) -> bool {
        matches!(self, Self::Exact) || cfg!(feature = "micromath")
    }
}

codes! {
    /// How text becomes tokens.
    TokenizerKind {
        /// One token per byte.
        Bytes = 0,
        /// The vocabulary of the tokenizer section.
        Vocabulary = 1,
        /// A tokenizer that an image cannot hold: the host has it beside the image.
        Host = 2,
    }
}

codes! {
    /// What a section holds.
    #[non_exhaustive]
    SectionKind {
        /// The embedding table.
        Embedding = 1,
        /// One layer.
        Layer = 2,
        /// Output norm and head.
        Head = 3,
        /// Version 7a's DeepEmbed table.
        DeepEmbed = 7,
        /// The vocabulary, where it is not the bytes.
        Tokenizer = 4,
        /// The state before the first token, where it is not the one that has read nothing.
        StartState = 5,
        /// JSON: where the model comes from, its licence, the folded `ln0`.
        Metadata = 6,
    }
}

impl SectionKind {
    /// Whether it may be absent: such sections follow the head, in the order of their codes.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::Tokenizer | Self::StartState | Self::Metadata)
    }
}

/// Every dimension of a model. Lengths are in channels unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Dims {
    /// Layers.
    pub layers: u32,
    /// Model width.
    pub dim: u32,
    /// Width of the channel mix.
    pub ffn: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Channels per head; 0 for version 4, which has no heads.
    pub head_size: u32,
    /// Ranks of low-rank matrices, 0 where there are none. Version 7: decay, learning rate, value,
    /// gate. Version 6: decay, token shift.
    pub ranks: [u16; 4],
    /// Rank of version 7a's DeepEmbed; else 0.
    pub deep_rank: u16,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f32,
    /// Epsilon of the group norm.
    pub group_norm_eps: f32,
}

/// The parsed header.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Header {
    /// The RWKV version.
    pub version: Version,
    /// With which functions the gates are computed.
    pub math: MathMode,
    /// How text becomes tokens.
    pub tokenizer: TokenizerKind,
    /// The dimensions.
    pub dims: Dims,
    /// Words of scratch that a step needs.
    pub scratch_words: u32,
    /// Words of the largest block: what a streaming buffer holds, or less for blocks in pieces.
    pub block_words: u32,
    /// Byte offset of the first layer's section.
    pub layers_offset: u32,
    /// Byte offset of the start state's section; 0 if there is none.
    pub start_offset: u32,
    bytes: u32,
    sections: u16,
}

#[inline(always)]
const fn le16(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

#[inline(always)]
const fn le32(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

impl Header {
    /// Reads the fixed part of the header; usable in a `const`. Checksums are verified by
    /// [`Header::check_crc`], [`Header::verify`] and [`super::Image::open`].
    ///
    /// # Errors
    /// The first field that is unknown or out of range.
    pub const fn parse(b: &[u8]) -> Result<Self, ImageError> {
        if b.len() < HEADER_BYTES {
            let needed = HEADER_BYTES as u32;
            return Err(ImageError::Truncated { needed, given: b.len() as u32 });
        }
        if b[0] != MAGIC[0] || b[1] != MAGIC[1] || b[2] != MAGIC[2] || b[3] != MAGIC[3] {
            return Err(ImageError::Magic);
        }
        if le16(b, 4) != FORMAT_VERSION {
            return Err(ImageError::FormatVersion(le16(b, 4)));
        }
        let Some(version) = Version::from_code(b[16]) else {
            return Err(ImageError::Version(b[16]));
        };
        let math = match MathMode::from_code(b[17]) {
            Some(math) if math.is_available() => math,
            _ => return Err(ImageError::MathMode(b[17])),
        };
        if b[18] != 0 {
            return Err(ImageError::StatePrecision(b[18]));
        }
        let Some(tokenizer) = TokenizerKind::from_code(b[19]) else {
            return Err(ImageError::Tokenizer(b[19]));
        };
        let mut at = 20;
        while at <= 32 {
            let most = if at == 20 { MAX_SECTIONS as u32 } else { MAX_DIM };
            if le32(b, at) == 0 || le32(b, at) > most {
                return Err(ImageError::HeaderField { offset: at as u16 });
            }
            at += 4;
        }
        let dims = Dims {
            layers: le32(b, 20),
            dim: le32(b, 24),
            ffn: le32(b, 28),
            vocab: le32(b, 32),
            head_size: le32(b, 36),
            ranks: [le16(b, 64), le16(b, 66), le16(b, 68), le16(b, 70)],
            deep_rank: le16(b, 72),
            layer_norm_eps: f32::from_bits(le32(b, 40)),
            group_norm_eps: f32::from_bits(le32(b, 44)),
        };
        if let Some(offset) = refused(version, &dims, b) {
            return Err(ImageError::HeaderField { offset });
        }
        Ok(Self {
            version,
            math,
            tokenizer,
            dims,
            scratch_words: le32(b, 48),
            block_words: le32(b, 52),
            layers_offset: le32(b, 60),
            start_offset: le32(b, 76),
            bytes: le32(b, 8),
            sections: le16(b, 56),
        })
    }

    /// A header for a new image; [`Header::write`] fills in what the sections decide.
    #[cfg(feature = "std")]
    pub const fn new(version: Version, dims: Dims, scratch_words: u32, block_words: u32) -> Self {
        Self {
            version,
            math: MathMode::Exact,
            tokenizer: TokenizerKind::Bytes,
            dims,
            scratch_words,
            block_words,
            layers_offset: 0,
            start_offset: 0,
            bytes: 0,
            sections: 0,
        }
    }

    /// Bytes of the whole image.
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Number of sections.
    pub const fn section_count(&self) -> u16 {
        self.sections
    }

    /// Rows of recurrent state per layer: the `WIDTH` of [`crate::State`].
    pub const fn state_width(&self) -> u32 {
        self.version.state_width(&self.dims)
    }

    /// Words of the two shift rows of all layers.
    pub const fn shift_words(&self) -> usize {
        (2 * self.dims.layers as usize).saturating_mul(self.dims.dim as usize)
    }

    /// Words of state: two shift rows and the recurrent rows per layer.
    pub const fn state_words(&self) -> usize {
        let rows = (self.dims.layers as usize).saturating_mul(self.state_width() as usize + 2);
        rows.saturating_mul(self.dims.dim as usize)
    }

    /// The section table, unchecked entries left out.
    pub fn sections<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Section> + use<'a> {
        let table = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let entries = table.as_chunks::<SECTION_BYTES>().0.iter();
        entries.take(self.sections.into()).map_while(Section::parse)
    }

    /// Checks the CRC of header and section table, which `bytes` begin with; usable in a `const`.
    ///
    /// # Errors
    /// [`ImageError::HeaderChecksum`], or [`ImageError::HeaderField`] if the table goes on behind
    /// the last byte.
    pub const fn check_crc(&self, bytes: &[u8]) -> Result<(), ImageError> {
        let Some((header, _)) = bytes.split_at_checked(table_end(self)) else {
            return Err(ImageError::HeaderField { offset: 56 });
        };
        let Some((before, after)) = header.split_at_checked(12) else {
            return Err(ImageError::HeaderField { offset: 12 });
        };
        let Some((stored, after)) = after.split_first_chunk::<4>() else {
            return Err(ImageError::HeaderField { offset: 12 });
        };
        let mut digest = CRC.digest();
        digest.update(before);
        digest.update(&[0; 4]);
        digest.update(after);
        if digest.finalize() == u32::from_le_bytes(*stored) {
            Ok(())
        } else {
            Err(ImageError::HeaderChecksum)
        }
    }

    /// Checks the header's CRC, and that the section table is the one that this version needs:
    /// embedding, DeepEmbed table if any, layers in order, head, then at most one each of
    /// tokenizer, start state and metadata, without gaps; the tokenizer's and the start state's if
    /// the header names them.
    ///
    /// # Errors
    /// [`ImageError::HeaderChecksum`], [`ImageError::HeaderField`], [`ImageError::SectionTable`].
    pub fn verify(&self, bytes: &[u8]) -> Result<(), ImageError> {
        self.check_crc(bytes)?;
        let mut table = Table::new(self, le16(bytes, 6))?;
        self.sections(bytes).try_for_each(|section| table.entry(&section))?;
        table.end()
    }

    /// Writes the header and the section table in front of an image whose sections stand in
    /// `sections`, checksum included.
    #[cfg(feature = "std")]
    pub fn write(&mut self, sections: &[Section], out: &mut std::vec::Vec<u8>) {
        let d = &self.dims;
        self.sections = sections.len() as u16;
        let first = |kind| sections.iter().find(|s| s.kind == kind).map_or(0, |s| s.offset);
        self.layers_offset = first(SectionKind::Layer);
        self.start_offset = first(SectionKind::StartState);
        self.bytes = sections.last().map_or(0, |s| s.offset + s.length);
        let table_end = HEADER_BYTES + sections.len() * SECTION_BYTES;
        let start = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&(table_end as u16).to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&[self.version as u8, self.math as u8, 0, self.tokenizer as u8]);
        for field in [d.layers, d.dim, d.ffn, d.vocab, d.head_size] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for eps in [d.layer_norm_eps, d.group_norm_eps] {
            out.extend_from_slice(&eps.to_le_bytes());
        }
        for field in
            [self.scratch_words, self.block_words, self.sections.into(), self.layers_offset]
        {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for rank in d.ranks {
            out.extend_from_slice(&rank.to_le_bytes());
        }
        out.extend_from_slice(&d.deep_rank.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.start_offset.to_le_bytes());
        for s in sections {
            out.extend_from_slice(&(s.kind as u16).to_le_bytes());
            out.extend_from_slice(&s.index.to_le_bytes());
            for field in [s.offset, s.length, s.crc] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        let crc = CRC.checksum(&out[start..]);
        out[start + 12..start + 16].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The offset of the first field that this version cannot have.
const fn refused(version: Version, d: &Dims, b: &[u8]) -> Option<u16> {
    let heads_fit = match version.has_heads() {
        false => d.head_size == 0,
        true => {
            d.head_size > 0 && d.head_size.is_multiple_of(4) && d.dim.is_multiple_of(d.head_size)
        }
    };
    if !heads_fit {
        return Some(36);
    }
    let needed = version.has_ranks(d.layers);
    let mut i = 0;
    while i < 4 {
        if (d.ranks[i] != 0) != needed[i] {
            return Some(64 + 2 * i as u16);
        }
        i += 1;
    }
    if !(d.layer_norm_eps > 0.0 && d.layer_norm_eps < 1.0) {
        return Some(40);
    }
    let group_fits = match version.has_heads() {
        false => d.group_norm_eps.to_bits() == 0,
        true => d.group_norm_eps > 0.0 && d.group_norm_eps < 1.0,
    };
    if !group_fits {
        return Some(44);
    }
    if le16(b, 58) != 0 {
        return Some(58);
    }
    if (d.deep_rank != 0) != version.is_deep() || d.deep_rank > MAX_DEEP_RANK {
        return Some(72);
    }
    if le16(b, 74) != 0 {
        return Some(74);
    }
    None
}
