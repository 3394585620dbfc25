//! What belongs together, of lengths that agree: assembly takes the pointers.

#![allow(dead_code, reason = "no core uses every part")]

use core::ops::Range;

use crate::image::{Format, GROUP};

/// Lines of `ROWS` rows each, an input as wide as they are and a place for every line's sums. There
/// is at least one line, and at least one group.
pub(in crate::kernel) struct Product<'a, X, const ROWS: usize> {
    pub(super) words: &'a [u32],
    pub(super) line: usize,
    pub(super) subs: usize,
    pub(super) x: &'a [X],
    pub(super) out: &'a mut [[u32; ROWS]],
}

/// Where a [`Product`] lies, for assembly.
pub(in crate::kernel) struct Pointers<'a, X, const ROWS: usize> {
    /// The lines, one behind the other.
    pub(in crate::kernel) words: *const u32,
    /// Bytes of a line.
    pub(in crate::kernel) line: usize,
    /// Bytes of sub-scales at the front of a line.
    pub(in crate::kernel) subs: usize,
    /// The groups of the input.
    pub(in crate::kernel) x: Range<*const X>,
    /// The sums.
    pub(in crate::kernel) out: &'a mut [[u32; ROWS]],
}

impl<'a, X, const ROWS: usize> Product<'a, X, ROWS> {
    pub(super) fn new(
        format: Format,
        words: &'a [u32],
        x: &'a [X],
        out: &'a mut [[u32; ROWS]],
    ) -> Option<Self> {
        let line = ROWS * format.line_words(x.len() * GROUP);
        let weights = if matches!(format, Format::Int8) { 8 } else { 4 };
        let subs = line - ROWS * weights * x.len();
        let fits = words.len() >= out.len().saturating_mul(line);
        (fits && !out.is_empty() && line > 0).then_some(Self { words, line, subs, x, out })
    }

    /// Gives up its references for pointers.
    pub(in crate::kernel) fn pointers(self) -> Pointers<'a, X, ROWS> {
        Pointers {
            words: self.words.as_ptr(),
            line: 4 * self.line,
            subs: 4 * self.subs,
            x: self.x.as_ptr_range(),
            out: self.out,
        }
    }
}

/// Runs of accumulators of a column, at least one, and as many of bytes.
pub(in crate::kernel) struct ByteColumn<'a> {
    pub(super) words: &'a [[u32; 4]],
    pub(super) acc: &'a mut [[i32; 16]],
}

impl ByteColumn<'_> {
    /// Words, as many as accumulators, and those.
    pub(in crate::kernel) fn pointers(self) -> (*const [u32; 4], Range<*mut [i32; 16]>) {
        (self.words.as_ptr(), self.acc.as_mut_ptr_range())
    }
}

/// Groups of accumulators of a column, at least one, and no fewer of what belongs to them.
pub(in crate::kernel) struct NibbleColumn<'a> {
    pub(super) words: &'a [[u32; 4]],
    pub(super) subs: &'a [u8],
    pub(super) acc: &'a mut [[i32; GROUP]],
    pub(super) offsets: &'a mut [i32],
}

/// Where a [`NibbleColumn`] lies, for assembly.
pub(in crate::kernel) struct NibblePointers {
    pub(in crate::kernel) words: *const [u32; 4],
    pub(in crate::kernel) subs: *const u8,
    pub(in crate::kernel) acc: Range<*mut [i32; GROUP]>,
    pub(in crate::kernel) offsets: *mut i32,
}

impl NibbleColumn<'_> {
    /// Gives up its references for pointers.
    pub(in crate::kernel) fn pointers(self) -> NibblePointers {
        NibblePointers {
            words: self.words.as_ptr(),
            subs: self.subs.as_ptr(),
            acc: self.acc.as_mut_ptr_range(),
            offsets: self.offsets.as_mut_ptr(),
        }
    }
}
