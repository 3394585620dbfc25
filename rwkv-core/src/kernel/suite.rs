//! One test suite for every implementation: definitions written out by index, equal bits asked.

use half::f16;
use proptest::{collection::vec, prelude::*};
use std::{println, vec, vec::Vec};

use super::{Generic, Input, Kernel, Keys5, Keys7, Lines, cases, room_words};
use crate::{
    image::{Format, GROUP, pack},
    op::Quantiser,
};

/// The rule of eight, by its definition.
fn rule_of_eight(values: impl Iterator<Item = f32>) -> f32 {
    let mut a = [0f32; 8];
    values.enumerate().for_each(|(i, v)| a[i % 8] += v);
    ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
}

/// Words that look random, the same for a seed.
fn random(seed: u32) -> impl FnMut() -> u32 {
    let mut x = seed | 1;
    move || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x
    }
}

/// An integer matrix by index, and how it lies in words.
struct Matrix {
    format: Format,
    cols: usize,
    values: Vec<i8>,
    subs: Vec<u8>,
    scales: Vec<f32>,
}

impl Matrix {
    fn new(format: Format, rows: usize, cols: usize, mut weight: impl FnMut() -> u32) -> Self {
        let values = (0..rows * cols).map(|_| match format {
            Format::Int8 => weight() as i8,
            _ => (weight() % 16) as i8 - 8,
        });
        let values = values.collect();
        let subs = (0..rows * pack::groups(cols)).map(|_| weight() as u8).collect();
        let scales = (0..rows).map(|r| [1e-40, 0.37, 1.0, 3e-5][r % 4]).collect();
        Self { format, cols, values, subs, scales }
    }

    fn row(&self, r: usize) -> (&[i8], &[u8]) {
        let groups = pack::groups(self.cols);
        let row = |r: usize| r * self.cols..(r + 1) * self.cols;
        let empty = (&[][..], &[][..]);
        self.values.get(row(r)).map_or(empty, |values| (values, &self.subs[r * groups..][..groups]))
    }

    fn words(&self) -> Vec<u32> {
        let rows = self.scales.len();
        let line = self.format.line_words(self.cols);
        let mut words = vec![0; pack::lines_words(self.format, rows, self.cols)];
        match self.format {
            Format::Int4Lanes => {
                words.chunks_exact_mut(2 * line).enumerate().for_each(|(p, out)| {
                    pack::int4_lanes([self.row(2 * p), self.row(2 * p + 1)], out);
                })
            }
            Format::Int4 => words.chunks_exact_mut(line).enumerate().for_each(|(r, out)| {
                let (values, subs) = self.row(r);
                pack::int4(values, subs, out);
            }),
            _ => words.chunks_exact_mut(line).enumerate().for_each(|(r, out)| {
                pack::int8(self.row(r).0, out);
            }),
        }
        words
    }

    /// The weight times its sub-scale.
    fn weight(&self, r: usize, i: usize) -> i64 {
        let (values, subs) = self.row(r);
        let sub = if self.format == Format::Int8 { 1 } else { subs[i / GROUP] };
        i64::from(values[i]) * i64::from(sub)
    }
}

/// Rows of a matrix times a vector.
fn integer_rows(kernel: impl Kernel, matrix: &Matrix, x: &[f32], bits: u8) {
    let quantiser = Quantiser::new(x, bits).unwrap();
    let mut room = vec![f32::NAN; room_words(x.len())];
    room[..x.len()].copy_from_slice(x);
    let arranged = kernel.arrange(matrix.format, bits, &mut room, x.len()).unwrap();
    assert_eq!(arranged.scale.to_bits(), quantiser.scale().to_bits());
    assert_eq!(arranged.groups, pack::groups(x.len()));

    let words = matrix.words();
    let mut out = vec![f32::NAN; matrix.scales.len()];
    let lines = Lines { words: &words, scales: &matrix.scales };
    let input = Input { words: bytemuck::cast_slice(&room), arranged };
    match matrix.format {
        Format::Int8 => kernel.rows_i8(lines, input, &mut out),
        Format::Int4 => kernel.rows_i4(lines, input, &mut out),
        _ => kernel.rows_i4_lanes(lines, input, &mut out),
    }
    for (r, y) in out.iter().enumerate() {
        let sum: i64 =
            (0..x.len()).map(|i| matrix.weight(r, i) * i64::from(quantiser.value(x[i]))).sum();
        let expected = sum as i32 as f32 * (quantiser.scale() * matrix.scales[r]);
        assert_eq!(y.to_bits(), expected.to_bits(), "{:?}, row {r}", matrix.format);
    }
}

