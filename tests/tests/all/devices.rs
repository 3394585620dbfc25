//! Devices against the host: every bit, every damage, any noise on the line.

use std::{collections::BTreeSet, time::Duration};

use clap::Parser;
use rwkv_core::{
    Error, Image, ImageError, Model,
    image::MathMode,
    sampler::{Banned, Order, Sampler, SamplerConfig},
    stream::InPlace,
};
use rwkv_embedded::agent::protocol::{AgentError, Reply, Request, SamplerSettings, Tick};
use rwkv_host::{
    convert::{Options as Conversion, Weights},
    device::{Device, DeviceError, DeviceSpec, Flip, Options},
    memory::Memory,
    validate::{Found, Host, Verdict, validate},
};
use rwkv_tests::{
    baked, damage,
    devices::{Asked, QEMU, devices},
    formats, image, image_with,
    random::{self, Container, VERSIONS},
    shared, shipped, text,
};

fn prove(
    spec: DeviceSpec,
    checkpoint: &std::path::Path,
    conversion: &Conversion,
    prompt: &[u32],
    generate: usize,
) -> (Device, Verdict) {
    let file = image_with(checkpoint, conversion);
    let image = file.open().expect("it opens");
    let mut device = Device::open(spec, &image, &Options::default()).expect("the device starts");
    let sampler = SamplerConfig::GREEDY;
    let mut host = Host::parallel(&image, sampler).expect("the host starts");
    let verdict = validate(&mut device, &mut host, sampler, prompt, generate, |_| {})
        .expect("there is a verdict");
    assert!(verdict.is_equal(), "{spec}, {}: {verdict}", checkpoint.display());
    assert_eq!(verdict.tokens, prompt.len() + generate);
    (device, verdict)
}

#[test]
fn a_benchmark_computes_the_same_state_and_leaves_nothing_to_choose_from() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().unwrap();
    let tokens = text(100, 5);
    for spec in devices() {
        let mut device = Device::open(spec, &image, &Options::default()).unwrap();
        let mut fed = 0;
        device.reset(SamplerConfig::GREEDY).unwrap();
        device.feed(&tokens, |token| fed += u64::from(token.ticks)).unwrap();
        let state = device.read_state().unwrap();
        device.reset(SamplerConfig::GREEDY).unwrap();
        let ticks = device.benchmark(&tokens).unwrap();
        assert!(ticks > 0, "{spec}");
        if let Tick::Instructions(_) = device.info().tick {
            assert!(ticks < fed, "{spec}: {ticks} ticks, {fed} with sampler and digest");
            println!("{spec}: {ticks} ticks, {fed} with sampler and digest");
        }
        let bits = |words: &[f32]| words.iter().map(|word| word.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&device.read_state().unwrap()), bits(&state), "{spec}");
        let refused = device.generate(1, |_| {}).unwrap_err();
        assert!(matches!(refused, DeviceError::Refused(_)), "{spec}: {refused}");
    }
}

#[test]
fn int8_agrees_over_512_tokens_on_every_device() {
    let prompt = text(256, 3);
    for spec in devices() {
        let shared = ["tiny-rwkv-4v0-660K.pth", "tiny-rwkv-7v0-834K.pth"].map(shared);
        let shipped = ["tunes-v4", "tunes-v7"].map(shipped);
        for checkpoint in shared.into_iter().flatten().chain(shipped) {
            let (mut device, verdict) =
                prove(spec, &checkpoint, &Conversion::new(Weights::Int8), &prompt, 256);
            println!("{}\n{verdict}\n", checkpoint.display());
            if spec == QEMU {
                let memory = device.memory().expect("the board tells its memory");
                assert_eq!(memory.heap, 0);
                let figures = [memory.stack, memory.statics, memory.flash];
                assert!(figures.iter().all(|bytes| bytes.is_some_and(|n| n > 0)));
                assert!(matches!(device.info().tick, Tick::Instructions(_)));
            }
        }
    }
}

/// Several heads, and widths that are no multiple of 32.
#[test]
fn random_models_agree_over_512_tokens_on_every_device() {
    let prompt = text(256, 4);
    for spec in devices() {
        for version in VERSIONS {
            let checkpoint = random::checkpoint(version, Container::Safetensors);
            for weights in [Weights::F32, Weights::Int8, Weights::Int4] {
                println!("{version}, {weights:?}");
                prove(spec, checkpoint.path(), &Conversion::new(weights), &prompt, 256);
            }
        }
    }
}

#[test]
fn f32_agrees_on_every_device() {
    let prompt = b"\"in".map(u32::from);
    for spec in devices() {
        for name in
            ["tiny-rwkv-4v0-660K.pth", "tiny-rwkv-7v0-834K.pth", "tiny-rwkv-7v0-834K-FP32.bin"]
        {
            if let Some(checkpoint) = shared(name) {
                prove(spec, &checkpoint, &Conversion::new(Weights::F32), &prompt, 16);
            }
        }
    }
}

