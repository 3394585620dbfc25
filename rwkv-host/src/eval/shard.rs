//! A text in shards: each evaluated on its own, by another machine perhaps, and put together.

use std::{fmt, str::FromStr};

use rwkv_core::{Image, image::CRC};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Comparison, Deviation, Part, Peak, Report, Score};

/// Which shard: `2/8` is the second of eight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Which {
    /// From 1 on.
    pub index: usize,
    /// Shards of the text.
    pub count: usize,
}

/// A shard of a text, and what it is a shard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// From 1 on.
    pub index: usize,
    /// Shards of the text.
    pub count: usize,
    /// Its first token, the text's first being 0.
    pub first_token: usize,
    /// Identity of the image.
    pub image: u32,
    /// Identity of the reference.
    pub reference: Option<u32>,
    /// CRC-32 of the tokens of the whole text.
    pub text: u32,
}

/// What the JSON of a report says that is added up; everything else follows from it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sums {
    /// Which shard; none if it is a whole text.
    pub shard: Option<Shard>,
    /// [`Report::tokens`].
    pub tokens: usize,
    /// [`Report::bytes`].
    pub bytes: usize,
    /// [`Score::bits`].
    pub bits: f64,
    /// [`Report::reference`].
    pub reference: Option<ComparisonSums>,
    /// [`Report::fast`].
    pub fast: Option<Deviation>,
}

/// The same of a [`Comparison`], whose fields these are.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields of a comparison")]
pub struct ComparisonSums {
    pub bits: f64,
    pub kl_bits: f64,
    pub largest_kl: Peak,
    pub top1_tokens: usize,
    pub parts: Vec<Part>,
    pub part_tokens: usize,
    pub worst_part: String,
}

/// Not a shard.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a shard: give INDEX/COUNT, such as 2/8 for the second of eight")]
pub struct NotAShard(String);

impl FromStr for Which {
    type Err = NotAShard;

    fn from_str(text: &str) -> Result<Self, NotAShard> {
        let parse = || {
            let (index, count) = text.split_once('/')?;
            let which = Self { index: index.parse().ok()?, count: count.parse().ok()? };
            (1..=which.count).contains(&which.index).then_some(which)
        };
        parse().ok_or_else(|| NotAShard(text.to_owned()))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl Which {
    /// Its tokens, of all; shards are as equal as can be. Where they are cut, the state is lost.
    pub fn of<'a>(
        self,
        tokens: &'a [u32],
        image: &Image<'_>,
        reference: Option<&Image<'_>>,
    ) -> (Shard, &'a [u32]) {
        let at =
            |index: usize| (index as u128 * tokens.len() as u128 / self.count as u128) as usize;
        let Self { index, count } = self;
        let (first_token, end) = (at(index - 1), at(index));
        let words: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let shard = Shard {
            index,
            count,
            first_token,
            image: image.identity(),
            reference: reference.map(Image::identity),
            text: CRC.checksum(&words),
        };
        (shard, &tokens[first_token..end])
    }
}

/// Missing shards that are named.
const NAMED: usize = 16;

/// Why reports do not make one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A report is of a whole text.
    #[error("report {0} is not of a shard: make it with --shard")]
    Whole(usize),
    /// A report is of another run.
    #[error(
        "report {0} is of another image, reference, text or number of shards than the first, or one \
         of the two was made with --fast"
    )]
    Other(usize),
    /// A shard that cannot be.
    #[error("report {report} is of shard {index} of {count}, which there cannot be")]
    Index {
        /// Which report.
        report: usize,
        /// The shard's number.
        index: usize,
        /// Shards of the text.
        count: usize,
    },
    /// The sums of a report are too large.
    #[error("the sums of the reports are out of range")]
    Range,
    /// A shard is there more than once.
    #[error("shard {0} is there more than once")]
    Twice(usize),
    /// Shards are missing.
    #[error(
        "of {count} shards are missing: {}{}",
        .missing.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
        if .missing.len() == NAMED { ", …" } else { "" }
    )]
    Missing {
        /// Their numbers, the first ones.
        missing: Vec<usize>,
        /// Shards of the text.
        count: usize,
    },
}