/// Columns of a matrix that is stored input-major: its lines are columns.
fn integer_columns(kernel: impl Kernel, matrix: &Matrix, x: &[i16]) {
    let rows = matrix.cols;
    let mut acc: Vec<i32> = (0..rows).map(|i| i32::MAX - i as i32).collect();
    let mut offsets = vec![0; pack::groups(rows)];
    let words = matrix.words();
    for (line, x) in words.chunks_exact(matrix.format.line_words(rows)).zip(x) {
        match matrix.format {
            Format::Int8 => kernel.column_i8(line, *x, &mut acc),
            _ => kernel.column_i4(line, *x, &mut acc, &mut offsets),
        }
    }
    let all: i64 = x.iter().map(|x| i64::from(*x)).sum();
    for r in 0..rows {
        let sum: i64 = (0..x.len()).map(|c| matrix.weight(c, r) * i64::from(x[c])).sum();
        let offset = match matrix.format {
            Format::Int8 => -128 * all,
            _ => -8 * i64::from(offsets[r / GROUP]),
        };
        let expected = i64::from(i32::MAX) - r as i64 + sum;
        assert_eq!(acc[r], (expected - offset) as i32, "{:?}, row {r}", matrix.format);
    }
}

fn float_rows(kernel: impl Kernel, rows: usize, x: &[f32], mut weight: impl FnMut() -> u32) {
    let mut weight = || weight() as f32 / 1e9 - 2.0;
    let w: Vec<f32> = (0..rows * x.len()).map(|_| weight()).collect();
    let mut out = vec![f32::NAN; rows];
    kernel.rows_f32(&w, x, &mut out);
    for (y, row) in out.iter().zip(w.chunks_exact(x.len())) {
        let expected = rule_of_eight(row.iter().zip(x).map(|(w, x)| w * x));
        assert_eq!(y.to_bits(), expected.to_bits());
    }

    let stride = x.len().next_multiple_of(2);
    let w: Vec<u16> =
        (0..rows * stride).map(|_| f16::from_f32(weight() / 64.0).to_bits()).collect();
    kernel.rows_f16(&w, x, &mut out);
    let wide = |w: &u16| f16::from_bits(*w).to_f32();
    for (y, row) in out.iter().zip(w.chunks_exact(stride)) {
        let expected = rule_of_eight(row.iter().zip(x).map(|(w, x)| wide(w) * x));
        assert_eq!(y.to_bits(), expected.to_bits());
    }

    let start: Vec<f32> = (0..w.len()).map(|i| i as f32).collect();
    let mut acc = start.clone();
    kernel.column_f16(&w, x[0], &mut acc);
    for ((a, start), w) in acc.iter().zip(&start).zip(&w) {
        assert_eq!(a.to_bits(), (start + wide(w) * x[0]).to_bits());
    }
    let w: Vec<f32> = w.iter().map(wide).collect();
    let mut acc = start.clone();
    kernel.column_f32(&w, x[0], &mut acc);
    for ((a, start), w) in acc.iter().zip(&start).zip(&w) {
        assert_eq!(a.to_bits(), (start + w * x[0]).to_bits());
    }
}

/// The same bits, or both not a number.
fn assert_same(a: f32, b: f32) {
    assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{a:e} {b:e}");
}

/// The recurrences with matrices for a head of `n` channels, `value` after `value` as it is defined.
fn recurrence(kernel: impl Kernel, n: usize, mut value: impl FnMut() -> f32) {
    let [w, k, kk, b, r, v] = [(); 6].map(|()| (0..n).map(|_| value()).collect::<Vec<_>>());
    let before: Vec<f32> = (0..n * n).map(|_| value()).collect();
    let (mut state, mut y) = (before.clone(), vec![f32::NAN; n]);
    let keys = Keys7 { w: &w, k: &k, kk: &kk, b: &b, r: &r };
    kernel.wkv7(keys, &v, &mut state, &mut y);
    for j in 0..n {
        let sa = (0..n).fold(0.0, |sa, i| sa + before[i * n + j] * kk[i]);
        let mut sum = 0.0;
        for i in 0..n {
            let s = before[i * n + j] * w[i] - sa * b[i] + v[j] * k[i];
            assert_same(state[i * n + j], s);
            sum += s * r[i];
        }
        assert_same(y[j], sum);
    }

    let (mut state, mut y) = (before.clone(), vec![f32::NAN; n]);
    kernel.wkv5(Keys5 { w: &w, k: &k, r: &r }, &v, &mut state, &mut y);
    for j in 0..n {
        let sum = (0..n).fold(0.0, |sum, i| sum + before[i * n + j] * r[i]);
        assert_same(y[j], sum);
        for i in 0..n {
            assert_same(state[i * n + j], before[i * n + j] * w[i] + v[j] * k[i]);
        }
    }
}

