//! A model with a vocabulary of its own, through the tool.

use std::{fs, path::Path, process::Command};

use safetensors::{Dtype, tensor::TensorView};

const VOCAB: usize = 272;
const DIM: usize = 8;

fn rwkv(args: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_rwkv")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A version 4 checkpoint with one layer of noise.
fn checkpoint(path: &Path) {
    let (square, vector, mix) = (vec![DIM, DIM], vec![DIM], vec![1, 1, DIM]);
    let mut shapes = vec![("emb", vec![VOCAB, DIM]), ("head", vec![VOCAB, DIM])];
    let norms = ["ln_out", "blocks.0.ln0", "blocks.0.ln1", "blocks.0.ln2"];
    shapes.extend(norms.map(|name| (name, vector.clone())));
    let products = ["att.key", "att.value", "att.receptance", "att.output"];
    let ffn = ["ffn.key", "ffn.value", "ffn.receptance"];
    shapes.extend(products.into_iter().chain(ffn).map(|name| (name, square.clone())));
    let mut all: Vec<(String, Vec<usize>)> = Vec::new();
    for (name, shape) in shapes {
        let block = if name.contains("att.") || name.contains("ffn.") { "blocks.0." } else { "" };
        all.push((format!("{block}{name}.weight"), shape.clone()));
        if name.contains("ln") {
            all.push((format!("{block}{name}.bias"), shape));
        }
    }
    for name in ["att.time_decay", "att.time_first"] {
        all.push((format!("blocks.0.{name}"), vector.clone()));
    }
    for name in
        ["att.time_mix_k", "att.time_mix_v", "att.time_mix_r", "ffn.time_mix_k", "ffn.time_mix_r"]
    {
        all.push((format!("blocks.0.{name}"), mix.clone()));
    }
    let mut x = 1u32;
    let data: Vec<Vec<u8>> = all
        .iter()
        .map(|(_, shape)| {
            let values = (0..shape.iter().product()).map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 8) as f32 / (1 << 24) as f32 - 0.5
            });
            values.flat_map(f32::to_le_bytes).collect()
        })
        .collect();
    let views = all.iter().zip(&data).map(|((name, shape), data)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Every byte from id 1 on, then a few words.
fn list() -> String {
    let single = |byte: u8| format!("{} b'\\x{byte:02x}' 1\r\n", u32::from(byte) + 1);
    let words = ["'the'", "'he'", "' the'", "'é'", "'世界'", "b'\\xe4\\xb8'"];
    let lengths = [3, 2, 4, 2, 6, 2];
    let words =
        (257..).zip(words).zip(lengths).map(|((id, word), len)| format!("{id} {word} {len}\r\n"));
    (0..=255).map(single).chain(words).collect()
}

#[test]
fn a_vocabulary_goes_with_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (model, image, words) = (path("m.safetensors"), path("m.rwkv"), path("words.txt"));
    checkpoint(Path::new(&model));
    fs::write(&words, list()).unwrap();
    let convert = ["convert", &model, "-o", &image, "--weights", "f32"];
    let with = |tokenizer: &str| rwkv(&[&convert[..], &["--tokenizer", tokenizer]].concat());

    let error = rwkv(&convert).unwrap_err();
    assert!(error.contains("272 tokens: name its list of tokens with --tokenizer"), "{error}");
    let error = with("byte").unwrap_err();
    assert!(error.contains("needs a vocabulary of 256 tokens, this model has 272"), "{error}");
    let long = path("long.txt");
    fs::write(&long, format!("{}300 'more' 4\n", list())).unwrap();
    let error = with(&long).unwrap_err();
    assert!(error.contains("long.txt has 301 tokens, the model has 272"), "{error}");
    let error = with(&path("none.txt")).unwrap_err();
    assert!(error.contains("none.txt is not a tokenizer: cannot read it"), "{error}");
    let error = with(&path("none.json")).unwrap_err();
    assert!(
        error.contains(if cfg!(feature = "neox") { "none.json" } else { "--features neox" }),
        "{error}"
    );

    with(&words).unwrap();
    let prompt = ["--prompt", "the 世界é 世"];
    let shown = rwkv(&[&["tokens", &image][..], &prompt].concat()).unwrap();
    let expected = "   257  \"the\"\n    33  \" \"\n   261  \"世界\"\n   260  \"é\"\n    33  \" \"\n   262  b\"\\xe4\\xb8\"\n   151  b\"\\x96\"\n";
    assert_eq!(shown, expected);
    let json = rwkv(&[&["tokens", &image, "--json"][..], &prompt].concat()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["id"], 257);
    assert_eq!(json[6]["bytes"], serde_json::json!([0x96]));

    let info: serde_json::Value =
        serde_json::from_str(&rwkv(&["info", &image, "--json"]).unwrap()).unwrap();
    assert_eq!(info["tokenizer"], "vocabulary");
    let text = rwkv(&[&["generate", &image, "-n", "9"][..], &prompt].concat()).unwrap();
    assert!(text.starts_with("the 世界é 世"), "{text}");
    // So hot that all tokens are likely, the end of a text among them.
    let short = rwkv(&["generate", &image, "--temperature", "9", "-n", "9999"]).unwrap();
    assert!(short.len() < 9999, "{}", short.len());
    let verdict = rwkv(&[&["validate", &image, "-n", "9"][..], &prompt].concat()).unwrap();
    assert!(verdict.contains("16 tokens, 0 differing bits"), "{verdict}");
    assert!(verdict.contains("generated     9 tokens"), "{verdict}");
    let eval: serde_json::Value =
        serde_json::from_str(&rwkv(&["eval", &image, "--text", &words, "--json"]).unwrap())
            .unwrap();
    assert_eq!(eval["bytes"], fs::metadata(&words).unwrap().len() - 1);
    let error = rwkv(&["tokens", &image, "--tokenizer", "x.json"]).unwrap_err();
    assert!(error.contains("the image holds its tokenizer: leave x.json out"), "{error}");
}
