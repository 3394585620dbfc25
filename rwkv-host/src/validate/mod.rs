//! Proves that a device computes the host's bits, or says where it does not.
//!
//! What is expected is what the host computes ([`Host`]), or what was recorded ([`Recorded`]).
//!
//! Device and host read the same prompt and continue it with the same sampler. After every token the digests of
//! the whole state and of all logits are compared, and the token that was read. There is no
//! tolerance: a difference is a fault of the device, its flash or this software. Which one, and in
//! which operation, [`bisect`] finds out.

mod bisect;
mod command;
mod finding;
mod recorded;
mod reference;
mod report;
mod validation;
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
pub use finding::{Cause, Compared, Finding, Pattern, Value, Wrong};
pub use recorded::Recorded;
pub use reference::{Computing, Host, Reference};
pub use report::Report;
pub use validation::{Expected, Facts, Named, Single, Validation, validate_all};
pub use verdict::{Cost, Course, Difference, Found, Verdict};

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
/// them after every token; `progress` hears of each that was compared and equal. After a difference
/// it looks for what is wrong.
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
    let begin = begin.into();
    let mut verdict = compare(device, reference, &begin, prompt, generate, &mut progress)?;
    explain(device, reference, &begin, prompt, &mut verdict);
    Ok(verdict)
}

/// As [`validate`], but does not look for what is wrong.
fn compare(
    device: &mut Device,
    reference: &mut dyn Reference,
    begin: &Begin<'_>,
    prompt: &[u32],
    generate: usize,
    progress: &mut impl FnMut(&Token),
) -> Result<Verdict, ValidateError> {
    let start = Instant::now();
    let mut run = Run::default();
    reference.reset();
    device.reset(begin.sampler.clone())?;
    if let Some(words) = begin.state {
        let restored = reference.restore(words);
        restored.map_err(|error| ValidateError::Host { index: 0, error: error.into() })?;
        device.write_state(words)?;
    }
    if prompt.is_empty() {
        return Err(ValidateError::EmptyPrompt);
    }
    for tokens in prompt.chunks(MAX_FEED) {
        let expected = expect(reference, tokens, run.compared)?;
        run.compare(&expected, progress, |on_token| device.feed(tokens, on_token))?;
        if run.difference.is_some() {
            break;
        }
    }
    let mut generated = Vec::new();
    while generated.len() < generate && run.difference.is_none() {
        let count = PIECE.min(generate - generated.len());
        let mut expected = Vec::with_capacity(count);
        for _ in 0..count {
            let index = run.compared + expected.len();
            let next = reference.choose();
            let next = next.map_err(|error| ValidateError::Sampler { index, error })?;
            expected.extend(expect(reference, &[next], index)?);
        }
        let compared = run.course.ticks.len();
        run.compare(&expected, progress, |on_token| device.generate(count as u32, on_token))?;
        let equal = expected.iter().take(run.course.ticks.len() - compared);
        generated.extend(equal.map(|expected| expected.token));
    }
    let tick = device.info().tick;
    Ok(Verdict {
        finding: None,
        tokens: run.compared,
        asked: prompt.len() + generate,
        prompt_tokens: prompt.len(),
        generated,
        differing_bits: run.difference.as_ref().map_or(0, Difference::bits),
        first_difference: run.difference,
        instructions_per_token: Cost::instructions(tick, &run.course.ticks),
        bytes_read_per_token: Cost::bytes(&run.course.read),
        simulated_cycles_per_token: Cost::simulated_cycles(tick, &run.course.ticks),
        seconds: start.elapsed().as_secs_f64(),
        course: run.course,
    })
}

/// Looks for what is wrong, if anything is.
fn explain(
    device: &mut Device,
    reference: &mut dyn Reference,
    begin: &Begin<'_>,
    prompt: &[u32],
    verdict: &mut Verdict,
) {
    let Some(at) = &verdict.first_difference else { return };
    let read = prompt.iter().chain(&verdict.generated);
    let before: Vec<u32> = read.copied().take(at.index).collect();
    let finding = if !at.is_computed() {
        Finding::Sampler
    } else if let Some(host) = reference.computing() {
        let found = find(device, host, begin.state, &before, at);
        found.unwrap_or_else(|error| Finding::Unknown { error: error.to_string() })
    } else {
        Finding::NoImage
    };
    verdict.finding = Some(finding);
}

