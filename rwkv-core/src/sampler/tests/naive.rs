//! A sampler that holds the whole row, sorts it, and does each step to all of it.

use super::*;

/// A setting, and whether binary32 cannot tell on which side of it a value is.
fn unclear(value: f64, setting: f32) -> bool {
    value != f64::from(setting) && (value - f64::from(setting)).abs() < 1e-5
}

/// Tokens and their probabilities at the end of all steps; `None` where a cut is too close for
/// binary32 to tell.
pub(super) fn distribution(
    config: &SamplerConfig,
    logits: &[f32],
    allows: impl Fn(u32) -> bool,
) -> Option<Vec<(u32, f64)>> {
    let mut tokens: Vec<u32> = (0..logits.len() as u32).filter(|token| allows(*token)).collect();
    let logit = |token: u32| f64::from(logits[token as usize]);
    tokens.sort_by(|&a, &b| logit(b).partial_cmp(&logit(a)).unwrap().then(a.cmp(&b)));
    let divisor = match config.order {
        Order::Common => f64::from(config.temperature),
        Order::Official => 1.0,
    };
    let mass = |token: u32| libm::exp((logit(token) - logit(tokens[0])) / divisor);
    let all: f64 = tokens.iter().map(|&token| mass(token)).sum();
    let mut row: Vec<(u32, f64)> = tokens.iter().map(|&t| (t, mass(t) / all)).collect();
    let most = if config.top_k == 0 { MAX_CANDIDATES } else { config.top_k.into() };
    match config.order {
        Order::Common => {
            row.truncate(most);
            let prefix = prefix(&row, config.top_p)?;
            row.truncate(prefix);
            min_p(&mut row, config.min_p)?;
        }
        Order::Official => {
            let least = row[prefix(&row, config.top_p)? - 1].1;
            row.retain(|&(_, p)| p >= least);
            min_p(&mut row, config.min_p)?;
            row.truncate(most);
            let power = 1.0 / f64::from(config.temperature);
            row.iter_mut().for_each(|(_, p)| *p = libm::pow(*p, power));
        }
    }
    let total: f64 = row.iter().map(|&(_, p)| p).sum();
    Some(row.into_iter().map(|(token, p)| (token, p / total)).collect())
}

/// The shortest prefix with that much probability, or all.
fn prefix(row: &[(u32, f64)], top_p: f32) -> Option<usize> {
    let mut sum = 0.0;
    for (i, &(_, p)) in row.iter().enumerate() {
        sum += p;
        if top_p < 1.0 && unclear(sum, top_p) {
            return None;
        }
        if top_p < 1.0 && sum >= f64::from(top_p) {
            return Some(i + 1);
        }
    }
    Some(row.len())
}

fn min_p(row: &mut Vec<(u32, f64)>, least: f32) -> Option<()> {
    let largest = row[0].1;
    if row.iter().any(|&(_, p)| unclear(p / largest, least)) {
        return None;
    }
    row.retain(|&(_, p)| p / largest >= f64::from(least));
    Some(())
}

/// Counts in no order, found one by one.
#[derive(Default)]
pub(super) struct Counts(pub(super) Vec<(u32, f32)>);

impl Counts {
    pub(super) fn add(&mut self, token: u32, decay: f32) {
        self.0.iter_mut().for_each(|(_, count)| *count *= decay);
        if let Some((_, count)) = self.0.iter_mut().find(|(other, _)| *other == token) {
            *count += 1.0;
            return;
        }
        if self.0.len() == MAX_HISTORY {
            self.0.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap().then(a.0.cmp(&b.0)));
            self.0.remove(0);
        }
        self.0.push((token, 1.0));
    }

    /// The row with its penalties.
    pub(super) fn penalise(&self, config: &SamplerConfig, logits: &[f32]) -> Vec<f32> {
        let mut logits = logits.to_vec();
        for &(token, count) in &self.0 {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            if *logit > 0.0 {
                *logit /= config.repetition;
            } else {
                *logit *= config.repetition;
            }
            *logit -= config.presence + count * config.frequency;
        }
        logits
    }
}
