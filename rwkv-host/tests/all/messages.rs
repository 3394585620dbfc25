//! What the tool says to those who gave it the wrong thing.

use std::{fs, io::Read, process::Stdio};

use crate::tool::{command, folder, rwkv};
use safetensors::{SafeTensors, tensor::TensorView};

#[test]
fn errors_name_what_was_given_and_the_next_step() {
    let dir = folder();
    let cases: &[(&[&str], &[&str])] = &[
        (&["generate", "x", "--temperature", "-1"], &["temperature"]),
        (&["generate", "x", "--top-p", "-1"], &["top"]),
        (&["generate", "x", "--top-k", "100000"], &["0..=64"]),
        (&["generate", "x", "--top-k", "65"], &["0..=64"]),
        (&["info", "s"], &["a saved state", "--state"]),
        (&["info", "c"], &["not an RWKV image", "rwkv convert"]),
        (&["convert", "x", "--weights", "int8", "-o", "y"], &["an RWKV image", "rwkv export"]),
        (&["convert", "s", "--weights", "int8", "-o", "y"], &["a saved state is not supported"]),
    ];
    for (args, told) in cases {
        let error = rwkv(dir.path(), args).unwrap_err();
        let whole = told.iter().all(|part| error.contains(part));
        assert!(whole && !error.contains("tip:"), "{args:?}: {error}");
    }
}

#[test]
fn another_models_reference_is_described() {
    let dir = folder();
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tunes-v7/tunes-v7.safetensors");
    let error = rwkv(dir.path(), &["eval", "x", "--text", "p", "--reference", other]).unwrap_err();
    for part in ["RWKV-7, ", "RWKV-4, ", "heads of ", "give the checkpoint"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains('{'), "{error}");
}

/// The package `rwkv` takes `ln0` out, and adds keys of its own.
#[test]
fn what_the_package_prepared_is_refused() {
    let dir = folder();
    let bytes = fs::read(dir.path().join("c")).unwrap();
    let mut tensors: Vec<(String, TensorView<'_>)> =
        SafeTensors::deserialize(&bytes).unwrap().tensors();
    let save = |tensors: Vec<(String, TensorView<'_>)>| {
        fs::write(dir.path().join("d"), safetensors::serialize(tensors, None).unwrap()).unwrap();
        rwkv(dir.path(), &["convert", "d", "--weights", "int8", "-o", "y"])
    };
    save(tensors.clone()).unwrap();
    let mut marked = tensors.clone();
    marked.push(("_rescale_layer".into(), tensors[0].1.clone()));
    tensors.retain(|(name, _)| !name.contains(".ln0."));
    for (tensors, sign) in [(marked, "`_rescale_layer`"), (tensors, "no blocks.0.ln0")] {
        let error = save(tensors).unwrap_err();
        let whole = [sign, "the PyPI package rwkv", "give the original checkpoint"];
        assert!(whole.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn a_start_state_is_called_so() {
    let dir = folder();
    rwkv(dir.path(), &["bake", "x", "--prompt-file", "p", "-o", "x"]).unwrap();
    let info = rwkv(dir.path(), &["info", "x"]).unwrap();
    assert!(info.lines().any(|line| line.ends_with("  start state")), "{info}");
}

/// As under `| head -1`: what reads the output goes away before it is written.
#[test]
fn a_reader_that_goes_away_ends_the_tool_quietly() {
    let dir = folder();
    for args in [
        &["info", "x"][..],
        &["info", "x", "--json"],
        &["tokens", "x", "--prompt-file", "p"],
        &["logits", "x"],
        &["embed", "x"],
        &["surprise", "x", "--prompt-file", "p"],
        &["eval", "x", "--text", "p"],
        &["generate", "x", "-n", "2"],
        &["validate", "x", "-n", "2"],
        &["profile", "x", "-n", "2"],
        &["fit", "x"],
        &["place", "x", "--flash", "64K"],
    ] {
        let mut tool = command(args, dir.path());
        let mut tool = tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(tool.stdout.take());
        let mut error = String::new();
        tool.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert!(tool.wait().unwrap().success(), "{args:?}: {error}");
        assert!(!error.contains("panicked") && !error.contains("error:"), "{args:?}: {error}");
    }
}
