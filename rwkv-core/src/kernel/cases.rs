//! The property cases of the kernels, in memory that the caller gives: the same ones on a host
//! and on a core in an emulator.
//!
//! A case is drawn from its number alone. What an implementation computes is compared with
//! [`Generic`], which the host's tests compare with the definitions.

mod draw;

use core::fmt;

pub use draw::Random;
use draw::{Case, Kind};

use super::{
    Arranged, Generic, Input, Kernel, Keys5, Keys7, Lines,
    floats::{self as vectors, scalar},
    room_words,
};
use crate::{
    image::{Format, pack},
    math,
};

/// What is tested, by the name of the kernel's function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Operation {
    /// [`Kernel::arrange`], refusals included, and the rows of a format.
    Rows(Format),
    /// One column.
    Column(Format),
    /// [`Kernel::wkv5`].
    Wkv5,
    /// [`Kernel::wkv7`].
    Wkv7,
    /// The square root, by an instruction where the target has one.
    Sqrt,
    /// The loops over vectors of floats beside the products.
    Vectors,
}

/// Every operation.
pub const OPERATIONS: [Operation; 13] = [
    Operation::Rows(Format::F32),
    Operation::Rows(Format::F16),
    Operation::Rows(Format::Int8),
    Operation::Rows(Format::Int4),
    Operation::Rows(Format::Int4Lanes),
    Operation::Column(Format::F32),
    Operation::Column(Format::F16),
    Operation::Column(Format::Int8),
    Operation::Column(Format::Int4),
    Operation::Wkv5,
    Operation::Wkv7,
    Operation::Sqrt,
    Operation::Vectors,
];

/// Where an implementation differs from the reference.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Difference {
    operation: Operation,
    case: u32,
    kind: Kind,
    shape: [usize; 2],
    bits: u8,
    index: usize,
    expected: u32,
    found: u32,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, cols] = self.shape;
        write!(
            f,
            "{:?}, case {} ({:?}, {rows} x {cols}, {} bits): value {} is {:#010x}, not {:#010x}",
            self.operation, self.case, self.kind, self.bits, self.index, self.found, self.expected
        )
    }
}

/// Runs `count` cases of every operation in `memory`, which has room for a few thousand words.
/// Wide cases are as wide as it allows.
///
/// # Errors
/// The first difference.
pub fn run(kernel: impl Kernel, memory: &mut [f32], count: u32) -> Result<(), Difference> {
    for operation in OPERATIONS {
        for number in 0..count {
            let mut case = Case::draw(operation, number, memory.len());
            let outcome = match operation {
                Operation::Rows(format) => case.rows(format, kernel, memory),
                Operation::Column(format) => case.column(format, kernel, memory),
                Operation::Wkv5 => case.wkv5(kernel, memory),
                Operation::Wkv7 => case.wkv7(kernel, memory),
                Operation::Sqrt => case.roots(memory),
                Operation::Vectors => case.vectors(memory),
            };
            if let Err(at) = outcome {
                return Err(Difference {
                    operation,
                    case: number,
                    kind: case.kind,
                    shape: [case.rows, case.cols],
                    bits: case.bits,
                    index: at.index,
                    expected: at.expected,
                    found: at.found,
                });
            }
        }
    }
    Ok(())
}

/// The first value that differs.
struct At {
    index: usize,
    expected: u32,
    found: u32,
}

impl Case {
    fn rows(&mut self, format: Format, kernel: impl Kernel, memory: &mut [f32]) -> Result<(), At> {
        let (rows, cols) = (self.rows, self.cols);
        let mut rest = Rest(memory);
        let weights = rest.take(pack::lines_words(format, rows, cols));
        let (scales, expected, found) = (rest.take(rows), rest.take(rows), rest.take(rows));
        self.weights(format, cols, weights);
        scales.iter_mut().for_each(|scale| *scale = self.scale());
        expected.fill(f32::NAN);
        found.fill(f32::NAN);
        if !format.is_integer() {
            let x = rest.take(cols);
            x.iter_mut().enumerate().for_each(|(i, x)| *x = self.input(i));
            floats(format, Generic, weights, x, expected);
            floats(format, kernel, weights, x, found);
            return compare(expected, found);
        }
        let mut inputs = [rest.take(room_words(cols)), rest.take(room_words(cols))];
        let start = self.random;
        for input in &mut inputs {
            self.random = start;
            input.fill(f32::NAN);
            input.iter_mut().take(cols).enumerate().for_each(|(i, x)| *x = self.input(i));
        }
        let [reference, own] = inputs;
        let lines = Lines { words: bytemuck::cast_slice(weights), scales };
        let Ok(arranged) = Generic.arrange(format, self.bits, reference, cols) else {
            return match kernel.arrange(format, self.bits, own, cols) {
                Err(_) => Ok(()),
                Ok(_) => Err(At { index: 0, expected: f32::NAN.to_bits(), found: 0 }),
            };
        };
        let refused = At { index: 0, expected: 0, found: f32::NAN.to_bits() };
        let arranged_too = kernel.arrange(format, self.bits, own, cols).map_err(|_| refused)?;
        same(arranged, arranged_too)?;
        integers(format, Generic, lines, reference, arranged, expected);
        integers(format, kernel, lines, own, arranged_too, found);
        compare(expected, found)
    }

