//! The sampler's settings and stop texts, through the tool.

use std::{path::Path, process::Command};

fn rwkv(args: &[&str]) -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output =
        Command::new(env!("CARGO_BIN_EXE_rwkv")).args(args).current_dir(root).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

const PROMPT: &str = "X:1\nT:The ";

#[test]
fn text_is_chosen_as_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("tunes.rwkv");
    let image = image.to_str().unwrap();
    let model = "models/tunes-v4/tunes-v4.safetensors";
    rwkv(&["convert", model, "-o", image, "--weights", "int8"]).unwrap();
    let run = |command: &str, more: &[&str]| {
        rwkv(&[&[command, image, "--prompt", PROMPT, "-n", "120"], more].concat())
    };
    // A line break ends what is printed; it is no part of the text.
    let generate =
        |more: &[&str]| run("generate", more).unwrap().strip_suffix('\n').unwrap().to_owned();
    let plain = generate(&[]);
    let written = plain.strip_prefix(PROMPT).unwrap();
    assert_eq!(written.len(), 120);

    // Tokens are bytes, so all of these straddle some, and the prompt holds the last one.
    for stop in [&written[50..51], &written[60..64], &written[100..120], "X:1"] {
        let until = written.find(stop).unwrap_or(written.len());
        assert_eq!(generate(&["--stop", stop]), plain[..PROMPT.len() + until], "{stop:?}");
    }
    let (first, second) = (&written[40..45], &written[30..33]);
    let until = written.find(second).unwrap();
    assert_eq!(generate(&["--stop", first, "--stop", second]), plain[..PROMPT.len() + until]);
    // The beginning of a stop text at the end is text.
    let beginning = format!("{}~", &written[110..]);
    assert_eq!(generate(&["--stop", &beginning]), plain);

    let letters = ["--ban-text", "e", "--ban-text", " ", "--ban", "65,66"];
    let without = generate(&letters);
    assert!(!without[PROMPT.len()..].contains(['e', ' ', 'A', 'B']), "{without}");
    let official = ["--order", "official", "--top-p", "0.7", "--temperature", "1.2"];
    let penalties = ["--presence-penalty", "0.4", "--frequency-penalty", "-0.1"];
    let rest = ["--penalty-decay", "0.9", "--min-p", "0.05", "--repetition-penalty", "1.1"];
    let all = [&letters[..], &official, &penalties, &rest].concat();
    assert_ne!(generate(&all), generate(&[&letters[..], &official].concat()));
    let verdict = run("validate", &all).unwrap();
    assert!(verdict.contains("130 tokens, 0 differing bits"), "{verdict}");

    let many: Vec<String> = (0..33).map(|token| token.to_string()).collect();
    let many = many.join(",");
    for (more, reason) in [
        (["--ban", "256"], "token 256 cannot be banned: the model's vocabulary has 256 tokens"),
        (["--ban", &many], "33 tokens cannot be banned: a device takes 32 at most"),
        (["--ban-text", "ab"], "\"ab\" cannot be banned: it is 2 tokens, [97, 98], and not one"),
        (["--ban-text", ""], "it is 0 tokens"),
        (["--min-p", "2"], "min_p must lie in 0..=1"),
        (["--repetition-penalty", "0"], "the repetition penalty must be a positive normal number"),
        (["--stop", ""], "a stop text is empty"),
    ] {
        let error = run("generate", &more).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    let overflow = ["--presence-penalty", "3e38", "--frequency-penalty", "3e38"];
    let error = run("validate", &overflow).unwrap_err();
    assert!(error.contains("the host cannot choose token 11"), "{error}");
}
