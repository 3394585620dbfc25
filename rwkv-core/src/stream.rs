//! Where the weights come from.

pub use crate::exec::blocks::{Blocks, InPieces, Whole};

use crate::error::StreamError;

/// A source of image words, read straight ahead.
///
/// Positions and lengths are in words of four bytes. A slice that was handed out is valid until
/// the next call. An implementation may start the following read while the core computes.
#[expect(async_fn_in_trait, reason = "streams are used by value, never through dyn or threads")]
pub trait Stream {
    /// Whether blocks are compared with their checksums as they pass.
    const VERIFY: bool;

    /// Whether blocks may be longer than what is handed out at once: [`InPieces`], or [`Whole`], which
    /// spares firmware the code for that.
    type Blocks: Blocks;

    /// The next `words` words.
    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError>;

    /// Passes over `words` words.
    async fn skip(&mut self, words: usize) -> Result<(), StreamError>;

    /// Goes to a word of the image.
    async fn seek(&mut self, word: usize) -> Result<(), StreamError>;

    /// `words` words from somewhere else, without losing the place.
    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError>;

    /// The word that [`Stream::next`] would return first.
    fn position(&self) -> usize;

    /// The most words that can be handed out at once, wherever they lie. The model asks a stream whose
    /// blocks may come in pieces for longer ones so.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// Says which words will be asked for behind those that were named before, where words are
    /// passed over. A stream that reads ahead reads them when it has room; without a hint it may go
    /// straight ahead.
    fn ahead(&mut self, word: usize, words: usize) {
        let _ = (word, words);
    }

    /// Something that was handed out turned out to be wrong: a stream that keeps what it read lets
    /// go of it, so that it is read anew.
    fn forget(&mut self) {}
}

/// An image in place: memory, or memory-mapped flash.
///
/// It was checked when it was opened. With `VERIFY`, every block is compared with its checksum
/// besides, each time before it is used: for a flash whose reads may fail unnoticed.
#[derive(Debug, Clone)]
pub struct InPlace<'a, const VERIFY: bool = false> {
    words: &'a [u32],
    at: usize,
}

crate::brief!([const VERIFY: bool] InPlace<'_, VERIFY>,
    |stream| "InPlace({} words, at {})", stream.words.len(), stream.at);

impl<'a> InPlace<'a> {
    /// A stream over [`crate::Image::words`].
    pub const fn new(words: &'a [u32]) -> Self {
        Self::with(words)
    }
}

impl<'a> InPlace<'a, true> {
    /// As [`InPlace::new`], and compares every block with its checksum before it is used.
    pub const fn verified(words: &'a [u32]) -> Self {
        Self::with(words)
    }
}

impl<'a, const VERIFY: bool> InPlace<'a, VERIFY> {
    /// [`InPlace::new`] or [`InPlace::verified`], as the type says.
    pub const fn with(words: &'a [u32]) -> Self {
        Self { words, at: 0 }
    }

    /// The memory.
    pub const fn words(&self) -> &'a [u32] {
        self.words
    }

    fn get(&self, word: usize, words: usize) -> Result<&'a [u32], StreamError> {
        let rest = self.words.get(word..).unwrap_or_default();
        rest.get(..words).ok_or(StreamError::OutOfBounds { offset: (word as u32).wrapping_mul(4) })
    }
}

impl<const VERIFY: bool> Stream for InPlace<'_, VERIFY> {
    const VERIFY: bool = VERIFY;

    type Blocks = Whole;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        let found = self.get(self.at, words)?;
        self.at += words;
        Ok(found)
    }

    async fn skip(&mut self, words: usize) -> Result<(), StreamError> {
        self.at = self.at.saturating_add(words);
        Ok(())
    }

    async fn seek(&mut self, word: usize) -> Result<(), StreamError> {
        self.at = word;
        Ok(())
    }

    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        self.get(word, words)
    }

    fn position(&self) -> usize {
        self.at
    }
}

impl<S: Stream> Stream for &mut S {
    const VERIFY: bool = S::VERIFY;

    type Blocks = S::Blocks;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        (**self).next(words).await
    }

    async fn skip(&mut self, words: usize) -> Result<(), StreamError> {
        (**self).skip(words).await
    }

    async fn seek(&mut self, word: usize) -> Result<(), StreamError> {
        (**self).seek(word).await
    }

    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        (**self).read_at(word, words).await
    }

    fn position(&self) -> usize {
        (**self).position()
    }

    fn room(&self) -> usize {
        (**self).room()
    }

    fn ahead(&mut self, word: usize, words: usize) {
        (**self).ahead(word, words);
    }

    fn forget(&mut self) {
        (**self).forget();
    }
}
