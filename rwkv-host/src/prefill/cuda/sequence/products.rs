//! Products: inputs are quantised where the matrix asks for it, and a kernel multiplies.

use rwkv_core::{
    Logits,
    image::{Format, GROUP, Record},
};

use super::{Placed, Sequence, THREADS};
use crate::prefill::cuda::{
    CudaError, Driver, Products,
    driver::Argument::{self, Address, Word},
};

/// Threads of a block that quantises the input of a token.
const QUANTISE_THREADS: u32 = 128;
/// Rows and tokens of a block of a product: of a row-major one of floats, and of all others.
const SIDE_EIGHT: u32 = 32;
const SIDE: u32 = 64;
/// An input as it is; other codes are those of token shifts.
const PLAIN: u32 = 0;

/// The inputs of a product: a vector of each of some tokens.
#[derive(Clone, Copy)]
pub(super) struct Vectors {
    /// Of the first token.
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) tokens: u32,
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// Of the first token.
    pub(super) address: u64,
    pub(super) gate: u64,
    /// Words from one token to the next.
    pub(super) stride: u32,
    pub(super) f: u32,
}

impl<D: Driver, L: Logits> Sequence<'_, D, L> {
    /// Quantises the inputs of an integer product.
    pub(super) fn quantise(
        &self,
        x: Vectors,
        [kind, mix, tile, carry]: [Argument; 4],
        bits: u8,
    ) -> Result<(), CudaError> {
        let memory = &self.on.memory;
        let inputs = Address(self.on.driver.address(&memory.inputs));
        let scales = Address(self.on.driver.address(&memory.scales));
        let (stride, plane) = (Word(self.stride()), self.plane(&x));
        let (x_at, x_len, bits) = (Address(x.address), Word(x.len), Word(bits.into()));
        let arguments = [
            kind,
            mix,
            tile,
            carry,
            x_at,
            stride,
            x_len,
            bits,
            inputs,
            plane,
            scales,
            self.failed(),
        ];
        self.launch("quantise", [x.tokens, 1], QUANTISE_THREADS, &arguments)
    }

    /// Words from the plane of low bytes to that of high bytes.
    fn plane(&self, x: &Vectors) -> Argument {
        Word(x.tokens * x.len.div_ceil(GROUP as u32) * (GROUP as u32 / 4))
    }

    /// The product of a matrix with inputs that are in place: quantised, or floats.
    pub(super) fn multiply_matrix(
        &self,
        placed: Placed,
        columns: bool,
        x: Vectors,
        target: Target,
    ) -> Result<(), CudaError> {
        let record = placed.record;
        let (rows, cols) = (Word(record.rows), Word(record.cols));
        let matrix = [placed.payload, rows, cols, Word(record.tile_rows.into())];
        let tokens = Word(x.tokens);
        let Target { address, gate, stride, f } = target;
        let into = [Address(address), Address(gate), Word(stride), Word(f), tokens];
        let side = if columns || record.format.is_integer() { SIDE } else { SIDE_EIGHT };
        let grid = [record.rows.div_ceil(side), x.tokens.div_ceil(side)];
        let input = if record.format.is_integer() {
            let memory = &self.on.memory;
            let inputs = Address(self.on.driver.address(&memory.inputs));
            let scales = Address(self.on.driver.address(&memory.scales));
            vec![inputs, self.plane(&x), scales]
        } else {
            vec![Address(x.address), Word(self.stride())]
        };
        let kernel = product_kernel(&record, columns, self.on.options.products)?;
        self.launch(kernel, grid, THREADS, &[&matrix[..], &input, &into].concat())
    }

    /// The product of a matrix with vectors as they are.
    pub(super) fn plain_product(
        &self,
        placed: Placed,
        columns: bool,
        x: Vectors,
        target: Target,
    ) -> Result<(), CudaError> {
        if placed.record.format.is_integer() {
            let none = [Word(PLAIN), Address(0), Word(1), Address(0)];
            self.quantise(x, none, placed.record.bits)?;
        }
        self.multiply_matrix(placed, columns, x, target)
    }
}

/// The kernel for a matrix.
fn product_kernel(
    record: &Record,
    columns: bool,
    products: Products,
) -> Result<&'static str, CudaError> {
    use {
        Format::{F16, F32, Int4, Int4Lanes, Int8},
        Products::{Dot4, Tensor},
    };
    let wide = record.bits > 8;
    Ok(match (columns, record.format, products, wide) {
        (false, F32, ..) => "rows_f32",
        (false, F16, ..) => "rows_f16",
        (true, F32, ..) => "columns_f32",
        (true, F16, ..) => "columns_f16",
        (false, Int8, Dot4, false) => "rows_int8_dot4_8",
        (false, Int8, Dot4, true) => "rows_int8_dot4_15",
        (false, Int8, Tensor, false) => "rows_int8_tensor_8",
        (false, Int8, Tensor, true) => "rows_int8_tensor_15",
        (false, Int4, Dot4, false) => "rows_int4_dot4_8",
        (false, Int4, Dot4, true) => "rows_int4_dot4_15",
        (false, Int4, Tensor, false) => "rows_int4_tensor_8",
        (false, Int4, Tensor, true) => "rows_int4_tensor_15",
        (false, Int4Lanes, Dot4, false) => "rows_int4_lanes_dot4_8",
        (false, Int4Lanes, Dot4, true) => "rows_int4_lanes_dot4_15",
        (false, Int4Lanes, Tensor, false) => "rows_int4_lanes_tensor_8",
        (false, Int4Lanes, Tensor, true) => "rows_int4_lanes_tensor_15",
        (true, Int8, Dot4, false) => "columns_int8_dot4_8",
        (true, Int8, Dot4, true) => "columns_int8_dot4_15",
        (true, Int8, Tensor, false) => "columns_int8_tensor_8",
        (true, Int8, Tensor, true) => "columns_int8_tensor_15",
        (true, Int4, Dot4, false) => "columns_int4_dot4_8",
        (true, Int4, Dot4, true) => "columns_int4_dot4_15",
        (true, Int4, Tensor, false) => "columns_int4_tensor_8",
        (true, Int4, Tensor, true) => "columns_int4_tensor_15",
        // `Record::parse` refuses it.
        (true, Int4Lanes, ..) => return Err(CudaError::Internal),
    })
}
