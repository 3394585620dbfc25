//! Against a naive sampler in binary64 that sorts the whole vocabulary.

extern crate std;
use super::*;
use crate::Logits as _;
use proptest::prelude::*;
use std::vec::Vec;

mod naive;
mod penalties;

fn anything(_: u32) -> bool {
    true
}

fn fed(config: SamplerConfig, logits: &[f32]) -> Sampler {
    let mut sampler = Sampler::new(config).unwrap();
    sampler.push(0, logits);
    sampler
}

/// What the sampler chooses from.
fn distribution(sampler: &Sampler) -> Vec<(u32, f64)> {
    let mut cumulative = [0.0; MAX_CANDIDATES];
    let best = sampler.candidates().unwrap();
    let (kept, total) = sampler.keep(best, &mut cumulative);
    let mut before = 0.0;
    let share = |(candidate, &sum): (&Candidate, &f32)| {
        let mass = f64::from(sum) - before;
        before = f64::from(sum);
        (candidate.token, mass / f64::from(total))
    };
    best.iter().zip(&cumulative).take(kept).map(share).collect()
}

/// Logits on a grid of quarters, so that ties abound.
fn row() -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec((-60i8..=60).prop_map(|q| f32::from(q) * 0.25), 1..300)
}

fn config() -> impl Strategy<Value = SamplerConfig> {
    let share = || prop_oneof![Just(0.0), Just(1.0), 0.0f32..1.0];
    let order = prop_oneof![Just(Order::Common), Just(Order::Official)];
    let temperature = prop_oneof![Just(1.0), 0.1f32..3.0];
    (temperature, 0..=MAX_CANDIDATES as u16, share(), share(), order, any::<u64>()).prop_map(
        |(temperature, top_k, top_p, min_p, order, seed)| SamplerConfig {
            temperature,
            top_k,
            top_p,
            min_p,
            order,
            seed,
            ..SamplerConfig::GREEDY
        },
    )
}

