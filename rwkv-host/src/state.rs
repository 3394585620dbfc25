//! State files: a state that was saved, and the token to go on with.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, ensure};
use rwkv_core::{
    Image,
    saved::{SAVED_BYTES, Saved, SavedError},
};

use crate::{file, memory::Memory};

/// What a state file says beside the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Tokens that the state has read.
    pub position: u64,
    /// The token to read next, if it is known.
    pub pending: Option<u32>,
}

/// The bytes of a state file.
///
/// # Errors
/// [`SavedError::Broken`] or [`SavedError::NonFinite`].
pub fn to_bytes(
    image: &Image<'_>,
    memory: &mut Memory,
    place: Place,
) -> Result<Vec<u8>, SavedError> {
    let state = memory.state(image).map_err(|_| SavedError::Shape)?;
    let saved = Saved::of(image.identity(), image.header(), &state)?;
    let Place { position, pending } = place;
    let mut bytes = Saved { position, pending, ..saved }.to_bytes().to_vec();
    state
        .words()
        .into_iter()
        .for_each(|words| bytes.extend_from_slice(bytemuck::cast_slice(words)));
    Ok(bytes)
}

/// Puts the content of a state file into memory for its image.
///
/// # Errors
/// Any [`SavedError`]; the memory is as it was.
pub fn restore(image: &Image<'_>, memory: &mut Memory, bytes: &[u8]) -> Result<Place, SavedError> {
    let saved = Saved::parse(bytes)?;
    saved.check(image.identity(), image.header())?;
    let words = bytes.get(SAVED_BYTES..).unwrap_or_default();
    let mut state = memory.state(image).map_err(|_| SavedError::Shape)?;
    saved.restore(words, &mut state)?;
    Ok(Place { position: saved.position, pending: saved.pending })
}

/// Writes a state file, whole or not at all.
///
/// # Errors
/// If the state is of no use or the file cannot be written.
pub fn write(
    path: &Path,
    image: &Image<'_>,
    memory: &mut Memory,
    place: Place,
) -> anyhow::Result<()> {
    let bytes = to_bytes(image, memory, place).context("the state cannot be saved")?;
    file::write_whole(path, &bytes)
}

/// Reads a state file into memory for its image.
///
/// # Errors
/// If it cannot be read, is damaged, or is of another image.
pub fn read(path: &Path, image: &Image<'_>, memory: &mut Memory) -> anyhow::Result<Place> {
    let shown = path.display();
    let room = SAVED_BYTES as u64 + 4 * image.header().state_words() as u64;
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let mut bytes = Vec::new();
    // A byte more than the image's states have is enough to see that there are more.
    let read = file.take(room + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {shown}"))?;
    let refused = match restore(image, memory, &bytes) {
        Ok(place) => return Ok(place),
        Err(refused) => refused,
    };
    ensure!(
        refused != SavedError::Magic,
        "{shown} is not a saved state; make one with: rwkv prefill IMAGE --prompt TEXT -o {shown}"
    );
    Err(refused).with_context(|| {
        format!("{shown} is of no use here; make it anew with rwkv prefill and this image")
    })
}
