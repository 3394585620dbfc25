//! Real checkpoints: logits that others computed, and one result however it is computed.

use std::{fs, path::Path};

use rwkv_core::{Digest, Image, kernel::Choice};
use rwkv_host::{
    checkpoint::Checkpoint,
    convert::{Options, Packing, Weights, detect},
    memory::Memory,
    prefill::{digests, digests_with, prefill},
};
use rwkv_tests::{
    formats, image, image_with,
    random::{self, Container, VERSIONS},
    shared, shipped, step, text,
};

fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).expect("expected logits are readable");
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (a, b)| if (a - b).abs() > m { (a - b).abs() } else { m })
}

/// Made with another epsilon than the official one.
const EAGLE: &str = "tiny-rwkv-5v2-730K-FP32.bin";

const CASES: [(&str, &str); 4] = [
    (EAGLE, "expected-logits-5v2-730K.bin"),
    ("tiny-rwkv-4v0-660K.pth", "expected-logits-4v0-660K.bin"),
    ("tiny-rwkv-7v0-834K.pth", "expected-logits-7v0-834K.bin"),
    ("tiny-rwkv-7v0-834K-FP32.bin", "expected-logits-7v0-834K.bin"),
];

/// How a case is converted.
fn options(checkpoint: &str, weights: Weights) -> Options<'static> {
    let group_norm_eps = (checkpoint == EAGLE).then_some(1e-5);
    Options { group_norm_eps, ..Options::new(weights) }
}

#[test]
fn f32_images_give_the_expected_logits() {
    for (name, expected) in CASES {
        let (Some(checkpoint), Some(expected)) = (shared(name), shared(expected)) else {
            continue;
        };
        let expected = floats(&expected);
        let file = image_with(&checkpoint, &options(name, Weights::F32));
        let image = file.open().expect("it opens");
        let prompt = b"\"in".map(u32::from);

        let (_, stepped) = step(&mut Memory::new(&image), &image, &prompt).expect("it steps");
        let difference = largest_difference(&stepped, &expected);
        println!("{}: {difference:e}", checkpoint.display());
        assert!(difference <= 1e-5, "{}: {difference:e}", checkpoint.display());

        let mut logits = vec![0.0; expected.len()];
        let mut memory = Memory::new(&image);
        prefill(
            &image,
            memory.state(&image).expect("it fits"),
            &prompt,
            &mut [logits.as_mut_slice()],
        )
        .expect("it prefills");
        assert_eq!(logits, stepped);
    }
}

/// Several heads, and a prompt of 56 bytes: what the plain numpy step of `models/train/evaluate.py`
/// makes of it (`evaluate.py FILE --prompt @tests/golden/prompt.txt --logits OUT`).
#[test]
fn shipped_models_agree_with_numpy() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let prompt: Vec<u32> =
        fs::read(golden.join("prompt.txt")).expect("prompt").into_iter().map(u32::from).collect();
    for model in ["tunes-v4", "tunes-v7"] {
        let expected = floats(&golden.join(format!("{model}.logits")));
        let file = image(&shipped(model), Weights::F32);
        let image = file.open().expect("it opens");
        let (_, logits) = step(&mut Memory::new(&image), &image, &prompt).expect("it steps");
        let largest = expected.iter().fold(0.0f32, |m, x| if x.abs() > m { x.abs() } else { m });
        let difference = largest_difference(&logits, &expected) / largest;
        println!("{model}: {difference:e} of the largest logit");
        assert!(difference <= 1e-5, "{model}: {difference:e}");
    }
}

/// Several heads, one or many values per head, widths that are no multiple of 32, and a text of 64
/// bytes: what the PyPI package `rwkv` makes of it.
#[test]
fn random_models_agree_with_the_package() {
    for version in VERSIONS {
        let checkpoint = random::checkpoint(version, Container::Safetensors);
        let file = image(checkpoint.path(), Weights::F32);
        let image = file.open().expect("it opens");
        let (text, expected) = random::expected(version);
        let vocab = image.header().dims.vocab as usize;
        let silent = text.len() - expected.len() / vocab;
        let mut memory = Memory::new(&image);
        step(&mut memory, &image, &text[..silent]).expect("it steps");
        for (token, expected) in text[silent..].iter().zip(expected.chunks_exact(vocab)) {
            let (_, logits) = step(&mut memory, &image, &[*token]).expect("it steps");
            let largest =
                expected.iter().fold(0.0f32, |m, x| if x.abs() > m { x.abs() } else { m });
            let difference = largest_difference(&logits, expected) / largest;
            println!("{version}: {difference:e} of the largest logit");
            assert!(difference <= 1e-4, "{version}: {difference:e}");
        }
    }
}