    fn column(
        &mut self,
        format: Format,
        kernel: impl Kernel,
        memory: &mut [f32],
    ) -> Result<(), At> {
        let (rows, groups) = (self.cols, pack::groups(self.cols));
        let mut rest = Rest(memory);
        let line = rest.take(format.line_words(rows));
        self.weights(format, rows, line);
        let (expected, found) = (rest.take(rows + groups), rest.take(rows + groups));
        let x = self.input(usize::MAX);
        let quantised = match self.kind {
            Kind::Lowest | Kind::Highest | Kind::Wide => 16383,
            Kind::Zero => 0,
            Kind::Hostile => self.random.word() as i16,
            _ => (self.random.word() % 32767) as i16 - 16383,
        };
        for (expected, found) in expected.iter_mut().zip(&mut *found) {
            *expected = match (format.is_integer(), self.kind) {
                (true, _) | (_, Kind::Hostile) => f32::from_bits(self.random.word()),
                _ => self.random.float(),
            };
            *found = *expected;
        }
        column(format, Generic, line, (x, quantised), expected.split_at_mut(rows));
        column(format, kernel, line, (x, quantised), found.split_at_mut(rows));
        if format.is_integer() {
            return compare_bits(bytemuck::cast_slice(expected), bytemuck::cast_slice(found));
        }
        compare(expected, found)
    }

    /// A head of versions 5 and 6; `cols` is its width.
    fn wkv5(&mut self, kernel: impl Kernel, memory: &mut [f32]) -> Result<(), At> {
        let n = self.cols;
        let mut rest = Rest(memory);
        let vectors = [(); 4].map(|()| self.fill(rest.take(n)));
        let [w, k, r, v] = vectors.each_ref().map(|x| &**x);
        let keys = Keys5 { w, k, r };
        let (expected, found) = (self.fill(rest.take(n * n + n)), rest.take(n * n + n));
        found.iter_mut().zip(&*expected).for_each(|(y, x)| *y = *x);
        let (state, y) = expected.split_at_mut(n * n);
        Generic.wkv5(keys, v, state, y);
        let (state, y) = found.split_at_mut(n * n);
        kernel.wkv5(keys, v, state, y);
        compare(expected, found)
    }

    /// A head of version 7; `cols` is its width.
    fn wkv7(&mut self, kernel: impl Kernel, memory: &mut [f32]) -> Result<(), At> {
        let n = self.cols;
        let mut rest = Rest(memory);
        let vectors = [(); 6].map(|()| self.fill(rest.take(n)));
        let [w, k, kk, b, r, v] = vectors.each_ref().map(|x| &**x);
        let keys = Keys7 { w, k, kk, b, r };
        let (expected, found) = (self.fill(rest.take(n * n + n)), rest.take(n * n + n));
        found.iter_mut().zip(&*expected).for_each(|(y, x)| *y = *x);
        let (state, y) = expected.split_at_mut(n * n);
        Generic.wkv7(keys, v, state, y);
        let (state, y) = found.split_at_mut(n * n);
        kernel.wkv7(keys, v, state, y);
        compare(expected, found)
    }

    /// Square roots of a vector.
    fn roots(&mut self, memory: &mut [f32]) -> Result<(), At> {
        let mut rest = Rest(memory);
        let (expected, found) = (self.fill(rest.take(self.cols)), rest.take(self.cols));
        found.iter_mut().zip(&*expected).for_each(|(y, x)| *y = math::sqrt(*x));
        expected.iter_mut().for_each(|x| *x = math::sqrt_by_digits(*x));
        compare(expected, found)
    }

