//! What the work of a token costs on each core, in instructions.
//!
//! Products, columns and inputs are lines through the figures of `cargo xtask bench`
//! (`tests/golden/bench.json`, the book's chapter *Performance*), at vectors of 64 and 256; a test
//! compares them. What surrounds the products was measured with `rwkv profile` on `mps2-an386` for
//! cores with a multiplier of 16 bits side by side, and on `microbit` for a Cortex-M0. For the
//! others it comes from the functions and operations of the bench where they have one, else from
//! the Cortex-M0's in the proportion of those that they have.

use rwkv_core::{
    image::{Format, Record},
    op::{Activation, Shift},
};

/// A core that there are kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Core {
    /// Arm Cortex-M0 and M0+.
    M0,
    /// Arm Cortex-M3.
    M3,
    /// Arm Cortex-M4 with a floating-point unit.
    M4,
    /// Arm Cortex-M7 with a floating-point unit.
    M7,
    /// Arm Cortex-M33 with a floating-point unit and the DSP extension.
    M33,
    /// RISC-V of 32 bits without floating-point unit and without atomic instructions.
    Rv32imc,
    /// RISC-V of 32 bits without floating-point unit.
    Rv32imac,
    /// RISC-V of 32 bits with a floating-point unit.
    Rv32imafc,
}

impl Core {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::M0 => "Cortex-M0",
            Self::M3 => "Cortex-M3",
            Self::M4 => "Cortex-M4F",
            Self::M7 => "Cortex-M7F",
            Self::M33 => "Cortex-M33F",
            Self::Rv32imc => "RV32IMC",
            Self::Rv32imac => "RV32IMAC",
            Self::Rv32imafc => "RV32IMAFC",
        }
    }

    /// Its name in the figures of `cargo xtask bench`.
    pub const fn bench(self) -> &'static str {
        match self {
            Self::M0 => "m0",
            Self::M3 => "m3",
            Self::M4 => "m4",
            Self::M7 => "m7",
            Self::M33 => "m33",
            // No kernel has atomic instructions.
            Self::Rv32imc | Self::Rv32imac => "rv32imac",
            Self::Rv32imafc => "rv32imafc",
        }
    }

    /// Whether it has multipliers of 16 bits side by side, which inputs of 15 bits suit.
    pub const fn has_wide_multiply(self) -> bool {
        matches!(self, Self::M4 | Self::M7 | Self::M33)
    }

    /// The most instructions that it completes in a cycle.
    pub const fn per_cycle(self) -> f64 {
        if matches!(self, Self::M7) { 2.0 } else { 1.0 }
    }

    /// Bytes of flash of the least firmware that computes tokens, at `opt-level = 3`
    /// (`cargo xtask size`).
    pub const fn firmware(self) -> u64 {
        match self {
            Self::M0 => 93_720,
            Self::M3 => 96_644,
            Self::M4 | Self::M7 => 89_664,
            Self::M33 => 90_504,
            Self::Rv32imc | Self::Rv32imac => 96_654,
            Self::Rv32imafc => 85_714,
        }
    }

    /// Bytes of stack at its deepest: what the agents of `mps2-an386` and `microbit` use; of the
    /// others those of the core that is more like them.
    pub const fn stack(self) -> u64 {
        match self {
            Self::M4 | Self::M7 | Self::M33 | Self::Rv32imafc => 6_148,
            Self::M0 | Self::M3 | Self::Rv32imc | Self::Rv32imac => 6_580,
        }
    }

    /// What work costs.
    pub const fn costs(self) -> Costs {
        match self {
            Self::M0 => M0,
            Self::M3 => M3,
            Self::M4 | Self::M7 | Self::M33 => M4,
            Self::Rv32imc | Self::Rv32imac => RV32IMAC,
            Self::Rv32imafc => RV32IMAFC,
        }
    }
}

/// A cost that grows with a vector: instructions for each of its elements, and once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// For each element.
    pub each: f64,
    /// Once.
    pub once: f64,
}

const fn line(each: f64, once: f64) -> Line {
    Line { each, once }
}

impl Line {
    /// The cost of a vector of `len` elements.
    pub fn of(self, len: usize) -> f64 {
        self.each * len as f64 + self.once
    }
}

