//! A trace against this host.

use std::{fmt, time::Instant};

use anyhow::Context;
use rwkv_core::{Digest, Image};
use serde::Serialize;

use super::{PIECE, Trace, Traced};
use crate::{
    cli::Grouped,
    prefill::cuda::CudaError,
    validate::{Host, Reference},
};

/// What a check of a trace found.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was found, prompt by prompt.
    pub prompts: Vec<Checked>,
    /// Tokens that were computed.
    pub tokens: usize,
    /// Seconds that they took.
    pub seconds: f64,
    /// How many there were in a second.
    pub tokens_per_second: f64,
}

/// What was found for a prompt.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// Tokens that were computed, those that follow the prompt included.
    pub tokens: usize,
    /// The first whose digest is not the trace's.
    pub first_difference: Option<Mismatch>,
}

/// Where a trace and this host differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Which token, the prompt's first being 0.
    pub index: usize,
    /// The token.
    pub token: u32,
    /// The digest in the trace.
    pub trace: Digest,
    /// The digest that the host finds.
    pub host: Digest,
}

impl Check {
    /// Whether the host computes what the trace says.
    pub fn is_equal(&self) -> bool {
        self.prompts.iter().all(|checked| checked.first_difference.is_none())
    }
}

/// Computes all tokens of a trace anew, by parallel prefill, and compares the digests; `progress`
/// hears of tokens that are done.
///
/// # Errors
/// If the trace is of another image, or the host cannot compute its tokens.
pub fn check(
    image: &Image<'_>,
    trace: &Trace,
    mut progress: impl FnMut(usize),
) -> anyhow::Result<Check> {
    trace.check_image(image)?;
    let mut host = Host::parallel(image, trace.sampler.clone())?;
    let start = Instant::now();
    let mut check = |traced: &Traced| {
        check_one(&mut host, traced, &mut progress)
            .with_context(|| format!("the host cannot compute {}", traced.name))
    };
    let prompts = trace.prompts.iter().map(&mut check).collect::<anyhow::Result<Vec<_>>>()?;
    let seconds = start.elapsed().as_secs_f64();
    let tokens = prompts.iter().map(|checked| checked.tokens).sum();
    Ok(Check { prompts, tokens, seconds, tokens_per_second: tokens as f64 / seconds })
}

fn check_one(
    host: &mut Host<'_>,
    traced: &Traced,
    progress: &mut impl FnMut(usize),
) -> Result<Checked, CudaError> {
    host.reset();
    let tokens: Vec<u32> = traced.tokens().collect();
    let mut first_difference = None;
    for (piece, (tokens, digests)) in
        tokens.chunks(PIECE).zip(traced.digests.chunks(PIECE)).enumerate()
    {
        let found = host.feed(tokens)?;
        let mut pairs = digests.iter().zip(found).zip(tokens).enumerate();
        let differs = pairs.find(|(_, ((trace, host), _))| *trace != host);
        progress(tokens.len());
        if let Some((at, ((trace, host), token))) = differs {
            let index = piece * PIECE + at;
            first_difference.get_or_insert(Mismatch { index, token: *token, trace: *trace, host });
        }
    }
    Ok(Checked { name: traced.name.clone(), tokens: tokens.len(), first_difference })
}

/// A table; its last line is the verdict in a sentence.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prompts, tokens, seconds, tokens_per_second } = self;
        let speed = Grouped(*tokens_per_second as u64);
        writeln!(f, "prompts       {}", Grouped(prompts.len() as u64))?;
        writeln!(f, "time          {seconds:.2} s, {speed} tokens/s")?;
        let mut differing = prompts
            .iter()
            .filter_map(|checked| Some((&checked.name, checked.first_difference.as_ref()?)));
        let count = differing.clone().count();
        let tokens = Grouped(*tokens as u64);
        let Some((name, at)) = differing.next() else {
            return write!(f, "{tokens} tokens, 0 that differ from the trace");
        };
        writeln!(f, "differ        {count} of {} prompts", prompts.len())?;
        let Mismatch { index, token, trace, host } = at;
        write!(
            f,
            "{name}: token {index} differs: after reading {token}, the trace has digest \
             {:08x}{:08x}, this host {:08x}{:08x}",
            trace.0, trace.1, host.0, host.1
        )
    }
}
