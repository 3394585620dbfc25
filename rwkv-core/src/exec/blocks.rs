//! Blocks that are longer than what a stream can hand out, in pieces.
//!
//! A piece ends where the work with it may end: anywhere among scales and sub-scales, and between
//! steps of a line. What a matrix makes of a block goes on only when the checksum over all pieces
//! agrees. Vectors are used as they come, in a token that a wrong checksum undoes.

use crate::{
    error::{Error, ImageError},
    image::{Fold, Record},
    kernel::{Kernel, Partial},
    stream::Stream,
};

use super::{Logits, Step, step::Cut};

/// How a block is put together: its checksum, scales, then lines of sub-scales and weights.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Parts {
    scales: usize,
    subs: usize,
    weights: usize,
    lines: usize,
    /// A piece of a line's weights ends behind a multiple of so many words, or at its end.
    step: usize,
}

/// What of a block lies in one piece. Places are counted in words.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Piece<'a> {
    /// Scales from this one on.
    Scales(usize, &'a [u32]),
    /// Sub-scales of a line, from this word on.
    Subs(usize, &'a [u32]),
    /// Words of a line behind its sub-scales, from this one on, and whether the line ends with them.
    Line(usize, &'a [u32], bool),
}

/// Where a block lies.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Place {
    /// Next in the stream. What is read after it, first word and number, if that is known.
    Next(Option<(usize, usize)>),
    /// At a word of the image.
    At(usize),
}

impl Parts {
    /// A vector, or several that are interleaved by `step`.
    pub(super) const fn plain(words: usize, step: usize) -> Self {
        Self { scales: 0, subs: 0, weights: words, lines: 1, step }
    }

    /// Rows of a row-major matrix.
    pub(super) fn rows(record: &Record, rows: usize) -> Self {
        let pair = record.format.interleaved();
        let lines = rows.div_ceil(pair);
        Self { scales: rows * record.scale_words(), lines, ..Self::line(record, pair) }
    }

    /// A column of an input-major matrix.
    pub(super) fn column(record: &Record) -> Self {
        Self::line(record, 1)
    }

    fn line(record: &Record, pair: usize) -> Self {
        let subs = pair * record.sub_words();
        let weights = (pair * record.line_words()).saturating_sub(subs);
        Self { scales: 0, subs, weights, lines: 1, step: Partial::STEP }
    }

    /// Words of the block.
    pub(super) const fn words(&self) -> usize {
        let lines = self.lines.saturating_mul(self.subs + self.weights);
        lines.saturating_add(1 + self.scales)
    }

    /// Words of the first piece that fits into `room` words.
    pub(super) fn first(&self, room: usize) -> usize {
        self.piece(0, room)
    }

    /// Words of the piece that begins at a word of the block and fits into `room` words. One that
    /// is longer is a step for which there is no room.
    fn piece(&self, word: usize, room: usize) -> usize {
        let room = room.max(1);
        let end = word.saturating_add(room);
        if end >= self.words() {
            return self.words().saturating_sub(word);
        }
        let inside = |word: usize| {
            let behind = word.saturating_sub(1 + self.scales);
            behind.checked_rem(self.subs + self.weights).unwrap_or_default()
        };
        let odd = inside(end).saturating_sub(self.subs).checked_rem(self.step).unwrap_or_default();
        match room.checked_sub(odd) {
            Some(0) | None => self.step.min(self.subs + self.weights - inside(word)).max(1),
            Some(words) => words,
        }
    }

    /// Takes a piece apart that begins at a word of the block: the checksum, if it is there, goes to
    /// `checksum`, all else to `visit`.
    fn split(
        &self,
        mut word: usize,
        mut piece: &[u32],
        checksum: &mut u32,
        mut visit: impl FnMut(Piece<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while !piece.is_empty() {
            let (line, behind) = (self.subs + self.weights, word.saturating_sub(1 + self.scales));
            let inside = behind.checked_rem(line).unwrap_or_default();
            let left = match word {
                0 => 1,
                _ if word <= self.scales => 1 + self.scales - word,
                _ if inside < self.subs => self.subs - inside,
                _ => line - inside,
            };
            let (words, rest) = piece.split_at_checked(left.max(1)).unwrap_or((piece, &[]));
            match word {
                0 => *checksum = words.first().copied().unwrap_or_default(),
                _ if word <= self.scales => visit(Piece::Scales(word - 1, words))?,
                _ if inside < self.subs => visit(Piece::Subs(inside, words))?,
                _ => visit(Piece::Line(inside - self.subs, words, words.len() == left))?,
            }
            word += words.len();
            piece = rest;
        }
        Ok(())
    }
}

/// Whether blocks may come in pieces. There are two answers, [`Whole`] and [`InPieces`], and no third.
#[expect(async_fn_in_trait, reason = "as streams, these are used by value")]
pub trait Blocks {
    #[doc(hidden)]
    const CUT: bool;

    /// Reads a block in pieces, and compares its checksum if the stream asks for it.
    #[doc(hidden)]
    async fn pieces<S: Stream>(
        stream: &mut S,
        parts: Parts,
        place: Place,
        visit: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>,
    ) -> Result<(), Error>;

    /// Does what a step has to do with a block that comes in pieces.
    #[doc(hidden)]
    async fn cut<S: Stream, K: Kernel, L: Logits>(
        step: &mut Step<'_, S, K, L>,
        block: Cut<'_>,
    ) -> Result<(), Error>;
}

/// Every block is handed out as a whole.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Whole {}

/// Blocks that are longer than [`Stream::room`] come in pieces.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum InPieces {}

impl Blocks for Whole {
    const CUT: bool = false;

    async fn pieces<S: Stream>(
        _: &mut S,
        _: Parts,
        _: Place,
        _: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        Err(Error::Internal)
    }

    async fn cut<S: Stream, K: Kernel, L: Logits>(
        _: &mut Step<'_, S, K, L>,
        _: Cut<'_>,
    ) -> Result<(), Error> {
        Err(Error::Internal)
    }
}

impl Blocks for InPieces {
    const CUT: bool = true;

    async fn pieces<S: Stream>(
        stream: &mut S,
        parts: Parts,
        place: Place,
        visit: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (words, room) = (parts.words(), stream.room());
        let first = match place {
            Place::Next(_) => stream.position(),
            Place::At(first) => first,
        };
        let (mut word, mut len) = (0, parts.first(room));
        let (mut checksum, mut sum) = (0, Fold::new(words - 1));
        if let Place::Next(_) = place {
            stream.ahead(first, len);
        }
        while word < words {
            let after = word + len;
            let next = parts.piece(after, room);
            let piece = match place {
                Place::At(first) => stream.read_at(first.saturating_add(word), len).await?,
                Place::Next(behind) => {
                    let more = (after < words).then_some((first.saturating_add(after), next));
                    if let Some((word, words)) = more.or(behind) {
                        stream.ahead(word, words);
                    }
                    stream.next(len).await?
                }
            };
            if S::VERIFY {
                sum.add(piece.get(usize::from(word == 0)..).unwrap_or_default());
            }
            parts.split(word, piece, &mut checksum, &mut *visit)?;
            (word, len) = (after, next);
        }
        let offset = (first as u32).wrapping_mul(4);
        match S::VERIFY && sum.end() != checksum {
            true => Err(ImageError::BlockChecksum { offset }.into()),
            false => Ok(()),
        }
    }

    async fn cut<S: Stream, K: Kernel, L: Logits>(
        step: &mut Step<'_, S, K, L>,
        block: Cut<'_>,
    ) -> Result<(), Error> {
        step.cut(block).await
    }
}

/// Words of a block that are read first.
pub(super) fn first_words<S: Stream>(stream: &S, parts: Parts) -> usize {
    if S::Blocks::CUT { parts.first(stream.room()) } else { parts.words() }
}

/// Whether a block of so many words comes in pieces.
pub(super) fn is_cut<S: Stream>(stream: &S, words: usize) -> bool {
    S::Blocks::CUT && words > stream.room()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Format, Id, Layout};
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        /// Pieces are a block, in order; every step of a line lies in one of them, and none is longer
        /// than the room unless a step is.
        #[test]
        fn pieces_are_a_block(
            (scales, subs, weights) in (0usize..40, 0usize..9, 1usize..90),
            lines in 1usize..5,
            step in 1usize..9,
            room in 0usize..120,
        ) {
            let parts = Parts { scales, subs, weights, lines, step };
            let block: Vec<u32> = (0..parts.words() as u32).collect();
            let (mut word, mut checksum) = (0, u32::MAX);
            let (mut all, mut next) = (Vec::new(), 0);
            while word < block.len() {
                let len = parts.piece(word, room);
                prop_assert!(len > 0 && (len <= room.max(1) || len <= step));
                let piece = &block[word..word + len];
                parts.split(word, piece, &mut checksum, |piece| {
                    let (words, from) = match piece {
                        Piece::Scales(first, words) => (words, 1 + first),
                        Piece::Subs(first, words) => (words, 1 + scales + next * (subs + weights) + first),
                        Piece::Line(first, words, last) => {
                            let line = 1 + scales + next * (subs + weights) + subs;
                            assert!(first % step == 0);
                            assert!(last == (first + words.len() == weights));
                            assert!(last || words.len() % step == 0);
                            next += usize::from(last);
                            (words, line + first)
                        }
                    };
                    assert_eq!(words[0] as usize, from);
                    all.extend_from_slice(words);
                    Ok(())
                }).unwrap();
                word += len;
            }
            prop_assert_eq!(checksum, 0);
            prop_assert_eq!(next, lines);
            prop_assert!(all == block[1..]);
        }
    }

    /// What is read in pieces has as many words as the record says.
    #[test]
    fn blocks_are_as_long_as_their_records_say() {
        for code in 0..5 {
            let format = Format::from_code(code).unwrap();
            for (rows, cols) in [(1, 1), (7, 33), (8, 32), (65, 5), (3, 161), (2, 640)] {
                for layout in [Layout::RowMajor, Layout::InputMajor] {
                    let (id, bits, tile_rows) = (Id::AttKey, 0, 4);
                    let record = Record { id, format, layout, bits, rows, cols, tile_rows };
                    match layout {
                        Layout::RowMajor => record.tiles().for_each(|(_, rows)| {
                            assert_eq!(Parts::rows(&record, rows).words(), record.tile_words(rows));
                        }),
                        Layout::InputMajor => {
                            let column = record.blocks().next();
                            assert_eq!(Some(Parts::column(&record).words()), column);
                        }
                    }
                }
            }
        }
    }
}
