//! `rwkv trace`, and devices that are held to what it wrote.

use std::{fs, path::Path};

use rwkv_host::trace::Trace;
use serde_json::Value;

use crate::tool::{command, folder, rwkv};

/// Three prompts: a text, one that says how far it goes, and one of tokens.
pub(crate) const PROMPTS: &str = "\"X:1\\nT:\"\n\
     {\"prompt\": \"K:G <b>&\", \"generate\": 3, \"name\": \"a <name>\"}\n\
     {\"tokens\": [88, 58, 50], \"generate\": 0}\n";

#[test]
fn a_trace_is_written_shown_and_checked() {
    let dir = folder();
    let dir = dir.path();
    fs::write(dir.join("j"), PROMPTS).unwrap();
    rwkv(dir, &["trace", "x", "--prompts", "j", "-n", "5", "--seed", "3", "-o", "t"]).unwrap();
    let bytes = fs::read(dir.join("t")).unwrap();
    let shown = rwkv(dir, &["info", "t"]).unwrap();
    assert!(shown.starts_with("trace of image "), "{shown}");
    let rows: Vec<&str> = shown.lines().skip(4).collect();
    assert!(rows[0].ends_with("prompt 1") && rows[1].ends_with("a <name>"), "{shown}");
    assert_eq!(rows[3], "25 tokens, prompts: 3");
    let json: Value = serde_json::from_str(&rwkv(dir, &["info", "t", "--json"]).unwrap()).unwrap();
    assert_eq!(json["prompts"][2]["prompt"], serde_json::json!([88, 58, 50]));
    assert_eq!(json["prompts"][1]["digests"].as_array().unwrap().len(), 11);

    let found = rwkv(dir, &["trace", "x", "--check", "t"]).unwrap();
    assert!(found.ends_with("25 tokens, 0 that differ from the trace\n"), "{found}");
    let found = rwkv(dir, &["trace", "x", "--check", "t", "--json"]).unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["tokens"], 25);
    assert_eq!(found["prompts"][0]["first_difference"], Value::Null);

    // The same prompts give the same file.
    rwkv(dir, &["trace", "x", "--prompts", "j", "-n", "5", "--seed", "3", "-o", "u"]).unwrap();
    assert_eq!(fs::read(dir.join("u")).unwrap(), bytes);
}

