//! How surprising a text is: the same bits on every executor, and the bits that `rwkv eval` adds up.

use std::process::Command;

use rwkv_core::{Model, Surprise, stream::InPlace};
use rwkv_host::{
    convert::Weights,
    eval::{Options, evaluate},
    memory::Memory,
};
use rwkv_tests::{image, shipped};

const TEXT: &str = "X:1\nT:The Hare\nM:4/4\nL:1/8\nK:G\nGABc d2zz | dcBA G4 |";

#[test]
fn the_command_says_what_a_device_would() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.rwkv");
    for name in ["tunes-v4", "tunes-v7"] {
        let file = image(&shipped(name), Weights::Int8);
        std::fs::write(&path, file.bytes()).unwrap();
        let run = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rwkv"));
            command.arg("surprise").arg(&path).args(["--prompt", TEXT]).args(more);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
        let costs = json["tokens"].as_array().unwrap();
        assert_eq!(costs.len(), TEXT.len());
        assert!(costs[0]["bits"].is_null());

        let image = file.open().unwrap();
        let tokens: Vec<u32> = TEXT.bytes().map(u32::from).collect();
        let mut memory = Memory::new(&image);
        let (mut state, scratch) = memory.split(&image).unwrap();
        let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch).unwrap();
        let mut sum = 0.0;
        for (pair, cost) in tokens.windows(2).zip(&costs[1..]) {
            let mut surprise = Surprise::of(pair[1]);
            model.step(state.reborrow(), pair[0], &mut surprise).unwrap();
            let bits = surprise.bits().unwrap();
            assert_eq!(cost["bits"].as_f64().unwrap() as f32, bits, "{name}, {cost}");
            assert_eq!(cost["id"], pair[1]);
            sum += f64::from(bits);
        }
        let report = evaluate(&image, None, &tokens, &Options::default(), |_, _| {}).unwrap();
        let mean = sum / (TEXT.len() - 1) as f64;
        assert!((report.score.bits_per_byte - mean).abs() < 1e-5, "{name}: {mean}");
        assert_eq!(json["bits_per_byte"], mean);

        // Every line has a token, and the last one the mean.
        let shown = run(&[]);
        assert_eq!(shown.lines().count(), TEXT.len() + 1);
        assert!(shown.ends_with(&format!("{mean:.3} per byte, over {} tokens\n", TEXT.len() - 1)));
    }
}

#[test]
fn one_token_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.rwkv");
    std::fs::write(&path, image(&shipped("tunes-v4"), Weights::Int8).bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rwkv"));
    let output = command.arg("surprise").arg(&path).args(["--prompt", "X"]).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("give a longer one"), "{error}");
}
