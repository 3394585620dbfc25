use std::path::Path;

use rwkv_core::{
    Image,
    exec::record::Request,
    image::{Found as Record, Id, RECORD_WORDS},
    sampler::SamplerConfig,
};

use super::*;
use crate::{
    checkpoint::Checkpoint,
    convert::{Options as Convert, Weights, convert},
    device::{DeviceSpec, Flip, Options},
    file::ImageFile,
};

/// A model that ships.
pub(crate) const MODEL: &str = "tunes-v4/tunes-v4.safetensors";
const MODEL_V7: &str = "tunes-v7/tunes-v7.safetensors";

/// Converts a model of `models/`; `None` with a note if it is not there.
pub(crate) fn image(model: &str, weights: Weights) -> Option<ImageFile> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(model);
    if !path.is_file() {
        println!("skipped: there is no {}", path.display());
        return None;
    }
    let checkpoint = Checkpoint::open(&path).unwrap();
    let image = convert(&checkpoint, &Convert::new(weights), |_, _| {}).unwrap();
    Some(ImageFile::new(&image))
}

fn run(image: &Image<'_>, flip: Option<Flip>, prompt: &[u32], generate: usize) -> Verdict {
    let options = Options { flip, ..Options::default() };
    let mut device = Device::open(DeviceSpec::Sim, image, &options).unwrap();
    let mut reference = Host::stepwise(image, SamplerConfig::GREEDY).unwrap();
    validate(&mut device, &mut reference, SamplerConfig::GREEDY, prompt, generate, |_| {}).unwrap()
}

/// The byte of the image that holds the top of the first word behind the checksum in row `row`
/// of a record's tiles of one row, or in its first tile.
fn first_word(image: &Image<'_>, id: Id, row: usize) -> usize {
    let mut offset = None;
    let visit = |request: &Request, found: &Record<'_>| {
        if request.id == id {
            let words = RECORD_WORDS + row * found.record.tile_words(1) + 1;
            offset.get_or_insert(found.offset as usize + 4 * words);
        }
        Ok(())
    };
    image.walk(visit).unwrap();
    offset.unwrap() + 2
}

#[test]
fn the_simulated_device_computes_the_same_bits() {
    for model in [MODEL, MODEL_V7] {
        for weights in [Weights::Int8, Weights::F32] {
            let Some(file) = image(model, weights) else { continue };
            let image = file.open().unwrap();
            let prompt: Vec<u32> = (32..127).collect();
            let references: [&mut dyn Reference; 2] = [
                &mut Host::stepwise(&image, SamplerConfig::GREEDY).unwrap(),
                &mut Host::parallel(&image, SamplerConfig::GREEDY).unwrap(),
            ];
            for reference in references {
                let options = Options::default();
                let mut device = Device::open(DeviceSpec::Sim, &image, &options).unwrap();
                let mut heard = 0;
                let verdict =
                    validate(&mut device, reference, SamplerConfig::GREEDY, &prompt, 21, |_| {
                        heard += 1
                    })
                    .unwrap();
                assert!(verdict.is_equal(), "{verdict}");
                assert_eq!((verdict.tokens, heard, verdict.generated.len()), (116, 116, 21));
                let text = verdict.to_string();
                assert_eq!(text.lines().last(), Some("116 tokens, 0 differing bits"));
                assert_eq!(verdict.instructions_per_token, None);
                let json = serde_json::to_value(&verdict).unwrap();
                assert_eq!(json["differing_bits"], 0);
            }
        }
    }
}

#[test]
fn a_damaged_embedding_shows_where_its_token_is_read() {
    for weights in [Weights::Int8, Weights::F32] {
        let Some(file) = image(MODEL, weights) else { return };
        let image = file.open().unwrap();
        let prompt: Vec<u32> = (0..100).map(|i| if i == 77 { 255 } else { 65 + i % 20 }).collect();
        let offset = first_word(&image, Id::Embedding, 255);
        let verdict = run(&image, Some(Flip { offset, bit: 6 }), &prompt, 8);
        let difference = verdict.first_difference.clone().unwrap();
        assert_eq!((difference.index, difference.token, verdict.tokens), (77, 255, 78));
        assert!(verdict.differing_bits > 0);
        let text = verdict.to_string();
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("token 77 differs: after reading 255, "), "{last}");
    }
}

#[test]
fn a_damaged_layer_shows_at_the_first_token() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    for id in [Id::Ln1, Id::AttKey, Id::LnOut, Id::Head] {
        let offset = first_word(&image, id, 0);
        let verdict = run(&image, Some(Flip { offset, bit: 6 }), &[97, 98], 4);
        assert_eq!(verdict.first_difference.unwrap().index, 0, "{id:?}");
    }
}

#[test]
fn a_device_that_cannot_compute_differs() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    // The identifier of a record: the device finds another one than it expects.
    let offset = first_word(&image, Id::Head, 0) - 2 - 4 * (RECORD_WORDS + 1);
    let verdict = run(&image, Some(Flip { offset, bit: 0 }), &[97, 98], 4);
    let difference = verdict.first_difference.clone().unwrap();
    assert!(matches!(difference.device, Found::Refused(_)), "{verdict}");
    assert_eq!((difference.index, verdict.differing_bits), (0, 64));
}

#[test]
fn no_prompt_no_verdict() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    let mut device = Device::open(DeviceSpec::Sim, &image, &Options::default()).unwrap();
    let mut reference = Host::stepwise(&image, SamplerConfig::GREEDY).unwrap();
    let result = validate(&mut device, &mut reference, SamplerConfig::GREEDY, &[], 4, |_| {});
    assert!(matches!(result, Err(ValidateError::EmptyPrompt)));
    let result = validate(&mut device, &mut reference, SamplerConfig::GREEDY, &[70_000], 4, |_| {});
    assert!(matches!(result, Err(ValidateError::Host { index: 0, .. })));
}
