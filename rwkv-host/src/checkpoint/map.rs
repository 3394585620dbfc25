//! The bytes of a checkpoint: the memory map, and bounds-checked reading from it.

use std::{
    io,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use super::{CheckpointError, Container};

/// A file mapped into memory, read-only: the system loads the pages that are touched and drops
/// them again, so a file larger than the memory can be read.
#[derive(Debug)]
pub(crate) struct Map {
    path: PathBuf,
    bytes: Mmap,
}

impl Map {
    #[expect(unsafe_code, reason = "a memory map is sound only while nobody changes its file")]
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = std::fs::File::open(path).and_then(|file| {
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            // SAFETY: the map is private to this value and only ever read. What remains is that
            // another process changes or truncates the file meanwhile: any byte pattern is valid
            // input to the readers, and truncation ends the process with a bus error.
            unsafe { Mmap::map(&file) }
        });
        match bytes {
            Ok(bytes) => Ok(Self { path: path.into(), bytes }),
            Err(source) => Err(CheckpointError::Open { path: path.into(), source }),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn file(&self) -> File<'_> {
        File { path: &self.path, bytes: &self.bytes }
    }
}

/// The content of a checkpoint, and the path that errors name.
#[derive(Debug, Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) path: &'a Path,
    pub(super) bytes: &'a [u8],
}

impl File<'_> {
    pub(super) fn damaged(
        self,
        container: Container,
        at: usize,
        problem: impl Into<String>,
    ) -> CheckpointError {
        CheckpointError::Damaged { path: self.path.into(), container, at, problem: problem.into() }
    }

    pub(super) fn unsupported(
        self,
        found: impl Into<String>,
        expected: &'static str,
        remedy: &'static str,
    ) -> CheckpointError {
        CheckpointError::Unsupported {
            path: self.path.into(),
            found: found.into(),
            expected,
            remedy,
        }
    }
}

/// A place in a byte string. Reading past the end gives `None` and leaves the place as it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes from the start to the current place.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.rest().get(..len)?;
        self.at += len;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = *self.rest().first_chunk()?;
        self.at += N;
        Some(array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_stops_at_the_end() {
        let mut cursor = Cursor::new(&[1, 2, 3, 4, 5]);
        assert_eq!(cursor.array(), Some([1, 2]));
        assert_eq!(cursor.take(usize::MAX), None);
        assert_eq!(cursor.array::<4>(), None);
        assert_eq!(cursor.take(3), Some(&[3, 4, 5][..]));
        assert_eq!((cursor.at(), cursor.rest()), (5, &[][..]));
    }

    #[test]
    fn a_folder_is_refused_and_an_empty_file_is_not() {
        let folder = std::env::temp_dir();
        assert!(matches!(Map::open(&folder), Err(CheckpointError::Open { .. })));
        let path = folder.join(format!("rwkv-empty-{}", std::process::id()));
        std::fs::write(&path, []).unwrap();
        assert!(Map::open(&path).unwrap().file().bytes.is_empty());
        std::fs::remove_file(path).unwrap();
    }
}