/// Puts the reports of all shards of a text together, given in any order. What storing each part of
/// the model costs is that of the first shard.
///
/// # Errors
/// See [`MergeError`].
pub fn merge(reports: &[Sums]) -> Result<Report, MergeError> {
    let mut shards = Vec::new();
    for (at, report) in (1..).zip(reports) {
        shards.push((report.shard.as_ref().ok_or(MergeError::Whole(at))?, report));
    }
    let run = |(shard, report): &(&Shard, &Sums)| {
        (shard.count, shard.image, shard.reference, shard.text, report.fast.is_some())
    };
    let count = shards.first().map_or(0, |(shard, _)| shard.count);
    if let Some(at) = shards.iter().position(|shard| run(shard) != run(&shards[0])) {
        return Err(MergeError::Other(at + 1));
    }
    for (report, (shard, _)) in (1..).zip(&shards) {
        let Shard { index, count, .. } = **shard;
        if !(1..=count).contains(&index) {
            return Err(MergeError::Index { report, index, count });
        }
    }
    shards.sort_by_key(|(shard, _)| shard.index);
    if let Some(pair) = shards.windows(2).find(|pair| pair[0].0.index == pair[1].0.index) {
        return Err(MergeError::Twice(pair[0].0.index));
    }
    // They are in order, and none is there twice.
    if shards.is_empty() || shards.len() != count {
        let is_missing = |index: &usize| shards.iter().all(|(shard, _)| shard.index != *index);
        let missing = (1..=count.max(1)).filter(is_missing).take(NAMED).collect();
        return Err(MergeError::Missing { missing, count });
    }
    let sum = |value: fn(&Sums) -> usize| {
        let mut values = shards.iter().map(|(_, report)| value(report));
        values.try_fold(0, usize::checked_add).ok_or(MergeError::Range)
    };
    let (tokens, bytes) = (sum(|report| report.tokens)?, sum(|report| report.bytes)?);
    let bits = shards.iter().map(|(_, report)| report.bits).sum();
    let beside: Option<Vec<_>> =
        shards.iter().map(|(_, report)| report.reference.as_ref()).collect();
    let reference = beside.filter(|all| !all.is_empty()).map(|all| compare(&all, tokens, bytes));
    let score = Score::new(bits, tokens, bytes);
    let fast = shards.iter().filter_map(|(_, report)| report.fast).reduce(|all, shard| Deviation {
        tokens: all.tokens.saturating_add(shard.tokens),
        largest: all.largest.max(shard.largest),
    });
    Ok(Report { shard: None, tokens, bytes, score, reference, fast })
}

fn compare(all: &[&ComparisonSums], tokens: usize, bytes: usize) -> Comparison {
    let kl_bits = all.iter().map(|each| each.kl_bits).sum::<f64>();
    let top1_tokens = all.iter().fold(0usize, |sum, each| sum.saturating_add(each.top1_tokens));
    let peaks = all.iter().map(|each| &each.largest_kl);
    let peak = peaks.reduce(|peak, x| if x.bits > peak.bits { x } else { peak });
    let first = all[0];
    Comparison {
        score: Score::new(all.iter().map(|each| each.bits).sum(), tokens, bytes),
        kl_bits,
        kl_bits_per_token: kl_bits / tokens as f64,
        largest_kl: peak.unwrap_or(&first.largest_kl).clone(),
        top1_tokens,
        top1_agreement: top1_tokens as f64 / tokens as f64,
        parts: first.parts.clone(),
        part_tokens: first.part_tokens,
        worst_part: first.worst_part.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file may say.
    #[test]
    fn shards_that_cannot_be_are_refused() {
        let sums = |index, count, tokens| {
            let shard = Shard { index, count, first_token: 0, image: 1, reference: None, text: 2 };
            Sums { shard: Some(shard), tokens, bytes: 1, bits: 1.0, reference: None, fast: None }
        };
        let merged = |all: &[(usize, usize, usize)]| {
            merge(&all.iter().map(|(i, n, t)| sums(*i, *n, *t)).collect::<Vec<_>>())
        };
        assert_eq!(merged(&[(1, 2, 5), (2, 2, 6)]).map(|report| report.tokens), Ok(11));
        let cannot = |report, index, count| Err(MergeError::Index { report, index, count });
        assert_eq!(merged(&[(1, 2, 1), (2, 2, 1), (0, 2, 1)]), cannot(3, 0, 2));
        assert_eq!(merged(&[(3, 2, 1), (2, 2, 1)]), cannot(1, 3, 2));
        let mut mixed = [sums(1, 2, 5), sums(2, 2, 6)];
        mixed[1].fast = Some(Deviation { tokens: 6, largest: 1e-6 });
        assert_eq!(merge(&mixed), Err(MergeError::Other(2)));
        mixed[0].fast = Some(Deviation { tokens: 5, largest: 2e-6 });
        let both = Some(Deviation { tokens: 11, largest: 2e-6 });
        assert_eq!(merge(&mixed).map(|report| report.fast), Ok(both));
        let most = usize::MAX;
        assert_eq!(merged(&[(1, 2, most), (2, 2, 1)]), Err(MergeError::Range));
        // So many are not listed.
        let error = merged(&[(2, most, 1)]).unwrap_err();
        let missing = [1].into_iter().chain(3..=NAMED + 1).collect();
        assert_eq!(error, MergeError::Missing { missing, count: most });
        assert!(error.to_string().ends_with("16, 17, …"), "{error}");
        assert_eq!(merged(&[]), Err(MergeError::Missing { missing: vec![1], count: 0 }));
    }

    #[test]
    fn shards_are_named() {
        assert_eq!("2/8".parse(), Ok(Which { index: 2, count: 8 }));
        for text in ["", "2", "0/8", "9/8", "2/", "/8", "a/b", "-1/8", "1/0"] {
            let error = text.parse::<Which>().unwrap_err().to_string();
            assert!(error.contains("2/8"), "{error}");
        }
    }
}
