//! Many prompts, one device.

use std::fmt;

use anyhow::Context;
use rwkv_embedded::agent::protocol::{Info, Memory, Token};
use serde::Serialize;

use super::{
    Begin, Computing, Cost, Course, Host, Recorded, Reference, Verdict, compare, explain,
    verdict::{Row, cost_rows, write_rows},
};
use crate::{cli::Grouped, device::Device, prompts::Case, trace::Trace};

/// What a device is held to, prompt by prompt.
pub enum Expected<'h, 'a> {
    /// What the host computes.
    Computed {
        /// The host.
        host: &'h mut Host<'a>,
        /// Where each prompt begins, and how tokens are chosen.
        begin: Begin<'h>,
        /// The prompts.
        cases: &'h [Case],
    },
    /// What was recorded.
    Golden {
        /// The trace.
        trace: &'h Trace,
        /// Looks for what is wrong, where the image is at hand.
        host: Option<&'h mut Host<'a>>,
    },
}

impl Expected<'_, '_> {
    /// Compares a device over a prompt, and looks for what is wrong if it is the first that differs.
    fn compare(
        &mut self,
        device: &mut Device,
        number: usize,
        case: &Case,
        is_first: bool,
        progress: &mut impl FnMut(&Token),
    ) -> anyhow::Result<Verdict> {
        let mut recorded;
        let (reference, begin): (&mut dyn Reference, _) = match self {
            Self::Computed { host, begin, .. } => (&mut **host, begin.clone()),
            Self::Golden { trace, host } => {
                let traced = trace.prompts.get(number).context("the trace has fewer prompts")?;
                let host = host.as_deref_mut().map(|host| host as &mut dyn Computing);
                recorded = Recorded::new(traced, host);
                (&mut recorded, trace.sampler.clone().into())
            }
        };
        let generate = case.generate as usize;
        let mut verdict = compare(device, reference, &begin, &case.tokens, generate, progress)?;
        if is_first {
            explain(device, reference, &begin, &case.tokens, &mut verdict);
        }
        Ok(verdict)
    }

    fn cases(&self) -> Vec<Case> {
        match self {
            Self::Computed { cases, .. } => cases.to_vec(),
            Self::Golden { trace, .. } => trace.cases(),
        }
    }

    fn image_bytes(&self) -> Option<u32> {
        let host = match self {
            Self::Computed { host, .. } => Some(host),
            Self::Golden { host, .. } => host.as_ref(),
        };
        host.map(|host| host.image().header().bytes())
    }
}

/// The device that was compared.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// Who it is and what it runs.
    pub info: Info,
    /// Bytes of the image, where it is at hand.
    pub image_bytes: Option<u32>,
    /// Its memory in use, if it could still tell.
    pub memory: Option<Memory>,
}

/// What was found for a prompt.
#[derive(Debug, Clone, Serialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its tokens.
    #[serde(skip)]
    pub prompt: Vec<u32>,
    /// What was found.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What was found for all prompts.
#[derive(Debug, Clone, Serialize)]
pub struct Validation {
    /// The device.
    #[serde(flatten)]
    pub facts: Facts,
    /// Whether a golden trace was the measure, and not what this host computes.
    pub golden: bool,
    /// Tokens that were compared.
    pub tokens: usize,
    /// Prompts that differ.
    pub differing: usize,
    /// Seconds that all of it took.
    pub seconds: f64,
    /// What a token cost, if the device counts instructions.
    pub instructions_per_token: Option<Cost>,
    /// Bytes of a medium that were read for a token, if the device's core cannot address its image.
    pub bytes_read_per_token: Option<Cost>,
    /// What a token cost, if the device is simulated and its simulator counts cycles.
    pub simulated_cycles_per_token: Option<Cost>,
    /// Each prompt.
    pub prompts: Vec<Named>,
}

/// A validation of one prompt, which needs no name.
#[derive(Debug, Serialize)]
pub struct Single<'a> {
    /// The device.
    #[serde(flatten)]
    pub facts: &'a Facts,
    /// What was found.
    #[serde(flatten)]
    pub verdict: &'a Verdict,
}

impl Validation {
    fn new(facts: Facts, golden: bool, prompts: Vec<Named>) -> Self {
        let all = Course::joined(prompts.iter().map(|named| &named.verdict.course));
        let verdicts = || prompts.iter().map(|named| &named.verdict);
        Self {
            golden,
            tokens: verdicts().map(|verdict| verdict.tokens).sum(),
            differing: verdicts().filter(|verdict| !verdict.is_equal()).count(),
            seconds: verdicts().map(|verdict| verdict.seconds).sum(),
            instructions_per_token: Cost::instructions(facts.info.tick, &all.ticks),
            bytes_read_per_token: Cost::bytes(&all.read),
            simulated_cycles_per_token: Cost::simulated_cycles(facts.info.tick, &all.ticks),
            facts,
            prompts,
        }
    }

