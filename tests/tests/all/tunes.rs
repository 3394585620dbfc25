//! The grammar of tunes: what it takes of real ones, and what a model writes within it.

use std::{fs, path::Path};

use rwkv_core::{
    Generator, Model,
    sampler::{Abc, Sampler, SamplerConfig, Tunes},
    stream::InPlace,
    tokenizer::{StopStream, Tokenizer},
};
use rwkv_host::{convert::Weights, memory::Memory};
use rwkv_tests::{image, shipped};

/// How much of a text the grammar takes: its end, and how many bytes.
fn taken(text: &[u8]) -> (Option<Abc>, usize) {
    let mut tune = Abc::new();
    for (at, byte) in text.iter().enumerate() {
        match tune.after(&[*byte]) {
            Some(next) => tune = next,
            None => return (None, at),
        }
    }
    (Some(tune), text.len())
}

/// Real tunes have chords, other ornaments, and bars that are wrong.
#[test]
fn most_of_the_lines_of_real_tunes_are_taken() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/text");
    let (mut lines, mut whole, mut tunes, mut all) = (0, 0, 0, 0);
    for name in ["tunes-valid.abc", "tunes-heldout.abc"] {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        for tune in text.split_inclusive("\n\n") {
            let (end, bytes) = taken(tune.as_bytes());
            let head = tune.find("K:").unwrap_or_default();
            let body = tune[head..].lines().count() - 1;
            let good = tune[..bytes].get(head..).unwrap_or_default().matches('\n').count();
            (lines, all) = (lines + good.saturating_sub(1).min(body), all + body);
            (whole, tunes) = (whole + usize::from(end == Some(Abc::new())), tunes + 1);
        }
    }
    println!(
        "{whole} of {tunes} tunes are in the grammar, and {lines} of {all} lines up to what is not"
    );
    assert!(whole * 4 > tunes && lines * 2 > all);
}

#[test]
fn a_model_keeps_to_it() {
    const PROMPT: &str = "X:1\nT:";
    const LIMIT: usize = 700;
    for name in ["tunes-v4", "tunes-v7"] {
        let file = image(&shipped(name), Weights::Int8);
        let image = file.open().unwrap();
        let (mut ended, mut within, tries) = (0, 0, 8);
        for seed in 0..tries {
            let config = SamplerConfig { temperature: 0.8, seed, ..SamplerConfig::GREEDY };
            let write = |masked: bool| {
                let mut memory = Memory::new(&image);
                let (state, scratch) = memory.split(&image).unwrap();
                let stream = InPlace::new(image.words());
                let model = Model::new(*image.header(), stream, scratch).unwrap();
                let sampler = Sampler::new(config).unwrap();
                let mask = masked.then(|| Tunes::new(Tokenizer::Bytes));
                let mut generator = Generator::new(model, state, Tokenizer::Bytes, sampler);
                generator.reset().unwrap();
                let mut generator = generator.with_mask(mask);
                generator.read(PROMPT.as_bytes()).unwrap();
                let mut text = PROMPT.as_bytes().to_vec();
                let mut stop = StopStream::new(&[b"\n\n"]).unwrap();
                let ending = generator.generate(LIMIT, &mut stop, |piece| {
                    text.extend_from_slice(piece);
                });
                (ending.unwrap(), text)
            };
            let (ending, mut text) = write(true);
            if ending == rwkv_core::Ending::Stop(0) {
                text.extend_from_slice(b"\n\n");
                ended += 1;
            }
            let (end, at) = taken(&text);
            let shown = String::from_utf8_lossy(&text);
            assert!(end.is_some(), "byte {at} of {shown}");
            within += usize::from(taken(&write(false).1).0.is_some());
        }
        println!("{name}: {ended} of {tries} tunes end; {within} keep to the grammar without it");
        assert!(ended > 0 && within < tries as usize);
    }
}
