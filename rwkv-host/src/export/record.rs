//! Records as floats.

use rwkv_core::{
    image::{Format, Found, Layout, Record},
    op,
};

/// The values of a record of an image that was opened, row-major: outputs by inputs.
pub fn values(found: &Found<'_>) -> Vec<f32> {
    match found.record.layout {
        Layout::RowMajor => rows(&found.record, found.payload),
        Layout::InputMajor => columns(&found.record, found.payload),
    }
}

/// Every `step`th row of a table, from `first` on.
pub(super) fn table_rows(found: &Found<'_>, first: usize, step: usize) -> Vec<f32> {
    let record = &found.record;
    let (cols, words) = (record.cols as usize, record.tile_words(1));
    let mut values = Vec::with_capacity(record.rows as usize / step.max(1) * cols);
    let mut out = vec![0.0; cols];
    for row in found.payload.chunks_exact(words).skip(first).step_by(step.max(1)) {
        op::dequantise(record, &row[1..], &mut out);
        values.extend_from_slice(&out);
    }
    values
}

fn rows(record: &Record, payload: &[u32]) -> Vec<f32> {
    let (cols, line) = (record.cols as usize, record.line_words());
    let mut values = vec![0.0; record.rows as usize * cols];
    let mut rest = payload;
    for (first, rows) in record.tiles() {
        let (tile, after) = rest.split_at(record.tile_words(rows));
        rest = after;
        let (scales, lines) = tile[1..].split_at(rows * record.scale_words());
        let out = &mut values[first * cols..(first + rows) * cols];
        if record.format == Format::Int4Lanes {
            let pairs = lines.chunks_exact(2 * line).zip(scales.chunks(2));
            for (out, (words, scales)) in out.chunks_mut(2 * cols).zip(pairs) {
                for (lane, (out, scale)) in out.chunks_mut(cols).zip(scales).enumerate() {
                    op::dequantise_lane(words, lane, f32::from_bits(*scale), out);
                }
            }
            continue;
        }
        for (row, out) in out.chunks_exact_mut(cols).enumerate() {
            let scale = scales.get(row).into_iter();
            let words: Vec<u32> =
                scale.chain(&lines[row * line..(row + 1) * line]).copied().collect();
            op::dequantise(record, &words, out);
        }
    }
    values
}

fn columns(record: &Record, payload: &[u32]) -> Vec<f32> {
    let (rows, cols, line) = (record.rows as usize, record.cols as usize, record.line_words());
    let (columns, tail) = payload.split_at(cols * (1 + line));
    let mut values = vec![0.0; rows * cols];
    let mut column = vec![0.0; rows];
    for (at, block) in columns.chunks_exact(1 + line).enumerate() {
        let one = record.format.is_integer().then_some(1f32.to_bits());
        let words: Vec<u32> = one.into_iter().chain(block[1..].iter().copied()).collect();
        op::dequantise(record, &words, &mut column);
        values[at..].iter_mut().step_by(cols).zip(&column).for_each(|(y, w)| *y = *w);
    }
    if record.format.is_integer() {
        let mut rest = tail;
        for (first, rows) in record.tiles() {
            let (block, after) = rest.split_at(1 + rows);
            rest = after;
            for (row, scale) in values[first * cols..].chunks_exact_mut(cols).zip(&block[1..]) {
                row.iter_mut().for_each(|w| *w *= f32::from_bits(*scale));
            }
        }
    }
    values
}
