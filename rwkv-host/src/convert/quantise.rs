//! Rounding a matrix to integers.

use rwkv_core::image::{Format, GROUP, Layout, Record};

/// A matrix as integers, line after line: a line is a row, or a column if input-major.
pub(super) struct Quantised {
    values: Vec<i8>,
    /// One per group of a line; none for [`Format::Int8`].
    subs: Vec<u8>,
    /// One per row, that is per output.
    pub(super) scales: Vec<f32>,
    /// Weights of a line.
    pub(super) len: usize,
    layout: Layout,
}

/// The largest sub-scale.
const MAX_SUB: f32 = 63.0;

impl Quantised {
    /// Rounds `values`, outputs by inputs, to nearest, ties to even.
    pub(super) fn new(values: &[f32], record: &Record) -> Self {
        let (rows, cols) = (record.rows as usize, record.cols as usize);
        let largest = match record.format {
            Format::Int8 => 127.0,
            _ => 7.0 * MAX_SUB,
        };
        let scales: Vec<f32> =
            values.chunks_exact(cols).map(|row| max(row.iter().copied()) / largest).collect();
        let (lines, len) = match record.layout {
            Layout::RowMajor => (rows, cols),
            Layout::InputMajor => (cols, rows),
        };
        let mut quantised =
            Self { values: Vec::new(), subs: Vec::new(), scales, len, layout: record.layout };
        for line in 0..lines {
            for first in (0..len).step_by(GROUP) {
                let group = first..len.min(first + GROUP);
                // In units of the scale of its row.
                let scaled: Vec<f32> = group
                    .map(|i| match record.layout {
                        Layout::RowMajor => (values[line * cols + i], quantised.scales[line]),
                        Layout::InputMajor => (values[i * cols + line], quantised.scales[i]),
                    })
                    .map(|(w, scale)| if scale > 0.0 { w / scale } else { 0.0 })
                    .collect();
                quantised.push(&scaled, record.format);
            }
        }
        quantised
    }

    fn push(&mut self, scaled: &[f32], format: Format) {
        let round = |w: f32, limit: i32| (w.round_ties_even() as i32).clamp(-limit, limit) as i8;
        if format == Format::Int8 {
            self.values.extend(scaled.iter().map(|w| round(*w, 127)));
            return;
        }
        let wanted = (max(scaled.iter().copied()) / 7.0).ceil();
        let sub = (wanted as u8).clamp(1, MAX_SUB as u8);
        self.subs.push(sub);
        self.values.extend(scaled.iter().map(|w| round(w / f32::from(sub), 7)));
    }

    /// The values and the sub-scales of a line.
    pub(super) fn line(&self, line: usize) -> (&[i8], &[u8]) {
        let groups = self.len.div_ceil(GROUP);
        let subs = self.subs.get(line * groups..(line + 1) * groups).unwrap_or_default();
        (&self.values[line * self.len..(line + 1) * self.len], subs)
    }

    /// The most bits an input may have (sign included, 8 to 15) so that no row's sum overflows;
    /// `None` if eight are too many.
    pub(super) fn input_bits(&self) -> Option<u8> {
        let mut sums = vec![0i64; self.scales.len()];
        for (line, values) in self.values.chunks_exact(self.len.max(1)).enumerate() {
            let (_, subs) = self.line(line);
            for (i, w) in values.iter().enumerate() {
                let row = match self.layout {
                    Layout::RowMajor => line,
                    Layout::InputMajor => i,
                };
                let sub = subs.get(i / GROUP).copied().unwrap_or(1);
                sums[row] += i64::from(w.unsigned_abs()) * i64::from(sub);
            }
        }
        let worst = sums.into_iter().max().unwrap_or(0);
        let fits = |bits: u8| worst * ((1i64 << (bits - 1)) - 1) <= i64::from(i32::MAX);
        (8..=15).rev().find(|bits| fits(*bits))
    }
}

fn max(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0f32, |m, w| if w.abs() > m { w.abs() } else { m })
}
