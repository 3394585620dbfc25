//! Floats with a floating-point unit of single precision.
//!
//! `vmla.f32` rounds the product before the sum, as two instructions would.

mod arrange;
mod columns;
mod requantise;
mod rows;

pub(super) use arrange::{arrange_i4, arrange_i8};
pub(super) use columns::{column_f16, column_f32};
pub(super) use requantise::requantise;
pub(super) use rows::{rows_f16, rows_f32};
