//! Every kernel that this machine can run beside the scalar one: a product of a whole matrix.
//!
//! `cargo bench -p rwkv-host --bench kernels -- [FILTER]` prints what Criterion measures, then one
//! table: nanoseconds per call and multiply-accumulates per nanosecond (GMAC/s).

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use rwkv_core::{
    image::Format,
    kernel::{Choice, Input, Kernel, Lines, room_words},
};

/// Calls that are timed together: few enough that a busy machine leaves some batch the core to
/// itself, and the best time is that of such a one.
fn batch(macs: u64) -> u64 {
    ((1 << 20) / macs).clamp(1, 16)
}

/// Words that look random.
fn random(count: usize) -> Vec<u32> {
    let mut x = 1u32;
    let step = |x: &mut u32| {
        *x ^= *x << 13;
        *x ^= *x >> 17;
        *x ^= *x << 5;
        *x
    };
    (0..count).map(|_| step(&mut x)).collect()
}

/// A kind of product, and the bits of its input.
#[derive(Clone, Copy)]
enum Case {
    Rows(Format, u8),
    /// Arranging an input, without a product.
    Arrange(Format, u8),
    Columns(Format),
}

impl Case {
    const ALL: [Self; 16] = [
        Self::Rows(Format::F32, 0),
        Self::Rows(Format::F16, 0),
        Self::Rows(Format::Int8, 8),
        Self::Rows(Format::Int8, 15),
        Self::Rows(Format::Int4, 8),
        Self::Rows(Format::Int4, 15),
        Self::Rows(Format::Int4Lanes, 8),
        Self::Rows(Format::Int4Lanes, 15),
        Self::Arrange(Format::Int8, 8),
        Self::Arrange(Format::Int8, 15),
        Self::Arrange(Format::Int4, 8),
        Self::Arrange(Format::Int4, 15),
        Self::Columns(Format::F32),
        Self::Columns(Format::F16),
        Self::Columns(Format::Int8),
        Self::Columns(Format::Int4),
    ];

    fn name(self) -> String {
        match self {
            Self::Rows(format, 0) => format!("rows {format:?}"),
            Self::Rows(format, bits) => format!("rows {format:?}, {bits} bits"),
            Self::Arrange(format, bits) => format!("arrange {format:?}, {bits} bits"),
            Self::Columns(format) => format!("columns {format:?}"),
        }
    }

    /// What is measured, over a square matrix.
    fn run(self, kernel: Choice, size: usize) -> Box<dyn FnMut()> {
        let x: Vec<f32> = (0..size).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
        let mut room = vec![0.0; room_words(size)];
        match self {
            Self::Arrange(format, bits) => Box::new(move || {
                room[..size].copy_from_slice(&x);
                black_box(kernel.arrange(format, bits, black_box(&mut room), size))
                    .expect("finite");
            }),
            Self::Rows(format, bits) => {
                let (words, scales) = (weights(format, size), vec![0.37; size]);
                let mut out = vec![0.0; size];
                Box::new(move || {
                    let words = black_box(&words[..]);
                    if !format.is_integer() {
                        match format {
                            Format::F16 => {
                                kernel.rows_f16(bytemuck::cast_slice(words), &x, &mut out)
                            }
                            _ => kernel.rows_f32(bytemuck::cast_slice(words), &x, &mut out),
                        }
                    } else {
                        room[..size].copy_from_slice(&x);
                        let arranged = kernel.arrange(format, bits, &mut room, size);
                        let arranged = arranged.expect("finite");
                        let (lines, input) = (
                            Lines { words, scales: &scales },
                            Input { words: bytemuck::cast_slice(&room), arranged },
                        );
                        match format {
                            Format::Int8 => kernel.rows_i8(lines, input, &mut out),
                            Format::Int4 => kernel.rows_i4(lines, input, &mut out),
                            _ => kernel.rows_i4_lanes(lines, input, &mut out),
                        }
                    }
                    black_box(&mut out);
                })
            }
            Self::Columns(format) => {
                let words = weights(format, size);
                let (mut acc, mut offsets) = (vec![0; size], vec![0; size.div_ceil(32)]);
                Box::new(move || {
                    for (i, line) in words.chunks_exact(format.line_words(size)).enumerate() {
                        let (line, x) = (black_box(line), i as i16 + 1);
                        let floats = bytemuck::cast_slice_mut(&mut acc);
                        match format {
                            Format::F16 => {
                                kernel.column_f16(bytemuck::cast_slice(line), 0.5, floats);
                            }
                            Format::Int8 => kernel.column_i8(line, x, &mut acc),
                            Format::Int4 => kernel.column_i4(line, x, &mut acc, &mut offsets),
                            _ => kernel.column_f32(bytemuck::cast_slice(line), 0.5, floats),
                        }
                    }
                    black_box(&mut acc);
                })
            }
        }
    }

    fn macs(self, size: usize) -> u64 {
        match self {
            Self::Arrange(..) => size as u64,
            _ => (size * size) as u64,
        }
    }
}

/// The words of a square matrix: floats of moderate size, or any integers.
fn weights(format: Format, size: usize) -> Vec<u32> {
    let words = random(size * format.line_words(size));
    match format {
        Format::F32 => words.iter().map(|w| w & 0x007f_ffff | 0x3f80_0000).collect(),
        Format::F16 => words.iter().map(|w| w & 0x03ff_03ff | 0x3c00_3c00).collect(),
        _ => words,
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
        .configure_from_args();
    let kernels = Choice::NAMES.iter().filter_map(|name| Some((*name, Choice::by_name(name)?)));
    let kernels: Vec<_> = kernels.collect();
    let mut table = Vec::new();
    for size in [256, 1024] {
        for case in Case::ALL {
            let name = format!("{}, {size}x{size}", case.name());
            let mut group = criterion.benchmark_group(&name);
            group.throughput(Throughput::Elements(case.macs(size)));
            let batch = batch(case.macs(size));
            let mut row = Vec::new();
            for (kernel, choice) in &kernels {
                let mut run = case.run(*choice, size);
                let mut best = f64::INFINITY;
                group.bench_function(*kernel, |bencher| {
                    bencher.iter_custom(|times| {
                        let start = Instant::now();
                        for _ in 0..times.div_ceil(batch) {
                            let start = Instant::now();
                            (0..batch).for_each(|_| run());
                            best = best.min(start.elapsed().as_nanos() as f64 / batch as f64);
                        }
                        start.elapsed().mul_f64(times as f64 / times.next_multiple_of(batch) as f64)
                    });
                });
                row.push(best);
            }
            group.finish();
            if row.iter().all(|best| best.is_finite()) {
                table.push((name, case.macs(size) as f64, row));
            }
        }
    }
    criterion.final_summary();

    let names: Vec<_> = kernels.iter().map(|(name, _)| *name).collect();
    println!("Best of all batches: ns per call, GMAC/s, times faster than {}.", names[0]);
    println!("| | {} |\n|---{}|", names.join(" | "), "|---".repeat(names.len()));
    for (name, macs, row) in table {
        let cells = row.iter().map(|ns| format!("{ns:.0}, {:.1}, {:.1}x", macs / ns, row[0] / ns));
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}
