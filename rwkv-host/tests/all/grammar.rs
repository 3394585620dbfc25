//! `rwkv generate --grammar`.

use std::process::{Command, Output};

use rwkv_core::sampler::Abc;
use rwkv_host::convert::Weights;
use rwkv_tests::{image, shipped};

#[test]
fn the_tool_writes_tunes_in_the_grammar() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.rwkv");
    std::fs::write(&path, image(&shipped("tunes-16k"), Weights::Int8).bytes()).unwrap();
    let run = |prompt: &str, more: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rwkv"));
        command.arg("generate").arg(&path).args(["--prompt", prompt, "--temperature", "1"]);
        command.args(["-n", "300", "--stop", "\n\n"]).args(more).output().unwrap()
    };
    for seed in ["1", "2", "3"] {
        let output = run("X:1\nT:", &["--grammar", "abc", "--seed", seed]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // A line break ends what is printed.
        let text = output.stdout.strip_suffix(b"\n").unwrap();
        assert!(Abc::new().after(text).is_some(), "{}", String::from_utf8_lossy(text));
    }
    let refused = run("X:1\nK:G\n[GBd]", &["--grammar", "abc"]);
    assert!(!refused.status.success());
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("not in the grammar"), "{error}");

    // Of a text that goes on, nobody knows the beginning.
    let baked = dir.path().join("baked.rwkv");
    let mut bake = Command::new(env!("CARGO_BIN_EXE_rwkv"));
    bake.arg("bake").arg(&path).args(["--prompt", "X:1\n"]).arg("-o").arg(&baked);
    assert!(bake.output().unwrap().status.success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_rwkv"));
    let refused = command.arg("generate").arg(&baked).args(["--grammar", "abc"]).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("not baked"), "{error}");
}
