//! A matrix as integers.

use std::ops::Range;

use rwkv_core::image::{Format, GROUP, Layout, Record};

use super::{
    metric::{Correlation, Metric},
    round::{Grid, Rounder, Row},
};

/// A matrix as integers, line after line: a line is a row, or a column if input-major.
#[derive(Debug)]
pub(crate) struct Quantised {
    values: Vec<i8>,
    /// One per group of a line; none for [`Format::Int8`].
    subs: Vec<u8>,
    /// One per row, that is per output.
    pub(crate) scales: Vec<f32>,
    /// Weights of a line.
    pub(crate) len: usize,
    layout: Layout,
    /// What the errors of rows whose groups lie within them cost.
    pub(super) cost: f64,
}

const INT8: Grid = Grid { low: -127.0, high: 127.0, top_sub: 1.0 };
const INT4: Grid = Grid { low: -8.0, high: 7.0, top_sub: 63.0 };

impl Quantised {
    /// Rounds `values`, outputs by inputs, for inputs of this correlation, if it is known.
    pub(crate) fn new(values: &[f32], record: &Record, inputs: Option<&Correlation>) -> Self {
        let cols = record.cols as usize;
        let across = record.format != Format::Int8 && record.layout == Layout::InputMajor;
        let size = match record.format {
            Format::Int8 => cols,
            _ if across => cols,
            _ => GROUP,
        };
        let order = Order::new(cols, size, inputs);
        let metric = inputs.and_then(|inputs| Metric::new(inputs, &order.columns));
        let arranged = |row: &[f32]| order.columns.iter().map(|i| f64::from(row[*i])).collect();
        let weights = values.chunks_exact(cols).map(arranged);
        let grid = if record.format == Format::Int8 { INT8 } else { INT4 };
        let rounder = Rounder { grid, metric: metric.as_ref() };
        let rows = match (record.format, &metric) {
            (Format::Int8, None) => {
                // A row is rounded by itself: the matrix is never whole in binary64.
                let rows = weights.map(|w: Vec<f64>| rounder.plain(&w));
                return Self::gather(rows, &order.columns, record);
            }
            _ if across => rounder.columns(&weights.collect::<Vec<_>>()),
            _ => rounder.rows(&weights.collect::<Vec<_>>(), &order.groups),
        };
        Self::gather(rows.into_iter(), &order.columns, record)
    }

    fn gather(rows: impl Iterator<Item = Row>, columns: &[usize], record: &Record) -> Self {
        let (count, cols) = (record.rows as usize, record.cols as usize);
        let (lines, len) = match record.layout {
            Layout::RowMajor => (count, cols),
            Layout::InputMajor => (cols, count),
        };
        let groups = if record.format == Format::Int8 { 0 } else { len.div_ceil(GROUP) };
        let mut values = vec![0; count * cols];
        let mut subs = vec![1; lines * groups];
        let (mut scales, mut cost) = (Vec::with_capacity(count), 0.0);
        for (r, row) in rows.enumerate() {
            scales.push(row.scale);
            cost += row.cost;
            for ((c, value), sub) in columns.iter().zip(&row.values).zip(&row.subs) {
                let (line, at) = match record.layout {
                    Layout::RowMajor => (r, *c),
                    Layout::InputMajor => (*c, r),
                };
                values[line * len + at] = *value as i8;
                if groups > 0 {
                    subs[line * groups + at / GROUP] = *sub as u8;
                }
            }
        }
        Self { values, subs, scales, len, layout: record.layout, cost }
    }

    /// The values and the sub-scales of a line.
    pub(crate) fn line(&self, line: usize) -> (&[i8], &[u8]) {
        let groups = self.len.div_ceil(GROUP);
        let subs = self.subs.get(line * groups..(line + 1) * groups).unwrap_or_default();
        (&self.values[line * self.len..(line + 1) * self.len], subs)
    }

    /// The most bits an input may have (sign included, 8 to 15) so that no row's sum overflows;
    /// `None` if eight are too many.
    pub(crate) fn input_bits(&self) -> Option<u8> {
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

/// The order in which the weights of a row are rounded: strong inputs first, since those after
/// them can make up for their errors. Groups stay together.
struct Order {
    columns: Vec<usize>,
    groups: Vec<Range<usize>>,
}

impl Order {
    fn new(cols: usize, size: usize, inputs: Option<&Correlation>) -> Self {
        let power = |i: usize| inputs.map_or(0.0, |inputs| inputs.power(i));
        let group = |first: usize| (first..cols.min(first + size)).collect::<Vec<_>>();
        let mut groups: Vec<Vec<usize>> = (0..cols).step_by(size.max(1)).map(group).collect();
        groups.iter_mut().for_each(|g| g.sort_by(|a, b| power(*b).total_cmp(&power(*a))));
        let total = |group: &[usize]| group.iter().map(|i| power(*i)).sum::<f64>();
        groups.sort_by(|a, b| total(b).total_cmp(&total(a)));
        let ranges = groups.iter().scan(0, |at, group| {
            let first = *at;
            *at += group.len();
            Some(first..*at)
        });
        Self { groups: ranges.collect(), columns: groups.concat() }
    }
}
