//! Products with input-major matrices, whose columns are skipped where the input is zero.

use rayon::prelude::*;
use rwkv_core::{
    Error,
    exec::{Bump, Lane, Span},
    image::GROUP,
    kernel::Kernel,
};

use super::{
    super::{arithmetic::Matrix, lanes::Lanes},
    turn::turn,
};

/// Tokens that take the columns of a matrix together: their sums stay in the cache.
const TOGETHER: usize = 8;
/// Tokens from which on it pays to turn columns of integers to rows.
const TURN: usize = 16;
/// Words of columns from which on few tokens spread them over the threads.
const SPREAD: usize = 1 << 14;

/// `acc = W·k`, in the order that suits the number of tokens.
pub(super) fn product(
    kernel: impl Kernel,
    matrix: Matrix<'_>,
    spans: (Span, Span),
    lanes: Lanes<'_>,
) -> Result<(), Error> {
    let (tokens, threads) = (lanes.len(), rayon::current_num_threads());
    match matrix.record.format.is_integer() {
        true if tokens >= TURN => turned(kernel, matrix, spans, lanes),
        true if tokens < threads && matrix.words.len() >= SPREAD => {
            runs(kernel, matrix, spans, lanes)
        }
        _ => columns(kernel, matrix, spans, lanes),
    }
}

/// As it lies: column by column, each for the tokens whose input it is and is not zero.
fn columns(
    kernel: impl Kernel,
    Matrix { record, words }: Matrix<'_>,
    (k, acc): (Span, Span),
    mut lanes: Lanes<'_>,
) -> Result<(), Error> {
    lanes.runs(TOGETHER).try_for_each(|mut lanes| {
        let mut lanes: Vec<_> = lanes.each().map(|lane| (lane, 0)).collect();
        for (index, column) in words.chunks_exact(1 + record.line_words()).enumerate() {
            for (lane, next) in &mut lanes {
                if *next == index {
                    *next = lane.next_live(record, k, index)?.unwrap_or(usize::MAX);
                }
                if *next == index {
                    lane.column(kernel, record, &column[1..], (k, index), acc)?;
                    *next += 1;
                }
            }
        }
        Ok(())
    })
}

/// The same for integers and few tokens: runs of columns are spread over the threads, and their
/// sums added, in whatever order.
fn runs(
    kernel: impl Kernel,
    Matrix { record, words }: Matrix<'_>,
    (k, acc): (Span, Span),
    mut lanes: Lanes<'_>,
) -> Result<(), Error> {
    let column = 1 + record.line_words();
    let run = k.len().div_ceil(rayon::current_num_threads());
    let mut bump = Bump::default();
    let (inner, sums) = (bump.take(k.len() as u32), bump.take(acc.len() as u32));
    for mut lane in lanes.each() {
        let input = lane.get(k)?;
        let parts = words.par_chunks(column * run).enumerate().map(|(part, columns)| {
            let mut room = vec![0.0; bump.peak() as usize];
            let mut lane = Lane(&mut room);
            lane.get_mut(inner)?.copy_from_slice(input);
            let (mut at, end) = (part * run, part * run + columns.len() / column);
            while let Some(index) = lane.next_live(record, inner, at)?.filter(|i| *i < end) {
                let line = columns[(index - part * run) * column..].get(1..column);
                let line = line.ok_or(Error::Internal)?;
                lane.column(kernel, record, line, (inner, index), sums)?;
                at = index + 1;
            }
            Ok(room)
        });
        let parts = parts.collect::<Result<Vec<_>, Error>>()?;
        for mut part in parts {
            let part = Lane(&mut part);
            let part: &[i32] = bytemuck::cast_slice(part.get(sums)?);
            let all: &mut [i32] = bytemuck::cast_slice_mut(lane.get_mut(acc)?);
            all.iter_mut().zip(part).for_each(|(all, part)| *all = all.wrapping_add(*part));
        }
    }
    Ok(())
}

/// The same for integers, whose sums are the same in any order: columns are turned to rows, a
/// group of outputs at a time, which then serve all tokens. Zeros are multiplied as well.
fn turned(
    kernel: impl Kernel,
    Matrix { record, words }: Matrix<'_>,
    (k, acc): (Span, Span),
    mut lanes: Lanes<'_>,
) -> Result<(), Error> {
    let (rows, cols, tokens) = (record.rows as usize, record.cols as usize, lanes.len());
    let inputs = lanes.vectors(k)?.into_iter().map(|k| {
        let x: &[i16] = bytemuck::cast_slice(k);
        x.get(..cols).ok_or(Error::Internal)
    });
    let inputs = inputs.collect::<Result<Vec<_>, Error>>()?;
    let mut sums = vec![0i32; rows.next_multiple_of(GROUP) * tokens];
    sums.par_chunks_mut(GROUP * tokens).enumerate().try_for_each(|(group, sums)| {
        let turned = turn(record, words, group);
        kernel.rows_i16(&turned, &inputs, sums);
        Ok::<(), Error>(())
    })?;
    lanes.parallel().enumerate().try_for_each(|(token, mut lane)| {
        let (acc, offsets) =
            lane.get_mut(acc)?.split_at_mut_checked(rows).ok_or(Error::Internal)?;
        offsets.fill(0.0);
        let groups = sums.chunks_exact(GROUP).skip(token).step_by(tokens);
        for (acc, sums) in acc.chunks_mut(GROUP).zip(groups) {
            acc.iter_mut().zip(sums).for_each(|(a, sum)| *a = f32::from_bits(*sum as u32));
        }
        Ok(())
    })
}
