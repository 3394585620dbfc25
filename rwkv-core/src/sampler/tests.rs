//! Against a naive sampler in binary64 that sorts the whole vocabulary.

extern crate std;
use super::*;
use proptest::prelude::*;
use std::vec::Vec;

/// Tokens and their probabilities after top-k and top-p; `None` where the cut of top-p is too close
/// for binary32 to tell.
fn naive(config: &SamplerConfig, logits: &[f32]) -> Option<Vec<(u32, f64)>> {
    let max = logits.iter().map(|&l| f64::from(l)).fold(f64::NEG_INFINITY, f64::max);
    let mass = |l: f32| libm::exp((f64::from(l) - max) / f64::from(config.temperature));
    let all: f64 = logits.iter().map(|&l| mass(l)).sum();
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    order.truncate(if config.top_k == 0 { MAX_CANDIDATES } else { config.top_k.into() });

    let (mut kept, mut cumulative) = (Vec::new(), 0.0);
    for token in order {
        let p = mass(logits[token as usize]) / all;
        kept.push((token, p));
        cumulative += p;
        if config.top_p < 1.0 {
            if (cumulative - f64::from(config.top_p)).abs() < 1e-5 {
                return None;
            }
            if cumulative >= f64::from(config.top_p) {
                break;
            }
        }
    }
    let total: f64 = kept.iter().map(|&(_, p)| p).sum();
    Some(kept.into_iter().map(|(token, p)| (token, p / total)).collect())
}

fn fed(config: SamplerConfig, logits: &[f32]) -> Sampler {
    let mut sampler = Sampler::new(config).unwrap();
    sampler.push(0, logits);
    sampler
}

/// What the sampler chooses from.
fn distribution(sampler: &Sampler) -> Vec<(u32, f64)> {
    let mut cumulative = [0.0; MAX_CANDIDATES];
    let (kept, total) = sampler.keep(&mut cumulative).unwrap();
    let mut before = 0.0;
    let share = |(candidate, &sum): (&Candidate, &f32)| {
        let mass = f64::from(sum) - before;
        before = f64::from(sum);
        (candidate.token, mass / f64::from(total))
    };
    sampler.candidates().unwrap().iter().zip(&cumulative).take(kept).map(share).collect()
}

/// Logits on a grid of quarters, so that ties abound.
fn row() -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec((-60i8..=60).prop_map(|q| f32::from(q) * 0.25), 1..300)
}

fn config() -> impl Strategy<Value = SamplerConfig> {
    let (temperature, top_p) = (0.1f32..3.0, prop_oneof![Just(0.0), Just(1.0), 0.0f32..1.0]);
    (temperature, 0..=MAX_CANDIDATES as u16, top_p, any::<u64>()).prop_map(
        |(temperature, top_k, top_p, seed)| SamplerConfig { temperature, top_k, top_p, seed },
    )
}

proptest! {
    #[test]
    fn distribution_equals_the_naive_one(config in config(), logits in row()) {
        if let Some(expected) = naive(&config, &logits) {
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
    ) {
        let logits: Vec<f32> =
            bits.into_iter().map(f32::from_bits).map(|l| if l.is_finite() { l } else { 0.0 }).collect();
        let temperature = f32::from_bits(temperature & 0x7fff_ffff);
        let config = SamplerConfig { temperature, top_k: 0, top_p, seed: 1 };
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
    let config = SamplerConfig { temperature: 1.3, top_k: 6, top_p: 0.95, seed: 7 };
    let mut sampler = fed(config, &logits);
    let mut counts = [0u32; 8];
    for _ in 0..DRAWS {
        counts[sampler.finish().unwrap() as usize] += 1;
    }
    let expected = naive(&config, &logits).unwrap();
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
    let config = SamplerConfig { temperature: 1.0, top_k: 3, top_p: 1.0, seed: 0 };
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
    let kept = |top_p, logits: &[f32]| {
        let config = SamplerConfig { temperature: 1.0, top_k: 0, top_p, seed: 0 };
        distribution(&fed(config, logits)).len()
    };
    let equal = [0.0; 4];
    // A prefix that reaches top_p exactly is long enough.
    assert_eq!(
        [0.0, 0.25, 0.2500001, 0.5, 0.75, 0.7500001, 1.0].map(|p| kept(p, &equal)),
        [1, 1, 2, 2, 3, 4, 4]
    );
    // 64 of 256 equal tokens hold a quarter of the mass: more cannot be had.
    assert_eq!(kept(0.2, &[0.0; 256]), 52);
    assert_eq!(kept(0.9, &[0.0; 256]), MAX_CANDIDATES);
    assert_eq!(kept(0.5, &[-3.0]), 1);
}

#[test]
fn tokens_are_pinned() {
    let mut noise = Xoshiro128StarStar::from_seed(1);
    let mut draw = |temperature, top_k, top_p| {
        let mut sampler =
            Sampler::new(SamplerConfig { temperature, top_k, top_p, seed: 2024 }).unwrap();
        core::array::from_fn(|_| {
            sampler.begin();
            let logits: [f32; 256] = core::array::from_fn(|_| noise.next_unit() * 12.0);
            sampler.push(0, &logits);
            sampler.finish().unwrap()
        })
    };
    assert_eq!(draw(0.0, 0, 1.0), [37, 137, 134, 3, 179, 250, 53, 235, 216, 68, 243, 68]);
    assert_eq!(draw(1.0, 0, 1.0), [196, 255, 204, 91, 16, 230, 111, 237, 171, 131, 187, 30]);
    assert_eq!(draw(0.8, 40, 0.9), [29, 137, 82, 252, 170, 136, 157, 228, 58, 114, 167, 104]);
    assert_eq!(draw(2.0, 0, 0.5), [200, 59, 112, 55, 134, 75, 149, 40, 10, 201, 255, 149]);
}

#[test]
fn errors_stick_and_take_no_random_number() {
    let config = SamplerConfig { temperature: 1.0, top_k: 0, top_p: 0.9, seed: 3 };
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
    let valid = SamplerConfig { temperature: 1.0, top_k: 64, top_p: 1.0, seed: 0 };
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
}
