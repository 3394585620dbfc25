//! The bits of the step executor: the same functions compute the same values, in another order.
//!
//! Products run tile by tile, each over all tokens while it lies in the cache; recurrences head by
//! head, each over the tokens as they come.

mod columns;
mod turn;

use rayon::prelude::*;
use rwkv_core::{
    Error,
    exec::{Inputs, Lane, Span, tile_rows_of_many},
    image::Record,
    kernel::{self, Kernel},
    op::{self, Head5, Head7},
};

use super::{
    arithmetic::{Arithmetic, Matrix},
    lanes::Lanes,
    tiles,
};

/// Multiplications that are worth a task of their own.
const TASK: usize = 1 << 16;
/// Outputs that are computed before they go where they belong: bounds their room.
const BAND: usize = 1 << 20;
/// Tokens from which on tiles are joined, and rows that are joined then.
const JOIN: usize = 8;
const JOINED: usize = 32;

/// The defined order of every sum.
#[derive(Clone, Copy)]
pub(in crate::prefill) struct Exact<K>(pub(in crate::prefill) K);

impl<K: Kernel> Arithmetic for Exact<K> {
    const CHUNK: usize = 1;

    fn rows<S: Send>(
        self,
        Matrix { record, words }: Matrix<'_>,
        input: Span,
        lanes: Lanes<'_>,
        sinks: &mut [S],
        visit: impl Fn(&mut Lane<'_>, &mut S, usize, &[f32]) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let (Self(kernel), mut lanes) = (self, lanes.last(sinks.len())?);
        let (tokens, cols) = (sinks.len(), record.cols as usize);
        let arranged = lanes.parallel().map(|mut lane| lane.arrange(kernel, record, input, cols));
        let arranged = arranged.collect::<Result<Vec<_>, Error>>()?;

        let tiles: Vec<_> = tiles(record, words).collect();
        let rows = usize::from(record.tile_rows).clamp(1, record.rows.max(1) as usize);
        // For many tokens it pays to lay several tiles together.
        let joins = tokens >= JOIN && rows.is_multiple_of(record.format.interleaved());
        let joined = if joins { JOINED.div_ceil(rows) } else { 1 };
        let most = tokens * rows * joined;
        let band = (BAND / most.max(1)).max(1);
        let task = (TASK / (most * cols).max(1)).max(1);
        let mut outputs = vec![0.0; most * band.min(tiles.len().div_ceil(joined))];
        for tiles in tiles.chunks(band * joined) {
            let rooms = lanes.vectors(input)?;
            let integers = rooms.iter().zip(&arranged).filter_map(|(room, arranged)| {
                Some(kernel::Input { words: bytemuck::cast_slice(room), arranged: (*arranged)? })
            });
            let integers: Vec<_> = integers.collect();
            let inputs = match record.format.is_integer() {
                true => Inputs::Integers(&integers),
                false => Inputs::Floats(&rooms),
            };
            let tiles = outputs.par_chunks_mut(most).zip(tiles.par_chunks(joined));
            let done = tiles.with_min_len(task).map(|(outputs, tiles)| {
                let first = tiles.first().map_or(0, |(_, (first, _))| *first);
                let rows = tiles.iter().map(|(_, (_, rows))| rows).sum::<usize>();
                let outputs = outputs.get_mut(..rows * tokens).ok_or(Error::Internal)?;
                match tiles {
                    [(tile, _)] => {
                        tile_rows_of_many(kernel, record, (tile, rows), inputs, outputs)?
                    }
                    tiles => {
                        let tile = join(record, tiles, rows);
                        tile_rows_of_many(kernel, record, (&tile, rows), inputs, outputs)?;
                    }
                }
                Ok((first, rows, outputs))
            });
            let done = done.collect::<Result<Vec<_>, Error>>()?;
            lanes.deliver(&done, sinks, &visit)?;
        }
        Ok(())
    }

    fn columns(
        self,
        matrix: Matrix<'_>,
        spans: (Span, Span),
        lanes: Lanes<'_>,
    ) -> Result<(), Error> {
        columns::product(self.0, matrix, spans, lanes)
    }

    fn wkv5(
        self,
        params: &[f32],
        epsilon: f32,
        [r, w, k, v, y]: [&mut [f32]; 5],
        state: &mut [f32],
    ) -> Result<(), Error> {
        op::wkv5(self.0, params, epsilon, Head5 { r, w, k, v, y }, state);
        Ok(())
    }

    fn wkv7(
        self,
        params: &[f32],
        epsilon: f32,
        [r, w, k, v, a, g, kk, y]: [&mut [f32]; 8],
        state: &mut [f32],
    ) -> Result<(), Error> {
        op::wkv7(self.0, params, epsilon, Head7 { r, w, k, v, a, g, kk, y }, state);
        Ok(())
    }
}

/// Several tiles as one: their scales, then their lines.
fn join(record: &Record, tiles: &[(&[u32], (usize, usize))], rows: usize) -> Vec<u32> {
    let mut joined = Vec::with_capacity(record.tile_words(rows));
    let scales = |rows: usize| rows * record.scale_words();
    for (tile, (_, rows)) in tiles {
        joined.extend_from_slice(&tile[..scales(*rows)]);
    }
    for (tile, (_, rows)) in tiles {
        joined.extend_from_slice(&tile[scales(*rows)..]);
    }
    joined
}
