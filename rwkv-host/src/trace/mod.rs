//! Golden traces: what an image computes, as digests, so that later firmware is checked against it
//! without the model that it came from.
//!
//! A trace has token ids and a digest for each token, and neither weights nor logits. The layout is
//! written down in the book, chapter *Devices*.

mod check;
mod command;
mod summary;

#[cfg(test)]
mod tests;

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, ensure};
use rwkv_core::{
    Digest, Image,
    image::CRC,
    sampler::{Banned, SamplerError},
};
use rwkv_embedded::agent::protocol::{ImageInfo, SamplerSettings};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use check::{Check, Checked, Mismatch, check};
pub use command::{TraceArgs, command};

use crate::{
    file,
    prompts::Case,
    validate::{Host, Reference, ValidateError},
};

/// The version of the layout that this tool reads and writes.
pub const TRACE_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"RWKT";
/// Magic, version, two zeros, bytes of the content.
const FRONT: usize = 12;
/// The CRC-32 at the end.
const END: usize = 4;
/// Tokens that are read at once.
const PIECE: usize = 1024;

/// What an image computes for some prompts.
///
/// The order of the fields, and theirs, is the layout: a change is another [`TRACE_VERSION`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The image.
    pub image: ImageInfo,
    /// How tokens were chosen.
    pub sampler: SamplerSettings,
    /// The prompts, each from where the image begins.
    pub prompts: Vec<Traced>,
}

/// What an image computes for a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// What it is called.
    pub name: String,
    /// Its tokens, at least one.
    pub prompt: Vec<u32>,
    /// The tokens that were chosen to follow it.
    pub generated: Vec<u32>,
    /// The digest that each of them all leads to.
    pub digests: Vec<Digest>,
}

impl Traced {
    /// Prompt and continuation.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        self.prompt.iter().chain(&self.generated).copied()
    }
}

/// Why a trace is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The first four bytes are not `RWKT`.
    #[error("not a trace: the first four bytes are not `RWKT`")]
    Magic,
    /// A layout that this tool does not know.
    #[error(
        "trace layout version {0} is unknown: this tool reads version {TRACE_VERSION}; use the \
         version of the tool that wrote the trace, or record it anew"
    )]
    Version(u16),
    /// Bytes are missing.
    #[error("the trace is cut short: {given} bytes, {needed} expected")]
    Short {
        /// Bytes that there should be.
        needed: u64,
        /// Bytes that there are.
        given: u64,
    },
    /// Something follows it.
    #[error("there is more behind the {needed} bytes of the trace")]
    Long {
        /// Bytes that there should be.
        needed: u64,
    },
    /// The CRC-32 does not match.
    #[error("the trace is damaged: its CRC-32 does not match")]
    Checksum,
    /// The checksum is right, and what it covers makes no sense.
    #[error("the content of the trace makes no sense: {0}")]
    Content(&'static str),
    /// The sampler's settings are none.
    #[error("the trace's sampler: {0}")]
    Sampler(SamplerError),
    /// It is of another image.
    #[error("the trace is of image {trace:08x}, this is image {image:08x}")]
    OtherImage {
        /// Identity of the trace's image.
        trace: u32,
        /// Identity of the image at hand.
        image: u32,
    },
}

/// Bytes of the content that a trace's front announces.
fn announced(bytes: &[u8]) -> Result<u32, TraceError> {
    let Some(front) = bytes.first_chunk::<FRONT>() else {
        let is_other = !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]);
        let (needed, given) = ((FRONT + END) as u64, bytes.len() as u64);
        return Err(if is_other { TraceError::Magic } else { TraceError::Short { needed, given } });
    };
    let [.., v0, v1, r0, r1, l0, l1, l2, l3] = *front;
    if !front.starts_with(&MAGIC) {
        return Err(TraceError::Magic);
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version != TRACE_VERSION {
        return Err(TraceError::Version(version));
    }
    if [r0, r1] != [0, 0] {
        return Err(TraceError::Content("a reserved byte of its front is not zero"));
    }
    Ok(u32::from_le_bytes([l0, l1, l2, l3]))
}

