//! Whole characters out of bytes that arrive in pieces.

use core::fmt::{self, Write};

const REPLACEMENT: &str = "\u{fffd}";

/// Turns a stream of bytes into text and never emits half a character.
///
/// Over the whole stream, up to [`finish`](Self::finish), the output equals
/// `String::from_utf8_lossy`: each maximal invalid sequence becomes one U+FFFD.
///
/// ```
/// # use rwkv_core::tokenizer::Utf8Stream;
/// let (mut stream, mut text) = (Utf8Stream::new(), String::new());
/// stream.push(b"caf\xc3", &mut text)?;
/// assert_eq!(text, "caf");
/// stream.push(b"\xa9", &mut text)?;
/// stream.finish(&mut text)?;
/// assert_eq!(text, "café");
/// # Ok::<(), core::fmt::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Utf8Stream {
    /// The beginning of a character: at most three bytes between calls.
    pending: [u8; 4],
    len: u8,
}

impl Utf8Stream {
    /// A stream at its start.
    pub const fn new() -> Self {
        Self { pending: [0; 4], len: 0 }
    }

    /// Takes bytes and writes the characters that they complete.
    ///
    /// # Errors
    /// Those of `out`; the rest of `bytes` is then lost.
    pub fn push(&mut self, bytes: &[u8], out: &mut impl Write) -> fmt::Result {
        let mut rest = bytes;
        while self.len > 0 {
            let Some((&byte, after)) = rest.split_first() else { return Ok(()) };
            let before = self.len;
            self.hold(&[byte]);
            match core::str::from_utf8(self.held()) {
                Ok(character) => {
                    out.write_str(character)?;
                    (self.len, rest) = (0, after);
                }
                Err(error) if error.error_len().is_none() => rest = after,
                Err(_) => {
                    // The held bytes were a proper beginning: this byte broke it and starts anew.
                    self.len = before;
                    self.finish(out)?;
                }
            }
        }
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.write_str(chunk.valid())?;
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            let unfinished = core::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none());
            if unfinished && chunks.peek().is_none() {
                self.hold(invalid);
            } else {
                out.write_str(REPLACEMENT)?;
            }
        }
        Ok(())
    }

    /// Ends the stream: an unfinished character becomes U+FFFD. The next push starts another.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(&mut self, out: &mut impl Write) -> fmt::Result {
        let unfinished = self.len > 0;
        self.len = 0;
        if unfinished { out.write_str(REPLACEMENT) } else { Ok(()) }
    }

    fn held(&self) -> &[u8] {
        self.pending.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn hold(&mut self, bytes: &[u8]) {
        for (slot, &byte) in self.pending.iter_mut().skip(usize::from(self.len)).zip(bytes) {
            *slot = byte;
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    /// Bytes that begin, continue, end and break characters of every length.
    fn byte() -> impl Strategy<Value = u8> {
        const MARKED: &[u8] = &[
            0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xdf, 0xe0, 0xe2,
            0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff,
        ];
        prop_oneof![any::<u8>(), proptest::sample::select(MARKED)]
    }

    proptest! {
        #[test]
        fn any_split_equals_from_utf8_lossy(
            pieces in proptest::collection::vec(proptest::collection::vec(byte(), 0..6), 0..12),
        ) {
            let (mut stream, mut text) = (Utf8Stream::new(), String::new());
            for piece in &pieces {
                stream.push(piece, &mut text).unwrap();
            }
            stream.finish(&mut text).unwrap();
            let whole: Vec<u8> = pieces.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }

        #[test]
        fn valid_text_comes_out_as_early_as_it_can(text in any::<String>()) {
            let (mut stream, mut out) = (Utf8Stream::new(), String::new());
            for (i, byte) in text.bytes().enumerate() {
                stream.push(&[byte], &mut out).unwrap();
                let whole = (0..=i + 1).rev().find(|&end| text.is_char_boundary(end)).unwrap();
                prop_assert_eq!(&out, &text[..whole]);
            }
        }
    }

    #[test]
    fn an_unfinished_character_is_held_then_replaced() {
        let (mut stream, mut text) = (Utf8Stream::new(), String::new());
        stream.push(b"a\xf0\x9f\x92", &mut text).unwrap();
        assert_eq!(text, "a");
        stream.finish(&mut text).unwrap();
        stream.push(b"b", &mut text).unwrap();
        assert_eq!(text, "a\u{fffd}b");
    }
}
