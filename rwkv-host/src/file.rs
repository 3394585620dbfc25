//! Files that are read whole and aligned, or written whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rwkv_core::{Image, ImageError};

/// The bytes of an image file, aligned as flash is.
#[derive(Debug, Clone)]
pub struct ImageFile {
    words: Vec<u64>,
    len: usize,
}

impl ImageFile {
    /// Takes the bytes of an image.
    pub fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self { words, len: bytes.len() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::new(&bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    /// The bytes, to damage them in a test.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }

    /// Checks and opens the image.
    ///
    /// # Errors
    /// Any [`ImageError`].
    pub fn open(&self) -> Result<Image<'_>, ImageError> {
        Image::open(self.bytes())
    }

    /// As [`ImageFile::open`], with an error that names the file and the next step.
    ///
    /// # Errors
    /// Any [`ImageError`].
    pub fn open_named(&self, path: &Path) -> anyhow::Result<Image<'_>> {
        match self.open() {
            Ok(image) => Ok(image),
            Err(ImageError::Magic) => bail!(
                "{} is not an RWKV image; make one with: rwkv convert {} -o model.rwkv --weights int8",
                path.display(),
                path.display()
            ),
            Err(error) => Err(error).with_context(|| {
                format!("{} was refused; convert the checkpoint again", path.display())
            }),
        }
    }
}

/// Writes a file under a temporary name beside it and renames it, so that an interruption leaves
/// the old file or none.
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_by(path, |temporary| Ok(fs::write(temporary, bytes)?))
}

/// As [`write_whole`], where `write` writes the file under its temporary name.
///
/// # Errors
/// If it cannot be written.
pub fn write_by(
    path: &Path,
    write: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    };
    let whole = || -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new_in(&dir)?;
        write(file.path())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    whole().with_context(|| format!("cannot write {}", path.display()))
}
