//! Messages as frames of bytes, the same code on both sides of the wire.
//!
//! A frame is COBS over a postcard message and its CRC-32, and ends with the only zero byte in it:
//! whatever came before, a zero byte ends a frame, and the next one starts in step.

use core::fmt;

use cobs::{DecodeResult, DecoderState};
use postcard::ser_flavors::{Cobs, Slice, crc::CrcModifier};
use rwkv_core::image::CRC;
use serde::{Serialize, de::DeserializeOwned};

use super::protocol::MAX_FRAME;

/// Why a frame has no message, or a message no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FrameError {
    /// A zero byte came where a frame should start.
    Empty,
    /// The frame or the message is longer than its buffer.
    TooLong,
    /// The frame is not COBS: it ends where its own counts say that it goes on.
    Cobs,
    /// The CRC-32 does not match, or there is not even room for it.
    Checksum,
    /// The bytes are intact but none of the messages.
    Message,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty frame",
            Self::TooLong => "frame is too long",
            Self::Cobs => "frame is cut short or damaged",
            Self::Checksum => "frame is damaged: its CRC-32 does not match",
            Self::Message => "frame holds no known message",
        })
    }
}

impl core::error::Error for FrameError {}

/// Writes a message as a frame to the start of `buffer` and returns the frame, its final zero
/// included. [`MAX_FRAME`] bytes hold any message of [`super::protocol`].
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode<'a, T: Serialize>(message: &T, buffer: &'a mut [u8]) -> Result<&'a [u8], FrameError> {
    Cobs::try_new(Slice::new(buffer))
        .and_then(|cobs| {
            postcard::serialize_with_flavor(message, CrcModifier::new(cobs, CRC.digest()))
        })
        .map(|frame: &mut [u8]| &*frame)
        .map_err(|_| FrameError::TooLong)
}

/// Collects bytes until they are a frame.
///
/// ```
/// use rwkv_embedded::agent::{frame::{Decoder, encode}, protocol::{MAX_FRAME, Request}};
/// let mut buffer = [0; MAX_FRAME];
/// let frame = encode(&Request::Memory, &mut buffer)?;
/// let mut decoder = Decoder::new();
/// let mut found = frame.iter().filter_map(|byte| decoder.push(*byte));
/// assert_eq!(found.next(), Some(Ok(Request::Memory)));
/// # Ok::<(), rwkv_embedded::agent::frame::FrameError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    state: DecoderState,
    payload: heapless::Vec<u8, MAX_FRAME>,
    /// Bytes of the frame so far, and whether they still can be a frame.
    taken: usize,
    fits: bool,
}

rwkv_core::brief!([] Decoder, |decoder| "Decoder({} bytes, fits: {})", decoder.taken, decoder.fits);

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the start of a frame.
    pub const fn new() -> Self {
        Self { state: DecoderState::Idle, payload: heapless::Vec::new(), taken: 0, fits: true }
    }

    /// Takes the next byte. A zero byte ends the frame, whose message, or what is wrong with it,
    /// is returned; any other byte returns `None`.
    ///
    /// # Errors
    /// Any [`FrameError`], once per frame. The next byte starts a new one.
    pub fn push<T: DeserializeOwned>(&mut self, byte: u8) -> Option<Result<T, FrameError>> {
        let decoded = self.state.feed(byte);
        self.taken = self.taken.saturating_add(1);
        if byte != 0 {
            if let Ok(DecodeResult::DataContinue(data)) = decoded {
                self.fits &= self.payload.push(data).is_ok();
            }
            return None;
        }
        let result = match decoded {
            _ if self.taken == 1 => Err(FrameError::Empty),
            _ if !self.fits || self.taken > MAX_FRAME => Err(FrameError::TooLong),
            Ok(DecodeResult::DataComplete) => message(&self.payload),
            _ => Err(FrameError::Cobs),
        };
        *self = Self::new();
        Some(result)
    }
}

/// The message in the decoded bytes of a frame, which it fills to the last one. Takes a good deal of
/// stack, which the caller needs for other things.
#[inline(never)]
fn message<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    let (message, crc) = payload.split_last_chunk().ok_or(FrameError::Checksum)?;
    if CRC.checksum(message) != u32::from_le_bytes(*crc) {
        return Err(FrameError::Checksum);
    }
    match postcard::take_from_bytes(message) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Message),
    }
}
