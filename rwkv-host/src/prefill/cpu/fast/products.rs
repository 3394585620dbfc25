//! Products with matrices of floats, for all tokens at once.

use rayon::prelude::*;
use rwkv_core::{
    Error,
    exec::{Lane, Span},
    image::Layout,
};

use super::{
    super::{arithmetic::Matrix, lanes::Lanes},
    gemm::{matrix, multiply, packed},
    weights::weights,
};

/// Multiplications that are worth a task of their own.
const TASK: usize = 1 << 20;
/// Outputs of a token that a task computes at most: their weights stay in the cache.
const ROWS: usize = 512;
/// Outputs that are computed before they go where they belong: bounds their room.
const BAND: usize = 1 << 20;

/// The product of a matrix, of either layout, with the vector in `input`, for the last tokens, as
/// many as there are sinks: `visit` gets a token's outputs from a row on, in order.
pub(super) fn product<S: Send>(
    weights_of: Matrix<'_>,
    input: Span,
    lanes: Lanes<'_>,
    sinks: &mut [S],
    visit: impl Fn(&mut Lane<'_>, &mut S, usize, &[f32]) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let (record, tokens) = (weights_of.record, sinks.len());
    let (rows, cols) = (record.rows as usize, record.cols as usize);
    if tokens == 0 || rows == 0 {
        return Ok(());
    }
    let mut lanes = lanes.last(tokens)?;
    let tasks = (tokens * rows * cols / TASK).clamp(1, rayon::current_num_threads());
    let run = rows.div_ceil(tasks).min(ROWS);
    let band = (BAND / tokens).next_multiple_of(run);
    let mut outputs = vec![0.0; tokens * band.min(rows)];
    for start in (0..rows).step_by(band) {
        let outputs = outputs.get_mut(..tokens * band.min(rows - start)).ok_or(Error::Internal)?;
        let inputs = lanes.words().get(input.range().start..).ok_or(Error::Internal)?;
        let inputs = matrix(inputs, (tokens, cols), lanes.stride())?;
        let runs = outputs.par_chunks_mut(tokens * run).enumerate().map(|(index, outputs)| {
            let (first, rows) = (start + index * run, outputs.len() / tokens);
            let weights = weights(weights_of, first..first + rows)?;
            let weights = match record.layout {
                Layout::RowMajor => packed(&weights, cols)?.reversed_axes(),
                Layout::InputMajor => packed(&weights, rows)?,
            };
            multiply(inputs, weights, 0.0, outputs)?;
            Ok((first, rows, outputs))
        });
        let runs = runs.collect::<Result<Vec<_>, Error>>()?;
        lanes.deliver(&runs, sinks, &visit)?;
    }
    Ok(())
}
