//! Penalties and masks, row after row.

use super::*;

/// Any penalties; those of a few binary digits as well as others.
fn penalties() -> impl Strategy<Value = SamplerConfig> {
    let decay = prop_oneof![Just(0.0), Just(1.0), Just(0.5), 0.9f32..1.0];
    let repetition = prop_oneof![Just(1.0), Just(2.0), 0.5f32..2.0];
    let penalty = || prop_oneof![Just(0.0), Just(0.5), -1.0f32..2.0];
    (config(), repetition, penalty(), penalty(), decay, any::<bool>()).prop_map(
        |(config, repetition, presence, frequency, penalty_decay, greedy)| SamplerConfig {
            temperature: if greedy { 0.0 } else { config.temperature },
            repetition,
            presence,
            frequency,
            penalty_decay,
            ..config
        },
    )
}

/// A row with some tokens allowed, at least one.
fn masked_row() -> impl Strategy<Value = (Vec<f32>, Vec<bool>)> {
    row().prop_flat_map(|row| {
        let len = row.len();
        let allowed = proptest::collection::vec(any::<bool>(), len);
        (Just(row), allowed, 0..len).prop_map(|(row, mut allowed, one)| {
            allowed[one] = true;
            (row, allowed)
        })
    })
}

fn bitmap(allowed: &[bool]) -> Vec<u32> {
    let word = |bits: &[bool]| {
        bits.iter().enumerate().fold(0, |word, (i, &bit)| word | u32::from(bit) << i)
    };
    allowed.chunks(32).map(word).collect()
}

/// The best of a row, as [`Sampler::candidates`] has them.
fn best(logits: &[f32], config: &SamplerConfig, allowed: &[bool]) -> Vec<Candidate> {
    let row = (0..).zip(logits).filter(|(token, _)| allowed[*token as usize]);
    let mut row: Vec<_> = row.map(|(token, &logit)| Candidate { token, logit }).collect();
    row.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap().then(a.token.cmp(&b.token)));
    row.truncate(match config.top_k {
        _ if config.temperature == 0.0 => 1,
        0 => MAX_CANDIDATES,
        k => k.into(),
    });
    row
}

/// A row in slices of a width.
fn push(sampler: &mut Sampler, row: &[f32], allowed: &[bool], width: usize) {
    let words = bitmap(allowed);
    let mut within = sampler.within(Allowed(&words));
    for (i, slice) in row.chunks(width).enumerate() {
        within.push((i * width) as u32, slice);
    }
}

proptest! {
    /// Every row of a text, with penalties for what came before, in slices of any width.
    #[test]
    fn texts_equal_the_naive_ones(
        config in penalties(),
        rows in proptest::collection::vec(masked_row(), 1..12),
        width in 1usize..40,
    ) {
        let mut sampler = Sampler::new(config).unwrap();
        let mut counts = naive::Counts::default();
        for (row, allowed) in rows {
            let penalised = counts.penalise(&config, &row);
            sampler.begin();
            push(&mut sampler, &row, &allowed, width);
            let expected = best(&penalised, &config, &allowed);
            prop_assert_eq!(sampler.candidates().unwrap(), &expected[..]);
            let token = if config.temperature == 0.0 {
                let token = sampler.finish().unwrap();
                prop_assert_eq!(token, expected[0].token);
                token
            } else {
                let allows = |token: u32| allowed[token as usize];
                let expected = naive::distribution(&config, &penalised, allows);
                let found = distribution(&sampler);
                for (found, expected) in found.iter().zip(expected.iter().flatten()) {
                    prop_assert_eq!(found.0, expected.0);
                    prop_assert!((found.1 - expected.1).abs() < 1e-5);
                }
                prop_assert!(expected.is_none_or(|expected| expected.len() == found.len()));
                let token = sampler.finish().unwrap();
                prop_assert!(found.iter().any(|&(kept, p)| kept == token && p > 0.0));
                token
            };
            counts.add(token, config.penalty_decay);
        }
    }

    /// More tokens than are remembered.
    #[test]
    fn the_least_counted_are_forgotten(
        tokens in proptest::collection::vec(0u32..150, 0..300),
        decay in prop_oneof![Just(1.0), Just(0.5), 0.9f32..1.0],
    ) {
        let mut history = History::EMPTY;
        let mut counts = naive::Counts::default();
        for token in tokens {
            history.count(token, decay);
            counts.add(token, decay);
            counts.0.sort_by_key(|(token, _)| *token);
            let mut found = Vec::new();
            while let Some(entry) = history.at_or_after(found.last().map_or(0, |(t, _)| t + 1)) {
                found.push((entry.token, entry.count));
            }
            prop_assert_eq!(&found, &counts.0);
        }
    }

    /// A mask is as if the other tokens were not there.
    #[test]
    fn masked_tokens_leave_no_trace(
        config in config(),
        (row, allowed) in masked_row(),
    ) {
        let mut masked = Sampler::new(config).unwrap();
        masked.begin();
        push(&mut masked, &row, &allowed, 7);
        let kept: Vec<u32> =
            (0..row.len() as u32).filter(|token| allowed[*token as usize]).collect();
        let rest: Vec<f32> = kept.iter().map(|token| row[*token as usize]).collect();
        let mut alone = fed(config, &rest);
        let sums = [&masked, &alone].map(|s| s.candidates.normaliser().to_bits());
        prop_assert_eq!(sums[0], sums[1]);
        for _ in 0..10 {
            prop_assert_eq!(masked.finish().unwrap(), kept[alone.finish().unwrap() as usize]);
        }
    }
}

