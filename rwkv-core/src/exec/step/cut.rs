//! What is made of blocks that come in pieces, piece by piece.

use core::mem;

use super::{Step, read::Rows};
use crate::{
    error::Error,
    exec::{
        Logits, Span,
        blocks::{Parts, Piece, Place},
        room::{RoomLeft, sub_scale_room},
    },
    image::{Id, RECORD_WORDS, Record},
    kernel::{Kernel, Partial},
    op,
    stream::{Blocks, Stream},
};

/// A block that comes in pieces, and what is to be done with it. `behind` is read after it.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Cut<'c> {
    /// Rows of a product, the first and how many, to `out`.
    Rows { product: Rows, rows: (usize, usize), out: Span },
    /// The row of a table that begins at a word of the image.
    TableRow { record: &'c Record, at: usize, out: Span },
    /// The column for an element of `k`.
    Column { record: &'c Record, k: (Span, usize), acc: Span, behind: (usize, usize) },
    /// Scales of a sparse product, for as many outputs from the first on.
    Scales { record: &'c Record, rows: (usize, usize), acc: (Span, f32), behind: (usize, usize) },
}

impl<S: Stream, K: Kernel, L: Logits> Step<'_, S, K, L> {
    /// Does it.
    pub(in crate::exec) async fn cut(&mut self, block: Cut<'_>) -> Result<(), Error> {
        match block {
            Cut::Rows { product, rows, out } => self.cut_rows(product, rows, out).await,
            Cut::TableRow { record, at, out } => self.cut_table_row(record, at, out).await,
            Cut::Column { record, k, acc, behind } => self.cut_column(record, k, acc, behind).await,
            Cut::Scales { record, rows, acc, behind } => {
                self.cut_scales(record, rows, acc, behind).await
            }
        }
    }

    /// The outputs of rows.
    async fn cut_rows(
        &mut self,
        product: Rows,
        (first, rows): (usize, usize),
        out: Span,
    ) -> Result<(), Error> {
        let Rows { record, input, arranged, .. } = product;
        let (parts, room) = (Parts::rows(&record, rows), self.stream.room());
        let end = self.stream.position().saturating_add(parts.words());
        let left = (record.rows as usize).saturating_sub(first + rows);
        let behind = match left {
            // Nothing is read behind the head.
            0 if record.id == Id::Head => None,
            0 => Some((end, RECORD_WORDS)),
            _ => Some((end, Parts::rows(&record, rows.min(left)).first(room))),
        };
        let subs = RoomLeft::of(&record, input).subs;
        let (mut row, mut sums) = (0, Partial::default());
        let Self { stream, lane, .. } = self;
        let visit = &mut |piece: Piece<'_>| {
            match piece {
                Piece::Scales(first, words) => lane.store(out, first, words)?,
                Piece::Subs(first, words) => lane.store(subs, first, words)?,
                Piece::Line(first, words, last) => {
                    lane.add_piece(&mut sums, &record, (first, words), input, subs)?;
                    if last {
                        let pair = out.part(row, record.format.interleaved());
                        lane.end_rows(mem::take(&mut sums), arranged, pair)?;
                        row += pair.len();
                    }
                }
            }
            Ok(())
        };
        S::Blocks::pieces(stream, parts, Place::Next(behind), visit).await
    }

    /// A row of a table, as floats.
    async fn cut_table_row(&mut self, record: &Record, at: usize, out: Span) -> Result<(), Error> {
        let mut scale = 0.0;
        let subs = self.room(record.sub_words() as u32);
        let Self { stream, lane, .. } = self;
        let visit = &mut |piece: Piece<'_>| match piece {
            Piece::Scales(_, words) => {
                words.iter().for_each(|word| scale = f32::from_bits(*word));
                Ok(())
            }
            Piece::Subs(first, words) => lane.store(subs, first, words),
            Piece::Line(first, words, _) => {
                let [subs, out] = lane.split([subs, out])?;
                let row = (scale, bytemuck::cast_slice(subs));
                op::dequantise_part(record.format, row, (first, words), out);
                Ok(())
            }
        };
        S::Blocks::pieces(stream, Parts::rows(record, 1), Place::At(at), visit).await
    }

    /// Adds a column.
    async fn cut_column(
        &mut self,
        record: &Record,
        k: (Span, usize),
        acc: Span,
        behind: (usize, usize),
    ) -> Result<(), Error> {
        let subs = sub_scale_room(k.0).part(0, record.sub_words());
        let Self { stream, lane, kernel, .. } = self;
        let parts = Parts::column(record);
        let visit = &mut |piece: Piece<'_>| match piece {
            Piece::Scales(..) => Err(Error::Internal),
            Piece::Subs(first, words) => lane.store(subs, first, words),
            Piece::Line(first, words, _) => {
                lane.column_piece(*kernel, record, (first, words), k, (subs, acc))
            }
        };
        S::Blocks::pieces(stream, parts, Place::Next(Some(behind)), visit).await
    }

    /// Turns sums of a sparse product into outputs, from `first` on.
    async fn cut_scales(
        &mut self,
        record: &Record,
        (first, rows): (usize, usize),
        (acc, scale): (Span, f32),
        behind: (usize, usize),
    ) -> Result<(), Error> {
        let Self { stream, lane, .. } = self;
        let visit = &mut |piece: Piece<'_>| match piece {
            Piece::Line(word, scales, _) => {
                lane.rescale(record, acc, first + word, bytemuck::cast_slice(scales), scale)
            }
            Piece::Scales(..) | Piece::Subs(..) => Err(Error::Internal),
        };
        S::Blocks::pieces(stream, Parts::plain(rows, 1), Place::Next(Some(behind)), visit).await
    }
}
