//! Proves that a device computes the host's bits, or says where it does not.
//!
//! Device and host read the same prompt and continue it with the same sampler. After every token the digests of
//! the whole state and of all logits are compared, and the token that was read. There is no
//! tolerance: a difference is a fault of the device, its flash or this software. Which one, and in
//! which operation, [`bisect`] finds out.

mod bisect;
mod command;
mod finding;
mod reference;
mod verdict;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Instant;

use rwkv_core::{
    Digest,
    sampler::{SamplerConfig, SamplerError},
};
use rwkv_embedded::agent::protocol::{AgentError, MAX_FEED, SamplerSettings, Token};
use thiserror::Error as ThisError;

pub use bisect::bisect;
pub use command::{ValidateArgs, command};
pub use finding::{Cause, Finding, Pattern, Value, Wrong};
pub use reference::{Host, Reference};
pub use verdict::{Cost, Difference, Found, Verdict};

use crate::{
    device::{Device, DeviceError, Refusal},
    prefill::cuda::CudaError,
};

/// Tokens generated between two comparisons.
const PIECE: usize = 16;

/// Why a validation has no verdict.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ValidateError {
    /// There is nothing to read.
    #[error("the prompt is empty; give at least one token")]
    EmptyPrompt,
    /// The host cannot compute a token.
    #[error("the host cannot compute tokens from {index} on: {error}")]
    Host {
        /// The first of the tokens that it was about to compute.
        index: usize,
        /// Why.
        error: CudaError,
    },
    /// The host's sampler chooses none.
    #[error("the host cannot choose token {index}: {error}; change the sampler's settings")]
    Sampler {
        /// The index of the token.
        index: usize,
        /// Why.
        error: SamplerError,
    },
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Where a validation begins, and what it chooses tokens with.
#[derive(Debug, Clone)]
pub struct Begin<'a> {
    /// The sampler's settings: those that the reference has.
    pub sampler: SamplerSettings,
    /// The state to go on from, in the order of `StateView::words`; without one, where the image
    /// begins.
    pub state: Option<&'a [f32]>,
}

impl From<SamplerSettings> for Begin<'_> {
    fn from(sampler: SamplerSettings) -> Self {
        Self { sampler, state: None }
    }
}

impl From<SamplerConfig> for Begin<'_> {
    fn from(sampler: SamplerConfig) -> Self {
        SamplerSettings::from(sampler).into()
    }
}

/// Has `device` and `reference` read `prompt` and continue it by `generate` tokens, and compares
/// them after every token; `progress` hears of each that was compared and equal.
///
/// # Errors
/// A difference is a verdict, a device that refuses to compute a token included. An error is
/// whatever leaves no verdict.
pub fn validate<'a>(
    device: &mut Device,
    reference: &mut dyn Reference,
    begin: impl Into<Begin<'a>>,
    prompt: &[u32],
    generate: usize,
    mut progress: impl FnMut(&Token),
) -> Result<Verdict, ValidateError> {
    let start = Instant::now();
    let mut run = Run::default();
    let Begin { sampler, state } = begin.into();
    reference.reset();
    device.reset(sampler)?;
    if let Some(words) = state {
        reference
            .restore(words)
            .map_err(|error| ValidateError::Host { index: 0, error: error.into() })?;
        device.write_state(words)?;
    }
    if prompt.is_empty() {
        return Err(ValidateError::EmptyPrompt);
    }
    for tokens in prompt.chunks(MAX_FEED) {
        let expected = expect(reference, tokens, run.compared)?;
        run.compare(&expected, &mut progress, |on_token| device.feed(tokens, on_token))?;
        if run.difference.is_some() {
            break;
        }
    }
    let mut generated = Vec::new();
    while generated.len() < generate && run.difference.is_none() {
        let count = PIECE.min(generate - generated.len());
        let mut expected = Vec::with_capacity(count);
        for _ in 0..count {
            let next = reference.choose().map_err(|error| ValidateError::Sampler {
                index: run.compared + expected.len(),
                error,
            })?;
            expected.extend(expect(reference, &[next], run.compared + expected.len())?);
        }
        let compared = run.ticks.len();
        run.compare(&expected, &mut progress, |on_token| device.generate(count as u32, on_token))?;
        let equal = expected.iter().take(run.ticks.len() - compared);
        generated.extend(equal.map(|(token, _)| *token));
    }
    let seconds = start.elapsed().as_secs_f64();
    let finding = run.difference.as_ref().map(|at| {
        if !at.is_computed() {
            return Finding::Sampler;
        }
        let before: Vec<u32> = prompt.iter().chain(&generated).copied().take(at.index).collect();
        find(device, reference, state, &before, at)
            .unwrap_or_else(|error| Finding::Unknown { error: error.to_string() })
    });
    let info = device.info().clone();
    Ok(Verdict {
        image_bytes: reference.image().header().bytes(),
        finding,
        tokens: run.compared,
        prompt_tokens: prompt.len(),
        generated,
        differing_bits: run.difference.as_ref().map_or(0, Difference::bits),
        first_difference: run.difference,
        instructions_per_token: Cost::instructions(info.tick, &run.ticks),
        bytes_read_per_token: Cost::bytes(&run.read),
        simulated_cycles_per_token: Cost::simulated_cycles(info.tick, &run.ticks),
        seconds,
        memory: device.memory().ok(),
        info,
    })
}

