//! The fast path is close to the exact one: on every model of floats, over long texts, whatever
//! the decays and wherever the text is cut.

use std::path::Path;

use clap::{Parser, error::ErrorKind};
use rayon::ThreadPoolBuilder;
use rwkv_core::Image;
use rwkv_host::{
    cli::Cli,
    convert::Weights,
    file::ImageFile,
    memory::Memory,
    prefill::{
        fast::{BOUND, FastError, FastReader, deviation},
        prefill,
    },
};
use rwkv_tests::{
    image,
    random::{self, Container, VERSIONS},
    shared, shipped, text, xorshift,
};

/// Tokens of a long text: many chunks.
const LONG: usize = 3000;
/// How close models are that forget.
const CLOSE: f32 = 1e-5;

fn exact(image: &Image<'_>, text: &[u32]) -> Vec<f32> {
    let vocab = image.header().dims.vocab as usize;
    let mut logits = vec![0.0; text.len() * vocab];
    let mut sinks: Vec<_> = logits.chunks_exact_mut(vocab).collect();
    let mut memory = Memory::new(image);
    prefill(image, memory.state(image).expect("it fits"), text, &mut sinks).expect("it reads");
    logits
}

/// The same, fast, in pieces of random lengths up to `most`.
fn fast(image: &Image<'_>, text: &[u32], most: usize) -> Vec<f32> {
    let vocab = image.header().dims.vocab as usize;
    let mut logits = vec![0.0; text.len() * vocab];
    let mut reader = FastReader::new(image).expect("it holds floats");
    let mut random = xorshift(most as u32);
    let mut at = 0;
    while at < text.len() {
        let piece = text.len().min(at + 1 + random() as usize % most) - at;
        let rows = &mut logits[at * vocab..(at + piece) * vocab];
        let mut sinks: Vec<_> = rows.chunks_exact_mut(vocab).collect();
        reader.read(&text[at..at + piece], &mut sinks).expect("it reads");
        at += piece;
    }
    logits
}

/// The largest difference of a model, whose logits must not be further away than `bound`.
fn is_close(name: &str, file: &ImageFile, text: &[u32], bound: f32) -> f32 {
    let image = file.open().expect("it opens");
    let vocab = image.header().dims.vocab as usize;
    let exact = exact(&image, text);
    let cuts = [1, 40, 2000].map(|most| {
        // One token at a time is slow.
        let tokens = text.len().min(most * 200);
        let fast = fast(&image, &text[..tokens], most);
        let apart = deviation(&exact[..tokens * vocab], &fast, vocab);
        assert!(apart <= bound, "{name}, pieces up to {most}: {apart:e}");
        apart
    });
    cuts.into_iter().fold(0.0, f32::max)
}

fn floats(name: &str, checkpoint: &Path, text: &[u32], bound: f32) {
    let whole = is_close(&format!("{name} f32"), &image(checkpoint, Weights::F32), text, bound);
    let start = &text[..text.len().min(500)];
    let half = is_close(&format!("{name} f16"), &image(checkpoint, Weights::F16), start, bound);
    println!("{name}: {:.1e} of the largest logit", whole.max(half));
}

#[test]
fn random_models_are_close() {
    for (seed, version) in (1..).zip(VERSIONS) {
        let checkpoint = random::checkpoint(version, Container::Safetensors);
        floats(version, checkpoint.path(), &text(LONG, seed), CLOSE);
    }
    for version in ["5.2", "6", "7", "7a"] {
        let checkpoint = random::released(version);
        floats(&format!("{version}, one head of 64"), checkpoint.path(), &text(1000, 9), CLOSE);
    }
    floats("7, wide", random::wider("7", 6).path(), &text(500, 10), CLOSE);
}

/// Decays of zero, where quotients and logarithms of them have no value, and next to one, where
/// nothing is ever forgotten.
#[test]
fn hostile_decays_change_nothing() {
    for (seed, version) in (20..).zip(VERSIONS) {
        let checkpoint = random::hostile(version);
        floats(&format!("{version}, hostile"), checkpoint.path(), &text(LONG, seed), BOUND);
    }
}

#[test]
fn real_models_are_close() {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/text");
    let tune = std::fs::read(texts.join("tunes-heldout.abc")).expect("the tunes");
    let tune: Vec<u32> = tune.into_iter().take(1000).map(u32::from).collect();
    for model in ["tunes-16k", "tunes-v4", "tunes-v7", "tunes-m4"] {
        floats(model, &shipped(model), &tune, CLOSE);
    }
    for model in [
        "tiny-rwkv-4v0-660K.pth",
        "tiny-rwkv-5v2-730K-FP32.bin",
        "tiny-rwkv-5v2-730K-bf16.pth",
        "tiny-rwkv-7v0-834K.pth",
        "tiny-rwkv-4v0-660K-Q5_1.bin",
        "tiny-rwkv-7v0-834K-Q5_1.bin",
    ] {
        if let Some(checkpoint) = shared(model) {
            floats(model, &checkpoint, &tune, CLOSE);
        }
    }
}

/// The figures of an evaluation depend on no number of threads.
#[test]
fn threads_change_nothing() {
    let file = image(random::wider("7", 6).path(), Weights::F16);
    let image = file.open().expect("it opens");
    let text = text(300, 3);
    let on = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| fast(&image, &text, 256))
    };
    let one = on(1);
    assert!(on(2) == one && on(5) == one);
}

#[test]
fn integers_are_refused() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().expect("it opens");
    let error = FastReader::new(&image).expect_err("it holds integers");
    assert!(matches!(error, FastError::Integers { .. }));
    assert!(error.to_string().contains("leave --fast away"), "{error}");
}

/// What a device is held to, or goes on from, has no way to the fast path.
#[test]
fn evaluation_alone_is_fast() {
    let kind = |command| {
        let parsed = Cli::try_parse_from(["rwkv", command, "model.rwkv", "--fast"]);
        parsed.map(|_| ()).expect_err("more is asked for").kind()
    };
    assert_eq!(kind("eval"), ErrorKind::MissingRequiredArgument);
    let others =
        ["prefill", "bake", "generate", "logits", "embed", "surprise", "validate", "trace"];
    for command in others {
        assert_eq!(kind(command), ErrorKind::UnknownArgument, "{command}");
    }
}