/// The digest of every token of a short prompt: what every implementation must reproduce, and
/// what no change may move unnoticed. `RWKV_BLESS=1 cargo test` writes the table anew.
#[test]
fn digests_are_the_pinned_ones() {
    let mut table = String::new();
    for model in ["tunes-v4", "tunes-v7"] {
        for (name, options) in &formats()[..4] {
            let file = image_with(&shipped(model), options);
            let image = file.open().expect("it opens");
            let prompt = b"X:1\nT:A".map(u32::from);
            let (digests, _) = step(&mut Memory::new(&image), &image, &prompt).expect("it steps");
            for (token, Digest(a, b)) in prompt.iter().zip(digests) {
                table.push_str(&format!("{model} {name} {token:3} {a:08x}{b:08x}\n"));
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/digests.txt");
    if std::env::var_os("RWKV_BLESS").is_some() {
        fs::write(&path, &table).expect("written");
    }
    assert_eq!(table, fs::read_to_string(&path).expect("the pinned table"));
}

#[test]
fn integer_images_stay_close() {
    // The bound of int8 follows from the arithmetic: half a step of 127 per weight, averaged over
    // 64 to 128 inputs. Sub-scales make up for most of a step that is 127 / 7 times as long.
    for (weights, bound) in [(Weights::F16, 0.01), (Weights::Int8, 0.1), (Weights::Int4, 0.5)] {
        for (name, expected) in CASES {
            // Twelve layers with heads of 8 lose more to four bits than such a bound can judge.
            if (name, weights) == (EAGLE, Weights::Int4) {
                continue;
            }
            let (Some(checkpoint), Some(expected)) = (shared(name), shared(expected)) else {
                continue;
            };
            let file = image_with(&checkpoint, &options(name, weights));
            let image = file.open().expect("it opens");
            let prompt = b"\"in".map(u32::from);
            let (_, logits) = step(&mut Memory::new(&image), &image, &prompt).expect("it steps");
            let difference = largest_difference(&logits, &floats(&expected));
            println!("{}, {weights:?}: {difference:e}", checkpoint.display());
            assert!(difference <= bound, "{}: {difference:e}", checkpoint.display());
        }
    }
}

#[test]
fn what_an_image_cannot_hold_is_refused_by_name() {
    for (tensor, expected) in [
        ("blocks.0.qkv.qq.weight", "RWKV-7b checkpoints"),
        ("blocks.0.rosa.q.weight", "RWKV-8 checkpoints"),
    ] {
        let file = random::checkpoint_with("6", &[tensor]);
        let checkpoint = Checkpoint::open(file.path()).expect("it opens");
        let error = detect(&checkpoint).expect_err(tensor).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

/// The same weights, in blocks of five bits: 31 steps per block, where int4 has 15.
#[test]
fn a_quantised_checkpoint_stays_close() {
    for (name, expected) in [
        ("tiny-rwkv-4v0-660K-Q5_1.bin", "expected-logits-4v0-660K.bin"),
        ("tiny-rwkv-7v0-834K-Q5_1.bin", "expected-logits-7v0-834K.bin"),
    ] {
        let (Some(checkpoint), Some(expected)) = (shared(name), shared(expected)) else {
            continue;
        };
        let file = image(&checkpoint, Weights::F32);
        let image = file.open().expect("it opens");
        let prompt = b"\"in".map(u32::from);
        let (_, logits) = step(&mut Memory::new(&image), &image, &prompt).expect("it steps");
        let difference = largest_difference(&logits, &floats(&expected));
        println!("{name}: {difference:e}");
        assert!(difference <= 0.5, "{name}: {difference:e}");
    }
}

/// The same weights, rounded to bfloat16.
#[test]
fn a_rounded_checkpoint_stays_close() {
    let (Some(checkpoint), Some(expected)) =
        (shared("tiny-rwkv-5v2-730K-bf16.pth"), shared("expected-logits-5v2-730K.bin"))
    else {
        return;
    };
    let file = image_with(&checkpoint, &options(EAGLE, Weights::F32));
    let image = file.open().expect("it opens");
    let prompt = b"\"in".map(u32::from);
    let (_, logits) = step(&mut Memory::new(&image), &image, &prompt).expect("it steps");
    let difference = largest_difference(&logits, &floats(&expected));
    println!("{}: {difference:e}", checkpoint.display());
    assert!(difference <= 0.1, "{difference:e}");
}

/// Every split of a prompt between steps and sequences gives the bits of steps alone.
fn sequence_equals_step(image: &Image<'_>, prompt: &[u32]) {
    let (expected, _) = step(&mut Memory::new(image), image, prompt).expect("it steps");
    for pieces in [vec![prompt.len()], vec![1, 2, 15, 16, 17], vec![300], vec![7; 9]] {
        let mut memory = Memory::new(image);
        let mut found: Vec<Digest> = Vec::new();
        for piece in pieces {
            let end = (found.len() + piece).min(prompt.len());
            let tokens = &prompt[found.len()..end];
            found.extend(
                digests(image, memory.state(image).expect("it fits"), tokens).expect("it prefills"),
            );
        }
        let rest = &prompt[found.len()..];
        found.extend(step(&mut memory, image, rest).expect("it steps").0);
        assert_eq!(found, expected);
    }
}

#[test]
fn sequence_executor_gives_the_bits_of_the_step_executor() {
    let prompt = text(400, 1);
    for model in ["tunes-v4", "tunes-v7"] {
        for (_, options) in formats() {
            let file = image_with(&shipped(model), &options);
            sequence_equals_step(&file.open().expect("it opens"), &prompt);
        }
    }
    for version in VERSIONS {
        let checkpoint = random::checkpoint(version, Container::Safetensors);
        for (_, options) in formats() {
            let file = image_with(checkpoint.path(), &options);
            sequence_equals_step(&file.open().expect("it opens"), &prompt);
        }
    }
}

#[test]
fn the_packing_of_four_bits_changes_no_result() {
    let prompt = text(20, 9);
    for model in ["tunes-v4", "tunes-v7"] {
        for input_bits in [None, Some(8)] {
            let results = [Packing::Pairs, Packing::Lanes].map(|packing| {
                let options = Options { packing, input_bits, ..Options::new(Weights::Int4) };
                let file = image_with(&shipped(model), &options);
                let image = file.open().expect("it opens");
                step(&mut Memory::new(&image), &image, &prompt).expect("it steps")
            });
            assert_eq!(results[0], results[1]);
        }
    }
}

/// Every kernel that this machine can run gives the bits of the scalar one, in every format.
#[test]
fn kernels_give_the_bits_of_the_scalar_one() {
    let prompt = text(100, 2);
    for model in ["tunes-v4", "tunes-v7"] {
        for (format, options) in formats() {
            let file = image_with(&shipped(model), &options);
            let image = file.open().expect("it opens");
            let run = |kernel: Choice| {
                let mut memory = Memory::new(&image);
                let state = memory.state(&image).expect("it fits");
                let mut logits = vec![Digest::default(); prompt.len()];
                digests_with(kernel, &image, state, &prompt, &mut logits, |digest| *digest)
                    .expect("it prefills")
            };
            let expected = run(Choice::by_name("generic").expect("it runs anywhere"));
            for name in Choice::NAMES {
                match Choice::by_name(name) {
                    Some(kernel) => assert_eq!(run(kernel), expected, "{model}, {format}, {name}"),
                    None => println!("skipped: {name}, since this core lacks it"),
                }
            }
        }
    }
}

#[test]
fn a_state_that_failed_refuses_to_step() {
    let file = image(&shipped("tunes-v4"), Weights::F32);
    let image = file.open().expect("it opens");
    let mut memory = Memory::new(&image);
    memory.state(&image).expect("it fits").layer_mut(&image.header().dims, 0)[1][0] = f32::NAN;
    let token = [65];
    assert_eq!(step(&mut memory, &image, &token).unwrap_err(), rwkv_core::Error::NonFinite);
    assert_eq!(step(&mut memory, &image, &token).unwrap_err(), rwkv_core::Error::BrokenState);
    memory.reset(&image);
    let (digests, _) = step(&mut memory, &image, &token).expect("it steps again");
    assert_eq!(digests, step(&mut Memory::new(&image), &image, &token).expect("it steps").0);
}

#[test]
fn a_token_outside_the_vocabulary_leaves_the_state_alone() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().expect("it opens");
    let mut memory = Memory::new(&image);
    let wrong = rwkv_core::Error::Token { token: 256, vocab: 256 };
    assert_eq!(step(&mut memory, &image, &[256]).unwrap_err(), wrong);
    let (digests, _) = step(&mut memory, &image, &[65]).expect("it steps");
    assert_eq!(digests, step(&mut Memory::new(&image), &image, &[65]).expect("it steps").0);
}
