//! Which blocks may come in pieces: those whose parts have room to wait. The room is what a step has
//! planned for something else.

use super::{Lane, Span, record::product_room, rows::column_words};
use crate::{
    error::Error,
    image::{Format, GROUP, Id, Layout, Record, Shape},
    kernel::{Arranged, Kernel, Partial, room_words},
};

/// What the room of a product's input leaves free when the rows come in pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoomLeft {
    /// For the sub-scales of a line.
    pub(super) subs: Span,
    /// For the outputs of a block, and their scales before.
    pub(super) rows: Span,
}

impl RoomLeft {
    pub(super) fn of(record: &Record, input: Span) -> Self {
        let cols = record.cols as usize;
        let taken = if record.format.is_integer() { Partial::input_words(cols) } else { cols };
        let subs = record.format.interleaved() * record.sub_words();
        let rows = input.part(taken + subs, input.len());
        Self { subs: input.part(taken, subs), rows }
    }
}

/// Where the sub-scales of a column have room: its quantised inputs take the front half of theirs.
pub(super) const fn sub_scale_room(k: Span) -> Span {
    let taken = k.len().div_ceil(2);
    k.part(taken, k.len() - taken)
}

/// Whether the blocks of a record may come in pieces. `passes_rows_on` says whether the outputs of a
/// block wait in the room of its input, before they are added to a vector or handed on.
pub(super) fn may_be_cut(record: &Record, shape: &Shape, passes_rows_on: bool) -> bool {
    let span = |len| Span { start: 0, len };
    match record.layout {
        Layout::InputMajor => record.sub_words() <= sub_scale_room(span(shape.cols)).len(),
        // A head is used as a whole.
        Layout::RowMajor if shape.precise => shape.tile_rows == 0,
        // Sub-scales of a table lie where a product will have its input: of the model's width behind
        // the embedding, and of one group at least behind DeepEmbed.
        Layout::RowMajor if shape.tile_rows > 0 => {
            record.id == Id::Embedding || record.sub_words() <= room_words(GROUP)
        }
        Layout::RowMajor => {
            let rows = record.tiles().next().map_or(0, |(_, rows)| rows);
            let input = span(product_room(shape.cols as usize));
            !passes_rows_on || rows <= RoomLeft::of(record, input).rows.len()
        }
    }
}

/// The fewest words that a stream must have room for, for a record: those of a piece, or of a block
/// that must come whole.
pub(super) fn least_room(record: &Record, shape: &Shape, passes_rows_on: bool) -> usize {
    let rows = record.tiles().next().map_or(0, |(_, rows)| rows);
    let (whole, step) = match record.layout {
        Layout::RowMajor if shape.precise => (record.tile_words(rows), shape.cols as usize),
        Layout::RowMajor => (record.tile_words(rows), Partial::STEP),
        Layout::InputMajor => (1 + record.line_words(), Partial::STEP),
    };
    if may_be_cut(record, shape, passes_rows_on) { step.min(whole) } else { whole }
}

impl Lane<'_> {
    /// Words to where they are kept, from one of its words on.
    ///
    /// # Errors
    /// As [`Lane::get`], also if there are more than have room.
    pub(super) fn store(&mut self, to: Span, first: usize, words: &[u32]) -> Result<(), Error> {
        let to = to.part(first, words.len());
        let place: &mut [u32] = bytemuck::cast_slice_mut(self.get_mut(to)?);
        if place.len() != words.len() {
            return Err(Error::Internal);
        }
        place.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    /// Adds a piece of a line, from one of its words on, to the sums of its rows.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub(super) fn add_piece(
        &self,
        sums: &mut Partial,
        record: &Record,
        piece: (usize, &[u32]),
        input: Span,
        subs: Span,
    ) -> Result<(), Error> {
        let x = match record.format.is_integer() {
            true => self.get(input)?,
            false => self.get(input.part(0, record.cols as usize))?,
        };
        sums.add(record.format, piece, bytemuck::cast_slice(self.get(subs)?), x);
        Ok(())
    }

    /// The outputs of rows whose line has ended, in the place of their scales.
    ///
    /// # Errors
    /// As [`Lane::get`].
    pub(super) fn end_rows(
        &mut self,
        sums: Partial,
        arranged: Option<Arranged>,
        rows: Span,
    ) -> Result<(), Error> {
        let rows = self.get_mut(rows)?;
        let mut scales = [0.0; 2];
        scales.iter_mut().zip(rows.iter()).for_each(|(to, from)| *to = *from);
        rows.iter_mut().zip(sums.rows(arranged, scales)).for_each(|(to, from)| *to = from);
        Ok(())
    }

    /// As [`Lane::column`], of the words of a column from `first` on; its sub-scales were stored.
    ///
    /// # Errors
    /// As [`Lane::split`].
    pub(super) fn column_piece(
        &mut self,
        kernel: impl Kernel,
        record: &Record,
        (first, words): (usize, &[u32]),
        (k, index): (Span, usize),
        (subs, acc): (Span, Span),
    ) -> Result<(), Error> {
        let rows = record.rows as usize;
        let start = first * record.format.weights_per_word();
        if record.format != Format::Int4 {
            let [k, acc] = self.split([k, acc])?;
            let (acc, offsets) = acc.split_at_mut_checked(rows).ok_or(Error::Internal)?;
            let end = (start + words.len() * record.format.weights_per_word()).min(acc.len());
            let acc = acc.get_mut(start..end).unwrap_or_default();
            return column_words(kernel, record.format, words, (k, index), (acc, offsets));
        }
        let elements = k.part(0, k.len().div_ceil(2));
        let [k, subs, acc] = self.split([elements, subs, acc])?;
        let (acc, offsets) = acc.split_at_mut_checked(rows).ok_or(Error::Internal)?;
        let acc = acc.get_mut(start..).unwrap_or_default();
        // Every group is a line of its own.
        let groups = words.as_chunks::<4>().0.iter();
        let subs = bytemuck::cast_slice::<_, u8>(subs).iter().zip(offsets.chunks_mut(1));
        let sums = acc.chunks_mut(GROUP).zip(subs.skip(first / 4));
        for ([a, b, c, d], (acc, (sub, offset))) in groups.zip(sums) {
            let line = [u32::from(*sub), *a, *b, *c, *d];
            column_words(kernel, record.format, &line, (k, index), (acc, offset))?;
        }
        Ok(())
    }
}
