//! The scalar reference.

use super::Kernel;
use crate::op;

/// Plain Rust for every target; the oracle of the kernel tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Generic;

impl Kernel for Generic {
    fn rows_f32(self, w: &[f32], x: &[f32], out: &mut [f32]) {
        if x.is_empty() {
            return;
        }
        for (y, row) in out.iter_mut().zip(w.chunks_exact(x.len())) {
            *y = op::dot(row, x);
        }
    }

    fn rows_i8(self, w: &[i8], scales: &[f32], x: &[i16], x_scale: f32, out: &mut [f32]) {
        if x.is_empty() {
            return;
        }
        for ((y, row), scale) in out.iter_mut().zip(w.chunks_exact(x.len())).zip(scales) {
            let mut acc = 0i32;
            for (&w, &x) in row.iter().zip(x) {
                acc = acc.wrapping_add(i32::from(w) * i32::from(x));
            }
            *y = acc as f32 * (x_scale * scale);
        }
    }

    fn column_f32(self, w: &[f32], x: f32, acc: &mut [f32]) {
        for (a, w) in acc.iter_mut().zip(w) {
            *a += w * x;
        }
    }

    fn column_i8(self, w: &[i8], x: i16, acc: &mut [i32]) {
        for (a, &w) in acc.iter_mut().zip(w) {
            *a = a.wrapping_add(i32::from(w) * i32::from(x));
        }
    }
}
