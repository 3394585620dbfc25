//! Weights from media that the core cannot address.
//!
//! A *medium* is anything that bytes can be read from by their place: [`Medium`]. Over it stand
//! two streams of [`rwkv_core::stream`]:
//!
//! - [`Buffered`] reads what is asked for when it is asked for, through one buffer;
//! - [`ReadAhead`] has two buffers or more, and reads into one while the core computes from another.
//!
//! Media that there are: [`Nor`] and [`NorAsync`] over the traits of `embedded-storage` and its
//! asynchronous twin, and [`Sectors`] over cards and disks that are read by blocks of 512 bytes,
//! such as an [`SdCard`] in SPI mode.
//!
//! [`Placed`] lies over either: part of the image in internal flash or RAM, the rest from there.
//!
//! Both streams compare the checksum of every block before it is used (of a vector in pieces, before
//! the token ends), unless their parameter `VERIFY` is false. Buffers are the caller's:
//! [`buffer_words`] has room for every block as a whole; with less, down to [`least_buffer_words`],
//! the longer ones come in pieces.

mod ahead;
mod buffered;
mod media;
mod placed;
mod plan;
mod sd;

pub use ahead::{Ahead, ReadAhead};
pub use buffered::Buffered;
pub use media::{Nor, NorAsync, SECTOR, SectorDevice, Sectors};
pub use placed::{Placed, PlacedRange, load};
pub use sd::{SdBus, SdCard, SdError};

use core::{future::poll_fn, task::Poll};

use rwkv_core::{
    Header, StreamError,
    image::{PIECE_WORDS, RECORD_WORDS, Version},
    stream::Stream,
};

/// What bytes can be read from, by their place.
#[expect(async_fn_in_trait, reason = "media are used by value, never through dyn or threads")]
pub trait Medium {
    /// Places and lengths of reads are multiples of this many bytes: a power of two, 4 or more.
    const UNIT: usize;

    /// Reads `bytes.len()` bytes from `offset` on, all of them or an error.
    ///
    /// # Errors
    /// What the medium reports, with the place.
    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError>;
}

/// A stream that gives way to other tasks at every block, for weights in place beside tasks that
/// may not wait for a whole token.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct GivingWay<S>(
    /// The stream.
    pub S,
);

impl<S: Stream> Stream for GivingWay<S> {
    const VERIFY: bool = S::VERIFY;

    type Blocks = S::Blocks;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        if words > RECORD_WORDS {
            yield_now().await;
        }
        self.0.next(words).await
    }

    async fn skip(&mut self, words: usize) -> Result<(), StreamError> {
        self.0.skip(words).await
    }

    async fn seek(&mut self, word: usize) -> Result<(), StreamError> {
        self.0.seek(word).await
    }

    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        self.0.read_at(word, words).await
    }

    fn position(&self) -> usize {
        self.0.position()
    }

    fn room(&self) -> usize {
        self.0.room()
    }

    fn ahead(&mut self, word: usize, words: usize) {
        self.0.ahead(word, words);
    }

    fn forget(&mut self) {
        self.0.forget();
    }
}

/// Lets every other task run that is ready.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<M: Medium> Medium for &mut M {
    const UNIT: usize = M::UNIT;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        (**self).read(offset, bytes).await
    }
}

/// Words of a buffer for any block of an image, on a medium of this unit in bytes.
///
/// ```
/// # use rwkv_core::Header;
/// # use rwkv_embedded::stream::buffer_words;
/// # const fn buffer(header: &Header) {
/// /// For a card that is read by 512 bytes.
/// # let words =
/// buffer_words(header, 512)
/// # ;
/// # }
/// ```
pub const fn buffer_words(header: &Header, unit: usize) -> usize {
    words_around(header.block_words as usize, unit)
}

