//! What is expected by a golden trace.

use rwkv_core::{Digest, Error, sampler::SamplerError};

use super::{Computing, Reference};
use crate::{prefill::cuda::CudaError, trace::Traced};

/// A traced prompt in the place of a computation.
pub struct Recorded<'a> {
    traced: &'a Traced,
    /// Tokens that were read.
    read: usize,
    host: Option<&'a mut dyn Computing>,
}

impl<'a> Recorded<'a> {
    /// With a host that looks for what is wrong, where the image is at hand.
    pub fn new(traced: &'a Traced, host: Option<&'a mut dyn Computing>) -> Self {
        Self { traced, read: 0, host }
    }
}

impl Reference for Recorded<'_> {
    fn reset(&mut self) {
        self.read = 0;
    }

    /// A trace begins where the image does: no other state is its own.
    fn restore(&mut self, words: &[f32]) -> Result<(), Error> {
        Err(Error::StateSize { needed: 0, given: words.len() as u32 })
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<Digest>, CudaError> {
        let expected = self.traced.tokens().zip(&self.traced.digests).skip(self.read);
        let pairs = tokens.iter().zip(expected);
        let digests: Vec<Digest> = pairs
            .take_while(|(token, (expected, _))| *token == expected)
            .map(|(_, (_, digest))| *digest)
            .collect();
        if digests.len() != tokens.len() {
            return Err(Error::Internal.into());
        }
        self.read += tokens.len();
        Ok(digests)
    }

    fn choose(&mut self) -> Result<u32, SamplerError> {
        let next = self.read.checked_sub(self.traced.prompt.len());
        let token = next.and_then(|index| self.traced.generated.get(index));
        token.copied().ok_or(SamplerError::NoLogits)
    }

    fn computing(&mut self) -> Option<&mut dyn Computing> {
        match &mut self.host {
            Some(host) => Some(&mut **host),
            None => None,
        }
    }
}
