//! Every emulated board against the host, over 64 tokens.

use rwkv_core::{Image, sampler::SamplerConfig};
use rwkv_host::{
    convert::{Options as Conversion, Weights},
    device::{Device, DeviceSpec, Options, QemuBoard},
    fit::{Board, Layout, Trace, live_share},
    validate::{Host, validate},
};
use rwkv_tests::{
    devices::devices,
    image_with,
    random::{self, Container},
    text,
};

/// Tokens that are read, and as many that the board writes.
const TOKENS: usize = 32;

/// Random models that fit the RAM and flash of a board.
fn models(board: QemuBoard) -> [(&'static str, tempfile::NamedTempFile); 2] {
    ["4", "7"].map(|version| match board {
        QemuBoard::Microbit => (version, random::small(version)),
        _ => (version, random::checkpoint(version, Container::Safetensors)),
    })
}

/// What `rwkv fit` says that a token costs there.
fn predicted(board: QemuBoard, image: &Image<'_>, prompt: &[u32]) -> f64 {
    let core = Board::find(board.name()).expect("a row in fit/boards.rs").core;
    let live = live_share(image, prompt, TOKENS).expect("the host computes");
    Trace::new(&Layout::of(image), &core.costs(), live).instructions
}

#[test]
fn every_board_agrees_over_64_tokens() {
    if devices() == [DeviceSpec::Sim] {
        return;
    }
    let prompt = text(TOKENS, 9);
    for board in QemuBoard::ALL {
        for (version, checkpoint) in models(board) {
            for weights in [Weights::Int8, Weights::Int4] {
                let file = image_with(checkpoint.path(), &Conversion::new(weights));
                let image = file.open().expect("it opens");
                let mut device = Device::open(DeviceSpec::Qemu(board), &image, &Options::default())
                    .expect("the board starts");
                let warm = SamplerConfig {
                    temperature: 0.8,
                    top_k: 40,
                    top_p: 0.95,
                    seed: 5,
                    ..SamplerConfig::GREEDY
                };
                let mut host = Host::parallel(&image, warm).expect("the host starts");
                let verdict = validate(&mut device, &mut host, warm, &prompt, TOKENS, |_| {})
                    .expect("there is a verdict");
                println!("{}, version {version}, {weights:?}\n{verdict}\n", board.name());
                assert!(verdict.is_equal(), "{}, {version}, {weights:?}: {verdict}", board.name());
                assert_eq!(verdict.tokens, 2 * TOKENS);
                let cost = verdict.instructions_per_token.expect("the board counts instructions");
                let predicted = predicted(board, &image, &prompt);
                println!("{predicted:.0} instructions per token predicted");
                // The widths of these models are no multiples of 32, which costs kernels detours.
                let off = predicted / cost.mean as f64 - 1.0;
                assert!(off.abs() <= 0.25, "{}, {version}, {weights:?}: {off}", board.name());
                let memory = verdict.memory.expect("the board tells its memory");
                assert_eq!(memory.heap, 0);
                assert!(memory.stack.is_some_and(|bytes| bytes > 0));
            }
        }
    }
}
