//! The state of a head over a chunk of tokens, in parts.
//!
//! Every token scales the rows of the state by its decay and adds keys times values. Over a chunk
//! the state is what the first has become plus a sum of products, `S = d ⊙ S₀ + Σ keyᵢ·valueᵢ`, where
//! `d` is the product of the decays so far, and a key has been scaled by each decay since it came.
//! Decays are numbers between 0 and 1, taken one after the other: no quotient of two of their
//! products, and no exponential of a sum, is ever formed, so nothing overflows, and what underflows
//! has been forgotten.

use rwkv_core::{Error, kernel::Kernel, op};

use super::gemm::{multiply, packed};

/// The keys of a chunk.
pub(super) struct Keys<K> {
    kernel: K,
    /// The product of the decays so far.
    decay: Vec<f32>,
    /// Key after key, each decayed.
    keys: Vec<f32>,
    /// How many there will be.
    count: usize,
}

/// What some vectors find in the state, before the values are known.
pub(super) struct Reads {
    /// Vector after vector, each scaled as the first state was.
    vectors: Vec<f32>,
    /// What each finds in the keys: a row of as many as there will be, the later ones zeros.
    scores: Vec<f32>,
    count: usize,
}

impl<K: Kernel> Keys<K> {
    /// None of `count`, for a head of `n` channels.
    pub(super) fn new(kernel: K, n: usize, count: usize) -> Self {
        Self { kernel, decay: vec![1.0; n], keys: Vec::with_capacity(n * count), count }
    }

    /// Reads the state, as it is now, with a vector.
    pub(super) fn read(&self, x: &[f32], reads: &mut Reads) {
        let scaled = x.iter().zip(&self.decay).map(|(x, d)| x * d);
        reads.vectors.extend(scaled);
        let first = reads.scores.len();
        reads.scores.resize(first + self.count, 0.0);
        let there = self.keys.len() / x.len().max(1);
        if let Some(scores) = reads.scores.get_mut(first..first + there) {
            self.kernel.rows_f32(&self.keys, x, scores);
        }
    }

    /// Scales the state by the decay of a token.
    pub(super) fn decay(&mut self, w: &[f32]) {
        op::multiply(&mut self.decay, w);
        self.keys.chunks_exact_mut(w.len().max(1)).for_each(|key| op::multiply(key, w));
    }

    /// Adds a key.
    pub(super) fn push(&mut self, key: &[f32]) {
        self.keys.extend_from_slice(key);
    }

    /// The state after the chunk, with a value for every key.
    pub(super) fn apply(&self, values: &[f32], state: &mut [f32]) -> Result<(), Error> {
        let n = self.decay.len();
        for (row, d) in state.chunks_exact_mut(n.max(1)).zip(&self.decay) {
            row.iter_mut().for_each(|s| *s *= d);
        }
        let keys = packed(&self.keys, n)?;
        multiply(keys.reversed_axes(), packed(values, n)?, 1.0, state)
    }
}

impl Reads {
    /// None, of keys of which there will be `count`.
    pub(super) const fn new(count: usize) -> Self {
        Self { vectors: Vec::new(), scores: Vec::new(), count }
    }

    /// The scores of one of them.
    pub(super) fn scores(&self, index: usize) -> &[f32] {
        self.scores.chunks_exact(self.count.max(1)).nth(index).unwrap_or_default()
    }

    /// What they find in the first state, vector after vector.
    pub(super) fn before(&self, first: &[f32], n: usize, out: &mut [f32]) -> Result<(), Error> {
        multiply(packed(&self.vectors, n)?, packed(first, n)?, 0.0, out)
    }

    /// The same in all of the state, with a value for every key.
    pub(super) fn all(
        &self,
        (first, values): (&[f32], &[f32]),
        n: usize,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.before(first, n, out)?;
        multiply(packed(&self.scores, self.count)?, packed(values, n)?, 1.0, out)
    }
}
