//! `rwkv eval` as a program calls it.

use std::{path::Path, process::Command};

fn rwkv(args: &[&str]) -> (bool, String, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output =
        Command::new(env!("CARGO_BIN_EXE_rwkv")).args(args).current_dir(root).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn json_has_what_a_machine_wants() {
    let model = "models/tunes-v4/tunes-v4.safetensors";
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("tunes.rwkv");
    let image = image.to_str().unwrap();
    let (converted, _, error) = rwkv(&["convert", model, "-o", image, "--weights", "int8"]);
    assert!(converted, "{error}");

    let text = "models/text/tunes-heldout.abc";
    let eval = ["eval", image, "--text", text, "--tokens", "1500", "--json"];
    let (done, out, error) = rwkv(&eval);
    assert!(done && error.is_empty(), "{error}");
    let alone: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&alone["tokens"], &alone["bytes"]), (&1499.into(), &1499.into()));
    assert!(alone["reference"].is_null());

    let (done, out, error) =
        rwkv(&[&eval[..], &["--reference", model, "--part-tokens", "200"]].concat());
    assert!(done, "{error}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let number =
        |pointer: &str| report.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap();
    assert_eq!(alone["bits_per_byte"], report["bits_per_byte"]);
    let bits = number("/bits_per_byte");
    assert!((1.0..2.0).contains(&bits), "{bits}");
    assert!((number("/perplexity") - bits.exp2()).abs() < 1e-9);
    // int8 stays within 0.05 % of the float model.
    assert!((bits / number("/reference/bits_per_byte") - 1.0).abs() < 5e-4);
    assert!((0.98..=1.0).contains(&number("/reference/top1_agreement")));
    assert!((1e-9..1e-2).contains(&number("/reference/kl_bits_per_token")));
    assert!(number("/reference/largest_kl/token") < 1499.0);
    assert_eq!(report["reference"]["parts"].as_array().unwrap().len(), 6);
    assert_eq!(number("/reference/part_tokens"), 200.0);
    assert!(report["reference"]["worst_part"].is_string());
}

/// Shards are evaluated one by one, in any order, and make one report.
#[test]
fn shards_are_put_together() {
    let model = "models/tunes-v4/tunes-v4.safetensors";
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let image = path("tunes.rwkv");
    let (converted, _, error) = rwkv(&["convert", model, "-o", &image, "--weights", "int8"]);
    assert!(converted, "{error}");
    let eval = |more: &[&str]| {
        let text = ["eval", &image, "--text", "models/text/tunes-heldout.abc", "--tokens", "900"];
        let compare = ["--reference", model, "--part-tokens", "50", "--json"];
        let (done, out, error) = rwkv(&[&text[..], &compare, more].concat());
        assert!(done, "{error}");
        out
    };
    let files: Vec<String> = ["3/3", "1/3", "2/3"]
        .map(|shard| {
            let file = path(&shard.replace('/', "-"));
            std::fs::write(&file, eval(&["--shard", shard])).unwrap();
            file
        })
        .into();
    let merge = |files: &[String]| {
        let files = files.iter().map(String::as_str);
        rwkv(&["eval", "--json", "--merge"].into_iter().chain(files).collect::<Vec<_>>())
    };
    let read = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let shards: Vec<_> =
        files.iter().map(|file| read(&std::fs::read_to_string(file).unwrap())).collect();
    let (done, out, error) = merge(&files);
    assert!(done, "{error}");
    let all = read(&out);
    assert_eq!((&all["tokens"], &all["shard"]), (&897.into(), &serde_json::Value::Null));
    for field in ["/tokens", "/bytes", "/bits", "/reference/bits", "/reference/kl_bits"] {
        let of = |value: &serde_json::Value| value.pointer(field).unwrap().as_f64().unwrap();
        // In the order of the text.
        let sum = of(&shards[1]) + of(&shards[2]) + of(&shards[0]);
        assert_eq!(of(&all), sum, "{field}");
    }
    assert_eq!(all["reference"]["parts"], shards[1]["reference"]["parts"]);
    assert!(shards[0]["reference"]["parts"].as_array().unwrap().is_empty());
    let whole = read(&eval(&["--shard", "1/1"]));
    std::fs::write(path("whole"), whole.to_string()).unwrap();
    let without: serde_json::Value = read(&eval(&[]));
    let (_, out, _) = merge(&[path("whole")]);
    assert_eq!(read(&out), without);

    for (files, said) in [
        (&files[..2], "of 3 shards are missing: 2"),
        (&[files[0].clone(), files[0].clone()], "shard 3 is there more than once"),
        (&[files[0].clone(), path("whole")], "report 2 is of another image"),
        (std::slice::from_ref(&image), "is not what rwkv eval --shard --json prints"),
    ] {
        let (done, _, error) = merge(files);
        assert!(!done && error.contains(said), "{error}");
    }
}

/// Channels of a calibrated image are scaled, and single matrices are compared with a checkpoint
/// whose channels are not: the costs are those of rounding alone.
#[test]
fn scaled_channels_are_no_cost() {
    let model = "models/tunes-v4/tunes-v4.safetensors";
    let text = "models/text/tunes-valid.abc";
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (image, excerpt) = (path("tunes.rwkv"), path("excerpt.abc"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let bytes = std::fs::read(root.join(text)).unwrap();
    std::fs::write(&excerpt, &bytes[..4096]).unwrap();
    let convert = ["convert", model, "-o", &image, "--weights", "int4", "--calibrate", &excerpt];
    let (converted, _, error) = rwkv(&convert);
    assert!(converted, "{error}");
    assert!(String::from_utf8_lossy(&std::fs::read(&image).unwrap()).contains("\"scaled\":{"));

    let eval = ["eval", &image, "--text", text, "--tokens", "1000", "--json", "--reference", model];
    let (done, out, error) =
        rwkv(&[&eval[..], &["--by", "tensor", "--part-tokens", "999"]].concat());
    assert!(done, "{error}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let reference = &report["reference"];
    let whole = reference["kl_bits_per_token"].as_f64().unwrap();
    let parts = reference["parts"].as_array().unwrap();
    let costs = parts.iter().map(|part| part["kl_bits_per_token"].as_f64().unwrap());
    let sum: f64 = costs.sum();
    assert!((0.5 * whole..2.0 * whole).contains(&sum), "{sum} {whole}");
}

#[test]
fn errors_say_what_is_missing() {
    let (done, _, error) = rwkv(&["eval", "no.rwkv", "--text", "README.md"]);
    assert!(!done && error.contains("no.rwkv"), "{error}");
    let (done, _, error) = rwkv(&["eval", "no.rwkv", "--text", "README.md", "--by", "tensor"]);
    assert!(!done && error.contains("--reference"), "{error}");
}
