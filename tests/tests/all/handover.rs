//! States that host and device hand each other, and that both begin at.

use rwkv_core::{Error, sampler::SamplerConfig};
use rwkv_embedded::agent::protocol::{AgentError, MAX_STATE, Reply, Request};
use rwkv_host::{
    convert::Weights,
    device::{Device, DeviceError, DeviceSpec, Flip, Options},
    memory::Memory,
    prefill::prefill,
    validate::{Begin, Host, validate},
};
use rwkv_tests::{
    baked,
    devices::{Asked, devices},
    image, shipped, text,
};

/// A prompt that the host read goes on in the device, and the device's state is the host's.
#[test]
fn a_state_moves_between_host_and_device() {
    let prompt = text(48, 9);
    let warm = SamplerConfig { temperature: 0.8, top_k: 40, top_p: 0.95, ..SamplerConfig::GREEDY };
    let sampler = SamplerConfig { seed: 11, ..warm };
    for spec in devices() {
        for (model, weights) in [("tunes-v4", Weights::F32), ("tunes-v7", Weights::Int8)] {
            let file = image(&shipped(model), weights);
            let image = file.open().expect("it opens");
            let mut device =
                Device::open(spec, &image, &Options::default()).expect("the device starts");

            // The device reads the prompt itself, and the host reads the state back.
            device.reset(sampler).expect("it resets");
            let mut alone = Vec::new();
            device.feed(&prompt[..40], |_| {}).expect("it reads");
            let there = device.read_state().expect("a state");
            device.feed(&prompt[40..], |token| alone.push(token.digest)).expect("it reads");
            device.generate(8, |token| alone.push(token.digest)).expect("it goes on");
            let mut memory = Memory::new(&image);
            let state = memory.state(&image).expect("it fits");
            prefill::<&mut [f32]>(&image, state, &prompt[..40], &mut []).expect("it reads");
            let here = memory.state(&image).expect("it fits").words().concat();
            let bits = |words: &[f32]| words.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&there), bits(&here), "{spec}, {model}");

            // The host reads the prompt, and the device goes on.
            device.reset(sampler).expect("it resets");
            device.feed(&text(5, 1), |_| {}).expect("something else");
            device.reset(sampler).expect("it resets");
            device.write_state(&here).expect("it takes the state");
            let refused = device.generate(1, |_| panic!("a state has no logits"));
            assert!(matches!(refused, Err(DeviceError::Refused(AgentError::NothingRead))));
            let mut handed = Vec::new();
            device.feed(&prompt[40..], |token| handed.push(token.digest)).expect("it reads");
            device.generate(8, |token| handed.push(token.digest)).expect("it goes on");
            assert_eq!(handed, alone, "{spec}, {model}");

            // The same beside the host.
            let mut host = Host::parallel(&image, sampler).expect("the host starts");
            let begin = Begin { sampler: sampler.into(), state: Some(&here) };
            let verdict = validate(&mut device, &mut host, begin, &prompt[40..], 8, |_| {});
            let verdict = verdict.expect("there is a verdict");
            assert!(verdict.is_equal(), "{spec}, {model}: {verdict}");
            device.halt().expect("it halts");
        }
    }
}

/// Has a device take some words of a state.
fn write(device: &mut Asked, first: usize, words: &[f32]) -> Reply {
    let words = words.iter().copied().collect();
    device.ask(&Request::WriteState { first: first as u32, words })
}

fn write_all(device: &mut Asked, words: &[f32]) {
    for (index, piece) in words.chunks(MAX_STATE).enumerate() {
        assert_eq!(write(device, index * MAX_STATE, piece), Reply::Done);
    }
}

/// The last reply where it is to read a token.
fn feed(device: &mut Asked) -> Reply {
    match device.ask(&Request::Feed([65].into_iter().collect())) {
        Reply::Token(_) => device.reply(),
        refused => refused,
    }
}

