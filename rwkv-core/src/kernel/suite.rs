//! One test suite for every implementation: definitions written out by index, equal bits asked.

use proptest::{collection::vec, prelude::*};
use std::vec::Vec;

use super::{Generic, Kernel};

/// The rule of eight, by its definition.
fn rule_of_eight(values: impl Iterator<Item = f32>) -> f32 {
    let mut a = [0f32; 8];
    values.enumerate().for_each(|(i, v)| a[i % 8] += v);
    ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
}

fn rows_f32(kernel: impl Kernel, rows: usize, x: &[f32], w: &[f32]) {
    let mut out = std::vec![f32::NAN; rows];
    kernel.rows_f32(w, x, &mut out);
    for (row, y) in out.iter().enumerate() {
        let products = (0..x.len()).map(|i| w[row * x.len() + i] * x[i]);
        assert_eq!(y.to_bits(), rule_of_eight(products).to_bits());
    }
}

fn rows_i8(kernel: impl Kernel, rows: usize, x: &[i16], w: &[i8], scales: &[f32], x_scale: f32) {
    let mut out = std::vec![f32::NAN; rows];
    kernel.rows_i8(w, scales, x, x_scale, &mut out);
    for (row, y) in out.iter().enumerate() {
        let sum: i64 =
            (0..x.len()).map(|i| i64::from(w[row * x.len() + i]) * i64::from(x[i])).sum();
        let expected = sum as i32 as f32 * (x_scale * scales[row]);
        assert_eq!(y.to_bits(), expected.to_bits());
    }
}

fn columns(kernel: impl Kernel, w: &[i8], x: i16, wf: &[f32], xf: f32) {
    let mut acc: Vec<i32> = (0..w.len()).map(|i| i32::MAX - i as i32).collect();
    kernel.column_i8(w, x, &mut acc);
    for (i, a) in acc.iter().enumerate() {
        let sum = i64::from(i32::MAX - i as i32) + i64::from(w[i]) * i64::from(x);
        assert_eq!(*a, sum as i32);
    }
    let mut acc: Vec<f32> = (0..wf.len()).map(|i| i as f32).collect();
    kernel.column_f32(wf, xf, &mut acc);
    for (i, a) in acc.iter().enumerate() {
        assert_eq!(a.to_bits(), (i as f32 + wf[i] * xf).to_bits());
    }
}

/// Runs the suite over an implementation.
macro_rules! suite {
    ($name:ident, $kernel:expr) => {
        mod $name {
            use super::*;

            proptest! {
                #[test]
                fn float_rows(rows in 1usize..9, x in vec(-9f32..9.0, 1..70), seed: u32) {
                    let w: Vec<f32> = (0..rows * x.len())
                        .map(|i| (i as u32).wrapping_mul(seed | 1) as f32 / 1e9 - 2.0)
                        .collect();
                    rows_f32($kernel, rows, &x, &w);
                }

                #[test]
                fn integer_rows(
                    rows in 1usize..9,
                    groups in 1usize..5,
                    x in vec(-16383i16..=16383, 128),
                    w in vec(-127i8..=127, 8 * 128),
                    scales in vec(prop_oneof![Just(1e-40f32), 1e-6f32..1.0], 8),
                    x_scale in 1e-6f32..1.0,
                ) {
                    let n = 32 * groups;
                    rows_i8($kernel, rows, &x[..n], &w[..rows * n], &scales, x_scale);
                }

                #[test]
                fn single_columns(
                    w in vec(-127i8..=127, 1..70),
                    x: i16,
                    wf in vec(-9f32..9.0, 1..70),
                    xf in -9f32..9.0,
                ) {
                    columns($kernel, &w, x, &wf, xf);
                }
            }

            #[test]
            fn extremes() {
                // The accumulator wraps: a hostile image may ask for it.
                let n = 4096;
                let (x, w) = (std::vec![16383i16; n], std::vec![-127i8; 2 * n]);
                rows_i8($kernel, 2, &x, &w, &[1.0, 1e-40], 1.0);
                rows_i8($kernel, 2, &std::vec![0; n], &w, &[1.0, 1.0], 0.0);
            }
        }
    };
}

suite!(generic, Generic);
