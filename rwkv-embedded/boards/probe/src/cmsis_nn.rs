//! `cmsis-nn`: instructions of the C library's products, for comparison.

use core::{
    ffi::{c_int, c_void},
    fmt::Write,
    hint::black_box,
};

use crate::{Memory, carve, cost::Counter, failure::Failure, platform::Out};

/// Weights, input, bias, results, rows and columns; returns 0 for success.
type Product = unsafe extern "C" fn(
    w: *const c_void,
    x: *const c_void,
    bias: *const c_void,
    y: *mut c_void,
    rows: c_int,
    cols: c_int,
) -> c_int;

macro_rules! products {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(fn $name(
                w: *const c_void,
                x: *const c_void,
                bias: *const c_void,
                y: *mut c_void,
                rows: c_int,
                cols: c_int,
            ) -> c_int;)*
        }
    };
}

products!(rwkv_cmsis_s8 rwkv_cmsis_s4 rwkv_cmsis_s16);

/// Rows and columns.
const SIZE: usize = 256;

/// Prints a line per product.
pub fn run(memory: Memory<'_>) -> Result<(), Failure> {
    let counter = Counter::new().ok_or(Failure::NoCounter)?;
    let products: [(&str, u8, Product); 3] = [
        ("cmsis-nn-s8", 8, rwkv_cmsis_s8),
        ("cmsis-nn-s4", 8, rwkv_cmsis_s4),
        ("cmsis-nn-s16", 16, rwkv_cmsis_s16),
    ];
    // Inputs and results have at most a word per element, the bias two.
    let [x, bias, y] = carve(memory.arena, [SIZE, 2 * SIZE, SIZE])?;
    if memory.window.len() < SIZE * SIZE {
        return Err(Failure::Usage("the weights do not fit"));
    }
    for (name, bits, product) in products {
        let mut status = 0;
        let cost = counter.cost(|| {
            let [w, x, bias] =
                [memory.window.as_ptr().cast(), x.as_ptr().cast(), bias.as_ptr().cast()];
            let (y, size) = (y.as_mut_ptr().cast(), SIZE as c_int);
            // SAFETY: a matrix of bytes or nibbles, and vectors of words or double words, each at
            // least as long as the product reads or writes.
            status |= unsafe { product(black_box(w), x, bias, y, size, size) };
        });
        if status != 0 {
            return Err(Failure::Usage("the library refuses"));
        }
        let cost = cost.per(SIZE * SIZE);
        let _ = writeln!(Out, "rows {name} {bits} {SIZE}x{SIZE} {cost}");
    }
    Ok(())
}