/// Instructions of a core.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// A row of a product, by its inputs: f32, f16, int8, int4, int4 in lanes with inputs of 8 bits
    /// and with wider ones.
    rows: [Line; 6],
    /// A live column of a sparse product, by its outputs: f32, f16, int8, int4.
    columns: [Line; 4],
    /// The input of a product, quantised and arranged: int8, int4, int4 in lanes.
    inputs: [Line; 3],
    /// Channels of a norm.
    pub norm: f64,
    /// Channels of a token shift, by kind: current, previous.
    shifts: [f64; 2],
    /// Inputs of a sparse product, quantised.
    pub quantise: f64,
    /// Of a sparse product's outputs, scaled, gated and added.
    pub rescale: f64,
    /// Elements through a function: sigmoid, tanh, squared relu, version 7's decay, silu, version
    /// 6's decay.
    activations: [f64; 6],
    /// A sum or product of two floats, loads and store included.
    pub float: f64,
    /// An element of a table as a float.
    pub dequantise: f64,
    /// A logit given to digest and sampler.
    pub logit: f64,
    /// Version 4's recurrence, by channels.
    pub wkv4: f64,
    /// That of versions 5 and 6 and that of version 7: an element of the state, and a channel.
    pub wkv5: Line,
    /// See [`Costs::wkv5`].
    pub wkv7: Line,
    /// What an operation with a record costs beside its elements.
    pub record: f64,
    /// A block of a record.
    pub block: f64,
    /// A live column beside its elements.
    pub column: f64,
    /// An input of a sparse product that is looked at.
    pub look: f64,
    /// An operation without a record.
    pub plain: f64,
}

impl Costs {
    /// A row of a matrix.
    pub fn row(&self, record: &Record) -> f64 {
        let index = match record.format {
            Format::F32 => 0,
            Format::F16 => 1,
            Format::Int8 => 2,
            Format::Int4 => 3,
            Format::Int4Lanes if record.bits <= 8 => 4,
            Format::Int4Lanes => 5,
        };
        self.rows[index].of(padded(record.format, record.cols as usize))
    }

    /// A live column of an input-major matrix.
    pub fn live_column(&self, record: &Record) -> f64 {
        let index = match record.format {
            Format::F32 => 0,
            Format::F16 => 1,
            Format::Int8 => 2,
            Format::Int4 | Format::Int4Lanes => 3,
        };
        self.column + self.columns[index].of(padded(record.format, record.rows as usize))
    }

    /// The input of a matrix, quantised and arranged if its format asks for it.
    pub fn input(&self, record: &Record) -> f64 {
        let line = match record.format {
            Format::F32 | Format::F16 => return 0.0,
            Format::Int8 => self.inputs[0],
            Format::Int4 => self.inputs[1],
            Format::Int4Lanes => self.inputs[2],
        };
        line.of(padded(record.format, record.cols as usize))
    }

    /// A channel of a token shift.
    pub const fn shift(&self, kind: Shift) -> f64 {
        match kind {
            Shift::Current => self.shifts[0],
            Shift::Previous => self.shifts[1],
        }
    }

    /// An element through a function.
    pub const fn activation(&self, f: Activation) -> f64 {
        match f {
            Activation::Identity => 0.0,
            Activation::Sigmoid => self.activations[0],
            Activation::Tanh => self.activations[1],
            Activation::SquaredRelu => self.activations[2],
            Activation::Decay => self.activations[3],
            Activation::Silu => self.activations[4],
            Activation::ExpNegExp => self.activations[5],
        }
    }

    /// The lines that the bench has measured, by what it calls them before the sizes.
    #[cfg(test)]
    pub(super) fn measured(&self, wide: bool) -> Vec<(String, Line)> {
        let bits = if wide { 15 } else { 8 };
        let names = [
            "rows f32 0".to_owned(),
            "rows f16 0".to_owned(),
            format!("rows int8 {bits}"),
            format!("rows int4 {bits}"),
            "rows int4-lanes 8".to_owned(),
            "rows int4-lanes 15".to_owned(),
            "column f32 0".to_owned(),
            "column f16 0".to_owned(),
            "column int8 0".to_owned(),
            "column int4 0".to_owned(),
            format!("arrange int8 {bits}"),
            format!("arrange int4 {bits}"),
            format!("arrange int4-lanes {bits}"),
        ];
        let lines = self.rows.into_iter().chain(self.columns).chain(self.inputs);
        names.into_iter().zip(lines).collect()
    }
}

/// Elements of a line with those that fill its last group.
const fn padded(format: Format, len: usize) -> usize {
    if format.is_integer() { len.next_multiple_of(rwkv_core::image::GROUP) } else { len }
}

const M0: Costs = Costs {
    rows: [
        line(207.0, 190.0),
        line(243.0, 190.0),
        line(3.151, 97.3),
        line(3.509, 97.8),
        line(2.366, 99.0),
        line(3.502, 92.0),
    ],
    columns: [line(221.0, 190.0), line(244.0, 190.0), line(3.938, 90.0), line(5.401, 142.3)],
    inputs: [line(37.005, 819.6), line(44.223, 814.7), line(42.097, 814.8)],
    norm: 947.0,
    shifts: [475.0, 349.0],
    quantise: 69.0,
    rescale: 470.0,
    activations: [2597.0, 2680.0, 149.0, 4800.0, 2720.0, 4720.0],
    float: 114.0,
    dequantise: 230.0,
    logit: 105.0,
    wkv4: 7112.0,
    wkv5: line(518.0, 1874.0),
    wkv7: line(926.0, 3483.0),
    record: 360.0,
    block: 900.0,
    column: 220.0,
    look: 8.0,
    plain: 166.0,
};

