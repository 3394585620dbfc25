//! Hand-made GGUF files, honest and hostile.

use std::path::Path;

use super::*;
use crate::checkpoint::Blocks;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A name, a kind and the bytes of a value.
type Pair<'a> = (&'a str, u32, Vec<u8>);
/// A name, a shape as in PyTorch, a type, an offset.
type Info<'a> = (&'a str, &'a [u64], u32, u64);

fn file(pairs: &[Pair<'_>], infos: &[Info<'_>], data: &[u8]) -> Vec<u8> {
    let mut bytes = [MAGIC, &3u32.to_le_bytes()].concat();
    bytes.extend((infos.len() as u64).to_le_bytes());
    bytes.extend((pairs.len() as u64).to_le_bytes());
    for (name, kind, value) in pairs {
        bytes.extend([&text(name), &kind.to_le_bytes()[..], value].concat());
    }
    for (name, shape, kind, offset) in infos {
        bytes.extend([&text(name), &(shape.len() as u32).to_le_bytes()[..]].concat());
        bytes.extend(shape.iter().rev().flat_map(|size| size.to_le_bytes()));
        bytes.extend([&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat());
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    [bytes, data.to_vec()].concat()
}

/// What a model of an architecture says.
fn pairs(architecture: &str) -> Vec<(String, u32, Vec<u8>)> {
    let own = |name: &str| format!("{architecture}.{name}");
    let words = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text("a"), &text("\u{7f}")];
    vec![
        ("general.architecture".into(), 8, text(architecture)),
        ("tokenizer.ggml.tokens".into(), 9, words.concat()),
        ("numbers".into(), 9, [&1u32.to_le_bytes()[..], &3u64.to_le_bytes(), &[1; 3]].concat()),
        ("flag".into(), 7, vec![1]),
        (own("attention.layer_norm_epsilon"), 6, 1e-5f32.to_le_bytes().to_vec()),
        (own("wkv.head_size"), 4, 2u32.to_le_bytes().to_vec()),
        (own("rescale_every_n_layers"), 4, 6u32.to_le_bytes().to_vec()),
    ]
}

fn model(architecture: &str, infos: &[Info<'_>], data: &[u8]) -> Vec<u8> {
    let pairs = pairs(architecture);
    let pairs: Vec<Pair<'_>> = pairs.iter().map(|(n, k, v)| (&n[..], *k, v.clone())).collect();
    file(&pairs, infos, data)
}

fn index_of(bytes: &[u8]) -> Result<Index, CheckpointError> {
    index(File { path: Path::new("memory"), bytes })
}

fn counting(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

#[test]
fn version_7_is_taken_apart() {
    let infos: [Info<'_>; 5] = [
        ("token_embd.weight", &[2, 4], 0, 0),
        ("blk.1.time_mix_r_k.weight", &[4], 0, 0),
        ("blk.1.time_mix_w1.weight", &[2, 3], 0, 0),
        ("blk.1.time_mix_lerp_fused.weight", &[6, 1, 1, 4], 0, 0),
        ("blk.1.time_mix_output.weight", &[1, 2], 30, 4),
    ];
    let bytes = model("rwkv7", &infos, &counting(24));
    let index = index_of(&bytes).unwrap();
    assert_eq!(index.layer_norm_eps, Some(1e-5));
    let read = |name: &str| index.entries[name].read(&bytes);
    assert_eq!(read("emb.weight").shape, [2, 4]);
    assert_eq!(read("blocks.1.att.r_k").shape, [2, 2]);
    assert_eq!(read("blocks.1.att.w1").shape, [3, 2]);
    assert_eq!(read("blocks.1.att.w1").data, [0., 3., 1., 4., 2., 5.]);
    assert_eq!(read("blocks.1.att.x_a").data, [16., 17., 18., 19.]);
    assert_eq!(read("blocks.1.att.output.weight").data, [0., 1.]);
}

#[test]
fn version_6_is_rescaled_back() {
    let infos: [Info<'_>; 6] = [
        // Older files do not join them.
        ("blk.5.time_mix_lerp_g.weight", &[1, 1, 2], 0, 0),
        ("blk.5.time_mix_output.weight", &[2, 2], 0, 0),
        ("blk.6.time_mix_output.weight", &[2, 2], 0, 0),
        ("blk.12.channel_mix_value.weight", &[2, 2], 0, 0),
        ("blk.12.time_mix_w2.weight", &[1, 2, 3], 0, 0),
        ("blk.12.time_mix_lerp_fused.weight", &[5, 1, 1, 2], 0, 0),
    ];
    let bytes = model("rwkv6", &infos, &counting(24));
    let index = index_of(&bytes).unwrap();
    let read = |name: &str| index.entries[name].read(&bytes).data;
    assert_eq!(read("blocks.5.att.output.weight"), [0., 1., 2., 3.]);
    assert_eq!(read("blocks.6.att.output.weight"), [0., 2., 4., 6.]);
    assert_eq!(read("blocks.12.ffn.value.weight"), [0., 4., 8., 12.]);
    assert_eq!(read("blocks.12.att.time_maa_w2"), [0., 3., 1., 4., 2., 5.]);
    assert_eq!(read("blocks.12.att.time_maa_r"), [6., 7.]);
    assert_eq!(read("blocks.5.att.time_maa_g"), [0., 1.]);
}

#[test]
fn foreign_models_and_types_are_named() {
    let refusal = |bytes: &[u8]| index_of(bytes).unwrap_err().to_string();
    for architecture in ["arwkv7", "rwkv6qwen2", "llama"] {
        let message = refusal(&model(architecture, &[], &[]));
        assert!(message.contains(&format!("architecture `{architecture}`")), "{message}");
    }
    for (kind, expected) in [(12, "`a`: Q4_K is"), (20, "`a`: IQ4_NL is"), (99, "`a`: type 99 is")]
    {
        let message = refusal(&model("rwkv7", &[("a", &[32], kind, 0)], &[]));
        assert!(message.contains(expected), "{message}");
    }
    for (kind, expected) in [
        (2, Blocks::Q4_0),
        (3, Blocks::Q4_1),
        (6, Blocks::Q5_0),
        (7, Blocks::Q5_1),
        (8, Blocks::Q8_0),
    ] {
        let index = index_of(&model("rwkv7", &[("a", &[32], kind, 0)], &[0; 34])).unwrap();
        assert_eq!(index.entries["a"].dtype, Dtype::Quantised(expected));
    }
    let mut bytes = model("rwkv7", &[], &[]);
    bytes[4] = 1;
    assert!(refusal(&bytes).contains("GGUF version 1 is"));
    bytes[4..8].copy_from_slice(&[0, 0, 0, 3]);
    assert!(refusal(&bytes).contains("big-endian"));
    // As 16 bits, as all tools write it. A part that is not the first names no architecture.
    let split = |count: u16, mut pairs: Vec<(String, u32, Vec<u8>)>| {
        pairs.push(("split.count".into(), 2, count.to_le_bytes().to_vec()));
        let pairs: Vec<Pair<'_>> = pairs.iter().map(|(n, k, v)| (&n[..], *k, v.clone())).collect();
        file(&pairs, &[("a", &[4], 0, 0)], &counting(4))
    };
    assert!(refusal(&split(2, pairs("rwkv7"))).contains("--merge"));
    assert!(refusal(&split(2, Vec::new())).contains("--merge"));
    assert!(index_of(&split(1, pairs("rwkv7"))).is_ok());
    assert!(index_of(&split(0, pairs("rwkv7"))).is_ok());
}

#[test]
fn contradictions_are_refused() {
    let data = counting(4);
    let damaged = |bytes: &[u8], why: &str| {
        let error = index_of(bytes).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{why}: {error}");
    };
    let whole = model("rwkv7", &[("a", &[4], 0, 0)], &data);
    assert!(index_of(&whole).is_ok());
    for len in 4..whole.len() {
        damaged(&whole[..len], "cut");
    }
    for (infos, why) in [
        (&[("a", &[4][..], 0, 4)][..], "beyond the end"),
        (&[("a", &[4], 0, u64::MAX)], "offset"),
        (&[("a", &[u64::MAX, u64::MAX], 0, 0)], "shape"),
        (&[("a", &[1 << 62], 0, 0)], "bytes"),
        (&[("a", &[1, 1, 1, 1, 1], 0, 0)], "rank"),
        (&[("a", &[4], 8, 0)], "block"),
        (&[("a", &[4], 0, 0), ("a", &[4], 0, 0)], "twice"),
        (&[("blk.0.time_mix_r_k.weight", &[3], 0, 0)], "heads"),
    ] {
        damaged(&model("rwkv7", infos, &data), why);
    }
    let deep = [("blk.999.time_mix_output.weight", &[2, 2][..], 0, 0)];
    damaged(&model("rwkv6", &deep, &data), "rescale");
    let pair = |kind: u32, value: &[u8]| file(&[("a", kind, value.to_vec())], &[], &[]);
    damaged(&pair(9, &[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), "an array of arrays");
    damaged(&pair(9, &[[8, 0, 0, 0].as_slice(), &[0xff; 8]].concat()), "an endless array of texts");
    damaged(&pair(9, &[[12, 0, 0, 0].as_slice(), &[0xff; 8]].concat()), "an endless array");
    damaged(&pair(8, &[0xff; 8]), "an endless text");
    damaged(&pair(13, &[0; 8]), "an unknown kind");
    damaged(&pair(7, &[0; 1]), "no architecture");
}

#[test]
fn no_changed_byte_panics() {
    let infos: [Info<'_>; 3] = [
        ("blk.1.time_mix_r_k.weight", &[4], 0, 0),
        ("blk.1.time_mix_lerp_fused.weight", &[6, 1, 1, 4], 0, 0),
        ("blk.1.time_mix_w1.weight", &[1, 32], 8, 0),
    ];
    let whole = model("rwkv7", &infos, &counting(24));
    crate::checkpoint::tests::no_changed_byte_panics(&whole, index_of);
}
