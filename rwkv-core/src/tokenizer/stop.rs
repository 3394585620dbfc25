//! The end of a text, found in bytes that arrive in pieces.

use core::fmt;

/// Finds the first of several stop texts in a stream of bytes, and passes on what stands before it.
///
/// Tokens may end anywhere in a stop text, so bytes that may be the start of one are held back
/// until it is certain that they are not; all others are passed on at once. Nothing is copied: what
/// is held back is the start of a stop text, and there it is read. A byte costs a few comparisons
/// per stop text, and up to n² where the start of one of n bytes is held back.
///
/// Where several end at the same byte, the longest is the one that is found.
///
/// ```
/// # use rwkv_core::tokenizer::StopStream;
/// let texts: [&[u8]; 2] = [b"\n\n", b"User:"];
/// let (mut stop, mut text) = (StopStream::new(&texts)?, Vec::<u8>::new());
/// assert_eq!(stop.push(b"Yes.\nUs", |bytes| text.extend(bytes)), None);
/// assert_eq!(text, b"Yes.\n");
/// assert_eq!(stop.push(b"er: and", |bytes| text.extend(bytes)), Some(1));
/// stop.finish(|bytes| text.extend(bytes));
/// assert_eq!(text, b"Yes.\n");
/// # Ok::<(), rwkv_core::tokenizer::EmptyStopText>(())
/// ```
/// The default has no stop texts. `T` is what a stop text is kept as, a slice unless said otherwise.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StopStream<'a, T = &'a [u8]> {
    texts: &'a [T],
    /// What is held back: the longest end of the stream that a stop text begins with.
    held: &'a [u8],
    found: Option<usize>,
}

impl<'a> StopStream<'a> {
    /// A stream at its start; without stop texts it has no end.
    ///
    /// # Errors
    /// A stop text is empty.
    pub fn new(texts: &'a [&'a [u8]]) -> Result<Self, EmptyStopText> {
        Self::over(texts)
    }
}

impl<'a, T: AsRef<[u8]>> StopStream<'a, T> {
    /// As [`StopStream::new`], over stop texts of any type.
    ///
    /// # Errors
    /// As there.
    pub fn over(texts: &'a [T]) -> Result<Self, EmptyStopText> {
        if texts.iter().any(|text| text.as_ref().is_empty()) {
            return Err(EmptyStopText);
        }
        Ok(Self { texts, held: &[], found: None })
    }

    /// Takes bytes, and gives those to `out`, in pieces, that are certain to stand before a stop
    /// text. Returns which stop text was found, in these bytes or before: then the stream is at
    /// its end, and whatever comes is dropped.
    pub fn push(&mut self, bytes: &[u8], mut out: impl FnMut(&[u8])) -> Option<usize> {
        for byte in bytes {
            if self.found.is_some() {
                break;
            }
            self.take(*byte, &mut out);
        }
        self.found
    }

    /// Ends the stream: what was held back is no stop text. The next push starts another.
    pub fn finish(&mut self, mut out: impl FnMut(&[u8])) {
        give(self.held, &mut out);
        (self.held, self.found) = (&[], None);
    }

    fn take(&mut self, byte: u8, out: &mut impl FnMut(&[u8])) {
        let (held, texts) = (self.held, self.texts.iter().map(T::as_ref));
        // The longest first: the earlier it begins, the less is passed on.
        let ends = || (0..=held.len()).filter_map(|at| held.split_at_checked(at));
        for (before, end) in ends() {
            self.found = texts.clone().position(|text| text.split_last() == Some((&byte, end)));
            if self.found.is_some() {
                self.held = &[];
                return give(before, out);
            }
        }
        for (before, end) in ends() {
            let goes_on =
                |text: &&[u8]| text.starts_with(end) && text.get(end.len()) == Some(&byte);
            if let Some(text) = texts.clone().find(goes_on) {
                self.held = text.get(..end.len() + 1).unwrap_or_default();
                return give(before, out);
            }
        }
        self.held = &[];
        give(held, out);
        out(&[byte]);
    }
}

fn give(bytes: &[u8], out: &mut impl FnMut(&[u8])) {
    if !bytes.is_empty() {
        out(bytes);
    }
}

/// A stop text has no bytes, and would end every text before its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EmptyStopText;

impl fmt::Display for EmptyStopText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stop text is empty: give it at least one byte")
    }
}

impl core::error::Error for EmptyStopText {}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::vec::Vec;

    /// The text before the first stop text, and which that is.
    fn naive(texts: &[&[u8]], stream: &[u8]) -> (Vec<u8>, Option<usize>) {
        for end in 1..=stream.len() {
            let ending = (0..texts.len()).filter(|i| stream[..end].ends_with(texts[*i]));
            if let Some(longest) = ending.rev().max_by_key(|i| texts[*i].len()) {
                return (stream[..end - texts[longest].len()].to_vec(), Some(longest));
            }
        }
        (stream.to_vec(), None)
    }

    /// Bytes at the end that may be the start of a stop text.
    fn uncertain(texts: &[&[u8]], stream: &[u8]) -> usize {
        let may = |len: &usize| texts.iter().any(|t| t.starts_with(&stream[stream.len() - len..]));
        (0..=stream.len()).rev().find(may).unwrap_or(0)
    }

    /// Few different bytes, so that texts overlap with themselves and each other.
    fn bytes(len: core::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![4 => Just(b'a'), 3 => Just(b'b'), 1 => Just(b'c')], len)
    }

    proptest! {
        #[test]
        fn any_split_equals_a_search(
            texts in vec(bytes(1..6), 0..4),
            pieces in vec(bytes(0..5), 0..20),
        ) {
            let texts: Vec<&[u8]> = texts.iter().map(|text| &text[..]).collect();
            let mut stop = StopStream::new(&texts).unwrap();
            let (mut read, mut found) = (Vec::new(), Vec::new());
            for piece in &pieces {
                read.extend_from_slice(piece);
                let index = stop.push(piece, |bytes| found.extend_from_slice(bytes));
                let (before, expected) = naive(&texts, &read);
                prop_assert_eq!(index, expected);
                // As much as is certain, and no more.
                let held = if index.is_some() { 0 } else { uncertain(&texts, &read) };
                prop_assert_eq!(&found[..], &before[..before.len() - held]);
            }
            stop.finish(|bytes| found.extend_from_slice(bytes));
            prop_assert_eq!(found, naive(&texts, &read).0);
        }
    }

    #[test]
    fn a_stream_starts_anew() {
        let texts: [&[u8]; 1] = [b"END"];
        let mut stop = StopStream::new(&texts).unwrap();
        let mut text: Vec<u8> = Vec::new();
        assert_eq!(stop.push(b"oneEND", |bytes| text.extend(bytes)), Some(0));
        assert_eq!(stop.push(b"lost", |bytes| text.extend(bytes)), Some(0));
        stop.finish(|bytes| text.extend(bytes));
        assert_eq!(stop.push(b"twoEN", |bytes| text.extend(bytes)), None);
        stop.finish(|bytes| text.extend(bytes));
        assert_eq!(stop.push(b"D", |bytes| text.extend(bytes)), None);
        assert_eq!(text, b"onetwoEND");
    }

    #[test]
    fn empty_stop_texts_are_refused() {
        let texts: [&[u8]; 2] = [b"a", b""];
        assert_eq!(StopStream::new(&texts).err(), Some(EmptyStopText));
    }
}
