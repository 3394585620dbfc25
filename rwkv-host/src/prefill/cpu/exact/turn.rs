//! Columns of integers as rows.

use rwkv_core::image::{Format, GROUP, Record};

/// Columns that are turned at once.
const COLUMNS: usize = 32;

/// A group of 32 outputs of an input-major matrix of integers: a row of `i16` per output, weights
/// times their sub-scales. `columns` are the matrix's, each led by its checksum; outputs beyond the
/// last are rows without meaning.
pub(super) fn turn(record: &Record, columns: &[u32], group: usize) -> Vec<i16> {
    let (cols, column) = (record.cols as usize, 1 + record.line_words());
    // Sub-scales of a line, in words.
    let subs = (record.rows as usize).div_ceil(GROUP).div_ceil(4);
    let mut turned = vec![0; GROUP * cols];
    for (block, columns) in columns.chunks(column * COLUMNS).enumerate() {
        let mut values = [[0; GROUP]; COLUMNS];
        for (values, column) in values.iter_mut().zip(columns.chunks_exact(column)) {
            let line = &column[1..];
            *values = match record.format {
                Format::Int8 => int8(&line[8 * group..]),
                _ => int4(&line[subs + 4 * group..], line[group / 4] >> (8 * (group % 4))),
            };
        }
        for (row, turned) in turned.chunks_exact_mut(cols).enumerate() {
            let to = turned.iter_mut().skip(block * COLUMNS);
            to.zip(&values).for_each(|(to, column)| *to = column[row]);
        }
    }
    turned
}

/// Bytes of a weight plus 128.
fn int8(words: &[u32]) -> [i16; GROUP] {
    let bytes: &[u8] = bytemuck::cast_slice(words);
    let mut values = [0; GROUP];
    values.iter_mut().zip(bytes).for_each(|(value, byte)| *value = i16::from(*byte) - 128);
    values
}

/// Nibbles of a weight plus 8, times the low byte of `sub`.
fn int4(words: &[u32], sub: u32) -> [i16; GROUP] {
    let (bytes, sub): (&[u8], _) = (bytemuck::cast_slice(words), i16::from(sub as u8));
    let mut values = [0; GROUP];
    for ([even, odd], byte) in values.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *even = (i16::from(byte & 15) - 8) * sub;
        *odd = (i16::from(byte >> 4) - 8) * sub;
    }
    values
}