/// The simulated device has the feature of that name, the board's firmware has not.
#[test]
fn micromath_agrees_where_it_is_and_is_refused_elsewhere() {
    let conversion = Conversion { math: MathMode::Micromath, ..Conversion::new(Weights::Int8) };
    for spec in devices() {
        let checkpoint = shipped("tunes-v7");
        if spec == DeviceSpec::Sim {
            prove(spec, &checkpoint, &conversion, &text(32, 7), 32);
            continue;
        }
        let file = image_with(&checkpoint, &conversion);
        let image = file.open().expect("the host reads it");
        let refused =
            Device::open(spec, &image, &Options::default()).expect_err("the board cannot");
        let expected = Error::Image(ImageError::MathMode(1));
        assert!(matches!(refused, DeviceError::NoImage(error) if error == expected), "{refused}");
    }
}

#[test]
fn every_format_agrees_on_every_device() {
    let prompt = text(32, 5);
    for spec in devices() {
        for model in ["tunes-v4", "tunes-v7"] {
            for (name, conversion) in formats() {
                println!("{model}, {name}");
                prove(spec, &shipped(model), &conversion, &prompt, 32);
            }
        }
    }
}

/// Settings that between them use every one that there is.
fn samplers() -> Vec<SamplerSettings> {
    let off = SamplerConfig::GREEDY;
    let warm = SamplerConfig { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 11, ..off };
    let penalties = SamplerConfig { presence: 0.4, frequency: 0.4, penalty_decay: 0.996, ..warm };
    let official = SamplerConfig { order: Order::Official, temperature: 1.3, ..penalties };
    let configs = [
        off,
        warm,
        SamplerConfig { seed: 12, ..warm },
        SamplerConfig { min_p: 0.1, top_p: 1.0, ..warm },
        penalties,
        SamplerConfig { temperature: 0.0, repetition: 1.3, ..penalties },
        SamplerConfig { top_k: 0, top_p: 0.7, ..official },
        SamplerConfig { min_p: 0.2, repetition: 0.8, presence: -0.5, ..official },
    ];
    let banned = || b"\n EGe|".iter().map(|byte| u32::from(*byte)).collect();
    let all = configs.map(SamplerSettings::from);
    let some = [off, official].map(|config| SamplerSettings { config, banned: banned() });
    all.into_iter().chain(some).collect()
}

#[test]
fn shipped_models_agree_on_every_device_with_any_sampler() {
    let prompt = b"X:1\nT:".map(u32::from);
    for spec in devices() {
        for (model, weights) in [("tunes-v4", Weights::Int8), ("tunes-v7", Weights::Int8)] {
            let file = image(&shipped(model), weights);
            let image = file.open().expect("it opens");
            let mut device =
                Device::open(spec, &image, &Options::default()).expect("the device starts");
            let mut texts = BTreeSet::new();
            for sampler in samplers() {
                let mut host = Host::stepwise(&image, sampler.clone()).expect("the host starts");
                let verdict =
                    validate(&mut device, &mut host, sampler.clone(), &prompt, 48, |_| {})
                        .expect("there is a verdict");
                assert!(verdict.is_equal(), "{model}, {sampler:?}: {verdict}");
                assert_eq!(verdict.generated, generate(&image, &prompt, &sampler, 48));
                let is_banned = |token: &u32| sampler.banned.contains(token);
                assert!(!verdict.generated.iter().any(is_banned), "{model}, {sampler:?}");
                texts.insert(verdict.generated);
            }
            assert_eq!(texts.len(), samplers().len(), "every setting shows");
            if spec == QEMU {
                let log = device.log().0;
                assert!(log.contains("ImageInfo"), "the firmware's log is decoded: {log}");
            }
        }
    }
}

#[test]
fn samplers_out_of_range_are_refused_on_every_device() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().expect("it opens");
    let far = SamplerConfig { frequency: f32::MAX, presence: f32::MAX, ..SamplerConfig::GREEDY };
    for spec in devices() {
        let mut device =
            Device::open(spec, &image, &Options::default()).expect("the device starts");
        let unsorted =
            SamplerSettings { config: SamplerConfig::GREEDY, banned: [2, 1].into_iter().collect() };
        let high = SamplerConfig { min_p: 1.5, ..SamplerConfig::GREEDY };
        for settings in [unsorted, high.into()] {
            let refused = device.reset(settings).expect_err("they are out of range");
            assert!(matches!(refused, DeviceError::Refused(AgentError::Sampler)), "{refused}");
        }
        // In range, but no number is left of the second token's logits.
        device.reset(far).expect("they are in range");
        device.feed(&[88], |_| {}).expect("it reads");
        let refused = device.generate(2, |_| {}).expect_err("the logits overflow");
        assert!(matches!(refused, DeviceError::Refused(AgentError::Sampler)), "{refused}");
    }
}

