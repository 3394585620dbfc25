//! The property cases of the kernels, in memory that the caller gives: the same ones on a host
//! and on a core in an emulator.
//!
//! A case is drawn from its number alone. What an implementation computes is compared with
//! [`Generic`], which the host's tests compare with the definitions.

use core::fmt;

use super::{
    Arranged, Generic, Input, Kernel, Keys5, Keys7, Lines,
    floats::{self as vectors, scalar},
    room_words,
};
use crate::{
    image::{Format, GROUP, pack},
    math,
};

/// What is tested, by the name of the kernel's function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// What the weights, scales and inputs of a case are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// As a converter writes them.
    Usual,
    /// Any bits at all: sums wrap, floats overflow.
    Hostile,
    /// Weights at their lowest, inputs at their highest.
    Lowest,
    /// Weights and inputs at their highest.
    Highest,
    /// Inputs of zeros, or so small that they count as zeros.
    Zero,
    /// Scales and float weights are subnormal.
    Subnormal,
    /// As wide as the memory allows, at the extremes.
    Wide,
    /// An input that is not finite.
    NonFinite,
}

const KINDS: [Kind; 8] = [
    Kind::Usual,
    Kind::Hostile,
    Kind::Lowest,
    Kind::Highest,
    Kind::Zero,
    Kind::Subnormal,
    Kind::Wide,
    Kind::NonFinite,
];

/// Columns of a wide case at most: the widest matrix that an image may have.
const WIDEST: usize = 1 << 16;

/// Where an implementation differs from the reference.
#[derive(Debug, Clone, Copy)]
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

/// Words that look random, the same for a seed.
#[derive(Debug, Clone, Copy)]
pub struct Random(pub u32);

impl Random {
    /// The next word.
    pub const fn word(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// One of `range`.
    fn within(&mut self, range: core::ops::RangeInclusive<usize>) -> usize {
        let span = range.end() - range.start() + 1;
        range.start() + self.word() as usize % span
    }

    /// Within ±8, with zeros and small numbers among them.
    pub fn float(&mut self) -> f32 {
        let (kind, x) = (self.word() >> 28, self.word() as i32 as f32 / (1u32 << 28) as f32);
        match kind {
            0 => 0.0,
            1 => -0.0,
            2 => x * 1e-3,
            3 => x * 1e-12,
            _ => x,
        }
    }
}

/// The first value that differs.
struct At {
    index: usize,
    expected: u32,
    found: u32,
}

/// One case.
#[derive(Debug)]
struct Case {
    kind: Kind,
    rows: usize,
    cols: usize,
    bits: u8,
    random: Random,
}

impl Case {
    fn draw(operation: Operation, number: u32, memory: usize) -> Self {
        let mut random = Random(0x9E37_79B1u32.wrapping_mul(number + 1) | 1);
        // The first numbers out of a small seed are alike.
        (0..4).for_each(|_| _ = random.word());
        let kind = KINDS[number as usize % KINDS.len()];
        let mut case = Self {
            kind,
            rows: random.within(1..=9),
            cols: match random.within(0..=3) {
                0 => GROUP * random.within(1..=4),
                _ => random.within(1..=99),
            },
            bits: if random.word() & 1 == 0 { 8 } else { random.within(8..=15) as u8 },
            random,
        };
        if kind == Kind::Wide {
            case.rows = case.random.within(1..=2);
            case.cols = WIDEST - case.random.within(0..=GROUP);
        }
        if matches!(operation, Operation::Wkv5 | Operation::Wkv7) {
            case.cols = match case.cols {
                cols if kind == Kind::Wide => cols.min(256),
                cols if cols.is_multiple_of(GROUP) => cols.min(64),
                cols => cols / 3 + 1,
            };
        }
        while case.words(operation) > memory {
            case.cols -= case.cols.div_ceil(8);
        }
        case
    }

    /// Words that the case takes.
    fn words(&self, operation: Operation) -> usize {
        match operation {
            Operation::Rows(format) => {
                let input = if format.is_integer() { room_words(self.cols) } else { self.cols };
                pack::lines_words(format, self.rows, self.cols) + 3 * self.rows + 2 * input
            }
            Operation::Column(format) => {
                let values = self.cols + pack::groups(self.cols);
                format.line_words(self.cols) + 2 * values
            }
            Operation::Wkv5 => self.cols * (2 * self.cols + 6),
            Operation::Wkv7 => self.cols * (2 * self.cols + 8),
            Operation::Sqrt => 2 * self.cols,
            Operation::Vectors => 6 * self.cols + 4,
        }
    }

    /// Fills the words of lines of `len` weights.
    fn weights(&mut self, format: Format, len: usize, words: &mut [f32]) {
        let (together, subs) = match format {
            Format::Int4 => (1, pack::groups(len).div_ceil(4)),
            Format::Int4Lanes => (2, 2 * pack::groups(len).div_ceil(4)),
            _ => (1, 0),
        };
        let line = together * format.line_words(len);
        for (index, word) in words.iter_mut().enumerate() {
            let word_of_subs = index % line < subs;
            *word = f32::from_bits(self.weight(format, word_of_subs));
        }
    }

    fn weight(&mut self, format: Format, word_of_subs: bool) -> u32 {
        let word = self.random.word();
        match (self.kind, format) {
            (Kind::Hostile, _) => word,
            (Kind::Lowest | Kind::Wide, Format::Int8) => 0x0101_0101,
            (Kind::Lowest | Kind::Wide | Kind::Highest, _) if word_of_subs => 0x3F3F_3F3F,
            (Kind::Lowest | Kind::Wide, Format::Int4 | Format::Int4Lanes) => 0,
            (Kind::Highest, Format::F32) => f32::MAX.to_bits(),
            (Kind::Highest, Format::F16) => 0x7BFF_7BFF,
            (Kind::Highest, _) => u32::MAX,
            (Kind::Subnormal, Format::F32) => word & 0x807F_FFFF,
            (Kind::Subnormal, Format::F16) => word & 0x83FF_83FF,
            (_, Format::F32) => self.random.float().to_bits(),
            // All but the highest of the exponent's bits: finite.
            (_, Format::F16) => word & 0xBFFF_BFFF,
            // 1 to 32.
            _ if word_of_subs => (word & 0x1F1F_1F1F) + 0x0101_0101,
            _ => word,
        }
    }

    /// An element of an input.
    fn input(&mut self, index: usize) -> f32 {
        match self.kind {
            Kind::Lowest | Kind::Highest | Kind::Wide => 3.0,
            Kind::Zero if self.rows.is_multiple_of(2) => self.random.float() * 1e-38,
            Kind::Zero => 0.0,
            Kind::NonFinite if index == self.rows % self.cols => match self.rows % 3 {
                0 => f32::NAN,
                1 => f32::INFINITY,
                _ => f32::NEG_INFINITY,
            },
            _ => self.random.float(),
        }
    }

    fn scale(&mut self) -> f32 {
        match self.kind {
            Kind::Hostile => f32::from_bits(self.random.word()),
            Kind::Subnormal => f32::from_bits(self.random.word() & 0x007F_FFFF),
            _ => self.random.float(),
        }
    }

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

    /// Floats of the kind.
    fn fill<'a>(&mut self, x: &'a mut [f32]) -> &'a mut [f32] {
        x.iter_mut().for_each(|x| *x = f32::from_bits(self.weight(Format::F32, false)));
        x
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
