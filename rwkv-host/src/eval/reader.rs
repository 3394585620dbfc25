//! Reads a text with one image, on either path.

use rwkv_core::Image;

use super::{Deviation, EvalError};
use crate::{
    memory::Memory,
    prefill::{
        fast::{self, BOUND, FastReader},
        prefill,
    },
};

/// Tokens of the start of a text that both paths read.
const CHECKED: usize = 256;

/// An image that reads a text.
pub(super) struct Reader<'a> {
    image: &'a Image<'a>,
    exact: Memory,
    fast: Option<Checked<'a>>,
    logits: Vec<f32>,
}

/// The fast path, and how far it was from the exact one on the tokens that both have read.
struct Checked<'a> {
    reader: FastReader<'a>,
    checked: Deviation,
}

impl<'a> Reader<'a> {
    pub(super) fn new(image: &'a Image<'a>, fast: bool) -> Result<Self, EvalError> {
        let open = || {
            let checked = Deviation { tokens: 0, largest: 0.0 };
            Ok::<_, EvalError>(Checked { reader: FastReader::new(image)?, checked })
        };
        let fast = fast.then(open).transpose()?;
        Ok(Self { image, exact: Memory::new(image), fast, logits: Vec::new() })
    }

    /// The logits after each of the tokens.
    ///
    /// # Errors
    /// [`EvalError::Apart`] if the fast path turns out to be too far from the exact one.
    pub(super) fn read(&mut self, tokens: &[u32]) -> Result<&[f32], EvalError> {
        let vocab = self.image.header().dims.vocab as usize;
        self.logits.resize(tokens.len() * vocab, 0.0);
        let mut sinks = sinks(&mut self.logits, vocab);
        let Some(Checked { reader, checked }) = &mut self.fast else {
            prefill(self.image, self.exact.state(self.image)?, tokens, &mut sinks)?;
            return Ok(&self.logits);
        };
        reader.read(tokens, &mut sinks)?;
        let both = &tokens[..tokens.len().min(CHECKED - checked.tokens)];
        if !both.is_empty() {
            let mut exact = vec![0.0; both.len() * vocab];
            let state = self.exact.state(self.image)?;
            prefill(self.image, state, both, &mut self::sinks(&mut exact, vocab))?;
            let apart = fast::deviation(&exact, &self.logits[..exact.len()], vocab);
            checked.largest = checked.largest.max(apart);
            checked.tokens += both.len();
            if checked.largest > BOUND {
                return Err(EvalError::Apart(checked.largest));
            }
        }
        Ok(&self.logits)
    }

    /// How far the fast path was from the exact one, if it was taken.
    pub(super) fn deviation(self) -> Option<Deviation> {
        self.fast.map(|fast| fast.checked)
    }
}

fn sinks(logits: &mut [f32], vocab: usize) -> Vec<&mut [f32]> {
    logits.chunks_exact_mut(vocab).collect()
}
