//! What a sequence may compute with its sums in more than one order.

use rwkv_core::{
    Error,
    exec::{Lane, Span},
    image::Record,
};

use super::lanes::Lanes;

/// A matrix in the image: its record, and the words of its weights.
#[derive(Clone, Copy)]
pub(in crate::prefill) struct Matrix<'a> {
    pub(super) record: &'a Record,
    pub(super) words: &'a [u32],
}

/// Products and recurrences. All else that a sequence does has one order for every arithmetic.
pub(in crate::prefill) trait Arithmetic: Copy + Send + Sync {
    /// Tokens that a recurrence takes at once.
    const CHUNK: usize;

    /// The product of a row-major matrix with the vector in `input`, for the last tokens, as many
    /// as there are sinks: `visit` gets a token's outputs from a row on, in order.
    fn rows<S: Send>(
        self,
        matrix: Matrix<'_>,
        input: Span,
        lanes: Lanes<'_>,
        sinks: &mut [S],
        visit: impl Fn(&mut Lane<'_>, &mut S, usize, &[f32]) -> Result<(), Error> + Sync,
    ) -> Result<(), Error>;

    /// `acc = W·k` with an input-major matrix, whose words end before its scales. `acc` is open, and
    /// `k` quantised where the matrix holds integers.
    fn columns(
        self,
        matrix: Matrix<'_>,
        spans: (Span, Span),
        lanes: Lanes<'_>,
    ) -> Result<(), Error>;

    /// The recurrence of versions 5 and 6 for a head and some tokens, [`Self::CHUNK`] at most:
    /// `r, w, k, v, y` of [`rwkv_core::op::Head5`], a token's behind those of the one before.
    fn wkv5(
        self,
        params: &[f32],
        epsilon: f32,
        vectors: [&mut [f32]; 5],
        state: &mut [f32],
    ) -> Result<(), Error>;

    /// The same for version 7: `r, w, k, v, a, g, kk, y` of [`rwkv_core::op::Head7`].
    fn wkv7(
        self,
        params: &[f32],
        epsilon: f32,
        vectors: [&mut [f32]; 8],
        state: &mut [f32],
    ) -> Result<(), Error>;
}
