//! One model in every container: one image. The table of the book's chapter on checkpoints names
//! these tests.

use std::{fs, path::Path};

use rwkv_core::image::Id;
use rwkv_host::{
    checkpoint::Checkpoint,
    convert::{Options, Weights, convert, convert_to},
    file::ImageFile,
    tokenizer::{Choice, List},
};
use rwkv_tests::{
    blocks::Blocks,
    image, image_with,
    random::{self, Container, Precision, VERSIONS},
    shared,
};
use tempfile::NamedTempFile;

/// The same weights in two containers give the same image.
fn same(version: &str, container: Container) {
    for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
        // rwkv.cpp has no bfloat16.
        if (container, precision) == (Container::RwkvCpp, Precision::Bf16) {
            continue;
        }
        let found = random::checkpoint_in(version, container, precision);
        let expected = random::rounded(version, container, precision);
        let [found, expected] = [found, expected].map(|file| image(file.path(), Weights::F32));
        assert!(found.bytes() == expected.bytes(), "{version}, {container:?}, {precision:?}");
    }
    any_tokenizer(random::checkpoint(version, container).path());
}

/// A checkpoint takes every tokenizer that goes into an image.
fn any_tokenizer(checkpoint: &Path) {
    for tokenizer in tokenizers() {
        let options = Options { tokenizer: &tokenizer, ..Options::new(Weights::Int8) };
        let file = image_with(checkpoint, &options);
        let image = file.open().expect("it opens");
        let in_image = image.tokenizer().expect("it is in the image");
        let text = b"\xff\0 text";
        let tokens: Vec<u32> = in_image.encode(text).collect();
        let change = if matches!(tokenizer, Choice::Bytes) { 0 } else { ORDER };
        assert_eq!(tokens, text.map(|byte| u32::from(byte ^ change)), "{checkpoint:?}");
    }
}

/// What makes ids of bytes in the vocabulary below.
const ORDER: u8 = 90;

/// Those that go into an image: a token for each byte, or a vocabulary, here of the bytes in
/// another order.
fn tokenizers() -> [Choice; 2] {
    let list: String =
        (0..=255u8).map(|byte| format!("{} b'\\x{byte:02x}' 1\n", byte ^ ORDER)).collect();
    let list = List::parse(list.as_bytes()).expect("a list");
    [Choice::Bytes, Choice::Vocabulary(list.section())]
}

#[test]
fn torch() {
    VERSIONS.iter().for_each(|version| same(version, Container::Torch));
}

#[test]
fn safetensors_official() {
    VERSIONS.iter().for_each(|version| same(version, Container::Safetensors));
}

#[test]
fn safetensors_hugging_face() {
    ["4", "5.0", "5.1", "5.2", "6"]
        .iter()
        .for_each(|version| same(version, Container::HuggingFace));
}

#[test]
fn safetensors_flash_linear_attention() {
    same("7", Container::FlashLinearAttention);
    same("7", Container::FlashLinearAttentionJoined);
}

#[test]
fn safetensors_sharded() {
    for version in VERSIONS {
        let (folder, file) =
            (random::sharded(version), random::checkpoint(version, Container::Safetensors));
        let [found, expected] = [folder.path(), file.path()].map(|path| image(path, Weights::F32));
        assert!(found.bytes() == expected.bytes(), "{version}");
        any_tokenizer(folder.path());
    }
}

#[test]
fn rwkv_cpp() {
    ["6", "7"].iter().for_each(|version| same(version, Container::RwkvCpp));
    ["4", "5.0", "5.1", "5.2"].iter().for_each(|version| close(version));
}

#[test]
fn gguf() {
    ["6", "7"].iter().for_each(|version| same(version, Container::Gguf));
}

/// A file in blocks of integers gives the image of the values that the blocks stand for.
#[test]
fn gguf_quantised() {
    for blocks in [Blocks::Q8_0, Blocks::Q4_0, Blocks::Q5_1] {
        let files = random::quantised(blocks);
        for weights in [Weights::F32, Weights::Int8] {
            let [found, expected] = files.each_ref().map(|file| image(file.path(), weights));
            assert!(found.bytes() == expected.bytes(), "{blocks:?}, {weights:?}");
        }
    }
}

/// The files above are what llama.cpp's converter writes.
#[test]
fn gguf_files_are_those_of_the_converter() {
    for version in ["6", "7"] {
        let (found, expected) = random::gguf_listing(version);
        let [found, expected] = [found, expected].map(|text| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        });
        assert_eq!(found, expected, "{version}");
    }
}

