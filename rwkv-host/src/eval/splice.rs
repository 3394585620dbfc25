//! Images made of two: some records of one, the others of the other.

use rwkv_core::{
    Header, Image,
    exec::record::Request,
    image::{RECORD_WORDS, SectionKind},
};

use super::EvalError;
use crate::{
    convert::{Part, assemble, kind, start_section},
    file::ImageFile,
};

/// The image `base`, start state and all, with those records of `other` that `wanted` names. The
/// caller has checked that both are of one shape.
pub(super) fn splice(
    base: &Image<'_>,
    other: &Image<'_>,
    wanted: impl Fn(&Request) -> bool,
) -> Result<ImageFile, EvalError> {
    let mut replacements = Vec::new();
    other.walk(|request, found| {
        replacements.push(wanted(request).then_some(*found));
        Ok(())
    })?;
    let mut replacements = replacements.into_iter();
    let mut parts: Vec<Part> = Vec::new();
    let mut block_words = 0;
    let plan = base.walk(|request, found| {
        if request.opens_section {
            parts.push(Part { kind: kind(request), words: Vec::new() });
        }
        let replacement = replacements.next().flatten();
        let (image, found) = match &replacement {
            Some(replacement) => (other, replacement),
            None => (base, found),
        };
        let first = found.offset as usize / 4;
        let end = first + RECORD_WORDS + found.payload.len();
        if let (Some(part), Some(words)) = (parts.last_mut(), image.words().get(first..end)) {
            part.words.extend_from_slice(words);
        }
        let largest = found.record.blocks().max().unwrap_or_default();
        block_words = block_words.max(largest as u32);
        Ok(())
    })?;
    if let Some(words) = base.start_state() {
        let words = start_section(&words.collect::<Vec<_>>(), block_words);
        parts.push(Part { kind: SectionKind::StartState, words });
    }
    let header = base.header();
    let mut new = Header::new(header.version, header.dims, plan.scratch_words, block_words);
    new.math = header.math;
    let image = assemble(new, parts)?;
    Ok(ImageFile::new(&image))
}
