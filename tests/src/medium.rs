//! Streams in virtual time.

use std::cell::Cell;

use rwkv_core::{
    Error, Image, StreamError,
    image::{Checked, Id, Layout, PIECE_WORDS, RECORD_WORDS, check},
    poll,
    stream::Stream,
};
use rwkv_embedded::stream::{Buffered, words_around};
pub use rwkv_host::fit::{Clock, Fault, SimFlash};

/// A stream whose words take time to compute with.
#[derive(Debug)]
pub struct Costly<'a, S> {
    /// The stream.
    pub stream: S,
    /// The clock that it takes the time of.
    pub clock: &'a Clock,
    /// Time for each word.
    pub per_word: u64,
    /// Time that was spent.
    pub spent: &'a Cell<u64>,
    /// Words that were handed out and not computed with.
    pub handed: usize,
}

impl<S> Costly<'_, S> {
    fn compute(&mut self) {
        let time = self.per_word * std::mem::take(&mut self.handed) as u64;
        self.clock.pass(time);
        self.spent.set(self.spent.get() + time);
    }
}

impl<S: Stream> Stream for Costly<'_, S> {
    const VERIFY: bool = S::VERIFY;

    type Blocks = S::Blocks;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        self.compute();
        self.handed = words;
        self.stream.next(words).await
    }

    async fn skip(&mut self, words: usize) -> Result<(), StreamError> {
        self.compute();
        self.stream.skip(words).await
    }

    async fn seek(&mut self, word: usize) -> Result<(), StreamError> {
        self.compute();
        self.stream.seek(word).await
    }

    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        self.compute();
        self.handed = words;
        self.stream.read_at(word, words).await
    }

    fn position(&self) -> usize {
        self.stream.position()
    }

    fn room(&self) -> usize {
        self.stream.room()
    }

    fn ahead(&mut self, word: usize, words: usize) {
        self.compute();
        self.stream.ahead(word, words);
    }

    fn forget(&mut self) {
        self.stream.forget();
    }
}

/// Bytes that a token reads of an image without the columns of its sparse products, and bytes of
/// one column.
///
/// # Panics
/// If the image is none.
pub fn token_bytes(image: &Image<'_>) -> (u64, u64) {
    let (mut fixed, mut column) = (0, 0);
    let walk = image.walk(|_, found| {
        let record = found.record;
        fixed += RECORD_WORDS as u64;
        fixed += match (record.id, record.layout) {
            (Id::Embedding, _) => record.tile_words(1) as u64,
            // A header and a row for each layer.
            (Id::DeepEmbed, _) => {
                let layers = u64::from(image.header().dims.layers);
                layers * (RECORD_WORDS + record.tile_words(1)) as u64 - RECORD_WORDS as u64
            }
            (_, Layout::RowMajor) => found.payload.len() as u64,
            (_, Layout::InputMajor) => {
                column = 1 + record.line_words() as u64;
                found.payload.len() as u64 - column * u64::from(record.cols)
            }
        };
        Ok(())
    });
    walk.expect("it was checked");
    (4 * fixed, 4 * column)
}

/// Checks the image on a flash that is read by so many bytes, through the smallest buffer.
///
/// # Errors
/// Those of the check.
pub fn check_over<const UNIT: usize>(flash: SimFlash<'_, UNIT>) -> Result<Checked, Error> {
    let given = flash.bytes().len() as u32;
    let mut buffer = vec![0; words_around(PIECE_WORDS, UNIT)];
    let mut stream = Buffered::<_, true>::new(flash, 0, given, &mut buffer)?;
    poll::once(check(&mut stream, given)).expect("such a flash takes no time")
}
