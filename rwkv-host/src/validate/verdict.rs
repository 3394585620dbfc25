//! What a validation found.

use std::fmt;

use rwkv_core::Digest;
use rwkv_embedded::agent::protocol::{Tick, Token};
use serde::Serialize;

use super::Finding;
use crate::cli::Grouped;

/// Bits of a digest.
const DIGEST_BITS: u32 = 64;

/// What a validation found.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Tokens that were compared, prompt included.
    pub tokens: usize,
    /// Tokens that were to be compared.
    pub asked: usize,
    /// Tokens of the prompt among them.
    pub prompt_tokens: usize,
    /// The tokens that the device generated.
    pub generated: Vec<u32>,
    /// Differing bits of the two digests at the first difference, all if the device has none.
    pub differing_bits: u32,
    /// Where the device first differed from the host.
    pub first_difference: Option<Difference>,
    /// What was wrong there.
    pub finding: Option<Finding>,
    /// What a token cost, if the device counts instructions.
    pub instructions_per_token: Option<Cost>,
    /// Bytes of a medium that were read for a token, if the device's core cannot address its image.
    pub bytes_read_per_token: Option<Cost>,
    /// What a token cost, if the device is simulated and its simulator counts cycles.
    pub simulated_cycles_per_token: Option<Cost>,
    /// Seconds that the device took for all tokens.
    pub seconds: f64,
    /// What each of them took.
    #[serde(skip)]
    pub course: Course,
}

/// What single tokens took, those that are equal, in their order.
#[derive(Debug, Clone, Default)]
pub struct Course {
    /// Ticks of the device.
    pub ticks: Vec<u32>,
    /// Bytes that it read for them of a medium.
    pub read: Vec<u32>,
    /// Seconds of the host: tokens that it read at once have equal shares.
    pub host: Vec<f32>,
}

impl Course {
    /// One after the other.
    pub fn joined<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        all.into_iter().fold(Self::default(), |mut joined, one| {
            joined.ticks.extend(&one.ticks);
            joined.read.extend(&one.read);
            joined.host.extend(&one.host);
            joined
        })
    }
}

impl Verdict {
    /// Whether the device computed the host's bits.
    pub const fn is_equal(&self) -> bool {
        self.first_difference.is_none()
    }
}

/// The first token at which a device differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Which one, the prompt's first being 0.
    pub index: usize,
    /// The token that the host read there.
    pub token: u32,
    /// The digest that it leads to on the host.
    pub host: Digest,
    /// What the device did.
    pub device: Found,
}

/// What a device did where it differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Found {
    /// It computed something else.
    Token(Token),
    /// It refused to compute, in words.
    Refused(String),
}

impl Difference {
    /// Whether the device computed the same token as the host: not where it chose another one.
    pub(super) fn is_computed(&self) -> bool {
        match &self.device {
            Found::Token(token) => token.token == self.token,
            Found::Refused(_) => true,
        }
    }

    /// Differing bits of the two digests.
    pub fn bits(&self) -> u32 {
        match &self.device {
            Found::Token(token) => {
                let (a, b) = (token.digest, self.host);
                (a.0 ^ b.0).count_ones() + (a.1 ^ b.1).count_ones()
            }
            Found::Refused(_) => DIGEST_BITS,
        }
    }
}

/// What tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Half of the tokens cost no more.
    pub median: u64,
    /// The average.
    pub mean: u64,
}

impl Cost {
    /// Instructions for tokens that took these ticks; `None` if ticks are something else.
    pub(super) fn instructions(tick: Tick, ticks: &[u32]) -> Option<Self> {
        match tick {
            Tick::Instructions(each) => Self::ticks(each, ticks),
            _ => None,
        }
    }

    /// Simulated cycles for tokens that took these ticks; `None` if ticks are something else.
    pub(super) fn simulated_cycles(tick: Tick, ticks: &[u32]) -> Option<Self> {
        match tick {
            Tick::SimulatedCycles(each) => Self::ticks(each, ticks),
            _ => None,
        }
    }

