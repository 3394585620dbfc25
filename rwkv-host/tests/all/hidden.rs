//! The hidden vector: what the logits are products with, on every executor.

use std::process::Command;

use rwkv_core::{Hidden, Model, op, stream::InPlace};
use rwkv_host::{checkpoint::Checkpoint, convert::Weights, memory::Memory, prefill::prefill};
use rwkv_tests::{image, random, shipped, text};

/// The hidden vectors of a text, step by step, and the logits after its last token.
fn steps(image: &rwkv_core::Image<'_>, tokens: &[u32]) -> (Vec<Vec<f32>>, Vec<f32>) {
    let dims = image.header().dims;
    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image).unwrap();
    let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch).unwrap();
    let mut logits = vec![0.0; dims.vocab as usize];
    let (last, before) = tokens.split_last().unwrap();
    let mut rows = Vec::new();
    for token in before {
        let mut row = vec![0.0; dims.dim as usize];
        model.step(state.reborrow(), *token, Hidden(&mut row)).unwrap();
        rows.push(row);
    }
    let mut row = vec![0.0; dims.dim as usize];
    let both = (Hidden(&mut row), logits.as_mut_slice());
    model.step(state, *last, both).unwrap();
    rows.push(row);
    (rows, logits)
}

#[test]
fn logits_are_products_with_it_and_sequences_have_its_bits() {
    for version in random::VERSIONS {
        let file = random::checkpoint(version, random::Container::Safetensors);
        let head = Checkpoint::open(file.path()).unwrap().read("head.weight").unwrap();
        let image = image(file.path(), Weights::F32);
        let image = image.open().unwrap();
        let tokens = text(300, 5);
        let (stepped, logits) = steps(&image, &tokens);

        let last = stepped.last().unwrap();
        let rows = head.data.chunks(last.len());
        for (token, (row, logit)) in rows.zip(&logits).enumerate() {
            let product = op::dot(row, last);
            assert_eq!(product.to_bits(), logit.to_bits(), "{version}: token {token}");
        }

        // All tokens are looked at, or the last ones alone.
        for looked_at in [tokens.len(), 7] {
            let mut rows = vec![vec![0.0; last.len()]; looked_at];
            let mut sinks: Vec<Hidden<'_>> = rows.iter_mut().map(|row| Hidden(row)).collect();
            let mut memory = Memory::new(&image);
            prefill(&image, memory.state(&image).unwrap(), &tokens, &mut sinks).unwrap();
            assert!(rows == stepped[tokens.len() - looked_at..], "{version}: {looked_at}");
        }
    }
}

#[test]
fn the_command_prints_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.rwkv");
    let image = image(&shipped("tunes-v7"), Weights::Int8);
    std::fs::write(&path, image.bytes()).unwrap();
    let image = image.open().unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rwkv"));
        command.arg("embed").arg(&path).args(["--prompt", "X:1\nT:The Hare"]).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let tokens: Vec<u32> = b"X:1\nT:The Hare".iter().map(|b| u32::from(*b)).collect();
    let (rows, _) = steps(&image, &tokens);

    let printed: Vec<f32> = run(&[]).lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(&printed, rows.last().unwrap());

    let json: serde_json::Value =
        serde_json::from_str(&run(&["--json", "--pool", "mean"])).unwrap();
    assert_eq!(json["tokens"], tokens.len());
    assert_eq!(json["pool"], "mean");
    for (channel, found) in json["vector"].as_array().unwrap().iter().enumerate() {
        let sum: f64 = rows.iter().map(|row| f64::from(row[channel])).sum();
        let mean = (sum / rows.len() as f64) as f32;
        assert_eq!(found.as_f64().unwrap() as f32, mean, "channel {channel}");
    }
}
