use rwkv_core::sampler::SamplerConfig;

use super::*;
use crate::{
    convert::Weights,
    device::{DeviceSpec, Options},
    validate::tests::{MODEL, image},
};

#[test]
fn pieces_add_up_to_a_token() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    let mut device = Device::open(DeviceSpec::Sim, &image, &Options::default()).unwrap();
    let mut computed = 0;
    let sampler = SamplerConfig::GREEDY;
    let profile = profile(&mut device, &image, sampler, &[1, 2], 3, || computed += 1).unwrap();
    assert_eq!((profile.tokens, computed), (5, 10));
    assert_eq!(profile.unit, "nanoseconds");
    let layers = image.header().dims.layers as usize;
    let sections = profile.pieces.chunk_by(|a, b| a.section == b.section);
    assert_eq!(sections.count(), layers + 2);
    // What is taken off for the looking makes the sum that of the tokens that nobody looked at.
    let sum: f64 = profile.pieces.iter().map(|piece| piece.cost).sum();
    assert!((sum - profile.per_token).abs() <= 1e-6 * profile.per_token, "{sum} {profile:?}");
    assert!(profile.pieces.iter().any(|piece| piece.operation == "sparse_product"));

    let svg = picture(&profile);
    let boxes = svg.matches("<rect").count();
    assert!(boxes > profile.pieces.len() && svg.ends_with("</svg>\n"), "{svg}");
    assert!(profile.to_string().contains("per state element"));
    device.halt().unwrap();
}

#[test]
fn an_empty_prompt_is_refused() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    let mut device = Device::open(DeviceSpec::Sim, &image, &Options::default()).unwrap();
    let refused = profile(&mut device, &image, SamplerConfig::GREEDY, &[], 3, || {});
    assert!(matches!(refused, Err(ProfileError::EmptyPrompt)));
}