#[test]
fn what_is_no_trace_is_named() {
    let dir = folder();
    let dir = dir.path();
    rwkv(dir, &["trace", "x", "--prompt", "X:1", "-n", "5", "-o", "t"]).unwrap();
    let refused = |args: &[&str], expected: &str| {
        let error = rwkv(dir, args).unwrap_err();
        assert!(error.contains(expected), "{args:?}: {error}");
    };
    refused(&["trace", "x", "--check", "p"], "p is not a trace; make one with: rwkv trace");
    refused(&["trace", "x", "--check", "x"], "x is not a trace");
    refused(&["trace", "x", "--check", "no"], "cannot read trace no");
    refused(&["generate", "t"], "t is a trace and no image");
    refused(&["info", "t", "--c"], "--c is for an image");
    refused(&["trace", "x", "--prompt", "X:1", "-o", "x"], "would take the place of the image");
    refused(&["trace", "x", "--prompt", "X:1"], "--output");
    refused(&["trace", "x", "--check", "t", "--seed", "1"], "cannot be used with");
    refused(&["trace", "x", "--check", "t", "--prompts", "j"], "cannot be used with");
    refused(&["trace", "x", "--prompts", "j", "--prompt", "a", "-o", "u"], "cannot be used with");
    fs::write(dir.join("j"), "\"a\"\nb\n").unwrap();
    refused(&["trace", "x", "--prompts", "j", "-o", "u"], "prompts j: line 2; each is a string");
    refused(&["trace", "x", "--prompts", "j", "-o", "j"], "would take the place of the file of");

    rwkv(dir, &["convert", "c", "-o", "y", "--weights", "int4"]).unwrap();
    refused(&["trace", "y", "--check", "t"], "the trace is of image");
    let mut bytes = fs::read(dir.join("t")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    write("cut", &bytes[..40]);
    refused(&["trace", "x", "--check", "cut"], "cut is of no use as a trace: the trace is cut");
    bytes[40] ^= 1;
    write("damaged", &bytes);
    refused(&["trace", "x", "--check", "damaged"], "its CRC-32 does not match");
    bytes[4] = 9;
    write("newer", &bytes);
    refused(&["trace", "x", "--check", "newer"], "layout version 9 is unknown");
}

#[test]
fn a_device_is_compared_over_many_prompts() {
    let dir = folder();
    let dir = dir.path();
    fs::write(dir.join("j"), PROMPTS).unwrap();
    let many = ["validate", "x", "--prompts", "j", "-n", "5", "--temperature", "0.8"];
    let text = rwkv(dir, &many).unwrap();
    assert!(text.ends_with("25 tokens, prompts: 3, 0 differing bits\n"), "{text}");
    assert!(text.contains("held to       what this host computes"), "{text}");
    assert!(text.contains("         8          3  equal              a <name>\n"), "{text}");
    let json: Value =
        serde_json::from_str(&rwkv(dir, &[&many[..], &["--json"]].concat()).unwrap()).unwrap();
    assert_eq!((&json["tokens"], &json["differing"]), (&25.into(), &0.into()));
    assert_eq!(json["prompts"][1]["name"], "a <name>");
    assert_eq!(json["info"]["board"], "sim");

    // From a saved state on, whose last token is pending.
    let text = rwkv(dir, &[&many[..], &["--state", "s"]].concat()).unwrap();
    assert!(text.ends_with("28 tokens, prompts: 3, 0 differing bits\n"), "{text}");

    // After a difference the next prompt follows, and the first is looked into.
    let fault = [&many[..], &["--sim-fault", "75@2:8:13:20"]].concat();
    let (text, _) = verdict(dir, &fault);
    assert!(text.contains("         3          0  equal"), "{text}");
    assert!(text.contains("         8          0  differs at 0"), "{text}");
}

#[test]
fn a_device_is_held_to_a_trace() {
    let dir = folder();
    let dir = dir.path();
    fs::write(dir.join("j"), PROMPTS).unwrap();
    let warm = ["--temperature", "0.8", "--presence-penalty", "0.2", "--seed", "4"];
    let record = [&["trace", "x", "--prompts", "j", "-n", "5", "-o", "t"][..], &warm].concat();
    rwkv(dir, &record).unwrap();
    let text = rwkv(dir, &["validate", "x", "--golden", "t"]).unwrap();
    assert!(text.contains("held to       a golden trace"), "{text}");
    assert!(text.ends_with("25 tokens, prompts: 3, 0 differing bits\n"), "{text}");

    // With the image, what is wrong is found.
    let fault = ["validate", "x", "--golden", "t", "--sim-fault", "75@2:8:13:20"];
    let (text, code) = verdict(dir, &fault);
    assert_eq!(code, Some(1));
    assert!(text.contains("first wrong   layer 1, operation 8 of 18: wkv4 AttWkv4"), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("1 of 3 prompts differ; a <name>: token 0 differs: "), "{last}");

    let refused = |args: &[&str], expected: &str| {
        let error = rwkv(dir, args).unwrap_err();
        assert!(error.contains(expected), "{args:?}: {error}");
    };
    refused(
        &["validate", "--golden", "t"],
        "sim starts with an image in its flash: give the image",
    );
    refused(&["validate"], "required");
    refused(&["validate", "x", "--golden", "t", "--seed", "1"], "cannot be used with");
    refused(&["validate", "x", "--golden", "t", "--prompt", "a"], "cannot be used with");
    refused(&["validate", "x", "--golden", "t", "--state", "s"], "cannot be used with");
    refused(&["validate", "x", "--golden", "t", "-n", "4"], "cannot be used with");
    rwkv(dir, &["convert", "c", "-o", "y", "--weights", "int4"]).unwrap();
    refused(&["validate", "y", "--golden", "t"], "the trace is of image");
}

/// A trace that says what neither the device nor this host computes is what is wrong.
#[test]
fn a_wrong_trace_is_not_blamed_on_the_device() {
    let dir = folder();
    let dir = dir.path();
    rwkv(dir, &["trace", "x", "--prompt", "X:1", "-n", "5", "-o", "t"]).unwrap();
    let mut trace = Trace::read(&dir.join("t")).unwrap();
    trace.prompts[0].digests[4].0 ^= 1;
    trace.write(&dir.join("t")).unwrap();
    let (text, code) = verdict(dir, &["validate", "x", "--golden", "t", "--report", "r.html"]);
    assert_eq!(code, Some(1));
    let page = fs::read_to_string(dir.join("r.html")).unwrap();
    assert!(page.contains("The trace is in doubt") && !page.contains("The device differs"));
    assert!(
        text.contains("first wrong   what the device is held to: this host finds the digest"),
        "{text}"
    );
    assert!(text.lines().last().unwrap().contains("prompt 1: token 4 differs"), "{text}");
}

/// Standard output and exit code, whatever the verdict.
fn verdict(dir: &Path, args: &[&str]) -> (String, Option<i32>) {
    let output = command(args, dir).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}
