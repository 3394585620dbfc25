//! From the stream: records, their tiles and single rows, each checked before it is used.

use super::{Cut, Step, carry_row};
use crate::{
    error::{Error, ImageError},
    exec::{
        Input, Lane, Logits, Part, Span, TILE_ROWS, Work,
        blocks::{Parts, Piece, Place, first_words, is_cut},
        room::{RoomLeft, may_be_cut},
    },
    image::{self, RECORD_WORDS, Record, Shape},
    kernel::{Arranged, Generic, Kernel},
    op::{self, Activation},
    state::StateView,
    stream::{Blocks, Stream},
};

/// The input of a product, as its rows want it.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rows {
    pub(super) record: Record,
    pub(super) input: Span,
    pub(super) arranged: Option<Arranged>,
    /// Whether its blocks come in pieces.
    cut: bool,
}

impl<S: Stream, K: Kernel, L: Logits> Step<'_, S, K, L> {
    /// Passes over the zeros that fill the last 16 bytes of a section.
    pub(super) async fn next_section(&mut self) -> Result<(), Error> {
        let at = self.stream.position();
        Ok(self.stream.skip(at.next_multiple_of(4) - at).await?)
    }

    pub(super) async fn record(&mut self, shape: Shape) -> Result<Record, Error> {
        let offset = (self.stream.position() as u32).wrapping_mul(4);
        let words = self.stream.next(RECORD_WORDS).await?;
        parse(words, &shape, offset)
    }

    /// The tiles of a group of vectors, handed to `visit` with their first row.
    pub(super) async fn vectors(
        &mut self,
        shape: Shape,
        mut visit: impl FnMut(&mut Lane<'_>, &mut StateView<'_>, usize, &[f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let record = self.record(shape).await?;
        let most = record.tiles().next().map_or(0, |(_, rows)| record.tile_words(rows));
        let cut = is_cut(&self.stream, most) && may_be_cut(&record, &shape, false);
        for (first, rows) in record.tiles() {
            let Self { stream, lane, state, .. } = self;
            if !(S::Blocks::CUT && cut) {
                let tile = block(stream, record.tile_words(rows)).await?;
                visit(lane, state, first, bytemuck::cast_slice(tile))?;
                continue;
            }
            let (vectors, room) = (record.cols as usize, stream.room());
            let parts = |rows: usize| Parts::plain(rows.saturating_mul(vectors), vectors);
            let end = stream.position().saturating_add(parts(rows).words());
            let behind = match (record.rows as usize).saturating_sub(first + rows) {
                0 => (end, RECORD_WORDS),
                left => (end, parts(rows.min(left)).first(room)),
            };
            let visit = &mut |piece: Piece<'_>| match piece {
                Piece::Line(word, words, _) => {
                    let channel = word.checked_div(vectors).unwrap_or_default();
                    visit(lane, state, first + channel, bytemuck::cast_slice(words))
                }
                Piece::Scales(..) | Piece::Subs(..) => Err(Error::Internal),
            };
            S::Blocks::pieces(stream, parts(rows), Place::Next(Some(behind)), visit).await?;
        }
        Ok(())
    }

    /// The record of a row-major matrix, and the vector in `input` as its rows want it. `passes_rows_on`
    /// as for [`may_be_cut`].
    async fn open_rows(
        &mut self,
        shape: Shape,
        input: Span,
        passes_rows_on: bool,
    ) -> Result<Rows, Error> {
        let record = self.record(shape).await?;
        let rows = record.tiles().next().map_or(0, |(_, rows)| rows);
        let cut = is_cut(&self.stream, record.tile_words(rows))
            && may_be_cut(&record, &shape, passes_rows_on);
        let cols = record.cols as usize;
        let arranged = if S::Blocks::CUT && cut {
            let words = first_words(&self.stream, Parts::rows(&record, rows));
            self.stream.ahead(self.stream.position(), words);
            self.lane.arrange(Generic, &record, input, cols)?
        } else {
            self.lane.arrange(self.kernel, &record, input, cols)?
        };
        self.spent(shape.id, Part::Quantise);
        Ok(Rows { record, input, arranged, cut })
    }

    /// `out = f(W·x)` with the vector in `input`.
    pub(super) async fn set_rows(
        &mut self,
        shape: Shape,
        input: Span,
        out: Span,
        f: Activation,
    ) -> Result<(), Error> {
        let product = self.open_rows(shape, input, false).await?;
        let Rows { record, arranged, cut, .. } = product;
        for (first, rows) in record.tiles() {
            let place = out.part(first, rows);
            if S::Blocks::CUT && cut {
                let rows = (first, rows);
                S::Blocks::cut(self, Cut::Rows { product, rows, out: place }).await?;
                continue;
            }
            let tile = block(&mut self.stream, record.tile_words(rows)).await?;
            self.lane.tile(self.kernel, &record, tile, (input, arranged), place)?;
        }
        self.spent(shape.id, Part::Rows);
        self.lane.apply(f, self.header.math, out)?;
        self.spent(shape.id, Part::Store);
        Ok(())
    }

    /// `W·x` with the vector in `input`; `visit` gets runs of rows.
    pub(super) async fn visit_rows(
        &mut self,
        shape: Shape,
        input: Span,
        mut visit: impl FnMut(&mut Lane<'_>, &mut L, usize, &mut [f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let work = |part| Work { section: self.section, id: Some(shape.id), part };
        let [multiplied, stored] = [Part::Rows, Part::Store].map(work);
        let product = self.open_rows(shape, input, true).await?;
        let Rows { record, arranged, cut, .. } = product;
        for (start, rows) in record.tiles() {
            let tile: &[u32] = if S::Blocks::CUT && cut {
                let rows = (start, rows);
                S::Blocks::cut(
                    self,
                    Cut::Rows { product, rows, out: RoomLeft::of(&record, input).rows },
                )
                .await?;
                &[]
            } else {
                block(&mut self.stream, record.tile_words(rows)).await?
            };
            let mut y = [0.0; TILE_ROWS];
            for first in (0..rows).step_by(TILE_ROWS) {
                let (y, _) = y.split_at_mut(TILE_ROWS.min(rows - first));
                if S::Blocks::CUT && cut {
                    let outputs = RoomLeft::of(&record, input).rows.part(first, y.len());
                    let outputs = self.lane.get(outputs)?;
                    y.iter_mut().zip(outputs).for_each(|(y, output)| *y = *output);
                } else {
                    let place = (tile, first, rows);
                    self.lane.rows(self.kernel, &record, place, (input, arranged), y)?;
                }
                self.logits.spent(multiplied);
                visit(&mut self.lane, &mut self.logits, start + first, y)?;
                self.logits.spent(stored);
            }
        }
        Ok(())
    }

    /// The token shift, or a copy, of a product's input.
    pub(super) async fn fill(&mut self, x: Input, out: Span) -> Result<(), Error> {
        let s = match x {
            Input::Plain(x) => return self.lane.copy(x, out),
            Input::Shifted(s) => s,
        };
        let (dims, layer) = (self.header.dims, self.layer);
        let shape = Shape::vectors(s.id, s.x.len() as u32, 1);
        self.vectors(shape, |lane, state, first, mix| {
            let [shift, _] = state.layer_mut(&dims, layer);
            let previous = carry_row(shift, s.previous)?.get(first..).ok_or(Error::Internal)?;
            let [x, out] = lane.split([s.x.part(first, mix.len()), out.part(first, mix.len())])?;
            op::shift(s.kind, x, previous, mix, out);
            Ok(())
        })
        .await
    }

    /// A row of the table whose record lies at `at`, as floats. Returns where the record ends.
    pub(super) async fn table_row(
        &mut self,
        at: usize,
        shape: Shape,
        row: usize,
        out: Span,
    ) -> Result<usize, Error> {
        let words = self.stream.read_at(at, RECORD_WORDS).await?;
        let record = parse(words, &shape, (at as u32).wrapping_mul(4))?;
        let (first, words) = (at.saturating_add(RECORD_WORDS), record.tile_words(1));
        let place = row.saturating_mul(words).saturating_add(first);
        if is_cut(&self.stream, words) && may_be_cut(&record, &shape, false) {
            S::Blocks::cut(self, Cut::TableRow { record: &record, at: place, out }).await?;
        } else {
            let row = self.stream.read_at(place, words).await?;
            let row = checked::<S>(row, place)?;
            op::dequantise(&record, row, self.lane.get_mut(out)?);
        }
        Ok(first.saturating_add(record.payload_words()))
    }
}

pub(in crate::exec) fn parse(words: &[u32], shape: &Shape, offset: u32) -> Result<Record, Error> {
    let head = words.first_chunk::<RECORD_WORDS>();
    let record = head.and_then(|head| Record::parse(head, shape));
    Ok(record.ok_or(ImageError::Record { offset, expected: shape.id as u8 })?)
}

/// The next block without its checksum, which is compared if the stream asks for it.
pub(super) async fn block<S: Stream>(stream: &mut S, words: usize) -> Result<&[u32], Error> {
    let at = stream.position();
    let block = stream.next(words).await?;
    checked::<S>(block, at)
}

pub(in crate::exec) fn checked<S: Stream>(block: &[u32], at: usize) -> Result<&[u32], Error> {
    if S::VERIFY {
        image::verify(block, at)?;
    }
    block.get(1..).ok_or(Error::Internal)
}
