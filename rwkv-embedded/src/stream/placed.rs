//! Part of an image in memory that the core can address, the rest from another stream.

use rwkv_core::{StreamError, stream::Stream};

/// Words of an image that lie in a memory as well. `rwkv place` chooses them and writes the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct PlacedRange {
    /// The first of them in the image.
    pub first: u32,
    /// How many.
    pub words: u32,
    /// Where they begin in the memory, in words.
    pub at: u32,
}

/// A stream over an image of which some words lie in a memory: internal flash or RAM. Words of
/// which not all lie in one range come from the inner stream, which has the whole image.
///
/// Blocks from the memory are compared with their checksums where the inner stream asks for it.
/// Over a stream that reads ahead, what lies behind the place where a range begins may be read in
/// vain, as far as its buffers hold it.
///
/// Two memories are two of these, one over the other.
///
/// ```
/// # use rwkv_core::stream::Stream;
/// # use rwkv_embedded::stream::{Placed, PlacedRange};
/// # fn placed<'a>(in_flash: &'a [u32], in_ram: &'a [u32], card: impl Stream) -> impl Stream {
/// const FLASH: [PlacedRange; 1] = [PlacedRange { first: 64, words: 1000, at: 0 }];
/// const RAM: [PlacedRange; 1] = [PlacedRange { first: 1064, words: 200, at: 0 }];
/// Placed::new(&FLASH, in_flash, Placed::new(&RAM, in_ram, card))
/// # }
/// ```
#[derive(Debug)]
pub struct Placed<'a, S> {
    ranges: &'a [PlacedRange],
    memory: &'a [u32],
    inner: S,
    at: usize,
}

rwkv_core::brief!([S] Placed<'_, S>, |stream| "Placed(at word {})", stream.at);

impl<'a, S: Stream> Placed<'a, S> {
    /// A stream over ranges in ascending order, none of which overlap, and the memory in which
    /// they lie. A range that the memory does not hold is not used.
    pub fn new(ranges: &'a [PlacedRange], memory: &'a [u32], inner: S) -> Self {
        let at = inner.position();
        Self { ranges, memory, inner, at }
    }

    /// The inner stream.
    pub const fn inner(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Some words, if all of them lie in one range.
    fn find(&self, word: usize, words: usize) -> Option<&'a [u32]> {
        let behind = self.ranges.partition_point(|range| range.first as usize <= word);
        let range = self.ranges.get(behind.checked_sub(1)?)?;
        let from = word.checked_sub(range.first as usize)?;
        if from.checked_add(words)? > range.words as usize {
            return None;
        }
        self.memory.get((range.at as usize).checked_add(from)?..)?.get(..words)
    }
}

impl<S: Stream> Stream for Placed<'_, S> {
    const VERIFY: bool = S::VERIFY;

    type Blocks = S::Blocks;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        let at = self.at;
        if let Some(found) = self.find(at, words) {
            self.at = at.saturating_add(words);
            return Ok(found);
        }
        if self.inner.position() != at {
            self.inner.seek(at).await?;
        }
        let found = self.inner.next(words).await?;
        self.at = at.saturating_add(words);
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
        match self.find(word, words) {
            Some(found) => Ok(found),
            None => self.inner.read_at(word, words).await,
        }
    }

    fn position(&self) -> usize {
        self.at
    }

    /// That of the inner stream, also for what lies in the memory.
    fn room(&self) -> usize {
        self.inner.room()
    }

    fn ahead(&mut self, word: usize, words: usize) {
        if self.find(word, words).is_none() {
            self.inner.ahead(word, words);
        }
    }

    fn forget(&mut self) {
        self.inner.forget();
    }
}

/// Fills a memory with its ranges from a stream, `words` at a time: RAM at boot. The stream keeps
/// its place.
///
/// # Errors
/// The stream's; [`StreamError::Buffer`] if the memory is too small.
pub async fn load<S: Stream>(
    ranges: &[PlacedRange],
    memory: &mut [u32],
    stream: &mut S,
    words: usize,
) -> Result<(), StreamError> {
    for range in ranges {
        let (at, len) = (range.at as usize, range.words as usize);
        let small = StreamError::Buffer { words: range.words };
        let into = memory.get_mut(at..at.saturating_add(len)).ok_or(small)?;
        let mut word = range.first as usize;
        for piece in into.chunks_mut(words.max(1)) {
            let found = stream.read_at(word, piece.len()).await?;
            piece.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
            word = word.saturating_add(piece.len());
        }
    }
    Ok(())
}
