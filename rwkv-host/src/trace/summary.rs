//! What a trace holds, as people read it.

use std::fmt;

use super::Trace;
use crate::cli::Grouped;

/// A table.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, sampler, prompts } = self;
        let (major, vocab) = (image.version / 10, Grouped(image.vocab.into()));
        writeln!(f, "trace of image {:08x}, RWKV-{major}, {vocab} tokens", image.identity)?;
        let config = &sampler.config;
        if config.temperature == 0.0 {
            write!(f, "  the most likely token")?;
        } else {
            write!(f, "  temperature {}, top-k {}, ", config.temperature, config.top_k)?;
            write!(f, "top-p {}, min-p {}, ", config.top_p, config.min_p)?;
            write!(f, "{:?} order, seed {}", config.order, config.seed)?;
        }
        write!(f, "; repetition {}, presence {}, ", config.repetition, config.presence)?;
        writeln!(f, "frequency {}, decay {}", config.frequency, config.penalty_decay)?;
        if !sampler.banned.is_empty() {
            writeln!(f, "  never {:?}", &sampler.banned[..])?;
        }
        writeln!(f)?;
        writeln!(f, "    prompt  generated       last digest  name")?;
        for traced in prompts {
            let (prompt, generated) = (traced.prompt.len(), traced.generated.len());
            let last = traced.digests.last().copied().unwrap_or_default();
            let digest = format!("{:08x}{:08x}", last.0, last.1);
            writeln!(
                f,
                "{prompt:>10} {generated:>10}  {digest:>16}  {}",
                traced.name.escape_debug()
            )?;
        }
        let tokens = Grouped(self.tokens() as u64);
        write!(f, "{tokens} tokens, prompts: {}", Grouped(prompts.len() as u64))
    }
}
