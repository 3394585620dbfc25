//! Another order of sums, for speed and for floats alone: the crate `matrixmultiply` multiplies
//! matrices, and recurrences take many tokens at once. Nothing here has the bits of a step.

mod chunk;
mod gemm;
mod products;
mod weights;
mod wkv;

use rwkv_core::{
    Error,
    exec::{Lane, Span},
    kernel::Native,
};

use super::{
    arithmetic::{Arithmetic, Matrix},
    lanes::Lanes,
};

/// Whatever order is fast. What a vector finds in the keys of a chunk is computed by the core's
/// kernel.
#[derive(Clone, Copy)]
pub(in crate::prefill) struct Fast(pub(in crate::prefill) Native);

impl Arithmetic for Fast {
    const CHUNK: usize = 16;

    fn rows<S: Send>(
        self,
        matrix: Matrix<'_>,
        input: Span,
        lanes: Lanes<'_>,
        sinks: &mut [S],
        visit: impl Fn(&mut Lane<'_>, &mut S, usize, &[f32]) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        products::product(matrix, input, lanes, sinks, visit)
    }

    fn columns(
        self,
        matrix: Matrix<'_>,
        (k, acc): (Span, Span),
        lanes: Lanes<'_>,
    ) -> Result<(), Error> {
        let mut tokens = vec![(); lanes.len()];
        products::product(matrix, k, lanes, &mut tokens, |lane, (), first, rows| {
            lane.get_mut(acc.part(first, rows.len()))?.copy_from_slice(rows);
            Ok(())
        })
    }

    fn wkv5(
        self,
        params: &[f32],
        epsilon: f32,
        vectors: [&mut [f32]; 5],
        state: &mut [f32],
    ) -> Result<(), Error> {
        wkv::wkv5(self.0, params, epsilon, vectors, state)
    }

    fn wkv7(
        self,
        params: &[f32],
        epsilon: f32,
        vectors: [&mut [f32]; 8],
        state: &mut [f32],
    ) -> Result<(), Error> {
        wkv::wkv7(self.0, params, epsilon, vectors, state)
    }
}