/// What firmware does that links the library: sampling begins behind the prompt.
fn generate(
    image: &Image<'_>,
    prompt: &[u32],
    settings: &SamplerSettings,
    count: usize,
) -> Vec<u32> {
    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image).expect("it fits");
    let mut model =
        Model::new(*image.header(), InPlace::new(image.words()), scratch).expect("it fits");
    let mut sampler = Sampler::new(settings.config).expect("it is in range");
    let banned = Banned::new(&settings.banned).expect("they are in order");
    sampler.begin();
    let prompt = prompt.iter().copied();
    model.prefill(state.reborrow(), prompt, sampler.within(banned)).expect("it reads");
    let mut tokens = Vec::new();
    for _ in 0..count {
        let token = sampler.finish().expect("there are logits");
        tokens.push(token);
        sampler.begin();
        model.step(state.reborrow(), token, sampler.within(banned)).expect("it steps");
    }
    tokens
}

/// Every weight that a token reads: a flipped bit is found, at the first token that reads it.
#[test]
fn a_flipped_weight_is_found_and_the_token_named() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().expect("it opens");
    let sections: Vec<_> = image.sections().collect();
    let prompt = b"X:1\n".map(u32::from);
    let row = 4 + 1 + 1 + 96 / 4;
    let embedding = |token: usize| sections[0].offset as usize + 16 + token * (row - 4) * 4 + 8;
    let head = sections[5].offset as usize + sections[5].length as usize - 40;
    let layer = sections[1].offset as usize + 2000;
    for (offset, first) in [(embedding(b'1'.into()), 2), (layer, 0), (head, 0)] {
        let flip = Some(Flip { offset, bit: 6 });
        let options = Options { flip, ..Options::default() };
        let mut device =
            Device::open(DeviceSpec::Sim, &image, &options).expect("the device starts");
        let sampler = SamplerConfig::GREEDY;
        let mut host = Host::parallel(&image, sampler).expect("the host starts");
        let verdict = validate(&mut device, &mut host, sampler, &prompt, 4, |_| {})
            .expect("there is a verdict");
        let difference = verdict.first_difference.as_ref().expect("it differs");
        assert_eq!(difference.index, first, "{verdict}");
        assert!(matches!(difference.device, Found::Token(_)));
        assert!(verdict.differing_bits > 0);
        assert!(verdict.to_string().ends_with("differing bits)"), "{verdict}");
    }
}

#[test]
fn the_command_exits_with_the_verdict() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("tunes.rwkv");
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    std::fs::write(&path, file.bytes()).expect("written");
    let offset = file.open().expect("it opens").header().layers_offset as usize + 2000;
    let run = |more: &[&str]| {
        let mut args = vec!["rwkv", "validate", path.to_str().expect("UTF-8"), "-n", "4"];
        args.extend(["--prompt", "X:1\n"]);
        args.extend(more);
        let cli = rwkv_host::cli::Cli::try_parse_from(args).expect("it parses");
        format!("{:?}", rwkv_host::cli::run(cli).expect("there is a verdict"))
    };
    let success = format!("{:?}", std::process::ExitCode::SUCCESS);
    assert_eq!(run(&[]), success);
    assert_eq!(run(&["--json"]), success);
    assert_ne!(run(&["--sim-flip-bit", &format!("{offset}:6")]), success);
}

/// The same list of damages as on the host, with the same errors, on every device.
#[test]
fn devices_name_every_damage() {
    let good = baked(&image(&shipped("tunes-v4"), Weights::Int8), &[88]);
    let image = good.open().expect("it opens");
    for spec in devices() {
        for damage in damage::list(&good) {
            let flash = damage.file.bytes();
            let transport = Device::start(spec, flash, &Options::default()).expect("it starts");
            let error = Device::connect(transport, &image, Duration::from_secs(60))
                .expect_err(&damage.what);
            let DeviceError::NoImage(found) = error else {
                panic!("{spec}, {}: {error}", damage.what)
            };
            // Behind an image in flash there is more flash: a board reads on where a file ends.
            let expected = match spec {
                QEMU => damage.in_flash(0x0038_0000),
                _ => damage.error,
            };
            assert_eq!(found, Error::Image(expected), "{spec}, {}", damage.what);
            println!("{spec}: {:<40} {found}", damage.what);
        }
    }
}

#[test]
fn noise_on_the_line_neither_hangs_nor_ends_a_device() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    for spec in devices() {
        let mut device = Asked::start(spec, file.bytes());
        for seed in 1..=40 {
            let mut noise: Vec<u8> = text(250, seed).iter().map(|x| (x * 37) as u8).collect();
            noise.push(0);
            let frames = noise.split_inclusive(|byte| *byte == 0).count();
            device.send(&noise);
            for _ in 0..frames {
                assert_eq!(device.reply(), Reply::Error(AgentError::Frame));
            }
        }
        // A frame that is cut short, then a request that makes sense and one that does not.
        device.send(&[7, 1, 2]);
        assert_eq!(device.ask(&Request::Verify), Reply::Error(AgentError::Frame));
        let nothing = Reply::Error(AgentError::NothingRead);
        assert_eq!(device.ask(&Request::Generate { count: 1 }), nothing);
        let feed = Request::Feed([65, 9999].into_iter().collect());
        assert!(matches!(device.ask(&feed), Reply::Token(_)));
        let wrong = Error::Token { token: 9999, vocab: 256 };
        assert_eq!(device.reply(), Reply::Error(AgentError::Model(wrong)));
        assert_eq!(device.ask(&Request::Verify), Reply::Done);
    }
}
