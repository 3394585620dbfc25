//! Every emulated board against the host, over 64 tokens: a test for each.

use rwkv_core::sampler::SamplerConfig;
use rwkv_embedded::agent::protocol::Memory;
use rwkv_host::{
    convert::{Options as Conversion, Weights},
    device::{Device, DeviceError, DeviceSpec, Options, QemuBoard},
    validate::{Host, Verdict, validate},
};
use rwkv_tests::{
    devices::can_run,
    image_with,
    random::{self, Container},
    text,
};

/// Tokens that are read, and as many that the board writes.
const TOKENS: usize = 32;

/// Bytes of RAM that the stack must leave alone: a compiler may need more tomorrow.
const HEADROOM: u32 = 1024;

/// A test for each board, and the list of them.
macro_rules! boards {
    ($($name:ident: $board:ident,)*) => {
        const TESTED: &[QemuBoard] = &[$(QemuBoard::$board),*];
        $(
            #[test]
            fn $name() {
                agrees(QemuBoard::$board);
            }
        )*
    };
}

boards! {
    mps2_an386: Mps2An386,
    mps2_an500: Mps2An500,
    mps2_an505: Mps2An505,
    netduinoplus2: NetduinoPlus2,
    microbit: Microbit,
    sifive_e: SifiveE,
    virt: Virt,
}

#[test]
fn every_board_is_tested() {
    assert_eq!(TESTED, QemuBoard::ALL);
}

/// Random models of two versions that fit the RAM and flash of a device.
fn models(spec: DeviceSpec) -> [(&'static str, tempfile::NamedTempFile); 2] {
    ["4", "7"].map(|version| match spec {
        DeviceSpec::Qemu(QemuBoard::Microbit | QemuBoard::SifiveE) => {
            (version, random::small(version))
        }
        _ => (version, random::checkpoint(version, Container::Safetensors)),
    })
}

/// Validates a board with every model and format.
fn agrees(board: QemuBoard) {
    if !can_run(board) {
        return;
    }
    let verdicts = agree(DeviceSpec::Qemu(board)).expect("the board starts");
    for verdict in verdicts {
        assert!(verdict.instructions_per_token.is_some());
        has_room(board, verdict.memory.expect("the board tells its memory"));
    }
}

/// The stack of the agent keeps away from the arena.
fn has_room(board: QemuBoard, memory: Memory) {
    let stack = memory.stack.expect("the board measures its stack");
    let statics = memory.statics.expect("the board knows its statics");
    let untouched = board.left_by_arena().saturating_sub(statics + stack);
    println!("{}: {stack} bytes of stack, {untouched} bytes never touched\n", board.name());
    assert!(untouched >= HEADROOM, "{}: {untouched} bytes below the stack", board.name());
}

#[test]
fn the_simulated_rp2040_agrees_over_64_tokens() {
    match agree(DeviceSpec::Rp2040js) {
        Ok(verdicts) => {
            let counted = |verdict: &Verdict| verdict.simulated_cycles_per_token.is_some();
            assert!(verdicts.iter().all(counted));
        }
        Err(error @ (DeviceError::NoEmulator { .. } | DeviceError::NoPackage { .. })) => {
            println!("skipped: {}, since {error}", DeviceSpec::Rp2040js);
        }
        Err(error) => panic!("{error}"),
    }
}

/// Compares a device with the host over every model and format.
fn agree(spec: DeviceSpec) -> Result<Vec<Verdict>, DeviceError> {
    let prompt = text(TOKENS, 9);
    let mut verdicts = Vec::new();
    for (version, checkpoint) in models(spec) {
        for weights in [Weights::Int8, Weights::Int4] {
            let file = image_with(checkpoint.path(), &Conversion::new(weights));
            let image = file.open().expect("it opens");
            let mut device = Device::open(spec, &image, &Options::default())?;
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
            println!("{spec}, version {version}, {weights:?}\n{verdict}\n");
            assert!(verdict.is_equal(), "{spec}, {version}, {weights:?}: {verdict}");
            assert_eq!(verdict.tokens, 2 * TOKENS);
            let memory = verdict.memory.expect("the board tells its memory");
            assert_eq!(memory.heap, 0);
            assert!(memory.stack.is_some_and(|bytes| bytes > 0));
            device.halt().expect("it ends");
            verdicts.push(verdict);
        }
    }
    Ok(verdicts)
}