    /// What the device was held to, in words.
    pub(super) const fn measure(&self) -> &'static str {
        if self.golden { "a golden trace" } else { "what this host computes" }
    }

    /// What a token cost, as far as it is known.
    pub(super) fn cost_rows(&self) -> Vec<Row> {
        cost_rows([
            self.instructions_per_token,
            self.bytes_read_per_token,
            self.simulated_cycles_per_token,
        ])
    }

    /// Whether the device computed the bits that were expected.
    pub const fn is_equal(&self) -> bool {
        self.differing == 0
    }

    /// The first prompt that differs.
    pub fn first(&self) -> Option<&Named> {
        self.prompts.iter().find(|named| !named.verdict.is_equal())
    }

    /// The only prompt.
    pub fn single(&self) -> Option<Single<'_>> {
        match &self.prompts[..] {
            [Named { verdict, .. }] => Some(Single { facts: &self.facts, verdict }),
            _ => None,
        }
    }
}

/// Compares a device prompt by prompt, each from the same start; `progress` hears of each token
/// that was compared and equal. After a difference the next prompt follows; what is wrong is looked
/// for once, where the first of them differs.
///
/// # Errors
/// Whatever leaves no verdict, with the name of the prompt.
pub fn validate_all(
    device: &mut Device,
    mut expected: Expected<'_, '_>,
    mut progress: impl FnMut(&Token),
) -> anyhow::Result<Validation> {
    let (cases, image_bytes) = (expected.cases(), expected.image_bytes());
    let mut prompts: Vec<Named> = Vec::with_capacity(cases.len());
    for (number, case) in cases.into_iter().enumerate() {
        let is_first = prompts.iter().all(|named| named.verdict.is_equal());
        let verdict = expected.compare(device, number, &case, is_first, &mut progress);
        let verdict = verdict.with_context(|| format!("there is no verdict on {}", case.name))?;
        prompts.push(Named { name: case.name, prompt: case.tokens, verdict });
    }
    let (info, memory) = (device.info().clone(), device.memory().ok());
    let golden = matches!(expected, Expected::Golden { .. });
    Ok(Validation::new(Facts { info, image_bytes, memory }, golden, prompts))
}

impl Facts {
    /// Names and texts.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = vec![("device", format!("{} ({})", self.info.board, self.info.core))];
        if let Ok(image) = &self.info.image {
            let size = match self.image_bytes {
                Some(bytes) => format!("{} bytes of flash", Grouped(bytes.into())),
                None => "which is not at hand".to_owned(),
            };
            let (identity, major) = (image.identity, image.version / 10);
            rows.push(("image", format!("{identity:08x}, RWKV-{major}, {size}")));
        }
        let Some(memory) = self.memory else { return rows };
        let parts = [
            ("state", Some(memory.state)),
            ("scratch", Some(memory.scratch)),
            ("buffers", Some(memory.buffers).filter(|bytes| *bytes > 0)),
            ("stack", memory.stack),
            ("statics", memory.statics),
            ("heap", Some(memory.heap)),
            ("firmware in flash", memory.flash),
        ];
        let known = parts
            .into_iter()
            .filter_map(|(name, bytes)| Some(format!("{name} {}", Grouped(bytes?.into()))));
        rows.push(("memory", format!("{} bytes", known.collect::<Vec<_>>().join(", "))));
        rows
    }
}

/// Lines of a table.
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rows(f, &self.rows())
    }
}

/// A table; its last line is the verdict in a sentence.
impl fmt::Display for Single<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.facts, self.verdict)
    }
}

/// A table, one of the prompts, and the verdict in a sentence.
impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts.fmt(f)?;
        writeln!(f, "held to       {}", self.measure())?;
        write_rows(f, &self.cost_rows())?;
        writeln!(f, "time          {:.2} s", self.seconds)?;
        writeln!(f)?;
        writeln!(f, "    prompt  generated  verdict            name")?;
        for Named { name, verdict, .. } in &self.prompts {
            let (prompt, generated) = (verdict.prompt_tokens, verdict.generated.len());
            let verdict = match &verdict.first_difference {
                None => "equal".to_owned(),
                Some(at) => format!("differs at {}", at.index),
            };
            writeln!(f, "{prompt:>10} {generated:>10}  {verdict:<18} {}", name.escape_debug())?;
        }
        writeln!(f)?;
        let (tokens, count) = (Grouped(self.tokens as u64), self.prompts.len());
        let Some(Named { name, verdict, .. }) = self.first() else {
            return write!(f, "{tokens} tokens, prompts: {count}, 0 differing bits");
        };
        if let Some(finding) = &verdict.finding {
            finding.fmt(f)?;
        }
        write!(f, "{} of {count} prompts differ; {}: ", self.differing, name.escape_debug())?;
        match &verdict.first_difference {
            Some(difference) => difference.fmt(f),
            None => Ok(()),
        }
    }
}
