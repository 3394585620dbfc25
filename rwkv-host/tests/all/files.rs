//! What the tool writes, and what it must not write over.

use std::{fs, path::PathBuf};

use crate::tool::{folder, rwkv};

#[test]
fn no_command_writes_over_what_it_reads() {
    let dir = folder();
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    fs::hard_link(at("x"), at("linked")).unwrap();
    let sub = dir.path().file_name().unwrap().to_str().unwrap();
    let around = format!("../{sub}/x");
    let prompt = ["--prompt-file", "p"];
    let cases: &[(&[&str], &str, &str)] = &[
        (&["convert", "c", "--weights", "int8", "-o", "c"], "c", "checkpoint"),
        (&["convert", "c", "--recipe", "r", "-o", "r"], "r", "recipe"),
        (&["convert", "c", "--weights", "int8", "--calibrate", "p", "-o", "p"], "p", "text"),
        (&["export", "x", "-o", "x"], "x", "image"),
        (&["export", "x", "-o", &around], "x", "image"),
        (&["export", "x", "-o", "linked"], "linked", "image"),
        (&["prefill", "x", "-o", "x"], "x", "image"),
        (&["prefill", "x", prompt[0], prompt[1], "-o", "p"], "p", "prompt"),
        (&["embed", "x", "-o", "x"], "x", "image"),
        (&["embed", "x", "--state", "s", "-o", "s"], "s", "saved state"),
        (&["logits", "x", "-o", "x"], "x", "image"),
        (&["logits", "x", "--state", "s", "-o", "s"], "s", "saved state"),
        (&["generate", "x", "-n", "2", "--save-state", "x"], "x", "image"),
        (&["generate", "x", prompt[0], prompt[1], "--save-state", "p"], "p", "prompt"),
        (&["bake", "x", prompt[0], prompt[1], "-o", "p"], "p", "prompt"),
        (&["bake", "x", "--state", "s", "-o", "s"], "s", "saved state"),
        (&["bake", "x", "--tuned", "c", "-o", "c"], "c", "tuned states"),
        (&["profile", "x", "-n", "1", "--svg", "x"], "x", "image"),
    ];
    for (args, file, what) in cases {
        let before = fs::read(at(file)).unwrap();
        let error = rwkv(dir.path(), args).unwrap_err();
        let told = error.contains(&format!("the place of the {what} "));
        assert!(told && error.contains("another name"), "{args:?}: {error}");
        assert!(fs::read(at(file)).unwrap() == before, "{args:?}");
    }
}

/// A shard is as much a part of the checkpoint as its index.
#[test]
fn shards_are_not_written_over() {
    let dir = folder();
    let bytes = fs::read(dir.path().join("c")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let places: Vec<String> =
        tensors.names().iter().map(|name| format!("{name:?}:\"c\"")).collect();
    let index = format!("{{\"weight_map\":{{{}}}}}", places.join(","));
    fs::write(dir.path().join("index"), index).unwrap();
    for output in ["c", "index"] {
        let args = ["convert", "index", "--weights", "int8", "-o", output];
        let error = rwkv(dir.path(), &args).unwrap_err();
        assert!(error.contains("the place of the checkpoint "), "{error}");
    }
    assert!(fs::read(dir.path().join("c")).unwrap() == bytes);
}

#[test]
fn a_file_of_the_same_kind_may_be_replaced() {
    let dir = folder();
    for args in [
        &["bake", "x", "--prompt-file", "p", "-o", "x"][..],
        &["prefill", "x", "--prompt-file", "p", "-o", "s"],
        &["generate", "x", "-n", "2", "--state", "s", "--save-state", "s"],
        &["prefill", "x", "--state", "s", "--prompt", "|", "-o", "s"],
    ] {
        rwkv(dir.path(), args).unwrap();
    }
}