    /// Every loop over vectors, by the target's instructions and in plain Rust.
    fn vectors(&mut self, memory: &mut [f32]) -> Result<(), At> {
        let n = self.cols;
        let mut rest = Rest(memory);
        let [x, y, params] = [n, n, 2 * n].map(|n| &*self.fill(rest.take(n)));
        let [expected, found] = [rest.take(n + 2), rest.take(n + 2)];
        let moments = (self.random.float(), self.random.float());
        macro_rules! both {
            ($($name:ident($($argument:expr),*);)*) => {
                $(
                    for out in [&mut *expected, &mut *found] {
                        out.iter_mut().zip(x).for_each(|(out, x)| *out = *x);
                    }
                    scalar::$name(&mut expected[..n], $($argument),*);
                    vectors::$name(&mut found[..n], $($argument),*);
                    compare(&expected[..n], &found[..n])?;
                )*
            };
        }
        both! {
            add(y);
            lerp(y, params);
            normalise(moments, params);
            sigmoid();
            decay();
        }
        scalar::copy(y, expected);
        vectors::copy(y, found);
        let (mean, _) = moments;
        expected[n..].copy_from_slice(&[scalar::sum(x), scalar::squares(x, mean)]);
        found[n..].copy_from_slice(&[vectors::sum(x), vectors::squares(x, mean)]);
        compare(expected, found)
    }
}

/// Memory that is handed out from the front. What no longer fits is empty, and cases are drawn so
/// that all fits.
struct Rest<'a>(&'a mut [f32]);

impl<'a> Rest<'a> {
    fn take(&mut self, words: usize) -> &'a mut [f32] {
        let all = core::mem::take(&mut self.0);
        let (part, rest) = all.split_at_mut_checked(words).unwrap_or_default();
        self.0 = rest;
        part
    }
}

fn floats(format: Format, kernel: impl Kernel, w: &[f32], x: &[f32], out: &mut [f32]) {
    match format {
        Format::F16 => kernel.rows_f16(bytemuck::cast_slice(w), x, out),
        _ => kernel.rows_f32(w, x, out),
    }
}

fn integers(
    format: Format,
    kernel: impl Kernel,
    lines: Lines<'_>,
    room: &[f32],
    arranged: Arranged,
    out: &mut [f32],
) {
    let x = Input { words: bytemuck::cast_slice(room), arranged };
    match format {
        Format::Int8 => kernel.rows_i8(lines, x, out),
        Format::Int4 => kernel.rows_i4(lines, x, out),
        _ => kernel.rows_i4_lanes(lines, x, out),
    }
}

fn column(
    format: Format,
    kernel: impl Kernel,
    line: &[f32],
    (x, quantised): (f32, i16),
    (acc, offsets): (&mut [f32], &mut [f32]),
) {
    let words = bytemuck::cast_slice(line);
    match format {
        Format::F16 => kernel.column_f16(bytemuck::cast_slice(line), x, acc),
        Format::Int8 => kernel.column_i8(words, quantised, bytemuck::cast_slice_mut(acc)),
        Format::Int4 => kernel.column_i4(
            words,
            quantised,
            bytemuck::cast_slice_mut(acc),
            bytemuck::cast_slice_mut(offsets),
        ),
        _ => kernel.column_f32(line, x, acc),
    }
}

/// What the executors read of an arranged input.
fn same(expected: Arranged, found: Arranged) -> Result<(), At> {
    let words = |a: Arranged| [a.scale.to_bits(), a.sum as u32, a.groups as u32, a.bits.into()];
    compare_bits(&words(expected), &words(found))
}

/// Equal bits; any NaN equals any other.
fn compare(expected: &[f32], found: &[f32]) -> Result<(), At> {
    let pairs = expected.iter().zip(found).enumerate();
    let mut differing =
        pairs.filter(|(_, (e, f))| e.to_bits() != f.to_bits() && !(e.is_nan() && f.is_nan()));
    differing.next().map_or(Ok(()), |(index, (expected, found))| {
        Err(At { index, expected: expected.to_bits(), found: found.to_bits() })
    })
}

fn compare_bits(expected: &[u32], found: &[u32]) -> Result<(), At> {
    let mut differing = expected.iter().zip(found).enumerate().filter(|(_, (e, f))| e != f);
    differing.next().map_or(Ok(()), |(index, (expected, found))| {
        Err(At { index, expected: *expected, found: *found })
    })
}
