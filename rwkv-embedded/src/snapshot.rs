//! States that survive a power failure, in two slots of a flash.
//!
//! A snapshot is a saved state ([`rwkv_core::saved`]) behind a block that commits it. The slot
//! that does not hold the last good snapshot is erased, the state is written and read back, and
//! only then the block is written that makes it the newer one. Wherever power is lost, the
//! snapshot before is still there.
//!
//! ```text
//!  0: "RWSN" | layout version 1, 16 bits | 0, 16 bits | sequence number | CRC-32 of these 12 bytes
//! 16: erased
//! 64: the header of a saved state, 64 bytes, then its words
//! ```

use core::fmt;

use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind};
use rwkv_core::{
    Header, StateView,
    image::CRC,
    saved::{SAVED_BYTES, Saved, SavedError},
};

/// Bytes that are read and written at once.
const CHUNK: usize = 64;
const MAGIC: [u8; 8] = *b"RWSN\x01\0\0\0";
/// Where the words of a state begin in a slot.
const WORDS: u32 = (CHUNK + SAVED_BYTES) as u32;

/// Two slots in a flash.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Snapshots<F> {
    flash: F,
    first: u32,
    slot: u32,
}

/// Why there is no snapshot, or no new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SnapshotError {
    /// The flash reported a failure.
    Flash {
        /// Byte offset of what failed.
        offset: u32,
        /// What kind of failure.
        kind: FlashFault,
    },
    /// The two slots do not fit into the flash, or do not begin where it can be erased.
    Room {
        /// Bytes of both slots.
        needed: u32,
        /// Bytes from the first slot to the end of the flash.
        given: u32,
    },
    /// What was written does not read back as it was.
    Worn {
        /// Byte offset of the slot.
        offset: u32,
    },
    /// The state is of no use, or another's.
    State(SavedError),
}

/// What kind of failure a flash reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FlashFault {
    /// The place is not a multiple of what can be read, written or erased.
    NotAligned,
    /// The place is beyond the end.
    OutOfBounds,
    /// Anything else.
    Other,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash { offset, kind } => {
                let kind = match kind {
                    FlashFault::NotAligned => "it is not aligned",
                    FlashFault::OutOfBounds => "it is out of bounds",
                    FlashFault::Other => "the device says no more",
                };
                write!(f, "the flash failed at byte {offset}: {kind}")
            }
            Self::Room { needed, given } => write!(
                f,
                "two slots need {needed} bytes from where the flash can be erased, there are {given}"
            ),
            Self::Worn { offset } => {
                write!(f, "what was written at byte {offset} does not read back")
            }
            Self::State(error) => write!(f, "the state: {error}"),
        }
    }
}

impl core::error::Error for SnapshotError {}

impl From<SavedError> for SnapshotError {
    fn from(error: SavedError) -> Self {
        Self::State(error)
    }
}

/// A slot whose snapshot is whole.
#[derive(Debug, Clone, Copy)]
struct Good {
    offset: u32,
    sequence: u32,
    saved: Saved,
}

impl<F: NorFlash> Snapshots<F> {
    /// Bytes of a slot for states of an image: whole units that the flash erases.
    pub const fn slot_bytes(header: &Header) -> u32 {
        Self::slot_bytes_of(header, F::ERASE_SIZE)
    }

    const fn slot_bytes_of(header: &Header, erase: usize) -> u32 {
        let bytes = WORDS as usize + 4 * header.state_words();
        bytes.next_multiple_of(erase) as u32
    }

    /// Two slots for states of an image, one after the other, from byte `first` on.
    ///
    /// # Errors
    /// [`SnapshotError::Room`].
    pub fn new(flash: F, first: u32, header: &Header) -> Result<Self, SnapshotError> {
        Self::erasing(flash, F::ERASE_SIZE, first, header)
    }

