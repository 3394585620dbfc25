//! What an evaluation found.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Divergence, Shard};
use crate::prefill::fast::BOUND;

/// Characters of the longest bar.
const BAR: f64 = 32.0;
/// Tokens of context that are shown.
const CONTEXT: usize = 24;

/// How an image predicts a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Which part of the text it was, if not all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// Tokens that were predicted: all but the first.
    pub tokens: usize,
    /// Their bytes.
    pub bytes: usize,
    /// The image's score.
    #[serde(flatten)]
    pub score: Score,
    /// The image beside its reference.
    pub reference: Option<Comparison>,
    /// How far the fast path was from the exact one, if it was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast: Option<Deviation>,
}

/// How far the fast path is from the exact one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// Tokens from the start of the text that were read on both.
    pub tokens: usize,
    /// The largest difference of two logits, as a part of the largest exact logit of the token.
    pub largest: f32,
}

impl Deviation {
    /// Of two readers of one text.
    pub(super) fn of_both(ours: Option<Self>, theirs: Option<Self>) -> Option<Self> {
        let (ours, theirs) = (ours?, theirs?);
        Some(Self { tokens: ours.tokens, largest: ours.largest.max(theirs.largest) })
    }
}

/// How well a text was predicted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Bits that the text would take, coded by this model.
    pub bits: f64,
    /// Bits that the text would take, coded by this model, for each of its bytes.
    pub bits_per_byte: f64,
    /// Two to the bits per token.
    pub perplexity: f64,
}

/// An image beside its reference, which reads the same text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The reference's score.
    #[serde(flatten)]
    pub score: Score,
    /// Kullback-Leibler divergence of the image's predictions from the reference's, over all tokens.
    pub kl_bits: f64,
    /// Its mean.
    pub kl_bits_per_token: f64,
    /// Where it is largest.
    pub largest_kl: Peak,
    /// Tokens after which both have the same most likely one.
    pub top1_tokens: usize,
    /// How often that is, 1 for always.
    pub top1_agreement: f64,
    /// What each part costs: the divergence of the reference with this part as the image has it.
    pub parts: Vec<Part>,
    /// Tokens from the start of the text over which that was measured.
    pub part_tokens: usize,
    /// The part that costs most.
    pub worst_part: String,
}

/// The prediction that differs most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// The divergence there.
    pub bits: f64,
    /// The token that was read last, the text's first being 0.
    pub token: usize,
    /// The text up to there, its last bytes.
    pub after: String,
}

/// What storing a part of a model costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// A layer, the embedding, the head, or the name of a tensor.
    pub name: String,
    /// Mean divergence of the reference with the image's weights in this part.
    pub kl_bits_per_token: f64,
}

impl Score {
    pub(super) fn new(bits: f64, tokens: usize, bytes: usize) -> Self {
        let (bits_per_byte, perplexity) = (bits / bytes as f64, (bits / tokens as f64).exp2());
        Self { bits, bits_per_byte, perplexity }
    }
}

impl Report {
    /// `text` is the tokens' bytes, `bits` are those of every token but the first.
    pub(super) fn new(text: &[Vec<u8>], bits: &[f64]) -> Self {
        let bytes = text[1..].concat().len();
        let score = Score::new(bits.iter().sum(), bits.len(), bytes);
        Self { shard: None, tokens: bits.len(), bytes, score, reference: None, fast: None }
    }
}

impl Comparison {
    /// `found` are the reference's bits and the divergence for every token but the first.
    pub(super) fn new(
        text: &[Vec<u8>],
        found: &[(f64, Divergence)],
        parts: Vec<Part>,
        part_tokens: usize,
    ) -> Self {
        let bits = found.iter().map(|(bits, _)| bits).sum();
        let kl_bits = found.iter().map(|(_, d)| d.kl).sum::<f64>();
        let top1_tokens = found.iter().filter(|(_, d)| d.agrees).count();
        let peak = found.iter().map(|(_, d)| d.kl).enumerate();
        let peak = peak.reduce(|peak, x| if x.1 > peak.1 { x } else { peak });
        let (token, peak) = peak.unwrap_or_default();
        let after = text[token.saturating_sub(CONTEXT - 1)..=token].concat();
        let worst = parts.iter().reduce(|worst, part| {
            if part.kl_bits_per_token > worst.kl_bits_per_token { part } else { worst }
        });
        Self {
            score: Score::new(bits, found.len(), text[1..].concat().len()),
            kl_bits,
            kl_bits_per_token: kl_bits / found.len() as f64,
            largest_kl: Peak {
                bits: peak,
                token,
                after: String::from_utf8_lossy(&after).into_owned(),
            },
            top1_tokens,
            top1_agreement: top1_tokens as f64 / found.len() as f64,
            worst_part: worst.map_or_else(String::new, |part| part.name.clone()),
            parts,
            part_tokens,
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.5} bits per byte, perplexity {:.4}", self.bits_per_byte, self.perplexity)
    }
}

/// A table and a picture; the last line names the worst part.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text           {} tokens, {} bytes", self.tokens, self.bytes)?;
        match &self.shard {
            Some(shard) => writeln!(f, ", shard {shard}")?,
            None => writeln!(f)?,
        }
        if let Some(Deviation { tokens, largest }) = self.fast {
            write!(
                f,
                "fast path      logits within {largest:.1e} of the largest, over {tokens} tokens"
            )?;
            writeln!(f, " (bound {BOUND:.0e})")?;
        }
        write!(f, "image          {}", self.score)?;
        let Some(reference) = &self.reference else { return Ok(()) };
        let theirs = reference.score.bits_per_byte;
        let change = (self.score.bits_per_byte / theirs - 1.0) * 100.0;
        writeln!(f, " ({change:+.3} %)")?;
        write!(f, "{reference}")
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Peak { bits, token, after } = &self.largest_kl;
        writeln!(f, "reference      {}", self.score)?;
        writeln!(f, "KL divergence  {:.2e} bits per token", self.kl_bits_per_token)?;
        writeln!(f, "  largest      {bits:.2e} bits after token {token}: {after:?}")?;
        writeln!(f, "top-1          {:.2} % agree", 100.0 * self.top1_agreement)?;
        if self.parts.is_empty() {
            return write!(f, "the first shard has what each part costs");
        }
        writeln!(f)?;
        writeln!(f, "KL divergence if one part alone is stored as in the image:")?;
        let width = self.parts.iter().map(|part| part.name.len()).max().unwrap_or_default();
        let top = self.parts.iter().fold(0f64, |top, part| top.max(part.kl_bits_per_token));
        for Part { name, kl_bits_per_token: kl } in &self.parts {
            let bar = "#".repeat((kl / top * BAR).round() as usize);
            let line = format!("  {name:<width$}  {kl:>8.2e}  {bar}");
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "worst of them, over {} tokens: {}", self.part_tokens, self.worst_part)
    }
}
