//! A saved state: the words of a state behind a header that says which image they are of.
//!
//! The layout is normative and written down in the book, chapter *State*. It is the content of a
//! file on the host, and of whatever memory firmware keeps a state in.
//!
//! ```
//! # use rwkv_core::{Header, StateView, saved::{Saved, SavedError}};
//! /// Puts a state into memory that keeps it; `identity` is [`rwkv_core::Image::identity`].
//! fn keep(
//!     identity: u32,
//!     header: &Header,
//!     state: &StateView<'_>,
//!     mut write: impl FnMut(&[u8]),
//! ) -> Result<(), SavedError> {
//!     write(&Saved::of(identity, header, state)?.to_bytes());
//!     state.words().iter().for_each(|words| write(bytemuck::cast_slice(words)));
//!     Ok(())
//! }
//! ```

use core::fmt;

use crate::{
    image::{CRC, Header, Version},
    state::StateView,
};

/// Bytes of the header of a saved state.
pub const SAVED_BYTES: usize = 64;
/// The version of the layout that this crate reads and writes.
pub const SAVED_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"RWKS";
/// In place of a token that is pending.
const NONE: u32 = u32::MAX;

/// The header of a saved state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Saved {
    /// The identity of the image that the state is of.
    pub identity: u32,
    /// Its RWKV version.
    pub version: Version,
    /// Its layers.
    pub layers: u32,
    /// Its model width.
    pub dim: u32,
    /// Rows of recurrent state per layer.
    pub width: u32,
    /// Tokens that the state has read.
    pub position: u64,
    /// A token that follows them and is to be read next: its logits are those that choose the
    /// token after it, and no state holds them.
    pub pending: Option<u32>,
    /// CRC-32 of the words.
    pub crc: u32,
}

impl Saved {
    /// A header for a state of an image, at position 0 and with no token pending.
    ///
    /// # Errors
    /// [`SavedError::Broken`], [`SavedError::Shape`] or [`SavedError::NonFinite`]: not worth
    /// saving.
    pub fn of(identity: u32, header: &Header, state: &StateView<'_>) -> Result<Self, SavedError> {
        if state.is_broken() {
            return Err(SavedError::Broken);
        }
        state.check(header).map_err(|_| SavedError::Shape)?;
        let mut digest = CRC.digest();
        let mut first = 0;
        for words in state.words() {
            if let Some(word) = words.iter().position(|x| !x.is_finite()) {
                return Err(SavedError::NonFinite { word: (first + word) as u32 });
            }
            digest.update(bytemuck::cast_slice(words));
            first += words.len();
        }
        Ok(Self {
            identity,
            version: header.version,
            layers: header.dims.layers,
            dim: header.dims.dim,
            width: header.state_width(),
            position: 0,
            pending: None,
            crc: digest.finalize(),
        })
    }

    /// Bytes of the words behind the header.
    pub const fn words_bytes(&self) -> u64 {
        // At most 2^16 · 2^16 · 2^16 · 4.
        self.layers as u64 * self.dim as u64 * (self.width as u64 + 2) * 4
    }

    /// Bytes of header and words.
    pub const fn bytes(&self) -> u64 {
        SAVED_BYTES as u64 + self.words_bytes()
    }

    /// The header as it is stored.
    pub fn to_bytes(&self) -> [u8; SAVED_BYTES] {
        let mut bytes = [0; SAVED_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
            at += field.len();
        };
        put(&MAGIC);
        put(&SAVED_VERSION.to_le_bytes());
        put(&[self.version as u8, 0]);
        put(&self.identity.to_le_bytes());
        for field in [self.layers, self.dim, self.width, self.pending.unwrap_or(NONE)] {
            put(&field.to_le_bytes());
        }
        put(&self.position.to_le_bytes());
        put(&self.crc.to_le_bytes());
        let crc = CRC.checksum(&bytes).to_le_bytes();
        if let Some(place) = bytes.last_chunk_mut() {
            *place = crc;
        }
        bytes
    }