/// Words of the shortest buffer for an image whose blocks of several rows have [`PIECE_WORDS`] words at
/// most, as `rwkv convert --block-bytes 512` makes them: rows and columns that are longer come in
/// pieces. How few are enough for any other image is in `rwkv info`.
pub const fn least_buffer_words(header: &Header, unit: usize) -> usize {
    let whole = least_block_words(header);
    let least = words_around(if whole > PIECE_WORDS { whole } else { PIECE_WORDS }, unit);
    let all = buffer_words(header, unit);
    if least < all { least } else { all }
}

/// Words of what comes whole in every image of a header: the parameters of a head, and rows of a
/// DeepEmbed that is too wide for its sub-scales to have room.
pub const fn least_block_words(header: &Header) -> usize {
    let vectors = if matches!(header.version, Version::V7 | Version::V7a) { 5 } else { 3 };
    let head = 1 + vectors * header.dims.head_size as usize;
    let rank = header.dims.deep_rank as usize;
    let row = if rank > 64 { rank * rank + 8 } else { 0 };
    let most = header.block_words as usize;
    let whole = if head > row { head } else { row };
    if whole < most { whole } else { most }
}

/// Words of a buffer for a row of any table of an image, in any format: the rows of [`ReadAhead`].
pub const fn row_words(header: &Header, unit: usize) -> usize {
    let (embedding, deep) = (header.dims.dim, (header.dims.deep_rank as u32).pow(2));
    // Checksum, scale, and the padding of the narrowest rows.
    let line = if embedding > deep { embedding } else { deep } as usize + 8;
    words_around(line, unit)
}

/// Words of the whole units around so many words, wherever they begin.
pub const fn words_around(words: usize, unit: usize) -> usize {
    let unit = if unit < 8 { 1 } else { unit / 4 };
    // They may begin at the last word of a unit.
    (words + unit - 1).next_multiple_of(unit)
}

/// Words that fit into a buffer of so many, wherever in a unit they begin: [`words_around`] of them
/// are no more.
const fn words_within(buffer: usize, unit: usize) -> usize {
    let unit = if unit < 8 { 1 } else { unit / 4 };
    (buffer - buffer % unit).saturating_sub(unit - 1)
}

/// What was read so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Reads {
    /// Reads of the medium.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Reads {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
    }
}

/// Where an image lies on a medium.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Byte offset of its first byte, a multiple of the unit.
    first: u32,
    /// Its words.
    words: usize,
}

impl Place {
    fn new<M: Medium>(first: u32, bytes: u32) -> Result<Self, StreamError> {
        match (first as usize).is_multiple_of(M::UNIT) {
            true => Ok(Self { first, words: bytes as usize / 4 }),
            false => Err(StreamError::Misplaced { offset: first }),
        }
    }

    /// Words of a unit.
    const fn unit<M: Medium>() -> usize {
        const {
            assert!(
                M::UNIT.is_power_of_two() && M::UNIT >= 4,
                "a medium's unit is a power of two of at least 4 bytes"
            )
        };
        M::UNIT / 4
    }

    /// The whole units around some words of the image.
    fn units<M: Medium>(self, word: usize, words: usize) -> Result<(usize, usize), StreamError> {
        let unit = Self::unit::<M>();
        match word.checked_add(words).filter(|end| *end <= self.words) {
            Some(end) => Ok((word & !(unit - 1), end.next_multiple_of(unit))),
            None => Err(StreamError::OutOfBounds { offset: (word as u32).wrapping_mul(4) }),
        }
    }

    /// Reads words of the image, whole units of them, into a buffer of their size.
    async fn read<M: Medium>(
        self,
        medium: &mut M,
        word: usize,
        into: &mut [u32],
    ) -> Result<(), StreamError> {
        // The image has 2^32 bytes at most.
        let at = (word as u32).wrapping_mul(4);
        let offset = self.first.checked_add(at).ok_or(StreamError::OutOfBounds { offset: at })?;
        medium.read(offset, bytemuck::cast_slice_mut(into)).await
    }
}