    /// Bytes of a medium; `None` if none were read.
    pub(super) fn bytes(read: &[u32]) -> Option<Self> {
        Self::of(read.iter().copied().map(u64::from)).filter(|cost| cost.mean > 0)
    }

    fn ticks(each: u32, ticks: &[u32]) -> Option<Self> {
        Self::of(ticks.iter().map(|ticks| u64::from(*ticks) * u64::from(each)))
    }

    /// Of tokens with these costs, if there are any.
    fn of(costs: impl Iterator<Item = u64>) -> Option<Self> {
        let mut costs: Vec<u64> = costs.collect();
        costs.sort_unstable();
        let median = *costs.get(costs.len().saturating_sub(1) / 2)?;
        Some(Self { median, mean: costs.iter().sum::<u64>() / costs.len() as u64 })
    }
}

/// A name, and what is said of it.
pub(super) type Row = (&'static str, String);

/// Lines of a table.
pub(super) fn write_rows(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    rows.iter().try_for_each(|(name, text)| writeln!(f, "{name:<13} {text}"))
}

/// Those of these costs that are known: instructions, bytes of a medium, and simulated cycles.
pub(super) fn cost_rows([instructions, read, cycles]: [Option<Cost>; 3]) -> Vec<Row> {
    let costs = [
        ("instructions", instructions, "", ""),
        ("cycles", cycles, "", ", simulated"),
        ("medium", read, "bytes read ", ""),
    ];
    let row = |(name, cost, what, note): (_, Option<Cost>, _, _)| {
        let (median, mean) = (Grouped(cost?.median), Grouped(cost?.mean));
        Some((name, format!("{median} {what}per token (median), {mean} (mean){note}")))
    };
    costs.into_iter().filter_map(row).collect()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, token, host, device } = self;
        write!(f, "token {index} differs: after reading {token}, ")?;
        let (a, b) = (host.0, host.1);
        match device {
            Found::Refused(error) => {
                write!(f, "the host has digest {a:08x}{b:08x}, the device failed: {error}")
            }
            Found::Token(d) if d.token != *token => {
                write!(f, "the device read {} instead", d.token)
            }
            Found::Token(d) => write!(
                f,
                "the host has digest {a:08x}{b:08x}, the device {:08x}{:08x} ({} differing bits)",
                d.digest.0,
                d.digest.1,
                self.bits()
            ),
        }
    }
}

/// A table; its last line is the verdict in a sentence.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "prompt        {} tokens", self.prompt_tokens)?;
        writeln!(f, "generated     {} tokens", self.generated.len())?;
        let costs = [
            self.instructions_per_token,
            self.bytes_read_per_token,
            self.simulated_cycles_per_token,
        ];
        write_rows(f, &cost_rows(costs))?;
        writeln!(f, "time          {:.2} s", self.seconds)?;
        if let Some(finding) = &self.finding {
            finding.fmt(f)?;
        }
        match &self.first_difference {
            None => write!(f, "{} tokens, {} differing bits", self.tokens, self.differing_bits),
            Some(difference) => difference.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_instructions_or_nothing() {
        let cost = Cost::instructions(Tick::Instructions(40), &[3, 1, 5]);
        assert_eq!(cost, Some(Cost { median: 120, mean: 120 }));
        assert_eq!(Cost::instructions(Tick::Instructions(40), &[]), None);
        assert_eq!(Cost::instructions(Tick::Nanoseconds(1), &[3]), None);
        assert_eq!(Cost::bytes(&[512, 1024, 0]), Some(Cost { median: 512, mean: 512 }));
        assert_eq!(Cost::bytes(&[0, 0]), None);
    }

    #[test]
    fn simulated_cycles_are_no_instructions() {
        let tick = Tick::SimulatedCycles(125);
        let cost = Cost::simulated_cycles(tick, &[3, 1, 5]);
        assert_eq!(cost, Some(Cost { median: 375, mean: 375 }));
        assert_eq!(Cost::instructions(tick, &[3]), None);
        assert_eq!(Cost::simulated_cycles(Tick::Instructions(40), &[3]), None);
    }
}