    /// Reads a header; `bytes` may go on behind it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, SavedError> {
        let Some(bytes) = bytes.first_chunk::<SAVED_BYTES>() else {
            let (needed, given) = (SAVED_BYTES as u64, bytes.len() as u64);
            return Err(SavedError::Length { needed, given });
        };
        if !bytes.starts_with(&MAGIC) {
            return Err(SavedError::Magic);
        }
        let le32 = |at: usize| {
            let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
            field.map_or(0, |field| u32::from_le_bytes(*field))
        };
        let [version, precision] = [bytes[6], bytes[7]];
        let layout = le32(4) as u16;
        if layout != SAVED_VERSION {
            return Err(SavedError::Version(layout));
        }
        let mut digest = CRC.digest();
        digest.update(&bytes[..SAVED_BYTES - 4]);
        digest.update(&[0; 4]);
        if digest.finalize() != le32(SAVED_BYTES - 4) {
            return Err(SavedError::HeaderChecksum);
        }
        let [layers, dim, width] = [12, 16, 20].map(le32);
        let version = Version::from_code(version).filter(|_| precision == 0);
        let fits = [layers, dim, width].iter().all(|n| (1..=1 << 16).contains(n));
        let (Some(version), true) = (version, fits) else { return Err(SavedError::Field) };
        if bytes[40..SAVED_BYTES - 4].iter().any(|byte| *byte != 0) {
            return Err(SavedError::Field);
        }
        let pending = Some(le32(24)).filter(|token| *token != NONE);
        let position = u64::from(le32(28)) | u64::from(le32(32)) << 32;
        let (identity, crc) = (le32(8), le32(36));
        Ok(Self { identity, version, layers, dim, width, position, pending, crc })
    }

    /// Whether this is a state of the image with this identity and header.
    ///
    /// # Errors
    /// [`SavedError::OtherImage`], [`SavedError::Shape`], or [`SavedError::Pending`].
    pub fn check(&self, identity: u32, header: &Header) -> Result<(), SavedError> {
        if self.identity != identity {
            return Err(SavedError::OtherImage { state: self.identity, image: identity });
        }
        let dims = &header.dims;
        let shape = (header.version, dims.layers, dims.dim, header.state_width());
        if (self.version, self.layers, self.dim, self.width) != shape {
            return Err(SavedError::Shape);
        }
        match self.pending {
            Some(token) if token >= dims.vocab => Err(SavedError::Pending(token)),
            _ => Ok(()),
        }
    }

    /// Puts the words behind the header, which fill `words`, into the state of an image that
    /// [`Saved::check`] was happy with. They need no alignment.
    ///
    /// # Errors
    /// [`SavedError::Length`], [`SavedError::Checksum`], [`SavedError::NonFinite`] or
    /// [`SavedError::Shape`]: the state is as it was.
    pub fn restore(&self, words: &[u8], state: &mut StateView<'_>) -> Result<(), SavedError> {
        let (needed, given) = (self.words_bytes(), words.len() as u64);
        if needed != given {
            let header = SAVED_BYTES as u64;
            return Err(SavedError::Length { needed: header + needed, given: header + given });
        }
        if 4 * state.len() as u64 != needed {
            return Err(SavedError::Shape);
        }
        if CRC.checksum(words) != self.crc {
            return Err(SavedError::Checksum);
        }
        let values = words.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        if let Some(word) = values.clone().position(|x| !x.is_finite()) {
            return Err(SavedError::NonFinite { word: word as u32 });
        }
        state.restore(values).map_err(|_| SavedError::Shape)
    }
}

