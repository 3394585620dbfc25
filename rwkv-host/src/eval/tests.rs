use std::{collections::HashMap, fs, path::Path};

use rwkv_core::{Model, image::RECORD_WORDS, stream::InPlace};
use safetensors::{SafeTensors, serialize_to_file, tensor::TensorView};

use super::*;
use crate::{
    checkpoint::Checkpoint,
    convert::{Options as Convert, Weights, convert},
    file::ImageFile,
    memory::Memory,
};

const MODEL: &str = "../models/tunes-v4/tunes-v4.safetensors";
const TEXT: &[u8] = b"X:1\nT:The Morning Fair\nM:6/8\nL:1/8\nK:G\nD|GBB dBG|GBB c2A|BGG ABc|";

fn image(model: &Path, weights: Weights) -> ImageFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(model);
    let checkpoint = Checkpoint::open(&path).unwrap();
    ImageFile::new(&convert(&checkpoint, &Convert::new(weights), |_, _| {}).unwrap())
}

fn shipped(weights: Weights) -> ImageFile {
    image(Path::new(MODEL), weights)
}

fn text() -> Vec<u32> {
    TEXT.iter().copied().map(u32::from).collect()
}

fn report(image: &ImageFile, reference: Option<&ImageFile>, options: Options<'_>) -> Report {
    let reference = reference.map(|file| file.open().unwrap());
    let mut heard = (0, 0);
    let image = image.open().unwrap();
    let report = evaluate(&image, reference.as_ref(), &text(), &options, |done, total| {
        assert!(done > heard.0 && done <= total);
        heard = (done, total);
    });
    assert_eq!(heard.0, heard.1);
    report.unwrap()
}

#[test]
fn a_model_that_knows_nothing_needs_eight_bits_for_a_byte() {
    let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(MODEL)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut views: HashMap<String, TensorView<'_>> = tensors.tensors().into_iter().collect();
    let head = views["head.weight"].clone();
    let zeros = vec![0; head.data().len()];
    let head = TensorView::new(head.dtype(), head.shape().to_vec(), &zeros).unwrap();
    views.insert("head.weight".into(), head);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uniform.safetensors");
    serialize_to_file(&views, None, &path).unwrap();
    for weights in [Weights::F32, Weights::Int8] {
        let score = report(&image(&path, weights), None, Options::default()).score;
        assert_eq!((score.bits_per_byte, score.perplexity), (8.0, 256.0));
    }
}

#[test]
fn an_image_is_its_own_reference() {
    let file = shipped(Weights::F32);
    for by in [By::Layer, By::Tensor] {
        let report = report(&file, Some(&file), Options { by, ..Options::default() });
        let reference = report.reference.unwrap();
        assert_eq!(reference.score, report.score);
        assert_eq!((reference.kl_bits_per_token, reference.top1_agreement), (0.0, 1.0));
        assert_eq!(reference.largest_kl.bits, 0.0);
        assert!(reference.parts.iter().all(|part| part.kl_bits_per_token == 0.0));
        let names: Vec<&str> = reference.parts.iter().map(|part| part.name.as_str()).collect();
        match by {
            By::Layer => {
                let layers = ["embedding", "layer 0", "layer 1", "layer 2", "layer 3", "head"];
                assert_eq!(names, layers);
            }
            By::Tensor => {
                assert_eq!(names.len(), 2 + 4 * 7);
                assert_eq!(names[..2], ["emb.weight", "blocks.0.att.key.weight"]);
            }
        }
    }
}

/// Reading in pieces is stepping.
#[test]
fn the_bits_are_those_of_steps() {
    let file = shipped(Weights::Int8);
    let image = file.open().unwrap();
    let mut memory = Memory::new(&image);
    let (mut state, scratch) = memory.split(&image).unwrap();
    let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch).unwrap();
    let mut logits = [0.0; 256];
    let mut bits = 0.0;
    for pair in text().windows(2) {
        model.step(state.reborrow(), pair[0], &mut logits[..]).unwrap();
        bits += distribution::surprise(&logits, pair[1]);
    }
    let report = report(&file, None, Options::default());
    assert_eq!(report.score.bits_per_byte, bits / (TEXT.len() - 1) as f64);
    assert_eq!((report.tokens, report.bytes), (TEXT.len() - 1, TEXT.len() - 1));
}