const M3: Costs = Costs {
    rows: [
        line(123.688, 141.5),
        line(145.944, 99.6),
        line(2.097, 55.8),
        line(2.327, 60.2),
        line(1.305, 59.8),
        line(2.38, 54.1),
    ],
    columns: [line(134.222, 143.1), line(150.93, 102.9), line(2.625, 60.0), line(2.781, 93.0)],
    inputs: [line(32.265, 415.0), line(36.733, 414.1), line(36.671, 419.1)],
    norm: 578.6,
    shifts: [273.2, 220.8],
    quantise: 36.8,
    rescale: 270.0,
    activations: [1597.0, 1607.4, 85.0, 3080.0, 1660.0, 2900.0],
    float: 65.0,
    dequantise: 130.0,
    logit: 80.0,
    wkv4: 4067.3,
    wkv5: line(266.0, 960.0),
    // By the tokens of the bench: the values of its operation make floats in software cheaper.
    wkv7: line(530.0, 2500.0),
    record: 260.0,
    block: 500.0,
    column: 160.0,
    look: 5.0,
    plain: 110.0,
};

const M4: Costs = Costs {
    rows: [
        line(1.244, 17.8),
        line(2.245, 17.7),
        line(1.211, 11.9),
        line(1.218, 15.0),
        line(1.364, 13.3),
        line(1.364, 13.3),
    ],
    columns: [line(1.5, 45.0), line(2.5, 46.0), line(2.125, 43.0), line(2.25, 64.0)],
    inputs: [line(7.375, 132.0), line(7.719, 133.0), line(7.719, 133.0)],
    norm: 8.8,
    shifts: [8.8, 3.0],
    quantise: 21.2,
    rescale: 10.0,
    activations: [35.0, 36.0, 8.2, 51.9, 44.5, 73.4],
    float: 1.7,
    dequantise: 7.0,
    logit: 55.0,
    wkv4: 120.0,
    wkv5: line(3.6, 42.0),
    wkv7: line(6.34, 71.0),
    record: 235.0,
    block: 400.0,
    column: 115.0,
    look: 3.0,
    plain: 95.0,
};

const RV32IMAC: Costs = Costs {
    rows: [
        line(110.634, 264.7),
        line(136.791, 247.5),
        line(3.236, 65.1),
        line(3.534, 65.5),
        line(2.108, 83.9),
        line(3.625, 62.9),
    ],
    columns: [line(94.07, 1383.5), line(112.539, 1256.1), line(5.186, 84.0), line(6.81, 83.0)],
    inputs: [line(31.048, 439.0), line(33.826, 437.1), line(32.545, 439.1)],
    norm: 540.8,
    shifts: [262.4, 208.5],
    quantise: 33.8,
    rescale: 260.0,
    activations: [1490.2, 1502.9, 80.0, 2870.0, 1550.0, 2700.0],
    float: 62.0,
    dequantise: 125.0,
    logit: 90.0,
    wkv4: 3856.8,
    wkv5: line(283.0, 1020.0),
    wkv7: line(506.0, 1900.0),
    record: 280.0,
    block: 500.0,
    column: 170.0,
    look: 6.0,
    plain: 120.0,
};

const RV32IMAFC: Costs = Costs {
    rows: [
        line(4.373, 60.6),
        line(30.996, 35.3),
        line(3.239, 18.8),
        line(3.55, 18.2),
        line(2.145, 32.4),
        line(3.608, 19.6),
    ],
    columns: [line(7.997, 31.0), line(25.99, 39.0), line(5.186, 86.0), line(6.81, 85.0)],
    inputs: [line(20.244, 128.8), line(23.023, 126.9), line(21.741, 128.9)],
    norm: 25.2,
    shifts: [12.6, 16.0],
    quantise: 21.0,
    rescale: 15.0,
    activations: [46.5, 47.2, 10.0, 96.0, 52.0, 90.0],
    float: 6.0,
    dequantise: 12.0,
    logit: 80.0,
    wkv4: 119.3,
    wkv5: line(9.5, 45.0),
    wkv7: line(17.0, 80.0),
    record: 260.0,
    block: 450.0,
    column: 160.0,
    look: 5.0,
    plain: 110.0,
};