/// A container that holds decays and bonuses as the recurrence wants them has them rounded once, as
/// an image has. All else is the same.
fn close(version: &str) {
    let ulps = |a: u32, b: u32| a.cast_signed().abs_diff(b.cast_signed());
    for precision in [Precision::F32, Precision::F16] {
        let found = random::checkpoint_in(version, Container::RwkvCpp, precision);
        let expected = random::rounded(version, Container::RwkvCpp, precision);
        let [found, expected] = [found, expected].map(|file| image(file.path(), Weights::F32));
        let [found, expected] = [&found, &expected].map(records);
        assert_eq!(found.len(), expected.len());
        let mut worst = 0;
        for ((id, found), (_, expected)) in found.iter().zip(&expected) {
            if !matches!(id, Id::AttWkv4 | Id::AttWkv5 | Id::AttDecay) {
                assert!(found == expected, "{version}, {id:?}");
                continue;
            }
            for (found, expected) in found.iter().zip(expected) {
                let distance = ulps(*found, *expected);
                worst = worst.max(distance);
                assert!(distance <= 2, "{version}, {id:?}: {distance}");
            }
        }
        println!("{version}, {precision:?}: {worst} ulp");
    }
    any_tokenizer(random::checkpoint(version, Container::RwkvCpp).path());
}

/// Every record's id and words, without the checksums of its blocks.
fn records(file: &ImageFile) -> Vec<(Id, Vec<u32>)> {
    let mut records = Vec::new();
    let walk = file.open().expect("it opens").walk(|request, found| {
        let (mut words, mut payload) = (Vec::new(), found.payload);
        for len in found.record.blocks() {
            let (block, rest) = payload.split_at(len);
            words.extend_from_slice(&block[1..]);
            payload = rest;
        }
        records.push((request.id, words));
        Ok(())
    });
    walk.expect("it walks");
    records
}

#[test]
fn shared_models_of_the_same_weights_give_the_same_image() {
    let (Some(pth), Some(bin)) =
        (shared("tiny-rwkv-7v0-834K.pth"), shared("tiny-rwkv-7v0-834K-FP32.bin"))
    else {
        return;
    };
    for weights in [Weights::F32, Weights::Int8] {
        assert!(image(&pth, weights).bytes() == image(&bin, weights).bytes());
    }
}

/// A file that is written section by section is the image that is put together in memory; one that
/// fails leaves what was there.
#[test]
fn files_are_the_images_of_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.rwkv");
    let convert = |file: &NamedTempFile, options: &Options<'_>| {
        let checkpoint = Checkpoint::open(file.path()).expect("it opens");
        convert_to(&path, &checkpoint, options, |_, _| {})
    };
    for (version, weights) in [("4", Weights::Int4), ("6", Weights::F16), ("7a", Weights::Int8)] {
        let file = random::checkpoint(version, Container::Safetensors);
        let header = convert(&file, &Options::new(weights)).expect("it converts");
        let expected = image(file.path(), weights);
        assert_eq!(header, *expected.open().expect("it opens").header());
        assert!(fs::read(&path).expect("it is there") == expected.bytes(), "{version}");
    }
    let before = fs::read(&path).expect("it is there");
    let bits = Options { input_bits: Some(16), ..Options::new(Weights::Int8) };
    let file = random::checkpoint("7", Container::Safetensors);
    assert!(convert(&file, &bits).is_err());
    assert!(fs::read(&path).expect("it is there") == before);
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
}

/// A tensor of integers is no missing tensor, under whatever name.
#[test]
fn foreign_tensors_are_named_as_what_they_are() {
    for (container, stored, official) in [
        (Container::HuggingFace, "rwkv.blocks.1.attention.key.weight", "blocks.1.att.key.weight"),
        (Container::HuggingFace, "rwkv.embeddings.weight", "emb.weight"),
        (Container::Safetensors, "blocks.0.att.time_maa_w1", "blocks.0.att.time_maa_w1"),
        (Container::Safetensors, "blocks.0.ln1.weight", "blocks.0.ln1.weight"),
    ] {
        let file = random::checkpoint("6", container);
        let mut bytes = fs::read(file.path()).expect("it is there");
        let old = format!("\"{stored}\":{{\"dtype\":\"F32\"");
        let at = bytes.windows(old.len()).position(|part| part == old.as_bytes());
        let kind = at.expect("the tensor") + old.len() - 4;
        bytes[kind..kind + 3].copy_from_slice(b"I32");
        fs::write(file.path(), bytes).expect("written");
        let checkpoint = Checkpoint::open(file.path()).expect("it opens");
        let error = convert(&checkpoint, &Options::new(Weights::F32), |_, _| {}).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format!("`{official}` holds I32 values")), "{message}");
    }
}