/// Why a saved state is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SavedError {
    /// Bytes that it announces, header included, and bytes that are there.
    Length {
        /// Bytes that it announces.
        needed: u64,
        /// Bytes that are there.
        given: u64,
    },
    /// The first four bytes are not `RWKS`.
    Magic,
    /// A layout that this reader does not know.
    Version(u16),
    /// The CRC-32 of the header does not match.
    HeaderChecksum,
    /// A field of the header is out of range.
    Field,
    /// It is a state of another image.
    OtherImage {
        /// Identity of the state's image.
        state: u32,
        /// Identity of the image at hand.
        image: u32,
    },
    /// It has another shape than the image's states.
    Shape,
    /// The token that is pending is not in the vocabulary.
    Pending(u32),
    /// The CRC-32 of the words does not match.
    Checksum,
    /// A value is infinite or not a number.
    NonFinite {
        /// Its index among the words.
        word: u32,
    },
    /// The state was never set, or a token failed half-way.
    Broken,
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { needed, given } => {
                write!(f, "state has {given} bytes, {needed} expected")
            }
            Self::Magic => f.write_str("not a saved state: the first four bytes are not `RWKS`"),
            Self::Version(v) => {
                write!(f, "state layout version {v} is unknown: this reader knows {SAVED_VERSION}")
            }
            Self::HeaderChecksum => {
                f.write_str("header of the state is damaged: its CRC-32 does not match")
            }
            Self::Field => f.write_str("a header field of the state is out of range"),
            Self::OtherImage { state, image } => {
                write!(f, "state of image {state:08x}, this is image {image:08x}")
            }
            Self::Shape => f.write_str("state has another shape than the image's"),
            Self::Pending(token) => {
                write!(f, "pending token {token} is not in the image's vocabulary")
            }
            Self::Checksum => {
                f.write_str("state is damaged: the CRC-32 of its words does not match")
            }
            Self::NonFinite { word } => {
                write!(f, "word {word} of the state is infinite or not a number")
            }
            Self::Broken => f.write_str("the state was never set or a token failed"),
        }
    }
}

impl core::error::Error for SavedError {}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: Saved = Saved {
        identity: 0x0123_4567,
        version: Version::V7,
        layers: 2,
        dim: 8,
        width: 4,
        position: 0x0001_0000_0002,
        pending: Some(65),
        crc: 0x89ab_cdef,
    };

    /// The example of the book's chapter *State*.
    #[test]
    fn the_header_is_the_pinned_bytes() {
        let bytes = SAVED.to_bytes();
        let hex = |range: core::ops::Range<usize>| {
            bytes[range].iter().map(|b| std::format!("{b:02x}")).collect::<std::string::String>()
        };
        assert_eq!(hex(0..16), "52574b53010046006745230102000000");
        assert_eq!(hex(16..32), "08000000040000004100000002000000");
        assert_eq!(hex(32..48), "01000000efcdab890000000000000000");
        assert_eq!(hex(48..64), "000000000000000000000000922d5185");
    }

    #[test]
    fn a_header_survives_and_damage_does_not() {
        let none = Saved { pending: None, ..SAVED };
        for saved in [SAVED, none] {
            assert_eq!(Saved::parse(&saved.to_bytes()), Ok(saved));
        }
        let bytes = SAVED.to_bytes();
        for at in 0..SAVED_BYTES {
            for bit in 0..8 {
                let mut damaged = bytes;
                damaged[at] ^= 1 << bit;
                assert!(Saved::parse(&damaged).is_err(), "byte {at}, bit {bit}");
            }
            let cut = SavedError::Length { needed: 64, given: at as u64 };
            assert_eq!(Saved::parse(&bytes[..at]), Err(cut));
        }
    }

    #[test]
    fn fields_out_of_range_are_refused() {
        for at in [6, 7, 14, 18, 22, 40, 59] {
            let mut bytes = SAVED.to_bytes();
            bytes[at] = 0xFF;
            bytes[60..].fill(0);
            let crc = CRC.checksum(&bytes);
            bytes[60..].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Saved::parse(&bytes), Err(SavedError::Field), "byte {at}");
        }
    }
}