const INTEGERS: [Format; 3] = [Format::Int8, Format::Int4, Format::Int4Lanes];

/// Lines or scales that are missing leave their outputs as they were.
fn short_slices(kernel: impl Kernel) {
    const ROWS: usize = 6;
    let x = [1.0f32; 40];
    for format in INTEGERS {
        let matrix = Matrix::new(format, ROWS, x.len(), random(1));
        let words = matrix.words();
        let mut room = [0.0; room_words(40)];
        for (rows, scales) in [(4, ROWS), (ROWS, 5), (0, ROWS), (ROWS, 0)] {
            room[..x.len()].copy_from_slice(&x);
            let arranged = kernel.arrange(format, 15, &mut room, x.len()).unwrap();
            let input = Input { words: bytemuck::cast_slice(&room), arranged };
            let words = &words[..pack::lines_words(format, rows, x.len())];
            let lines = Lines { words, scales: &matrix.scales[..scales] };
            let mut out = [f32::INFINITY; ROWS];
            match format {
                Format::Int8 => kernel.rows_i8(lines, input, &mut out),
                Format::Int4 => kernel.rows_i4(lines, input, &mut out),
                _ => kernel.rows_i4_lanes(lines, input, &mut out),
            }
            let written = out.iter().filter(|y| y.is_finite()).count();
            assert_eq!(written, rows.min(scales), "{format:?}");
            assert!(out[written..].iter().all(|y| y.is_infinite()), "{format:?}");
            // For several inputs, and with a rest that is no whole row.
            for count in [1, 2, 4, 5] {
                let mut many = vec![f32::INFINITY; count * ROWS + count - 1];
                kernel.rows_of_many(format, lines, &vec![input; count], &mut many);
                let (whole, rest) = many.split_at(count * ROWS);
                assert!(whole.chunks(ROWS).all(|part| part == out), "{format:?}, {count}");
                assert!(rest.iter().all(|y| y.is_infinite()), "{format:?}, {count}");
            }
        }
    }
    let mut out = [f32::INFINITY; ROWS];
    kernel.rows_f32(&[1.0; 5 * 40], &x, &mut out);
    assert_eq!(out, [40.0, 40.0, 40.0, 40.0, 40.0, f32::INFINITY]);
}

/// Rows for several inputs at once are those for each of them.
fn several(
    kernel: impl Kernel,
    [rows, cols, count]: [usize; 3],
    bits: u8,
    mut random: impl FnMut() -> u32,
) {
    for format in INTEGERS {
        let matrix = Matrix::new(format, rows, cols, &mut random);
        let words = matrix.words();
        let lines = Lines { words: &words, scales: &matrix.scales };
        let inputs: Vec<_> = (0..count)
            .map(|_| {
                let mut room = vec![0.0; room_words(cols)];
                room[..cols].fill_with(|| random() as i32 as f32 / 1e9);
                let arranged = kernel.arrange(format, bits, &mut room, cols).expect("finite");
                (room, arranged)
            })
            .collect();
        let inputs: Vec<Input<'_>> = inputs
            .iter()
            .map(|(room, arranged)| Input {
                words: bytemuck::cast_slice(room),
                arranged: *arranged,
            })
            .collect();
        let mut found = vec![f32::NAN; rows * count];
        kernel.rows_of_many(format, lines, &inputs, &mut found);
        for (x, found) in inputs.iter().zip(found.chunks(rows)) {
            let mut expected = vec![0.0; rows];
            match format {
                Format::Int8 => kernel.rows_i8(lines, *x, &mut expected),
                Format::Int4 => kernel.rows_i4(lines, *x, &mut expected),
                _ => kernel.rows_i4_lanes(lines, *x, &mut expected),
            }
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(found), bits(&expected));
        }
    }

    let mut numbers = |n: usize| -> Vec<i16> { (0..n).map(|_| random() as i16).collect() };
    let (w, x) = (numbers(rows * cols), numbers(count * cols));
    let inputs: Vec<&[i16]> = x.chunks(cols).collect();
    let mut found = vec![i32::MIN; rows * count];
    kernel.rows_i16(&w, &inputs, &mut found);
    let product = |(w, x): (&i16, &i16)| i32::from(*w) * i32::from(*x);
    for (x, found) in inputs.iter().zip(found.chunks(rows)) {
        for (w, y) in w.chunks(cols).zip(found) {
            assert_eq!(*y, w.iter().zip(*x).map(product).fold(0, i32::wrapping_add));
        }
    }
}

