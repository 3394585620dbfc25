//! `kernels`: instructions of the matrix kernels, whole calls.
//!
//! The weights are whatever the window holds: the cost of an integer kernel does not depend on
//! their values, and the words that `cargo xtask bench` loads are floats of ordinary sizes.

use core::{fmt::Write, hint::black_box};

use rwkv_core::{
    Error,
    image::{Format, pack},
    kernel::{Input, Kernel, Lines, cases::Random, room_words},
};

use crate::{
    Memory, carve,
    cost::{Cost, Counter},
    failure::Failure,
    platform::Out,
};

/// Rows and columns; the first is what figures are quoted for.
const SHAPES: [[usize; 2]; 3] = [[256, 256], [64, 64], [128, 512]];

const FORMATS: [(Format, &str); 5] = [
    (Format::F32, "f32"),
    (Format::F16, "f16"),
    (Format::Int8, "int8"),
    (Format::Int4, "int4"),
    (Format::Int4Lanes, "int4-lanes"),
];

/// Bits of a quantised input.
const BITS: [u8; 2] = [8, 15];

/// Prints a line per format, input and shape.
pub fn run(kernel: impl Kernel, memory: Memory<'_>) -> Result<(), Failure> {
    let bench = Bench {
        kernel,
        counter: Counter::new().ok_or(Failure::NoCounter)?,
        weights: bytemuck::try_cast_slice(memory.window)
            .map_err(|_| Failure::Usage("the window is not on a word boundary"))?,
    };
    for shape in SHAPES {
        for (format, name) in FORMATS {
            let (rows, cols) = (shape[0], shape[1]);
            let needed = pack::lines_words(format, rows, cols);
            if needed > bench.weights.len() {
                let _ = writeln!(Out, "skipped {name} {rows}x{cols}, the flash is too small");
                continue;
            }
            if format.is_integer() {
                for bits in BITS {
                    bench.integers(format, bits, shape, &mut *memory.arena, name)?;
                }
            } else {
                bench.floats(format, shape, &mut *memory.arena, name)?;
            }
            if format != Format::Int4Lanes {
                bench.columns(format, rows, &mut *memory.arena, name)?;
            }
        }
    }
    Ok(())
}

struct Bench<'a, K> {
    kernel: K,
    counter: Counter,
    weights: &'a [u32],
}

impl<K: Kernel> Bench<'_, K> {
    fn floats(
        &self,
        format: Format,
        [rows, cols]: [usize; 2],
        arena: &mut [f32],
        name: &str,
    ) -> Result<(), Failure> {
        let [x, out] = carve(arena, [cols, rows])?;
        input(x);
        let words = self.weights.get(..rows * format.line_words(cols)).unwrap_or_default();
        let cost = self.counter.cost(|| match format {
            Format::F16 => self.kernel.rows_f16(bytemuck::cast_slice(black_box(words)), x, out),
            _ => self.kernel.rows_f32(bytemuck::cast_slice(black_box(words)), x, out),
        });
        report("rows", name, 0, [rows, cols], cost, rows * cols);
        Ok(())
    }

    fn integers(
        &self,
        format: Format,
        bits: u8,
        [rows, cols]: [usize; 2],
        arena: &mut [f32],
        name: &str,
    ) -> Result<(), Failure> {
        let [x, room, scales, out] = carve(arena, [cols, room_words(cols), rows, rows])?;
        input(x);
        scales.fill(0.01);
        let mut arranged = Err(Error::Internal);
        let mut copy = || room.iter_mut().zip(&*x).for_each(|(y, x)| *y = *x);
        let copies = self.counter.cost(&mut copy);
        let cost = self.counter.cost(|| {
            room.iter_mut().zip(&*x).for_each(|(y, x)| *y = *x);
            arranged = self.kernel.arrange(format, bits, black_box(room), cols);
        });
        report("arrange", name, bits, [1, cols], cost.less(copies), cols);
        let arranged = arranged?;
        let words = self.weights.get(..pack::lines_words(format, rows, cols)).unwrap_or_default();
        let cost = self.counter.cost(|| {
            let lines = Lines { words: black_box(words), scales };
            let x = Input { words: bytemuck::cast_slice(room), arranged };
            match format {
                Format::Int8 => self.kernel.rows_i8(lines, x, out),
                Format::Int4 => self.kernel.rows_i4(lines, x, out),
                _ => self.kernel.rows_i4_lanes(lines, x, out),
            }
        });
        report("rows", name, bits, [rows, cols], cost, rows * cols);
        Ok(())
    }

    /// A column of an input-major matrix: what a live input costs, per element.
    fn columns(
        &self,
        format: Format,
        rows: usize,
        arena: &mut [f32],
        name: &str,
    ) -> Result<(), Failure> {
        let [acc, offsets] = carve(arena, [rows, pack::groups(rows)])?;
        acc.fill(0.0);
        offsets.fill(0.0);
        let line = self.weights.get(..format.line_words(rows)).unwrap_or_default();
        let x = black_box(77i16);
        let cost = self.counter.cost(|| match format {
            Format::F32 => self.kernel.column_f32(bytemuck::cast_slice(black_box(line)), 1e-3, acc),
            Format::F16 => self.kernel.column_f16(bytemuck::cast_slice(black_box(line)), 1e-3, acc),
            Format::Int8 => {
                self.kernel.column_i8(black_box(line), x, bytemuck::cast_slice_mut(acc));
            }
            _ => self.kernel.column_i4(
                black_box(line),
                x,
                bytemuck::cast_slice_mut(acc),
                bytemuck::cast_slice_mut(offsets),
            ),
        });
        report("column", name, 0, [rows, 1], cost, rows);
        Ok(())
    }
}

fn report(what: &str, format: &str, bits: u8, [rows, cols]: [usize; 2], cost: Cost, units: usize) {
    let cost = cost.per(units);
    let _ = writeln!(Out, "{what} {format} {bits} {rows}x{cols} {cost}");
}

fn input(x: &mut [f32]) {
    let mut random = Random(7);
    x.iter_mut().for_each(|x| *x = random.float());
}
