//! Stores the values of a record in blocks.

use rwkv_core::{
    exec::record::Request,
    image::{Format, Layout, Record, Shape, checksum, pack},
};

use super::{Choice, ConvertError};
use crate::quantize::{Correlation, Quantised};

/// A record as it lies in the image: header and blocks.
pub(super) struct Stored {
    pub(super) words: Vec<u32>,
    /// Words of its largest block.
    pub(super) largest: u32,
}

/// The header of a record, as far as it is known before there are values.
pub(super) const fn record(request: &Request, choice: &Choice) -> Record {
    let Shape { id, layout, rows, cols, .. } = request.shape();
    Record { id, format: choice.format, layout, bits: 0, rows, cols, tile_rows: 1 }
}

/// The header of a record as far as it does not depend on values.
pub(super) fn planned(request: &Request, choice: &Choice, block_bytes: u32) -> Record {
    let mut record = record(request, choice);
    if choice.format.is_integer() {
        record.bits = choice.input_bits.unwrap_or(15);
    }
    record.tile_rows = tile_rows(&record, request.shape().tile_rows, block_bytes);
    record
}

/// Stores a record. `values` is row-major, outputs by inputs; `inputs` is what is known of its
/// inputs.
///
/// # Errors
/// [`ConvertError::Limit`] if the sums of a row could overflow.
pub(super) fn store(
    request: &Request,
    choice: &Choice,
    values: &[f32],
    inputs: Option<&Correlation>,
    block_bytes: u32,
) -> Result<Stored, ConvertError> {
    let shape = request.shape();
    let mut record = record(request, choice);
    let weights = match choice.format.is_integer() {
        true => Lines::Integers(Quantised::new(values, &record, inputs)),
        false => Lines::Floats(values),
    };
    if let Lines::Integers(q) = &weights {
        // No product reads a table: its bits have no meaning.
        record.bits = match shape.tile_rows {
            1 => 8,
            _ => input_bits(&record, q.input_bits(), choice.input_bits)?,
        };
    }
    record.tile_rows = tile_rows(&record, shape.tile_rows, block_bytes);
    let mut out = record.to_words().to_vec();

    let mut largest = 0;
    let mut block = |words: &[u32]| {
        out.push(checksum(words));
        out.extend_from_slice(words);
        largest = largest.max(words.len() as u32 + 1);
    };
    if record.layout == Layout::InputMajor {
        (0..record.cols as usize).for_each(|column| block(&weights.words(&record, column, 1)));
    }
    for (first, rows) in record.tiles() {
        let mut words = weights.scales(first, rows);
        if record.layout == Layout::RowMajor {
            words.extend(weights.words(&record, first, rows));
        }
        if !words.is_empty() {
            block(&words);
        }
    }
    Ok(Stored { words: out, largest })
}

/// The bits that are asked for, or the most that no sum can overflow with.
fn input_bits(record: &Record, most: Option<u8>, asked: Option<u8>) -> Result<u8, ConvertError> {
    let overflow = |what: String| {
        let id = record.id;
        ConvertError::Limit(format!("the sums of {id:?} with {} inputs {what}", record.cols))
    };
    let most = most.ok_or_else(|| overflow("overflow even with inputs of 8 bits".into()))?;
    match asked {
        Some(bits) if bits > most => {
            Err(overflow(format!("can overflow with {bits} bits: {most} is the most")))
        }
        asked => Ok(asked.unwrap_or(most)),
    }
}

/// The weights of a record.
enum Lines<'a> {
    Floats(&'a [f32]),
    Integers(Quantised),
}

impl Lines<'_> {
    fn scales(&self, first: usize, rows: usize) -> Vec<u32> {
        match self {
            Lines::Floats(_) => Vec::new(),
            Lines::Integers(q) => {
                q.scales[first..first + rows].iter().map(|s| s.to_bits()).collect()
            }
        }
    }

    /// The words of `count` lines (rows, or columns if input-major) from `first` on.
    fn words(&self, record: &Record, first: usize, count: usize) -> Vec<u32> {
        let (cols, line) = (record.cols as usize, record.line_words());
        let q = match self {
            Lines::Floats(values) => {
                let line = |line: usize| -> Vec<f32> {
                    match record.layout {
                        Layout::RowMajor => values[line * cols..(line + 1) * cols].to_vec(),
                        Layout::InputMajor => {
                            values.iter().skip(line).step_by(cols).copied().collect()
                        }
                    }
                };
                let half = record.format == Format::F16;
                let lines = (first..first + count).map(line);
                return lines.flat_map(|values| floats(&values, half)).collect();
            }
            Lines::Integers(q) => q,
        };
        let mut words = vec![0; pack::lines_words(record.format, count, q.len)];
        match record.format {
            Format::Int4Lanes => {
                for (row, out) in (first..first + count).step_by(2).zip(words.chunks_mut(2 * line))
                {
                    let second =
                        if row + 1 < first + count { q.line(row + 1) } else { Default::default() };
                    pack::int4_lanes([q.line(row), second], out);
                }
            }
            format => {
                for (index, out) in (first..).zip(words.chunks_mut(line)) {
                    let (values, subs) = q.line(index);
                    match format {
                        Format::Int4 => pack::int4(values, subs, out),
                        _ => pack::int8(values, out),
                    }
                }
            }
        }
        words
    }
}

fn floats(values: &[f32], half: bool) -> Vec<u32> {
    if !half {
        return values.iter().map(|x| x.to_bits()).collect();
    }
    let bits = |x: f32| u32::from(half::f16::from_f32(x).to_bits());
    values.chunks(2).map(|x| bits(x[0]) | x.get(1).map_or(0, |x| bits(*x)) << 16).collect()
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
    // Tiles of interleaved rows hold whole pairs.
    let pairs = usize::from(record.format == Format::Int4Lanes);
    let rows = (room / row.max(1)) >> pairs << pairs;
    let most = usize::from(u16::MAX) >> pairs << pairs;
    rows.clamp(1 << pairs, (record.rows as usize).clamp(1 << pairs, most)) as u16
}
