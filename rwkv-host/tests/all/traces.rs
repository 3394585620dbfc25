//! `rwkv trace`: what it writes, reads and refuses.

use std::fs;

use serde_json::Value;

use crate::tool::{folder, rwkv};

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