/// A state that was not written whole is never computed with, whatever comes in between.
#[test]
fn half_a_state_is_refused_until_it_is_whole_or_reset() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let total = file.open().expect("it opens").header().state_words();
    let mut words = vec![0.25; total];
    let read = |first: usize| Request::ReadState { first: first as u32 };
    let reset = Request::Reset(SamplerConfig::GREEDY.into());
    let broken = Reply::Error(AgentError::Model(Error::BrokenState));
    let due = |next| Reply::Error(AgentError::StateOrder { next });
    let range = Reply::Error(AgentError::StateRange { words: total as u32 });
    for spec in devices() {
        let mut device = Asked::start(spec, file.bytes());
        let start = device.ask(&read(0));
        assert!(matches!(start, Reply::State(words) if words.len() == MAX_STATE));
        for first in [total, u32::MAX as usize] {
            assert_eq!(device.ask(&read(first)), range);
        }
        assert_eq!(device.ask(&Request::AcceptState), due(0));
        // A failed write breaks the state as well.
        assert_eq!(write(&mut device, 3, &words[..4]), due(0));
        assert_eq!(feed(&mut device), broken);
        assert_eq!(write(&mut device, 0, &words[..MAX_STATE]), Reply::Done);
        assert_eq!(write(&mut device, 3, &words[..4]), due(64));
        assert_eq!(feed(&mut device), broken);
        assert_eq!(device.ask(&read(0)), broken);
        assert_eq!(device.ask(&Request::AcceptState), due(64));
        let nothing = Reply::Error(AgentError::NothingRead);
        assert_eq!(device.ask(&Request::Generate { count: 1 }), nothing);
        assert_eq!(device.ask(&reset), Reply::Done);
        assert_eq!(write(&mut device, 64, &words[..4]), due(0));
        // Beyond its end, then accepted, once.
        write_all(&mut device, &words);
        assert_eq!(write(&mut device, total, &words[..1]), range);
        assert_eq!(device.ask(&Request::AcceptState), Reply::Done);
        let end = device.ask(&read(total - 3));
        assert_eq!(end, Reply::State(words[total - 3..].iter().copied().collect()));
        assert_eq!(device.ask(&Request::AcceptState), due(0));
        assert_eq!(feed(&mut device), Reply::Done);
        // Not finite.
        words[70] = f32::INFINITY;
        write_all(&mut device, &words);
        words[70] = 0.25;
        let infinite = Reply::Error(AgentError::StateNonFinite { word: 70 });
        assert_eq!(device.ask(&Request::AcceptState), infinite);
        assert_eq!(feed(&mut device), broken);
        assert_eq!(device.ask(&reset), Reply::Done);
        assert_eq!(feed(&mut device), Reply::Done);
    }
}

/// Devices begin where the image begins, and a bit that flipped there is found.
#[test]
fn a_baked_image_agrees_on_every_device() {
    let sampler = SamplerConfig::GREEDY;
    for (model, weights) in [("tunes-v4", Weights::Int8), ("tunes-v7", Weights::F32)] {
        let file = baked(&image(&shipped(model), weights), &text(40, 10));
        let image = file.open().expect("it opens");
        let words: Vec<f32> = image.start_state().expect("a state").collect();
        let prompt = text(16, 11);
        for spec in devices() {
            let mut device =
                Device::open(spec, &image, &Options::default()).expect("the device starts");
            for _ in 0..2 {
                let mut host = Host::stepwise(&image, sampler).expect("the host starts");
                let verdict = validate(&mut device, &mut host, sampler, &prompt, 16, |_| {})
                    .expect("there is a verdict");
                assert!(verdict.is_equal(), "{spec}, {model}: {verdict}");
            }
            device.reset(sampler).expect("it resets");
            assert_eq!(device.read_state().expect("a state"), words);
        }
        // The top of the fraction of a recurrent word.
        let word = image.header().shift_words() + 20;
        let offset = image.header().start_offset as usize + 4 * word + 2;
        let flip = Some(Flip { offset, bit: 6 });
        let options = Options { flip, ..Options::default() };
        let mut device =
            Device::open(DeviceSpec::Sim, &image, &options).expect("the device starts");
        let mut host = Host::stepwise(&image, sampler).expect("the host starts");
        let verdict = validate(&mut device, &mut host, sampler, &prompt, 4, |_| {})
            .expect("there is a verdict");
        assert_eq!(verdict.first_difference.as_ref().expect("it differs").index, 0, "{verdict}");
    }
}
