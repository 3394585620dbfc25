//! One buffer: what is asked for is read when it is asked for.

use rwkv_core::{
    StreamError,
    stream::{InPieces, Stream},
};

use super::{Medium, Place, Reads, words_within};

/// A stream over a medium, through one buffer.
///
/// What lies in the buffer is not read again: in a run of words every unit of the medium is read
/// once.
#[derive(Debug)]
pub struct Buffered<'b, M, const VERIFY: bool = true> {
    medium: M,
    place: Place,
    buffer: &'b mut [u32],
    /// The word of the image at the front of the buffer, and how many are there.
    held: (usize, usize),
    at: usize,
    reads: Reads,
}

rwkv_core::brief!([M, const VERIFY: bool] Buffered<'_, M, VERIFY>, |stream| "Buffered(at word {}, {})",
    stream.at, stream.reads);

impl<'b, M: Medium, const VERIFY: bool> Buffered<'b, M, VERIFY> {
    /// A stream over an image of `bytes` bytes ([`rwkv_core::Header::bytes`]) that begins at byte
    /// `first` of the medium, a multiple of its unit. The buffer has room for a block,
    /// [`super::buffer_words`], or for a piece, [`super::least_buffer_words`].
    ///
    /// # Errors
    /// [`StreamError::Misplaced`] if the image does not begin with a unit.
    pub fn new(
        medium: M,
        first: u32,
        bytes: u32,
        buffer: &'b mut [u32],
    ) -> Result<Self, StreamError> {
        let place = Place::new::<M>(first, bytes)?;
        let reads = Reads::default();
        Ok(Self { medium, place, buffer, held: (0, 0), at: 0, reads })
    }

    /// What was read of the medium so far.
    pub const fn reads(&self) -> Reads {
        self.reads
    }

    /// The medium.
    pub const fn medium(&mut self) -> &mut M {
        &mut self.medium
    }

    /// Bytes of the image, or of the place where it lies.
    pub const fn bytes(&self) -> u32 {
        (self.place.words as u32).wrapping_mul(4)
    }

    /// The medium, when there is nothing more to read.
    pub fn into_medium(self) -> M {
        self.medium
    }

    async fn get(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        let (first, held) = self.held;
        let end = word.saturating_add(words);
        if word < first || end > first + held {
            self.fill(word, words).await?;
        }
        let at = word.saturating_sub(self.held.0);
        let found = self.buffer.get(at..at.saturating_add(words));
        found.ok_or(StreamError::Buffer { words: words as u32 })
    }

    /// Reads the units around some words, but for those that lie in the buffer already.
    async fn fill(&mut self, word: usize, words: usize) -> Result<(), StreamError> {
        let (low, high) = self.place.units::<M>(word, words)?;
        let small = StreamError::Buffer { words: words as u32 };
        if high - low > self.buffer.len() {
            return Err(small);
        }
        let (first, held) = self.held;
        let from = low.checked_sub(first).filter(|from| *from < held);
        let kept = match (from, self.buffer.get_mut(..held)) {
            (Some(from), Some(words)) => {
                words.copy_within(from.., 0);
                held - from
            }
            _ => 0,
        };
        // Until the read has ended, there is nothing.
        self.held = (0, 0);
        let rest = self.buffer.get_mut(kept..high - low).ok_or(small)?;
        self.reads.add(4 * rest.len());
        self.place.read(&mut self.medium, low + kept, rest).await?;
        self.held = (low, high - low);
        Ok(())
    }
}

impl<M: Medium, const VERIFY: bool> Stream for Buffered<'_, M, VERIFY> {
    const VERIFY: bool = VERIFY;

    type Blocks = InPieces;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        let at = self.at;
        self.get(at, words).await?;
        self.at += words;
        self.get(at, words).await
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
        self.get(word, words).await
    }

    fn position(&self) -> usize {
        self.at
    }

    fn room(&self) -> usize {
        words_within(self.buffer.len(), M::UNIT)
    }

    fn forget(&mut self) {
        self.held = (0, 0);
    }
}