/// Runs the suite over an implementation, or over one that the core may lack: `maybe Kernel::new()`.
macro_rules! suite {
    ($name:ident, maybe $kernel:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn the_core_has_it() {
                if $kernel.is_none() {
                    println!("skipped: {}, since this core lacks it", stringify!($name));
                }
            }

            proptest! {
                #[test]
                fn rows_of_floats(rows in 1usize..18, x in vec(-9f32..9.0, 1..70), seed: u32) {
                    let Some(kernel) = $kernel else { return Ok(()) };
                    float_rows(kernel, rows, &x, random(seed));
                }

                #[test]
                fn rows_of_integers(
                    rows in 1usize..18,
                    x in vec(prop_oneof![-9f32..9.0, Just(0.0), -1e-3f32..1e-3], 1..300),
                    bits in prop_oneof![Just(8u8), 8u8..=15],
                    seed: u32,
                ) {
                    let Some(kernel) = $kernel else { return Ok(()) };
                    for format in INTEGERS {
                        let matrix = Matrix::new(format, rows, x.len(), random(seed));
                        integer_rows(kernel, &matrix, &x, bits);
                    }
                }

                #[test]
                fn columns_of_integers(rows in 1usize..140, x in vec(-16383i16..=16383, 1..5), seed: u32) {
                    let Some(kernel) = $kernel else { return Ok(()) };
                    for format in [Format::Int8, Format::Int4] {
                        let matrix = Matrix::new(format, x.len(), rows, random(seed));
                        integer_columns(kernel, &matrix, &x);
                    }
                }

                #[test]
                fn several_inputs(
                    rows in 1usize..18, cols in 1usize..300, inputs in 1usize..8,
                    bits in prop_oneof![Just(8u8), 8u8..=15], seed: u32,
                ) {
                    let Some(kernel) = $kernel else { return Ok(()) };
                    several(kernel, [rows, cols, inputs], bits, random(seed));
                }

                #[test]
                fn recurrences(n in 1usize..=40, seed: u32) {
                    let Some(kernel) = $kernel else { return Ok(()) };
                    let mut bits = random(seed);
                    recurrence(kernel, n, || bits() as i32 as f32 / 2e9);
                    // Subnormals, infinities and NaN among the rest.
                    recurrence(kernel, n, || f32::from_bits(bits()));
                }
            }

            #[test]
            fn recurrences_of_usual_heads() {
                let Some(kernel) = $kernel else { return };
                for n in [4, 8, 12, 16, 32, 64, 128] {
                    let mut bits = random(n as u32);
                    recurrence(kernel, n, || bits() as i32 as f32 / 2e9);
                }
            }

            #[test]
            fn the_cases_of_the_emulated_cores() {
                let Some(kernel) = $kernel else { return };
                for words in [2_500, 1 << 18] {
                    let mut memory = vec![0.0; words];
                    cases::run(kernel, &mut memory, 200).unwrap_or_else(|d| panic!("{d}"));
                }
            }

            #[test]
            fn extremes() {
                let Some(kernel) = $kernel else { return };
                // Sums wrap: a hostile image may ask for it.
                for (format, lowest) in [(INTEGERS[0], 128), (INTEGERS[1], 0), (INTEGERS[2], 0)] {
                    for weight in [lowest, lowest + 1, 127, 255] {
                        let matrix = Matrix::new(format, 3, 4096, || weight);
                        for bits in [8, 15] {
                            integer_rows(kernel, &matrix, &[3.0; 4096], bits);
                            integer_rows(kernel, &matrix, &[-1e-3; 4096], bits);
                            integer_rows(kernel, &matrix, &[0.0; 4096], bits);
                        }
                    }
                }
            }

            #[test]
            fn what_is_missing_stays_as_it_was() {
                let Some(kernel) = $kernel else { return };
                short_slices(kernel);
            }

            #[test]
            fn what_is_not_finite_is_refused() {
                let Some(kernel) = $kernel else { return };
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut room = [bad; room_words(1)];
                    let arranged = kernel.arrange(Format::Int8, 8, &mut room, 1);
                    assert_eq!(arranged, Err(crate::Error::NonFinite));
                }
            }
        }
    };
    ($name:ident, $kernel:expr) => {
        suite!($name, maybe Some($kernel));
    };
}

suite!(generic, Generic);
suite!(plain, crate::kernel::plain::Portable);
suite!(choice, crate::kernel::Choice::fastest());
#[cfg(target_arch = "x86_64")]
suite!(avx2, maybe crate::kernel::Avx2::new());
#[cfg(target_arch = "x86_64")]
suite!(avx512, maybe crate::kernel::Avx512::new());
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
suite!(neon, crate::kernel::Neon::new());
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
suite!(neon_dotprod, maybe crate::kernel::NeonDot::new());