    /// As [`Snapshots::new`], on a flash that erases `erase` bytes at once, more than its type
    /// says: a multiple of [`NorFlash::ERASE_SIZE`] that is known when the program runs.
    ///
    /// # Errors
    /// [`SnapshotError::Room`]; [`SnapshotError::Flash`] if it is no such multiple.
    pub fn erasing(
        flash: F,
        erase: usize,
        first: u32,
        header: &Header,
    ) -> Result<Self, SnapshotError> {
        const {
            assert!(
                CHUNK.is_multiple_of(F::READ_SIZE) && CHUNK.is_multiple_of(F::WRITE_SIZE),
                "a flash that reads or writes more than 64 bytes at once"
            );
            assert!(F::ERASE_SIZE.is_multiple_of(CHUNK), "a flash that erases less than 64 bytes");
        };
        if erase == 0 || !erase.is_multiple_of(F::ERASE_SIZE) {
            return Err(SnapshotError::Flash { offset: first, kind: FlashFault::NotAligned });
        }
        let slot = Self::slot_bytes_of(header, erase);
        let given = (flash.capacity() as u32).saturating_sub(first);
        let needed = slot.saturating_mul(2);
        if needed == u32::MAX || needed > given || !(first as usize).is_multiple_of(erase) {
            return Err(SnapshotError::Room { needed, given });
        }
        Ok(Self { flash, first, slot })
    }

    /// The flash, for other uses.
    pub fn into_flash(self) -> F {
        self.flash
    }

