//! Weights of floats as they are multiplied.

use std::ops::Range;

use half::{
    f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};
use rwkv_core::{
    Error,
    image::{Format, Layout},
};

use super::super::arithmetic::Matrix;

/// The weights of a run of outputs: line after line, each a row of the matrix if it lies row-major,
/// else the run's part of a column.
pub(super) fn weights(matrix: Matrix<'_>, outputs: Range<usize>) -> Result<Vec<f32>, Error> {
    let inputs = 0..matrix.record.cols as usize;
    let (lines, part) = match matrix.record.layout {
        Layout::RowMajor => (outputs, inputs),
        Layout::InputMajor => (inputs, outputs),
    };
    let mut values = vec![0.0; lines.len() * part.len()];
    for (index, to) in lines.zip(values.chunks_exact_mut(part.len().max(1))) {
        let line = line(matrix, index).ok_or(Error::Internal)?;
        match matrix.record.format {
            Format::F32 => {
                let line: &[f32] = bytemuck::cast_slice(line);
                to.copy_from_slice(line.get(part.clone()).ok_or(Error::Internal)?);
            }
            Format::F16 => {
                let line: &[u16] = bytemuck::cast_slice(line);
                let line: &[f16] =
                    line.get(part.clone()).ok_or(Error::Internal)?.reinterpret_cast();
                line.convert_to_f32_slice(to);
            }
            Format::Int8 | Format::Int4 | Format::Int4Lanes => return Err(Error::Internal),
        }
    }
    Ok(values)
}

/// The words of a row, or of a column.
fn line<'a>(Matrix { record, words }: Matrix<'a>, index: usize) -> Option<&'a [u32]> {
    let (lines, len) = match record.layout {
        Layout::RowMajor => (usize::from(record.tile_rows).max(1), record.line_words()),
        Layout::InputMajor => (1, record.line_words()),
    };
    // A block is its checksum, then its lines.
    let first = index / lines * (1 + lines * len) + 1 + index % lines * len;
    words.get(first..first + len)
}
