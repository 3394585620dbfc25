//! Sections, table and header around the records, written one after the other.

use std::io::{Cursor, Seek, SeekFrom, Write};

use rwkv_core::{
    Image,
    exec::record::Request,
    image::{CRC, HEADER_BYTES, Header, Id, SECTION_BYTES, Section, SectionKind, TokenizerKind},
};

use super::{ConvertError, Folds, source::Source};

/// A section.
pub(crate) struct Part {
    pub(crate) kind: SectionKind,
    pub(crate) words: Vec<u32>,
}

/// The kind of section that a record lies in.
pub(crate) const fn kind(request: &Request) -> SectionKind {
    match (request.layer, request.id) {
        (Some(_), _) => SectionKind::Layer,
        (None, Id::Embedding) => SectionKind::Embedding,
        (None, Id::DeepEmbed) => SectionKind::DeepEmbed,
        (None, _) => SectionKind::Head,
    }
}

/// JSON padded with spaces: nothing in it depends on the container the weights came from, so the
/// same weights give the same image.
pub(super) fn metadata(source: &Source<'_>, folds: &Folds) -> Result<Part, ConvertError> {
    let [weight, bias] = source.ln0()?;
    let mut json = serde_json::json!({
        "generator": concat!("rwkv ", env!("CARGO_PKG_VERSION")),
        "parameters": source.parameters()?,
        "ln0": { "weight": weight, "bias": bias },
    });
    if let Some(scaled) = folds.metadata() {
        json["scaled"] = scaled;
    }
    let mut bytes = json.to_string().into_bytes();
    bytes.resize(bytes.len().next_multiple_of(16), b' ');
    let words = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    Ok(Part { kind: SectionKind::Metadata, words })
}

pub(super) fn too_large() -> ConvertError {
    ConvertError::Limit("the image would be larger than 4 GB".into())
}

/// Writes an image from front to back: room for header and table, then the sections. What they
/// turn out to be is known at the end, and the front is written then.
pub(crate) struct Writer<W> {
    out: W,
    /// Where in `out` the image starts.
    start: u64,
    /// Bytes so far.
    offset: usize,
    /// Sections that are there, and how many there will be.
    sections: Vec<Section>,
    count: usize,
    layers: u16,
    digest: crc::Digest<'static, u32>,
}

impl<W: Write + Seek> Writer<W> {
    /// Leaves room for the table of `count` sections.
    pub(crate) fn new(mut out: W, count: usize) -> Result<Self, ConvertError> {
        let start = out.stream_position()?;
        let offset = HEADER_BYTES + count * SECTION_BYTES;
        out.write_all(&vec![0; offset])?;
        let (sections, digest) = (Vec::with_capacity(count), CRC.digest());
        Ok(Self { out, start, offset, sections, count, layers: 0, digest })
    }

    /// Ends the section that is open and opens the next.
    pub(crate) fn open(&mut self, kind: SectionKind) -> Result<(), ConvertError> {
        self.close()?;
        let index = if kind == SectionKind::Layer { self.layers } else { 0 };
        self.layers += u16::from(kind == SectionKind::Layer);
        let offset = u32::try_from(self.offset).map_err(|_| too_large())?;
        self.sections.push(Section { kind, index, offset, length: 0, crc: 0 });
        Ok(())
    }

    /// Goes on with the open section.
    pub(crate) fn words(&mut self, words: &[u32]) -> Result<(), ConvertError> {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        self.offset += bytes.len();
        u32::try_from(self.offset).map_err(|_| too_large())?;
        self.digest.update(bytes);
        Ok(self.out.write_all(bytes)?)
    }

    fn close(&mut self) -> Result<(), ConvertError> {
        let Some(Section { offset, .. }) = self.sections.last().copied() else { return Ok(()) };
        let length = self.offset - offset as usize;
        let padding = [0; 3];
        self.words(&padding[..(length.next_multiple_of(16) - length) / 4])?;
        let digest = std::mem::replace(&mut self.digest, CRC.digest());
        if let Some(section) = self.sections.last_mut() {
            section.length = (self.offset - offset as usize) as u32;
            section.crc = digest.finalize();
        }
        Ok(())
    }

    /// Ends the last section and writes the front.
    ///
    /// # Panics
    /// If there are not as many sections as was said.
    pub(crate) fn finish(mut self, mut header: Header) -> Result<(), ConvertError> {
        self.close()?;
        assert_eq!(self.sections.len(), self.count, "sections of an image");
        let mut front = Vec::new();
        header.write(&self.sections, &mut front);
        self.out.seek(SeekFrom::Start(self.start))?;
        self.out.write_all(&front)?;
        self.out.seek(SeekFrom::Start(self.start + self.offset as u64))?;
        Ok(self.out.flush()?)
    }
}

/// Puts sections together.
pub(crate) fn assemble(header: Header, parts: Vec<Part>) -> Result<Vec<u8>, ConvertError> {
    let mut image = Cursor::new(Vec::new());
    let mut writer = Writer::new(&mut image, parts.len())?;
    for Part { kind, words } in parts {
        writer.open(kind)?;
        writer.words(&words)?;
    }
    writer.finish(header)?;
    Ok(image.into_inner())
}

/// An image with another optional section, or without it; without a tokenizer section, tokens are
/// bytes. The reader has yet to accept it.
///
/// # Errors
/// [`ConvertError::Limit`].
pub fn with_section(
    image: &Image<'_>,
    kind: SectionKind,
    words: Option<Vec<u32>>,
) -> Result<Vec<u8>, ConvertError> {
    let sections = image.sections().filter(|section| section.kind != kind);
    let part = |section: Section| {
        let range = section.range();
        let words = image.words()[range.start / 4..range.end / 4].to_vec();
        Part { kind: section.kind, words }
    };
    let mut parts: Vec<Part> = sections.map(part).collect();
    if let Some(words) = words {
        let follows = |part: &Part| part.kind.is_optional() && part.kind as u8 > kind as u8;
        let at = parts.iter().position(follows).unwrap_or(parts.len());
        parts.insert(at, Part { kind, words });
    }
    let mut header = *image.header();
    header.tokenizer = match kind {
        SectionKind::Tokenizer if parts.iter().any(|part| part.kind == kind) => {
            TokenizerKind::Vocabulary
        }
        SectionKind::Tokenizer => TokenizerKind::Bytes,
        _ => header.tokenizer,
    };
    assemble(header, parts)
}
