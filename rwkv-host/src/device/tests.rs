use std::{fs, os::unix::net::UnixStream, process::Command, time::Duration};

use rwkv_core::sampler::SamplerConfig;
use rwkv_embedded::agent::protocol::AgentError;

use super::*;
use crate::{
    convert::Weights,
    validate::tests::{MODEL, image},
};

fn open(image: &Image<'_>, flip: Option<Flip>) -> Result<Device, DeviceError> {
    Device::open(DeviceSpec::Sim, image, &Options { flip, ..Options::default() })
}

#[test]
fn every_request_is_answered() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    let mut device = open(&image, None).unwrap();
    assert_eq!(device.info().board, "sim");
    device.verify().unwrap();
    device.reset(SamplerConfig::GREEDY).unwrap();
    let refused = device.generate(1, |_| panic!("there is nothing to continue"));
    assert!(matches!(refused, Err(DeviceError::Refused(AgentError::NothingRead))));

    let prompt: Vec<u32> = (0..2 * MAX_FEED as u32 + 1).map(|i| i % 128).collect();
    let mut read = Vec::new();
    device.feed(&prompt, |token| read.push(token)).unwrap();
    assert!(read.iter().map(|token| token.token).eq(prompt));
    let mut generated = Vec::new();
    device.generate(3, |token| generated.push(token)).unwrap();
    assert_eq!(generated.len(), 3);

    let memory = device.memory().unwrap();
    assert_eq!(memory.state as usize, image.header().state_words() * 4);
    device.halt().unwrap();
}

#[test]
fn tokens_beyond_the_vocabulary_are_refused() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    let mut device = open(&image, None).unwrap();
    let token = image.header().dims.vocab;
    let refused = device.feed(&[token], |_| {}).unwrap_err();
    assert!(refused.to_string().contains("not in the vocabulary"), "{refused}");
    device.reset(SamplerConfig::GREEDY).unwrap();
}

#[test]
fn a_flipped_bit_is_found_by_a_verification_only() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    let offset = file.bytes().len() - 1;
    let mut device = open(&image, Some(Flip { offset, bit: 7 })).unwrap();
    assert!(matches!(device.verify(), Err(DeviceError::Refused(AgentError::Model(_)))));

    let outside = open(&image, Some(Flip { offset: offset + 1, bit: 0 }));
    assert!(matches!(outside, Err(DeviceError::FlipRange { .. })));
}

#[test]
fn another_image_is_told_apart() {
    let (Some(int8), Some(f32)) = (image(MODEL, Weights::Int8), image(MODEL, Weights::F32)) else {
        return;
    };
    let (int8, f32) = (int8.open().unwrap(), f32.open().unwrap());
    let options = Options::default();
    let transport = Box::new(sim::start(int8.bytes(), &options).unwrap());
    let refused = Device::connect(transport, &f32, options.timeout);
    assert!(matches!(refused, Err(DeviceError::OtherImage { .. })));
}

#[test]
fn silence_ends_in_an_error_that_says_what_was_awaited() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    let (host, device) = UnixStream::pair().unwrap();
    let error = Device::connect(Box::new(host), &image, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, DeviceError::Timeout { awaited: "its name", .. }), "{error}");
    drop(device);

    let (host, device) = UnixStream::pair().unwrap();
    drop(device);
    let error = Device::connect(Box::new(host), &image, Duration::from_secs(5)).unwrap_err();
    assert!(matches!(error, DeviceError::Ended { awaited: "its name", .. }), "{error}");
}

#[test]
fn noise_on_the_line_is_an_error() {
    use std::io::Write;
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    let (host, mut device) = UnixStream::pair().unwrap();
    device.write_all(b"boot: all is well\0").unwrap();
    let error = Device::connect(Box::new(host), &image, Duration::from_secs(5)).unwrap_err();
    assert!(matches!(error, DeviceError::Frame { .. }), "{error}");
}

#[test]
fn an_emulator_that_dies_leaves_its_last_words() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    let missing = Command::new("qemu-system-arm").arg("--version").output().is_err();
    if missing {
        println!("skipped: there is no qemu-system-arm");
        return;
    }
    let firmware = tempfile::NamedTempFile::new().unwrap();
    fs::write(firmware.path(), [0xff; 64]).unwrap();
    let options = Options { firmware: Some(firmware.path().to_owned()), ..Options::default() };
    let error = Device::open(DeviceSpec::Qemu(QemuBoard::Mps2An386), &image, &options).unwrap_err();
    let (DeviceError::Ended { log, .. } | DeviceError::Link { log, .. }) = &error else {
        panic!("{error}");
    };
    assert!(log.0.contains("Lockup"), "{error}");
    let flip = Some(Flip { offset: 0, bit: 0 });
    let refused =
        Device::open(DeviceSpec::Qemu(QemuBoard::Mps2An386), &image, &Options { flip, ..options });
    assert!(matches!(refused, Err(DeviceError::FlipUnsupported)));
}
