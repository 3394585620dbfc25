//! Files that are read whole and aligned, or written whole or not at all.

#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use anyhow::{Context, bail, ensure};
use rwkv_core::{
    Image, ImageError,
    saved::{SAVED_BYTES, Saved, SavedError},
};
use tempfile::{Builder, NamedTempFile};

use crate::trace;

/// A file that a command reads: what it is, and where.
pub type Input<'a> = (&'static str, &'a Path);

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
        Self::fill(path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn fill(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut image = Self { words: vec![0; len.div_ceil(8)], len };
        // A pipe says that it is empty: what is there beyond the length is read as it comes.
        file.read_exact(image.bytes_mut())?;
        let mut rest = Vec::new();
        file.read_to_end(&mut rest)?;
        Ok(if rest.is_empty() { image } else { Self::new(&[image.bytes(), &rest].concat()) })
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
            Err(ImageError::Magic) if is_state(self.bytes()) => bail!(
                "{} is a saved state and no image; give the image that it was made with, and this file \
                 with --state to go on from it",
                path.display()
            ),
            Err(ImageError::Magic) if trace::is_trace(self.bytes()) => bail!(
                "{} is a trace and no image; give the image that it is of, and this file with --golden to \
                 rwkv validate, or with --check to rwkv trace",
                path.display()
            ),
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

/// Refuses an output that would take the place of one of these, by whatever name.
///
/// # Errors
/// If the output is one of them: what would be lost, and the next step.
pub fn check_output<'a>(
    output: &Path,
    inputs: impl IntoIterator<Item = Input<'a>>,
) -> anyhow::Result<()> {
    for (what, input) in inputs {
        // What is not there, or cannot be looked at, cannot be lost.
        let same = same_file::is_same_file(output, input).unwrap_or(false);
        ensure!(
            !same,
            "{} would take the place of the {what} that this command reads, which would be lost; \
             write to a file of another name",
            output.display()
        );
    }
    Ok(())
}

/// Whether this is a state that was saved, be it damaged, with its whole header.
pub(crate) fn is_state(bytes: &[u8]) -> bool {
    bytes.len() >= SAVED_BYTES && !matches!(Saved::parse(bytes), Err(SavedError::Magic))
}

/// A file of another name beside `path`, which goes away unless it is kept.
///
/// # Errors
/// If there can be none.
pub(crate) fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut builder = Builder::new();
    // What any new file has: the process's umask takes from it.
    #[cfg(unix)]
    builder.permissions(fs::Permissions::from_mode(0o666));
    builder.tempfile_in(dir.unwrap_or(Path::new(".")))
}

/// Gives a whole file its name, so that an interruption leaves the old file or none.
///
/// # Errors
/// If it cannot be written or renamed.
pub(crate) fn keep(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Writes a file under a temporary name beside it and renames it.
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut file = temporary(path)?;
        file.write_all(bytes)?;
        keep(file, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_permissions_of_any_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let mode =
            |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        fs::write(dir.path().join("usual"), "").unwrap();
        write_whole(&dir.path().join("own"), b"").unwrap();
        assert_eq!(mode("own"), mode("usual"));
    }
}