    /// Keeps a state: `saved` is [`Saved::of`] it, with its position and what is pending.
    /// On an error the snapshot before is still there, unless the new one is whole.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn save(&mut self, saved: Saved, state: &StateView<'_>) -> Result<(), SnapshotError> {
        if saved.words_bytes() != 4 * state.len() as u64
            || u64::from(self.slot) < u64::from(WORDS) + saved.words_bytes()
        {
            return Err(SavedError::Shape.into());
        }
        let words: [&[u8]; 2] = state.words().map(bytemuck::cast_slice);
        let mut digest = CRC.digest();
        words.iter().for_each(|words| digest.update(words));
        if digest.finalize() != saved.crc {
            return Err(SavedError::Checksum.into());
        }
        let before = self.newest()?;
        let (offset, sequence) = match before {
            Some(good) if good.offset == self.first => {
                (self.first + self.slot, good.sequence.wrapping_add(1))
            }
            Some(good) => (self.first, good.sequence.wrapping_add(1)),
            None => (self.first, 1),
        };
        self.flash
            .erase(offset, offset + self.slot)
            .map_err(|error| failed::<F>(offset, &error))?;
        let mut chunk = Chunk { bytes: [0xff; CHUNK], len: 0, at: offset + CHUNK as u32 };
        for bytes in [&saved.to_bytes()[..], words[0], words[1]] {
            chunk.write(&mut self.flash, bytes)?;
        }
        chunk.flush(&mut self.flash)?;
        if self.saved(offset)? != Some(saved) {
            return Err(SnapshotError::Worn { offset });
        }
        let mut commit = [0xff; CHUNK];
        let (head, _) = commit.split_at_mut(12);
        let (magic, number) = head.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        number.copy_from_slice(&sequence.to_le_bytes());
        let crc = CRC.checksum(head).to_le_bytes();
        commit.iter_mut().skip(12).zip(crc).for_each(|(byte, crc)| *byte = crc);
        self.flash.write(offset, &commit).map_err(|error| failed::<F>(offset, &error))?;
        match self.sequence(offset)? == Some(sequence) {
            true => Ok(()),
            false => Err(SnapshotError::Worn { offset }),
        }
    }

    /// Puts the newest good snapshot into a state of an image, `identity` being
    /// [`rwkv_core::Image::identity`]. `None` if there is no snapshot: the state is as it was then.
    ///
    /// # Errors
    /// [`SnapshotError::State`] if it is of another image: the state is as it was. Where the flash
    /// fails half-way, or gives other bytes than a moment ago, the state is marked broken.
    pub fn load(
        &mut self,
        identity: u32,
        header: &Header,
        state: &mut StateView<'_>,
    ) -> Result<Option<Saved>, SnapshotError> {
        let Some(good) = self.newest()? else { return Ok(None) };
        good.saved.check(identity, header)?;
        if good.saved.words_bytes() != 4 * state.len() as u64 {
            return Err(SavedError::Shape.into());
        }
        state.set_broken(true);
        let (mut at, mut chunk) = (good.offset + WORDS, [0; CHUNK]);
        let mut place = CHUNK;
        for word in state.words_mut().into_iter().flatten() {
            if place == CHUNK {
                self.read(at, &mut chunk)?;
                (at, place) = (at + CHUNK as u32, 0);
            }
            let bytes = chunk.get(place..).and_then(|rest| rest.first_chunk());
            *word = bytes.map_or(0.0, |bytes| f32::from_le_bytes(*bytes));
            place += 4;
        }
        state.set_broken(false);
        // The flash was read a second time.
        let again = Saved::of(identity, header, state);
        match again.map(|again| again.crc == good.saved.crc) {
            Ok(true) => Ok(Some(good.saved)),
            result => {
                state.set_broken(true);
                Err(result.err().unwrap_or(SavedError::Checksum).into())
            }
        }
    }

    /// The newest snapshot that is whole.
    fn newest(&mut self) -> Result<Option<Good>, SnapshotError> {
        let mut found: Option<Good> = None;
        for offset in [self.first, self.first + self.slot] {
            let Some(sequence) = self.sequence(offset)? else { continue };
            let older =
                found.is_some_and(|found| (sequence.wrapping_sub(found.sequence) as i32) < 0);
            if older {
                continue;
            }
            if let Some(saved) = self.saved(offset)? {
                found = Some(Good { offset, sequence, saved });
            }
        }
        Ok(found)
    }

    /// The sequence number of a slot, if it was committed.
    fn sequence(&mut self, offset: u32) -> Result<Option<u32>, SnapshotError> {
        let mut block = [0; CHUNK];
        self.read(offset, &mut block)?;
        let (Some((head, rest)), true) =
            (block.split_first_chunk::<12>(), block.starts_with(&MAGIC))
        else {
            return Ok(None);
        };
        let (Some(number), Some(crc)) = (head.last_chunk(), rest.first_chunk()) else {
            return Ok(None);
        };
        let whole = CRC.checksum(head) == u32::from_le_bytes(*crc);
        Ok(whole.then(|| u32::from_le_bytes(*number)))
    }

    /// The state in a slot, if it is whole.
    fn saved(&mut self, offset: u32) -> Result<Option<Saved>, SnapshotError> {
        let mut chunk = [0; CHUNK];
        self.read(offset + CHUNK as u32, &mut chunk)?;
        let Ok(saved) = Saved::parse(&chunk) else { return Ok(None) };
        if u64::from(self.slot) < u64::from(WORDS) + saved.words_bytes() {
            return Ok(None);
        }
        let mut left = saved.words_bytes() as usize;
        let (mut at, mut digest) = (offset + WORDS, CRC.digest());
        while left > 0 {
            self.read(at, &mut chunk)?;
            let (bytes, _) = chunk.split_at(left.min(CHUNK));
            digest.update(bytes);
            at += CHUNK as u32;
            left -= bytes.len();
        }
        Ok((digest.finalize() == saved.crc).then_some(saved))
    }

    fn read(&mut self, offset: u32, chunk: &mut [u8; CHUNK]) -> Result<(), SnapshotError> {
        self.flash.read(offset, chunk).map_err(|error| failed::<F>(offset, &error))
    }
}

/// Bytes that are written together.
struct Chunk {
    bytes: [u8; CHUNK],
    len: usize,
    at: u32,
}

impl Chunk {
    fn write<F: NorFlash>(&mut self, flash: &mut F, bytes: &[u8]) -> Result<(), SnapshotError> {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
            }
            self.len += 1;
            if self.len == CHUNK {
                self.flush(flash)?;
            }
        }
        Ok(())
    }

    fn flush<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), SnapshotError> {
        if self.len > 0 {
            let at = self.at;
            flash.write(at, &self.bytes).map_err(|error| failed::<F>(at, &error))?;
            *self = Self { bytes: [0xff; CHUNK], len: 0, at: at + CHUNK as u32 };
        }
        Ok(())
    }
}

fn failed<F: NorFlash>(offset: u32, error: &F::Error) -> SnapshotError {
    let kind = match error.kind() {
        NorFlashErrorKind::NotAligned => FlashFault::NotAligned,
        NorFlashErrorKind::OutOfBounds => FlashFault::OutOfBounds,
        _ => FlashFault::Other,
    };
    SnapshotError::Flash { offset, kind }
}
