//! What bounds each CUDA kernel on paper: the table in the book's chapter *CUDA*.
//!
//! These are counts and data-sheet limits. Nothing here was measured on a GPU.

use crate::document::grouped;

/// Of an H100 SXM, by NVIDIA's data sheet: bytes per second of its memory.
const BANDWIDTH: f64 = 3.35e12;
/// Integer operations per second of its matrix units, 8 bits, dense.
const INT8: f64 = 1979e12;
/// Float operations per second: half of 67e12, which counts a fused multiply-add as two, while
/// these kernels multiply and add one after the other.
const F32: f64 = 33.5e12;

/// The shape: version 7 with 1.5 billion parameters, and the tokens of a piece.
const DIM: f64 = 2048.0;
const FFN: f64 = 4.0 * DIM;
const HEAD: f64 = 64.0;
const VOCAB: f64 = 65536.0;
const TOKENS: f64 = 1024.0;
/// Tokens whose logits are computed at once.
const SLAB: f64 = 256.0;

/// A kernel with a shape.
struct Kernel {
    name: &'static str,
    what: &'static str,
    operations: f64,
    /// Operations per second, at most.
    rate: f64,
    /// The least that memory must give and take.
    bytes: f64,
    /// Rounded operations that wait for one another, where there are many.
    chain: f64,
}

/// A product of integers: `planes` of weights and of inputs, and bytes per weight.
fn integers(
    name: &'static str,
    what: &'static str,
    [rows, cols, tokens]: [f64; 3],
    [weights, inputs]: [f64; 2],
    bytes: f64,
) -> Kernel {
    Kernel {
        name,
        what,
        operations: 2.0 * rows * cols * tokens * weights * inputs,
        rate: INT8,
        bytes: rows * cols * bytes + tokens * cols * inputs + 4.0 * tokens * rows,
        chain: 0.0,
    }
}

/// A product of floats.
fn floats(name: &'static str, what: &'static str, rows: f64, cols: f64, bytes: f64) -> Kernel {
    Kernel {
        name,
        what,
        operations: 2.0 * rows * cols * TOKENS,
        rate: F32,
        bytes: rows * cols * bytes + 4.0 * TOKENS * (rows + cols),
        chain: 0.0,
    }
}

/// Element by element: bytes and operations per element of a vector of each token.
fn elements(
    name: &'static str,
    what: &'static str,
    len: f64,
    bytes: f64,
    operations: f64,
) -> Kernel {
    let count = TOKENS * len;
    Kernel {
        name,
        what,
        operations: operations * count,
        rate: F32,
        bytes: bytes * count,
        chain: 0.0,
    }
}

fn kernels() -> Vec<Kernel> {
    // Four bits, and a byte per group of 32.
    const INT4: f64 = 0.5 + 1.0 / 32.0;
    let square = [DIM, DIM, TOKENS];
    let chained = |chain: f64, kernel: Kernel| Kernel { chain, ..kernel };
    vec![
        integers("rows_int8_tensor_8", "key, value, …", square, [1.0, 1.0], 1.0),
        integers("rows_int8_tensor_15", "key, value, …", square, [1.0, 2.0], 1.0),
        integers("rows_int4_tensor_15", "key, value, …", square, [2.0, 2.0], INT4),
        integers("columns_int8_tensor_15", "ffn.value", [DIM, FFN, TOKENS], [1.0, 2.0], 1.0),
        integers("columns_int4_tensor_15", "ffn.value", [DIM, FFN, TOKENS], [2.0, 2.0], INT4),
        integers("rows_int8_tensor_15", "head, a slab", [VOCAB, DIM, SLAB], [1.0, 2.0], 1.0),
        floats("rows_f32", "key, value, …", DIM, DIM, 4.0),
        floats("rows_f16", "key, value, …", DIM, DIM, 2.0),
        floats("columns_f32", "ffn.value", DIM, FFN, 4.0),
        // The vector and its predecessor, two bytes out.
        elements("quantise", "with token shift", DIM, 10.0, 16.0),
        chained(DIM / 4.0, elements("layer_norm", "", DIM, 8.0, 8.0)),
        chained(TOKENS * 24.0, elements("wkv4", "", DIM, 16.0, 60.0)),
        chained(TOKENS * HEAD, elements("wkv5_64", "", DIM, 20.0, 5.0 * HEAD)),
        chained(2.0 * TOKENS * HEAD, elements("wkv7_64", "", DIM, 28.0, 9.0 * HEAD)),
        elements("digest_vectors", "a shift row", DIM, 4.0, 12.0),
    ]
}

/// The table, in Markdown.
pub(crate) fn table() -> String {
    let mut text =
        "| kernel | for | operations, millions | bytes, thousands | operations per byte | \
                    by arithmetic, µs | by memory, µs | operations in a row | binds |\n\
                    |---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for kernel in kernels() {
        let (arithmetic, memory) = (kernel.operations / kernel.rate, kernel.bytes / BANDWIDTH);
        // A rounded operation takes four cycles of less than 2 GHz before the next one can begin.
        let latency = kernel.chain * 4.0 / 2e9;
        let binds = if latency > arithmetic && latency > memory {
            "latency"
        } else if memory > arithmetic {
            "memory"
        } else {
            "arithmetic"
        };
        let chain = if kernel.chain > 0.0 { grouped(kernel.chain as u64) } else { String::new() };
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | {:.1} | {:.1} | {:.1} | {chain} | {binds} |\n",
            kernel.name,
            kernel.what,
            grouped((kernel.operations / 1e6).round() as u64),
            grouped((kernel.bytes / 1e3).round() as u64),
            kernel.operations / kernel.bytes,
            1e6 * arithmetic,
            1e6 * memory,
        ));
    }
    text
}
