//! What the cases are made of, drawn from their numbers.

use super::Operation;
use crate::{
    image::{Format, GROUP, pack},
    kernel::room_words,
};

/// What the weights, scales and inputs of a case are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) enum Kind {
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

/// One case.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) kind: Kind,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) bits: u8,
    pub(super) random: Random,
}

impl Case {
    pub(super) fn draw(operation: Operation, number: u32, memory: usize) -> Self {
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
    pub(super) fn weights(&mut self, format: Format, len: usize, words: &mut [f32]) {
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
    pub(super) fn input(&mut self, index: usize) -> f32 {
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

    pub(super) fn scale(&mut self) -> f32 {
        match self.kind {
            Kind::Hostile => f32::from_bits(self.random.word()),
            Kind::Subnormal => f32::from_bits(self.random.word() & 0x007F_FFFF),
            _ => self.random.float(),
        }
    }

    /// Floats of the kind.
    pub(super) fn fill<'a>(&mut self, x: &'a mut [f32]) -> &'a mut [f32] {
        x.iter_mut().for_each(|x| *x = f32::from_bits(self.weight(Format::F32, false)));
        x
    }
}

/// Words that look random, the same for a seed.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
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