/// Goes back to the state before a difference, and finds what is wrong there.
fn find(
    device: &mut Device,
    host: &mut dyn Computing,
    state: Option<&[f32]>,
    before: &[u32],
    at: &Difference,
) -> Result<Finding, ValidateError> {
    let failed = |error: CudaError| ValidateError::Host { index: at.index, error };
    host.reset();
    if let Some(words) = state {
        host.restore(words).map_err(|error| failed(error.into()))?;
    }
    if !before.is_empty() {
        host.feed(before).map_err(failed)?;
    }
    let words = host.state().map_err(|error| failed(error.into()))?;
    // What the device is held to comes from a trace, a GPU or a sequence: steps are the measure.
    let mut steps = Host::stepwise(host.image(), SamplerConfig::GREEDY)
        .map_err(|error| ValidateError::Sampler { index: at.index, error })?;
    steps.restore(&words).map_err(|error| failed(error.into()))?;
    let computed = steps.feed(&[at.token]).map_err(failed)?;
    if computed != [at.host] {
        let digest = computed.first().copied().unwrap_or_default();
        return Ok(Finding::Record { digest });
    }
    bisect(device, host.image(), &words, at.token).map_err(|error| match error {
        ValidateError::Host { error, .. } => failed(error),
        error => error,
    })
}

/// A token, and what it ought to lead to.
#[derive(Debug, Clone, Copy)]
struct Expectation {
    token: u32,
    digest: Digest,
    /// That it took to find out.
    seconds: f32,
}

/// What `tokens` ought to lead to; `first` is the index of the first of them.
fn expect(
    reference: &mut dyn Reference,
    tokens: &[u32],
    first: usize,
) -> Result<Vec<Expectation>, ValidateError> {
    let start = Instant::now();
    let digests = reference.feed(tokens);
    let digests = digests.map_err(|error| ValidateError::Host { index: first, error })?;
    let seconds = start.elapsed().as_secs_f32() / tokens.len() as f32;
    let pairs = tokens.iter().zip(digests);
    Ok(pairs.map(|(token, digest)| Expectation { token: *token, digest, seconds }).collect())
}

/// The comparison so far.
#[derive(Debug, Default)]
struct Run {
    /// Tokens that were compared, a differing one included.
    compared: usize,
    /// What the equal ones took.
    course: Course,
    difference: Option<Difference>,
}

impl Run {
    /// Runs a request and compares its tokens with what is expected, up to the first difference.
    fn compare(
        &mut self,
        expected: &[Expectation],
        progress: &mut impl FnMut(&Token),
        request: impl FnOnce(&mut dyn FnMut(Token)) -> Result<(), DeviceError>,
    ) -> Result<(), ValidateError> {
        let mut expected = expected.iter();
        let result = request(&mut |found| {
            if self.difference.is_some() {
                return;
            }
            let Some(Expectation { token, digest, seconds }) = expected.next() else { return };
            let index = self.compared;
            self.compared += 1;
            if (found.token, found.digest) == (*token, *digest) {
                self.course.ticks.push(found.ticks);
                self.course.read.push(found.read);
                self.course.host.push(*seconds);
                progress(&found);
            } else {
                let device = Found::Token(found);
                self.difference = Some(Difference { index, token: *token, host: *digest, device });
            }
        });
        let missing = expected.next().filter(|_| self.difference.is_none());
        match (result, missing) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(_)) => Err(DeviceError::OutOfTurn { awaited: "a token" }.into()),
            (Err(DeviceError::Refused(error @ AgentError::Model(_))), Some(expected)) => {
                let (index, token, host) = (self.compared, expected.token, expected.digest);
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
