//! The start state of an image: where it comes from, and how it lies in its section.

use rwkv_core::{
    Image,
    image::{Dims, Format, Id, Layout, Record, SectionKind, Version, checksum},
};

use super::{ConvertError, assemble::with_section, source::finite};
use crate::checkpoint::{Checkpoint, CheckpointError};

/// What the names of tuned states end in.
const TUNED: &str = ".att.time_state";

/// The section of a start state, in blocks of `largest` words at most: the largest block of the
/// records of an image stays what it is.
pub(crate) fn section(words: &[f32], largest: u32) -> Vec<u32> {
    let tile_rows = (largest as usize).saturating_sub(1).min(words.len()).min(u16::MAX.into());
    let tile_rows = tile_rows.max(1);
    let record = Record {
        id: Id::StartState,
        format: Format::F32,
        layout: Layout::RowMajor,
        bits: 0,
        rows: words.len() as u32,
        cols: 1,
        tile_rows: tile_rows as u16,
    };
    let mut out = record.to_words().to_vec();
    for tile in words.chunks(tile_rows) {
        let tile: Vec<u32> = tile.iter().map(|x| x.to_bits()).collect();
        out.push(checksum(&tile));
        out.extend(tile);
    }
    out
}

/// The image with another start state, in the order of `StateView::words`, or with none. The
/// reader has yet to accept it.
///
/// # Errors
/// [`ConvertError::Limit`].
pub fn with_start(image: &Image<'_>, words: Option<&[f32]>) -> Result<Vec<u8>, ConvertError> {
    let section = words.map(|words| section(words, image.header().block_words));
    with_section(image, SectionKind::StartState, section)
}

/// The start state of a checkpoint whose states were tuned, or of a file that holds nothing but
/// such states; `None` if there are none. All else is as if nothing was read.
///
/// A file has the values `[head][value][key]`; a state has the keys first, in every version.
///
/// # Errors
/// [`ConvertError::Tuned`], [`ConvertError::Shape`], [`ConvertError::NonFinite`] or
/// [`ConvertError::Checkpoint`].
pub fn tuned(
    checkpoint: &Checkpoint,
    version: Version,
    dims: &Dims,
) -> Result<Option<Vec<f32>>, ConvertError> {
    let name = |layer: u32| format!("blocks.{layer}{TUNED}");
    let wrong = |name: String, problem: String| Err(ConvertError::Tuned { name, problem });
    let names: Vec<String> = (0..dims.layers).map(name).collect();
    let foreign = checkpoint.names().find(|found| found.ends_with(TUNED) && !names.contains(found));
    if let Some(found) = foreign {
        return wrong(found.clone(), format!("the model has {} layers", dims.layers));
    }
    let Some(first) = names.iter().find(|name| checkpoint.names().any(|found| found == *name))
    else {
        return Ok(None);
    };
    if !version.has_heads() {
        return wrong(first.clone(), format!("RWKV-{} has no such state", version.name()));
    }
    let n = dims.head_size as usize;
    let shape = [dims.dim as usize / n.max(1), n, n];
    let mut words = vec![0.0; 2 * dims.layers as usize * dims.dim as usize];
    for (layer, name) in names.iter().enumerate() {
        if let Some(entry) = checkpoint.get(name).filter(|entry| entry.shape != shape) {
            let (name, found) = (name.clone(), entry.shape.clone());
            return Err(ConvertError::Shape { name, found, expected: format!("{shape:?}") });
        }
        let tensor = match checkpoint.read(name) {
            Err(CheckpointError::Missing { .. }) => {
                return wrong(first.clone(), format!("layer {layer} has none: no `{name}`"));
            }
            tensor => tensor?,
        };
        for head in finite(name, tensor.data)?.chunks_exact(n * n) {
            words.extend((0..n * n).map(|i| head[i % n * n + i / n]));
        }
    }
    Ok(Some(words))
}