/// Goes back to the state before a difference, and finds what is wrong there.
fn find(
    device: &mut Device,
    reference: &mut dyn Reference,
    state: Option<&[f32]>,
    before: &[u32],
    at: &Difference,
) -> Result<Finding, ValidateError> {
    let failed = |error: CudaError| ValidateError::Host { index: at.index, error };
    reference.reset();
    if let Some(words) = state {
        reference.restore(words).map_err(|error| failed(error.into()))?;
    }
    if !before.is_empty() {
        reference.feed(before).map_err(failed)?;
    }
    let words = reference.state().map_err(|error| failed(error.into()))?;
    bisect(device, reference.image(), &words, at.token).map_err(|error| match error {
        ValidateError::Host { error, .. } => failed(error),
        error => error,
    })
}

/// Tokens, and the host's digest of each; `first` is the index of the first of them.
fn expect(
    reference: &mut dyn Reference,
    tokens: &[u32],
    first: usize,
) -> Result<Vec<(u32, Digest)>, ValidateError> {
    let digests = reference.feed(tokens);
    let digests = digests.map_err(|error| ValidateError::Host { index: first, error })?;
    Ok(tokens.iter().copied().zip(digests).collect())
}

/// The comparison so far.
#[derive(Debug, Default)]
struct Run {
    /// Tokens that were compared, a differing one included.
    compared: usize,
    /// What the equal ones took.
    ticks: Vec<u32>,
    /// And the bytes that were read for them.
    read: Vec<u32>,
    difference: Option<Difference>,
}

impl Run {
    /// Runs a request and compares its tokens with what is expected, up to the first difference.
    fn compare(
        &mut self,
        expected: &[(u32, Digest)],
        progress: &mut impl FnMut(&Token),
        request: impl FnOnce(&mut dyn FnMut(Token)) -> Result<(), DeviceError>,
    ) -> Result<(), ValidateError> {
        let mut expected = expected.iter();
        let result = request(&mut |found| {
            if self.difference.is_some() {
                return;
            }
            let Some((token, host)) = expected.next() else { return };
            let index = self.compared;
            self.compared += 1;
            if (found.token, found.digest) == (*token, *host) {
                self.ticks.push(found.ticks);
                self.read.push(found.read);
                progress(&found);
            } else {
                let device = Found::Token(found);
                self.difference = Some(Difference { index, token: *token, host: *host, device });
            }
        });
        let missing = expected.next().filter(|_| self.difference.is_none());
        match (result, missing) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(_)) => Err(DeviceError::OutOfTurn { awaited: "a token" }.into()),
            (Err(DeviceError::Refused(error @ AgentError::Model(_))), Some((token, host))) => {
                let (index, token, host) = (self.compared, *token, *host);
                self.compared += 1;
                let device = Found::Refused(Refusal(error).to_string());
                self.difference = Some(Difference { index, token, host, device });
                Ok(())
            }
            // The difference came first; what the wrong values led to is no news.
            (Err(DeviceError::Refused(_)), None) if self.difference.is_some() => Ok(()),
            (Err(error), _) => Err(error.into()),
        }
    }
}
