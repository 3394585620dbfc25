//! Sections, table and header around the records.

use rwkv_core::{
    Image,
    exec::record::Request,
    image::{CRC, HEADER_BYTES, Header, Id, SECTION_BYTES, Section, SectionKind, TokenizerKind},
};

use super::{ConvertError, Folds, source::Source};

/// A section under construction.
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

/// Puts sections together.
pub(crate) fn assemble(mut header: Header, parts: Vec<Part>) -> Result<Vec<u8>, ConvertError> {
    let mut offset = HEADER_BYTES + parts.len() * SECTION_BYTES;
    let mut sections = Vec::new();
    let mut body: Vec<u8> = Vec::new();
    let mut layer = 0;
    for Part { kind, mut words } in parts {
        words.resize(words.len().next_multiple_of(4), 0);
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        let index = if kind == SectionKind::Layer { layer } else { 0 };
        layer += u16::from(kind == SectionKind::Layer);
        sections.push(Section {
            kind,
            index,
            offset: u32::try_from(offset).map_err(|_| too_large())?,
            length: u32::try_from(bytes.len()).map_err(|_| too_large())?,
            crc: CRC.checksum(bytes),
        });
        offset += bytes.len();
        u32::try_from(offset).map_err(|_| too_large())?;
        body.extend_from_slice(bytes);
    }
    let mut image = Vec::with_capacity(offset);
    header.write(&sections, &mut image);
    image.append(&mut body);
    Ok(image)
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
