//! From the stream: records, their tiles and single rows, each checked before it is used.

use super::{Step, carry_row};
use crate::{
    error::{Error, ImageError},
    exec::{Input, Lane, Logits, Part, Span, TILE_ROWS, Work},
    image::{self, RECORD_WORDS, Record, Shape},
    kernel::{Arranged, Kernel},
    op::{self, Activation},
    state::StateView,
    stream::Stream,
};

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
        for (first, rows) in record.tiles() {
            let tile = block(&mut self.stream, record.tile_words(rows)).await?;
            visit(&mut self.lane, &mut self.state, first, bytemuck::cast_slice(tile))?;
        }
        Ok(())
    }

    /// The record of a row-major matrix, and the vector in `input` as its rows want it.
    pub(super) async fn open_rows(
        &mut self,
        shape: Shape,
        input: Span,
    ) -> Result<(Record, Option<Arranged>), Error> {
        let record = self.record(shape).await?;
        let arranged = self.lane.arrange(self.kernel, &record, input, record.cols as usize)?;
        self.spent(shape.id, Part::Quantise);
        Ok((record, arranged))
    }

    /// `out = f(W·x)` with the vector in `input`.
    pub(super) async fn set_rows(
        &mut self,
        shape: Shape,
        input: Span,
        out: Span,
        f: Activation,
    ) -> Result<(), Error> {
        let (record, arranged) = self.open_rows(shape, input).await?;
        for (first, rows) in record.tiles() {
            let tile = block(&mut self.stream, record.tile_words(rows)).await?;
            let place = out.part(first, rows);
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
        let (record, arranged) = self.open_rows(shape, input).await?;
        for (start, rows) in record.tiles() {
            let tile = block(&mut self.stream, record.tile_words(rows)).await?;
            let mut y = [0.0; TILE_ROWS];
            for first in (0..rows).step_by(TILE_ROWS) {
                let (y, _) = y.split_at_mut(TILE_ROWS.min(rows - first));
                let place = (tile, first, rows);
                self.lane.rows(self.kernel, &record, place, (input, arranged), y)?;
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
        let row = self.stream.read_at(place, words).await?;
        let row = checked::<S>(row, place)?;
        op::dequantise(&record, row, self.lane.get_mut(out)?);
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
