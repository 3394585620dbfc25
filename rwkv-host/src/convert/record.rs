//! Stores the values of a record in blocks.

use rwkv_core::{
    exec::record::Request,
    image::{Format, Layout, Record, checksum},
};

use super::{Options, Weights};

/// Appends a record: header and blocks. `values` is row-major, outputs by inputs. Returns the
/// words of its largest block.
pub(super) fn write(
    request: &Request,
    values: &[f32],
    options: &Options,
    out: &mut Vec<u32>,
) -> u32 {
    let shape = request.shape();
    let format = match options.weights {
        Weights::Int8 if !shape.precise => Format::Int8,
        _ => Format::F32,
    };
    let cols = shape.cols as usize;
    let mut record = Record {
        id: shape.id,
        format,
        layout: shape.layout,
        bits: 0,
        rows: shape.rows,
        cols: shape.cols,
        tile_rows: 1,
    };
    let quantised = (format == Format::Int8).then(|| Quantised::new(values, cols));
    if let Some(q) = &quantised {
        record.bits = q.input_bits(cols);
    }
    record.tile_rows = tile_rows(&record, shape.tile_rows, options.block_bytes);
    out.extend_from_slice(&record.to_words());

    let mut largest = 0;
    let mut block = |words: &[u32]| {
        out.push(checksum(words));
        out.extend_from_slice(words);
        largest = largest.max(words.len() as u32 + 1);
    };
    let line = |line: usize| -> Vec<u32> {
        let (rows, at): (usize, Box<dyn Fn(usize) -> usize>) = match record.layout {
            Layout::RowMajor => (cols, Box::new(move |i| line * cols + i)),
            Layout::InputMajor => (record.rows as usize, Box::new(move |i| i * cols + line)),
        };
        match &quantised {
            None => (0..rows).map(|i| values[at(i)].to_bits()).collect(),
            Some(q) => {
                let mut bytes: Vec<u8> = (0..rows).map(|i| q.values[at(i)] as u8).collect();
                bytes.resize(record.line_words() * 4, 0);
                bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
            }
        }
    };
    let scales = |first: usize, rows: usize| -> Vec<u32> {
        let scales = quantised.iter().flat_map(|q| &q.scales[first..first + rows]);
        scales.map(|s| s.to_bits()).collect()
    };
    if record.layout == Layout::InputMajor {
        (0..cols).for_each(|column| block(&line(column)));
    }
    for (first, rows) in record.tiles() {
        let mut words = scales(first, rows);
        if record.layout == Layout::RowMajor {
            words.extend((first..first + rows).flat_map(line));
        }
        if !words.is_empty() {
            block(&words);
        }
    }
    largest
}

fn tile_rows(record: &Record, fixed: u32, block_bytes: u32) -> u16 {
    if fixed > 0 {
        return fixed as u16;
    }
    let row = match record.layout {
        Layout::RowMajor => record.scale_words() + record.line_words(),
        Layout::InputMajor => 1,
    };
    let room = (block_bytes as usize / 4).saturating_sub(1);
    (room / row.max(1)).clamp(1, (record.rows as usize).min(u16::MAX.into())) as u16
}

/// A matrix as signed bytes with a scale per row, rounded to nearest, ties to even.
struct Quantised {
    values: Vec<i8>,
    scales: Vec<f32>,
}

impl Quantised {
    fn new(values: &[f32], cols: usize) -> Self {
        let mut quantised = Self { values: Vec::with_capacity(values.len()), scales: Vec::new() };
        for row in values.chunks_exact(cols) {
            let max = row.iter().fold(0f32, |m, w| if w.abs() > m { w.abs() } else { m });
            let scale = max / 127.0;
            quantised.scales.push(scale);
            quantised.values.extend(row.iter().map(|w| {
                let q = if scale > 0.0 { (w / scale).round_ties_even() } else { 0.0 };
                (q as i32).clamp(-127, 127) as i8
            }));
        }
        quantised
    }

    /// The most bits an input may have (sign included, 8 to 15) so that no row's sum overflows.
    fn input_bits(&self, cols: usize) -> u8 {
        let sum = |row: &[i8]| row.iter().map(|w| i64::from(w.unsigned_abs())).sum::<i64>();
        let worst = self.values.chunks_exact(cols).map(sum).max().unwrap_or(0);
        let fits = |bits: u8| worst * ((1i64 << (bits - 1)) - 1) <= i64::from(i32::MAX);
        (9..=15).rev().find(|bits| fits(*bits)).unwrap_or(8)
    }
}
