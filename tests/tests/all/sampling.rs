//! The official order of sampling, against what the package `rwkv` computes: see
//! `golden/sampler/make.py`.

use std::{fs, path::Path};

use rwkv_core::sampler::{Order, Sampler, SamplerConfig};

const DRAWS: usize = 20_000;

fn numbers(line: &str) -> Vec<f32> {
    line.split(' ').map(|number| number.parse().expect("a number")).collect()
}

/// Tokens come as often as their probabilities say, and those without any never.
#[test]
fn tokens_are_drawn_with_the_probabilities_of_the_package() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/sampler/official.txt");
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<Vec<f32>> = text.lines().map(numbers).collect();
    assert_eq!(lines.len(), 3 * 11);
    for case in lines.chunks(3) {
        let [settings, logits, wanted] = case else { panic!("three lines") };
        let config = SamplerConfig {
            temperature: settings[0],
            top_p: settings[1],
            top_k: settings[2] as u16,
            order: Order::Official,
            seed: 7,
            ..SamplerConfig::GREEDY
        };
        let mut sampler = Sampler::new(config).unwrap();
        let mut counts = vec![0usize; logits.len()];
        for _ in 0..DRAWS {
            sampler.begin();
            sampler.push(0, logits);
            counts[sampler.finish().unwrap() as usize] += 1;
        }
        for (token, (count, p)) in counts.iter().zip(wanted).enumerate() {
            let (count, p) = (*count as f64 / DRAWS as f64, f64::from(*p));
            // Five standard deviations.
            let most = 5.0 * (p * (1.0 - p) / DRAWS as f64).sqrt();
            assert!((count - p).abs() <= most, "{settings:?}: token {token}: {count}, not {p}");
        }
    }
}