/// The fast path changes no figure by more than its logits may differ, says so, and refuses integers.
#[test]
fn the_fast_path_is_close_and_says_how_close() {
    let (float, half) = (shipped(Weights::F32), shipped(Weights::F16));
    let fast = |fast| report(&half, Some(&float), Options { fast, ..Options::default() });
    let (exact, fast) = (fast(false), fast(true));
    assert_eq!(exact.fast, None);
    let deviation = fast.fast.unwrap();
    assert_eq!(deviation.tokens, TEXT.len() - 1);
    assert!(deviation.largest > 0.0 && deviation.largest < 1e-5, "{deviation:?}");
    assert!((fast.score.bits_per_byte / exact.score.bits_per_byte - 1.0).abs() < 1e-5);
    assert!(fast.to_string().contains("logits within"), "{fast}");
    let (int8, options) = (shipped(Weights::Int8), Options { fast: true, ..Options::default() });
    let run = evaluate(&int8.open().unwrap(), None, &text(), &options, |_, _| {});
    assert!(matches!(run, Err(EvalError::Fast(FastError::Integers { .. }))));
}

/// An image that differs in one layer costs what that layer costs, and nothing elsewhere.
#[test]
fn the_worst_part_is_found() {
    let (int8, float) = (shipped(Weights::Int8), shipped(Weights::F32));
    let (a, b) = (float.open().unwrap(), int8.open().unwrap());
    let mixed = splice::splice(&a, &b, |request| request.layer == Some(2)).unwrap();
    let report = report(&mixed, Some(&float), Options::default());
    let reference = report.reference.clone().unwrap();
    assert!(reference.kl_bits_per_token > 0.0);
    assert!(reference.largest_kl.bits > reference.kl_bits_per_token);
    for part in &reference.parts {
        let expected = if part.name == "layer 2" { reference.kl_bits_per_token } else { 0.0 };
        assert_eq!(part.kl_bits_per_token, expected, "{}", part.name);
    }
    assert_eq!(reference.worst_part, "layer 2");
    let shown = report.to_string();
    assert!(shown.ends_with("worst of them, over 64 tokens: layer 2"), "{shown}");
    let bars: Vec<usize> = shown.lines().map(|line| line.matches('#').count()).collect();
    assert_eq!(bars.iter().sum::<usize>(), 32);
}

/// All of one image, record by record, is that image but for its metadata.
#[test]
fn splicing_everything_copies() {
    let (int8, float) = (shipped(Weights::Int8), shipped(Weights::F32));
    let (a, b) = (float.open().unwrap(), int8.open().unwrap());
    let all = splice::splice(&a, &b, |_| true).unwrap();
    let all = all.open().unwrap();
    let records = |image: &Image<'_>| {
        let mut records = Vec::new();
        let visit = |_: &Request, found: &rwkv_core::image::Found<'_>| {
            let first = found.offset as usize / 4;
            let words = &image.words()[first..first + RECORD_WORDS + found.payload.len()];
            records.push(words.to_vec());
            Ok(())
        };
        image.walk(visit).unwrap();
        records
    };
    assert!(records(&all) == records(&b));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let float = shipped(Weights::F32);
    let other = image(Path::new("../models/tunes-v7/tunes-v7.safetensors"), Weights::F32);
    let (a, b) = (float.open().unwrap(), other.open().unwrap());
    let run = |tokens: &[u32]| evaluate(&a, Some(&b), tokens, &Options::default(), |_, _| {});
    let error = run(&text()).unwrap_err().to_string();
    assert!(error.contains("RWKV-7, 4 layers of 128"), "{error}");
    assert!(matches!(run(&[65]), Err(EvalError::TooShort(1))));
}