/// A prompt is not counted: only what the sampler chose, or was told of.
#[test]
fn penalties_follow_what_is_generated() {
    let row = [1.0, 0.75, -0.5];
    let config = SamplerConfig { repetition: 2.0, presence: 0.25, ..SamplerConfig::GREEDY };
    let config = SamplerConfig { frequency: 0.5, penalty_decay: 0.5, ..config };
    let mut sampler = Sampler::new(config).unwrap();
    let mut next = |told: &[u32]| {
        told.iter().for_each(|token| sampler.count(*token));
        sampler.begin();
        sampler.push(0, &row);
        let first = sampler.candidates().unwrap()[0];
        (sampler.finish().unwrap(), first.logit)
    };
    assert_eq!(next(&[]), (0, 1.0));
    // Token 0 is at 1 / 2 - (0.25 + 0.5).
    assert_eq!(next(&[]), (1, 0.75));
    // Token 0, counted 0.5, is at 0.5 - (0.25 + 0.25); token 1 at 0.375 - 0.75.
    assert_eq!(next(&[]), (0, 0.0));
    // Token 2, told of, is at -0.5 * 2 - 0.75; token 1, counted 0.25, at 0.375 - 0.375.
    assert_eq!(next(&[2]), (1, 0.0));
}

#[test]
fn neutral_penalties_count_nothing() {
    let mut sampler = Sampler::new(SamplerConfig::GREEDY).unwrap();
    sampler.begin();
    sampler.push(0, &[1.0, 2.0]);
    assert_eq!(sampler.finish(), Ok(1));
    sampler.count(0);
    assert!(sampler.history.at_or_after(0).is_none());
}

#[test]
fn penalties_that_leave_the_numbers_are_refused() {
    let config = SamplerConfig { frequency: f32::MAX, presence: f32::MAX, ..SamplerConfig::GREEDY };
    let mut sampler = Sampler::new(config).unwrap();
    sampler.count(1);
    sampler.begin();
    sampler.push(0, &[1.0, 2.0, 3.0]);
    assert_eq!(sampler.finish(), Err(SamplerError::NonFiniteLogit { token: 1 }));
}

#[test]
fn masks_are_exact() {
    let mut sampler = fed(SamplerConfig::GREEDY, &[0.0]);
    let mut chosen = |mask: &dyn Mask| {
        sampler.begin();
        let row: Vec<f32> = (0..70).map(|token| token as f32).collect();
        sampler.within(mask).push(0, &row[..33]);
        sampler.within(mask).push(33, &row[33..]);
        sampler.finish()
    };
    assert_eq!(chosen(&Banned::new(&[]).unwrap()), Ok(69));
    assert_eq!(chosen(&Banned::new(&[3, 67, 68, 69]).unwrap()), Ok(66));
    assert_eq!(chosen(&Allowed(&[u32::MAX, 1])), Ok(32));
    assert_eq!(chosen(&Allowed(&[1 << 31])), Ok(31));
    assert_eq!(chosen(&Allowed(&[1, 0, 0, 7])), Ok(0));
    assert_eq!(chosen(&(Allowed(&[6]), Banned::new(&[2]).unwrap())), Ok(1));
    assert_eq!(chosen(&None::<Allowed<'_>>), Ok(69));
    assert_eq!(chosen(&Some(&Allowed(&[6]))), Ok(2));
    // None of the row's tokens, which is an error of the mask and not of the row.
    assert_eq!(chosen(&Allowed(&[])), Err(SamplerError::NothingAllowed));
    assert_eq!(chosen(&Allowed(&[0, 0, 1 << 6])), Err(SamplerError::NothingAllowed));
    for tokens in [&[1, 0][..], &[2, 2], &[1, 5, 4]] {
        assert_eq!(Banned::new(tokens), Err(SamplerError::BannedOrder));
    }
}

/// What is masked is not looked at, but must come in its turn.
#[test]
fn masked_logits_may_be_anything() {
    let mut sampler = fed(SamplerConfig::GREEDY, &[0.0]);
    sampler.begin();
    sampler.within(Banned::new(&[1]).unwrap()).push(0, &[1.0, f32::NAN, 0.0]);
    assert_eq!(sampler.finish(), Ok(0));
    sampler.skip(4);
    assert_eq!(sampler.finish(), Err(SamplerError::OutOfOrder { expected: 3, found: 4 }));
}