proptest! {
    #[test]
    fn distribution_equals_the_naive_one(config in config(), logits in row()) {
        if let Some(expected) = naive::distribution(&config, &logits, anything) {
            let found = distribution(&fed(config, &logits));
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert_eq!(found.0, expected.0);
                prop_assert!((found.1 - expected.1).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn slicing_changes_nothing(
        config in config(),
        logits in row(),
        width in 1usize..40,
    ) {
        let mut whole = fed(config, &logits);
        let mut sliced = Sampler::new(config).unwrap();
        sliced.begin();
        let mut first = 0;
        for slice in logits.chunks(width) {
            sliced.push(first, slice);
            first += slice.len() as u32;
        }
        let sums = [&whole, &sliced].map(|s| s.candidates.normaliser().to_bits());
        prop_assert_eq!(sums[0], sums[1]);
        prop_assert_eq!(whole.candidates(), sliced.candidates());
        for _ in 0..20 {
            prop_assert_eq!(whole.finish(), sliced.finish());
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest(logits in row()) {
        let mut largest = 0;
        for (i, &logit) in logits.iter().enumerate() {
            if logit > logits[largest] {
                largest = i;
            }
        }
        let mut sampler = fed(SamplerConfig::GREEDY, &logits);
        let rng = sampler.rng.clone();
        prop_assert_eq!(sampler.finish(), Ok(largest as u32));
        prop_assert_eq!(sampler.rng, rng);
    }

    /// Any finite logits, of any magnitude and at any temperature.
    #[test]
    fn any_finite_row_gives_a_token(
        bits in proptest::collection::vec(any::<u32>(), 1..100),
        temperature in any::<u32>(),
        top_p in 0.0f32..=1.0,
        order in prop_oneof![Just(Order::Common), Just(Order::Official)],
    ) {
        let logits: Vec<f32> =
            bits.into_iter().map(f32::from_bits).map(|l| if l.is_finite() { l } else { 0.0 }).collect();
        let temperature = f32::from_bits(temperature & 0x7fff_ffff);
        let config = SamplerConfig { temperature, top_p, seed: 1, order, ..SamplerConfig::GREEDY };
        match Sampler::new(config) {
            Ok(mut sampler) => {
                sampler.push(0, &logits);
                prop_assert!(sampler.finish().unwrap() < logits.len() as u32);
            }
            Err(error) => {
                prop_assert_eq!(error, SamplerError::Temperature);
                prop_assert!(!temperature.is_normal());
            }
        }
    }
}

#[test]
fn frequencies_match_the_distribution() {
    const DRAWS: u32 = 200_000;
    let logits = [1.0, 3.5, -2.0, 3.5, 0.25, 2.75, -9.0, 1.5];
    let config =
        SamplerConfig { temperature: 1.3, top_k: 6, top_p: 0.95, seed: 7, ..SamplerConfig::GREEDY };
    let mut sampler = fed(config, &logits);
    let mut counts = [0u32; 8];
    for _ in 0..DRAWS {
        counts[sampler.finish().unwrap() as usize] += 1;
    }
    let expected = naive::distribution(&config, &logits, anything).unwrap();
    assert_eq!(counts.iter().filter(|&&n| n > 0).count(), expected.len());
    for (token, p) in expected {
        let mean = p * f64::from(DRAWS);
        let deviation = libm::sqrt(mean * (1.0 - p));
        let found = f64::from(counts[token as usize]);
        assert!((found - mean).abs() < 5.0 * deviation, "token {token}: {found}, expected {mean}");
    }
}

#[test]
fn ties_go_to_the_lower_id() {
    let config = SamplerConfig { temperature: 1.0, top_k: 3, ..SamplerConfig::GREEDY };
    let sampler = fed(config, &[0.0, 2.0, -0.0, 2.0, 0.0, 1.0, 2.0, 2.0]);
    let tokens: Vec<u32> = sampler.candidates().unwrap().iter().map(|c| c.token).collect();
    assert_eq!(tokens, [1, 3, 6]);
    // More equal logits than there is room for, signs of zero included.
    let sampler = fed(SamplerConfig { top_k: 0, ..config }, &[[0.0, -0.0]; 50].concat());
    let tokens = sampler.candidates().unwrap().iter().map(|c| c.token);
    assert!(tokens.eq(0..MAX_CANDIDATES as u32));
}

#[test]
fn top_p_at_its_edges() {
    let kept = |order, top_p, logits: &[f32]| {
        let config = SamplerConfig { temperature: 1.0, top_p, order, ..SamplerConfig::GREEDY };
        distribution(&fed(config, logits)).len()
    };
    let common = |top_p, logits: &[f32]| kept(Order::Common, top_p, logits);
    let equal = [0.0; 4];
    // A prefix that reaches top_p exactly is long enough.
    assert_eq!(
        [0.0, 0.25, 0.2500001, 0.5, 0.75, 0.7500001, 1.0].map(|p| common(p, &equal)),
        [1, 1, 2, 2, 3, 4, 4]
    );
    // 64 of 256 equal tokens hold a quarter of the mass: more cannot be had.
    assert_eq!(common(0.2, &[0.0; 256]), 52);
    assert_eq!(common(0.9, &[0.0; 256]), MAX_CANDIDATES);
    assert_eq!(common(0.5, &[-3.0]), 1);

    // The official cut is a probability: whoever has it stays.
    let official = |top_p, logits: &[f32]| kept(Order::Official, top_p, logits);
    assert_eq!([0.0, 0.25, 0.75, 1.0].map(|p| official(p, &equal)), [4; 4]);
    assert_eq!(official(0.0, &[0.0; 256]), MAX_CANDIDATES);
    let pairs = [2.0, 2.0, 1.0, 1.0, 0.0, 0.0];
    // The masses are 1, 1, 0.37, 0.37, 0.14, 0.14, in all 3.01.
    assert_eq!([0.0, 0.5, 0.7, 0.9, 0.92].map(|p| official(p, &pairs)), [2, 2, 4, 4, 6]);
    assert_eq!([0.0, 0.5, 0.7, 0.9, 0.92].map(|p| common(p, &pairs)), [1, 2, 3, 4, 5]);
}

#[test]
fn min_p_keeps_those_at_its_edge() {
    // Masses of 1, 0.5 and 0.5, as near as logits come.
    let logits = [-core::f32::consts::LN_2, 0.0, -core::f32::consts::LN_2];
    let half = math::exp(logits[0]);
    for order in [Order::Common, Order::Official] {
        let kept = |min_p, temperature| {
            let config = SamplerConfig { temperature, min_p, order, ..SamplerConfig::GREEDY };
            distribution(&fed(config, &logits)).len()
        };
        let above = f32::from_bits(half.to_bits() + 1);
        assert_eq!([0.0, half, above, 1.0].map(|p| kept(p, 1.0)), [3, 3, 1, 1]);
        // At half the temperature the masses are 1 and 0.25, which the official order does not see.
        let expected = if order == Order::Official { 3 } else { 1 };
        assert_eq!(kept(half, 0.5), expected);
    }
}

#[test]
fn the_orders_differ_by_where_temperature_comes() {
    let logits = [3.0, 2.0, 1.0];
    let config = SamplerConfig { temperature: 4.0, top_p: 0.6, seed: 0, ..SamplerConfig::GREEDY };
    // The shares are 0.67, 0.24, 0.09 without temperature, 0.42, 0.33, 0.25 with it.
    let shares = |order| distribution(&fed(SamplerConfig { order, ..config }, &logits));
    assert_eq!(shares(Order::Official), [(0, 1.0)]);
    assert_eq!(shares(Order::Common).len(), 2);
    // Without cuts they are the same, bit by bit.
    let config = SamplerConfig { top_p: 1.0, ..config };
    let shares = |order| distribution(&fed(SamplerConfig { order, ..config }, &logits));
    assert_eq!(shares(Order::Official), shares(Order::Common));
}

/// The first two examples of the book's chapter; the third one is among the penalties.
#[test]
fn the_examples_of_the_book_are_right() {
    let logits = [1.0, 2.0, 0.5, 2.0];
    let config = SamplerConfig { temperature: 1.0, top_k: 3, seed: 42, ..SamplerConfig::GREEDY };
    let mut sampler = fed(config, &logits);
    let mut cumulative = [0.0; MAX_CANDIDATES];
    let (kept, total) = sampler.keep(sampler.candidates().unwrap(), &mut cumulative);
    assert_eq!((kept, total), (3, 2.0 + f32::from_bits(0x3ebc_5ab2)));
    assert_eq!(sampler.rng.clone().next_unit().to_bits(), 0x3ed3_d0b4);
    assert_eq!(sampler.finish(), Ok(1));
    let left = |order, top_p| {
        let row = distribution(&fed(SamplerConfig { order, top_p, ..config }, &logits));
        row.into_iter().map(|(token, _)| token).collect::<Vec<_>>()
    };
    assert_eq!(left(Order::Common, 0.4), [1, 3]);
    assert_eq!(left(Order::Official, 0.4), [1, 3]);
    assert_eq!(left(Order::Common, 0.3), [1]);
    assert_eq!(left(Order::Official, 0.3), [1, 3]);
}

#[test]
fn tokens_are_pinned() {
    let mut noise = Xoshiro128StarStar::from_seed(1);
    let mut draw = |temperature, top_k, top_p, more: SamplerConfig| {
        let mut sampler =
            Sampler::new(SamplerConfig { temperature, top_k, top_p, seed: 2024, ..more }).unwrap();
        core::array::from_fn(|_| {
            sampler.begin();
            let logits: [f32; 256] = core::array::from_fn(|_| noise.next_unit() * 12.0);
            sampler.push(0, &logits);
            sampler.finish().unwrap()
        })
    };
    let off = SamplerConfig::GREEDY;
    assert_eq!(draw(0.0, 0, 1.0, off), [37, 137, 134, 3, 179, 250, 53, 235, 216, 68, 243, 68]);
    assert_eq!(draw(1.0, 0, 1.0, off), [196, 255, 204, 91, 16, 230, 111, 237, 171, 131, 187, 30]);
    assert_eq!(draw(0.8, 40, 0.9, off), [29, 137, 82, 252, 170, 136, 157, 228, 58, 114, 167, 104]);
    assert_eq!(draw(2.0, 0, 0.5, off), [200, 59, 112, 55, 134, 75, 149, 40, 10, 201, 255, 149]);
    let official = SamplerConfig { order: Order::Official, ..off };
    assert_eq!(draw(1.5, 0, 0.5, official), [240, 207, 34, 144, 6, 248, 22, 236, 196, 99, 163, 32]);
    assert_eq!(
        draw(0.7, 20, 1.0, SamplerConfig { min_p: 0.1, ..official }),
        [37, 196, 92, 143, 119, 77, 45, 6, 54, 163, 67, 53]
    );
    assert_eq!(
        draw(1.0, 0, 1.0, SamplerConfig { min_p: 0.2, ..off }),
        [65, 148, 12, 216, 23, 176, 181, 255, 74, 245, 101, 70]
    );
    let penalties = SamplerConfig { repetition: 1.1, presence: 0.4, frequency: 0.4, ..official };
    let penalties = SamplerConfig { penalty_decay: 0.996, ..penalties };
    assert_eq!(
        draw(1.2, 0, 0.85, penalties),
        [196, 120, 66, 98, 105, 182, 110, 56, 7, 198, 80, 35]
    );
    assert_eq!(draw(0.0, 0, 1.0, penalties), [6, 123, 205, 10, 185, 156, 52, 7, 48, 164, 152, 121]);
}

#[test]
fn errors_stick_and_take_no_random_number() {
    let config = SamplerConfig { temperature: 1.0, top_p: 0.9, seed: 3, ..SamplerConfig::GREEDY };
    let mut sampler = Sampler::new(config).unwrap();
    let rng = sampler.rng.clone();
    assert_eq!(sampler.finish(), Err(SamplerError::NoLogits));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        sampler.begin();
        sampler.push(0, &[1.0, 2.0]);
        sampler.push(2, &[3.0, bad, f32::NAN]);
        sampler.push(9, &[1.0]);
        assert_eq!(sampler.finish(), Err(SamplerError::NonFiniteLogit { token: 3 }));
    }
    sampler.begin();
    sampler.push(0, &[1.0, 2.0]);
    sampler.push(3, &[1.0]);
    assert_eq!(sampler.finish(), Err(SamplerError::OutOfOrder { expected: 2, found: 3 }));
    assert_eq!(sampler.rng, rng);
    sampler.begin();
    sampler.push(0, &[1.0]);
    assert_eq!(sampler.finish(), Ok(0));
    assert_ne!(sampler.rng, rng);
}

#[test]
fn configurations_are_checked() {
    let valid = SamplerConfig { temperature: 1.0, top_k: 64, ..SamplerConfig::GREEDY };
    assert_eq!(valid.validate(), Ok(()));
    assert_eq!(SamplerConfig::GREEDY.validate(), Ok(()));
    for temperature in [-1.0, f32::NAN, f32::INFINITY, 1e-40] {
        let config = SamplerConfig { temperature, ..valid };
        assert_eq!(config.validate(), Err(SamplerError::Temperature));
    }
    assert_eq!(SamplerConfig { top_k: 65, ..valid }.validate(), Err(SamplerError::TopK));
    for top_p in [-0.1, 1.1, f32::NAN] {
        assert_eq!(SamplerConfig { top_p, ..valid }.validate(), Err(SamplerError::TopP));
    }
    for share in [-0.1, 1.1, f32::NAN] {
        let config = SamplerConfig { min_p: share, ..valid };
        assert_eq!(config.validate(), Err(SamplerError::MinP));
        let config = SamplerConfig { penalty_decay: share, ..valid };
        assert_eq!(config.validate(), Err(SamplerError::PenaltyDecay));
    }
    for repetition in [0.0, -1.0, 1e-40, f32::INFINITY, f32::NAN] {
        let config = SamplerConfig { repetition, ..valid };
        assert_eq!(config.validate(), Err(SamplerError::Repetition));
    }
    for penalty in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let config = SamplerConfig { presence: penalty, ..valid };
        assert_eq!(config.validate(), Err(SamplerError::Penalty));
        let config = SamplerConfig { frequency: penalty, ..valid };
        assert_eq!(config.validate(), Err(SamplerError::Penalty));
    }
    let edges = SamplerConfig { presence: -1.0, frequency: -2.0, repetition: 0.5, ..valid };
    let edges = SamplerConfig { min_p: 1.0, penalty_decay: 0.0, ..edges };
    assert_eq!(edges.validate(), Ok(()));
}
