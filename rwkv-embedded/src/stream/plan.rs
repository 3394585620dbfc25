//! What comes next on a medium: learnt from the headers of records as they pass.

use rwkv_core::image::{Id, Layout, RECORD_WORDS, Record};

/// Words of an image to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: usize,
    pub(super) words: usize,
    /// Whether the last of them are the header of a record.
    pub(super) header: bool,
}

/// Words of a run, but for its last block.
const RUN: usize = 64;

impl Run {
    pub(super) const fn new(first: usize, words: usize) -> Self {
        Self { first, words, header: words == RECORD_WORDS }
    }

    pub(super) const fn end(self) -> usize {
        self.first.saturating_add(self.words)
    }
}

/// What is known of the words behind those that were read.
///
/// Nothing but time depends on it: what is read ahead and not asked for is read in vain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Plan {
    #[default]
    Nothing,
    /// Somebody will ask for these.
    Told(Run),
    /// Blocks of a record are next, from this row on.
    Tiles { record: Record, row: usize, at: usize },
}

impl Plan {
    /// The next run of words, and what is known behind it: whole blocks, and the header behind the
    /// last one. A run is not long, since nothing of it can be used before all of it is there.
    /// `fits` says of a first word and a number of words whether there is room.
    pub(super) fn next(self, fits: impl Fn(usize, usize) -> bool) -> Option<(Run, Self)> {
        let (record, mut row, first) = match self {
            Self::Nothing => return None,
            Self::Told(run) => {
                return fits(run.first, run.words).then_some((run, Self::Nothing));
            }
            Self::Tiles { record, row, at } => (record, row, at),
        };
        let (rows, tile) = (record.rows as usize, usize::from(record.tile_rows).max(1));
        let mut words = 0usize;
        while row < rows && words < RUN {
            let block = record.tile_words(tile.min(rows - row));
            if !fits(first, words.saturating_add(block)) {
                break;
            }
            words += block;
            row += tile;
        }
        let last = row >= rows;
        // Nothing is read behind the head.
        let header = last && record.id != Id::Head && fits(first, words + RECORD_WORDS);
        let after = match last && (header || record.id == Id::Head) {
            true => Self::Nothing,
            false => Self::Tiles { record, row, at: first + words },
        };
        words += if header { RECORD_WORDS } else { 0 };
        (words > 0).then_some((Run { first, words, header }, after))
    }

    /// A header was read, up to the word `end` of the image. The blocks of a matrix that is read
    /// straight ahead follow it; which columns of the other kind are asked for, nobody knows.
    pub(super) fn learn(header: &[u32], end: usize) -> Self {
        let record = header.first_chunk().and_then(Record::peek);
        match record.filter(|record| record.layout == Layout::RowMajor) {
            Some(record) => Self::Tiles { record, row: 0, at: end },
            None => Self::Nothing,
        }
    }
}