/// Whether these bytes are a trace, be it damaged.
pub fn is_trace(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

impl Trace {
    /// What `image` computes for `cases` on this host; `progress` hears of tokens that are done.
    ///
    /// # Errors
    /// Those of the host, with the name of the prompt.
    pub fn record(
        image: &Image<'_>,
        sampler: SamplerSettings,
        cases: &[Case],
        mut progress: impl FnMut(usize),
    ) -> anyhow::Result<Self> {
        let mut host = Host::parallel(image, sampler.clone())?;
        let mut record = |case: &Case| {
            record(&mut host, case, &mut progress)
                .with_context(|| format!("cannot trace {}", case.name))
        };
        let prompts = cases.iter().map(&mut record).collect::<anyhow::Result<_>>()?;
        Ok(Self { image: ImageInfo::of(image), sampler, prompts })
    }

    /// Tokens of all prompts and their continuations.
    pub fn tokens(&self) -> usize {
        self.prompts.iter().map(|traced| traced.digests.len()).sum()
    }

    /// Its prompts, to be computed again.
    pub fn cases(&self) -> Vec<Case> {
        let case = |traced: &Traced| Case {
            name: traced.name.clone(),
            tokens: traced.prompt.clone(),
            generate: traced.generated.len() as u32,
        };
        self.prompts.iter().map(case).collect()
    }

    /// Whether it is of this image.
    ///
    /// # Errors
    /// [`TraceError::OtherImage`].
    pub fn check_image(&self, image: &Image<'_>) -> Result<(), TraceError> {
        let image = ImageInfo::of(image);
        if self.image == image {
            return Ok(());
        }
        Err(TraceError::OtherImage { trace: self.image.identity, image: image.identity })
    }

    /// The bytes of a trace file.
    ///
    /// # Errors
    /// If there are more than 4 GB.
    pub fn to_bytes(&self) -> anyhow::Result<Vec<u8>> {
        let content = postcard::to_extend(self, Vec::new())?;
        let length = u32::try_from(content.len()).context("a trace has 4 GB at most")?;
        let mut bytes = [&MAGIC[..], &TRACE_VERSION.to_le_bytes(), &[0; 2]].concat();
        bytes.extend(length.to_le_bytes());
        bytes.extend(content);
        bytes.extend(CRC.checksum(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// Reads a trace.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, TraceError> {
        let needed = (FRONT + END) as u64 + u64::from(announced(bytes)?);
        let given = bytes.len() as u64;
        if given < needed {
            return Err(TraceError::Short { needed, given });
        }
        if given > needed {
            return Err(TraceError::Long { needed });
        }
        let (covered, crc) = bytes.split_at(bytes.len() - END);
        if CRC.checksum(covered).to_le_bytes() != crc {
            return Err(TraceError::Checksum);
        }
        let (trace, rest): (Self, _) = postcard::take_from_bytes(&covered[FRONT..])
            .map_err(|_| TraceError::Content("it is no list of prompts with their digests"))?;
        if !rest.is_empty() {
            return Err(TraceError::Content("something follows the last prompt"));
        }
        trace.validate()?;
        Ok(trace)
    }

    fn validate(&self) -> Result<(), TraceError> {
        self.sampler.config.validate().map_err(TraceError::Sampler)?;
        Banned::new(&self.sampler.banned).map_err(TraceError::Sampler)?;
        if self.prompts.is_empty() {
            return Err(TraceError::Content("there is no prompt"));
        }
        for traced in &self.prompts {
            if traced.prompt.is_empty() {
                return Err(TraceError::Content("a prompt has no token"));
            }
            if traced.prompt.len() + traced.generated.len() != traced.digests.len() {
                return Err(TraceError::Content("a prompt has not one digest for each token"));
            }
            if traced.tokens().any(|token| token >= self.image.vocab) {
                return Err(TraceError::Content("a token is not in the vocabulary"));
            }
        }
        Ok(())
    }

    /// Writes a trace file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        file::write_whole(path, &self.to_bytes()?)
    }

    /// Reads a trace file.
    ///
    /// # Errors
    /// If it cannot be read or is of no use.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let unreadable = || format!("cannot read trace {shown}");
        let mut file = File::open(path).with_context(unreadable)?;
        let mut bytes = Vec::new();
        let mut read = |file: &mut File, most: u64| {
            file.take(most).read_to_end(&mut bytes).with_context(unreadable)?;
            // What is no trace is not read any further, however large it is.
            announced(&bytes).map_err(anyhow::Error::from)
        };
        let parsed = read(&mut file, FRONT as u64)
            // A byte more than there should be is enough to see that there are more.
            .and_then(|length| read(&mut file, u64::from(length) + END as u64 + 1))
            .and_then(|_| Ok(Self::parse(&bytes)?));
        let is_other = |error: &anyhow::Error| {
            matches!(error.downcast_ref::<TraceError>(), Some(TraceError::Magic))
        };
        ensure!(
            !parsed.as_ref().is_err_and(is_other),
            "{shown} is not a trace; make one with: rwkv trace IMAGE --prompt TEXT -o {shown}"
        );
        parsed.with_context(|| format!("{shown} is of no use as a trace"))
    }
}

fn record(
    host: &mut Host<'_>,
    case: &Case,
    progress: &mut impl FnMut(usize),
) -> Result<Traced, ValidateError> {
    if case.tokens.is_empty() {
        return Err(ValidateError::EmptyPrompt);
    }
    host.reset();
    let (prompt, mut generated) = (case.tokens.clone(), Vec::new());
    let mut digests = Vec::new();
    let mut feed = |host: &mut Host<'_>, tokens: &[u32]| {
        let index = digests.len();
        let found = host.feed(tokens).map_err(|error| ValidateError::Host { index, error })?;
        digests.extend(found);
        progress(tokens.len());
        Ok::<_, ValidateError>(index + tokens.len())
    };
    let mut index = 0;
    for piece in prompt.chunks(PIECE) {
        index = feed(host, piece)?;
    }
    for _ in 0..case.generate {
        let token = host.choose().map_err(|error| ValidateError::Sampler { index, error })?;
        index = feed(host, &[token])?;
        generated.push(token);
    }
    Ok(Traced { name: case.name.clone(), prompt, generated, digests })
}
