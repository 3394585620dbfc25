//! Every emulated board against the host, over 64 tokens: a test for each.

use std::fs;

use rwkv_core::{Digest, Image, Model, sampler::SamplerConfig};
use rwkv_embedded::{
    agent::protocol::{Memory, Reply, Request, Token},
    stream::{Buffered, buffer_words},
};
use rwkv_host::{
    convert::{Options as Conversion, Weights},
    device::{Device, DeviceError, DeviceSpec, Options, QemuBoard},
    fit::{Board, Layout, Trace, live_share},
    memory::Memory as HostMemory,
    tokenizer::{Choice, List, Tokenizer},
    validate::{Host, Verdict, validate},
};
use rwkv_tests::{
    devices::{Asked, can_run},
    image_with,
    medium::{Clock, SimFlash, token_bytes},
    random::{self, Container},
    shipped, text,
};

use crate::bisect::shows_the_bits_of_the_host;

/// Tokens that are read, and as many that the board writes.
const TOKENS: usize = 32;

/// How the tokens are chosen that a board writes.
const WARM: SamplerConfig =
    SamplerConfig { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 5, ..SamplerConfig::GREEDY };

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
    lm3s6965evb: Lm3s6965Evb,
    ast1030_evb: Ast1030Evb,
}

#[test]
fn every_board_is_tested() {
    assert_eq!(TESTED, QemuBoard::ALL);
}

/// Random models of two versions that fit the RAM and flash of a device.
fn models(spec: DeviceSpec) -> [(&'static str, tempfile::NamedTempFile); 2] {
    ["4", "7"].map(|version| match spec {
        // rp2040js runs some eight million instructions a second.
        DeviceSpec::Rp2040js | DeviceSpec::Qemu(QemuBoard::Microbit | QemuBoard::SifiveE) => {
            (version, random::small(version))
        }
        DeviceSpec::Qemu(QemuBoard::Lm3s6965Evb) => (version, random::wider(version, 3)),
        DeviceSpec::Qemu(QemuBoard::Ast1030Evb) => (version, random::wider(version, 5)),
        _ => (version, random::checkpoint(version, Container::Safetensors)),
    })
}

/// Checks what a board read of its medium, token by token.
fn check_reads(spec: DeviceSpec, image: &Image<'_>, tokens: &[Token]) {
    // The image is larger than RAM and internal flash together.
    let larger =
        |kib: usize| assert!(image.bytes().len() > kib << 10, "{} bytes", image.bytes().len());
    match spec {
        DeviceSpec::Qemu(QemuBoard::Lm3s6965Evb) => {
            larger(256 + 64);
            same_reads::<512>(image, tokens);
        }
        DeviceSpec::Qemu(QemuBoard::Ast1030Evb) => {
            larger(768);
            same_reads::<4>(image, tokens);
        }
        _ => assert!(tokens.iter().all(|token| token.read == 0)),
    }
}

/// Pieces of an image that a token reads beside its layers: the row of the embedding, the
/// start, and the head.
const ELSEWHERE: u64 = 4;

/// A token reads its fixed bytes and the columns whose input is not zero, in whole units: as many
/// bytes as the same stream over a simulated flash.
fn same_reads<const UNIT: usize>(image: &Image<'_>, tokens: &[Token]) {
    let clock = Clock::default();
    let header = *image.header();
    let mut buffer = vec![0; buffer_words(&header, UNIT)];
    let flash = SimFlash::<UNIT>::new(image.bytes(), &clock);
    let mut stream = Buffered::<_, true>::new(flash, 0, header.bytes(), &mut buffer).expect("0");
    let mut memory = HostMemory::new(image);
    let (mut state, scratch) = memory.split(image).expect("it fits");
    let mut model = Model::new(header, &mut stream, scratch).expect("it fits");
    let (fixed, column) = token_bytes(image);
    let (mut read, mut all) = (0, 0);
    for token in tokens {
        let before = model.columns();
        model.step(state.reborrow(), token.token, &mut Digest::default()).expect("it steps");
        let after = model.columns();
        let (live, every) = (after.live - before.live, after.all - before.all);
        let bytes = model.stream().reads().bytes;
        assert_eq!(u64::from(token.read), bytes - read);
        let needed = fixed + live * column;
        assert!(u64::from(token.read) >= needed, "{} bytes read of {needed}", token.read);
        assert!(UNIT > 4 || u64::from(token.read) == needed);
        // Rounded to units: one more at both ends of what is read in one piece, at most. These are
        // the live columns, and what lies between sparse products.
        let pieces = live + u64::from(header.dims.layers) + ELSEWHERE;
        let rounded = needed + 2 * UNIT as u64 * pieces;
        assert!(u64::from(token.read) <= rounded, "{} bytes read of {rounded}", token.read);
        read = bytes;
        all += fixed + every * column;
    }
    println!("{read} bytes were read, {all} without skipping");
    // Between columns that are read, a sector holds others.
    assert!(UNIT > 4 || read < all, "nothing is skipped");
}

/// What `rwkv fit` says that a token costs there.
fn predicted(board: QemuBoard, image: &Image<'_>, prompt: &[u32]) -> f64 {
    let core = Board::find(board.name()).expect("a row in fit/boards.rs").core;
    let live = live_share(image, prompt, TOKENS).expect("the host computes");
    Trace::new(&Layout::of(image), &core.costs(), live).instructions
}

/// Validates a board with every model and format.
fn agrees(board: QemuBoard) {
    if !can_run(board) {
        return;
    }
    tells_of_no_image(board);
    let verdicts = agree(DeviceSpec::Qemu(board)).expect("the board starts");
    assert!(verdicts.iter().all(|verdict| verdict.instructions_per_token.is_some()));
}

/// A board without an image answers, and the host can read its log.
fn tells_of_no_image(board: QemuBoard) {
    let mut device = Asked::start(DeviceSpec::Qemu(board), &[0xff; 64]);
    let Reply::Info(info) = device.ask(&Request::Info) else { panic!("no answer to its name") };
    assert_eq!(info.board, board.name());
    assert!(info.image.is_err());
    let log = device.log();
    assert!(log.0.contains("no image"), "{}: {log}", board.name());
}

/// A trained model, its state, the agent and its stack in 16 KB of RAM.
#[test]
fn boards_with_16_kb_write_a_tune() {
    let checkpoint = shipped("tunes-16k");
    let prompt = fs::read(checkpoint.with_file_name("prompt.txt")).expect("its prompt");
    let prompt: Vec<u32> = prompt.into_iter().map(u32::from).collect();
    let file = image_with(&checkpoint, &Conversion::new(Weights::Int4));
    let image = file.open().expect("it opens");
    for board in [QemuBoard::Microbit, QemuBoard::SifiveE].into_iter().filter(|b| can_run(*b)) {
        let device = DeviceSpec::Qemu(board);
        let mut device = Device::open(device, &image, &Options::default()).expect("it starts");
        let mut host = Host::parallel(&image, WARM).expect("the host starts");
        let verdict = validate(&mut device, &mut host, WARM, &prompt, 2 * TOKENS, |_| {})
            .expect("there is a verdict");
        let bytes = verdict.generated.iter().map(|token| char::from(*token as u8));
        let written: String = bytes.collect();
        println!("{verdict}\n{written}\n");
        assert!(verdict.is_equal(), "{verdict}");
        assert!(written.contains('|'), "no bar in {written}");
        shows_the_bits_of_the_host(&mut device, &image);
        device.verify().expect("the image is whole");
        has_room(DeviceSpec::Qemu(board), device.memory().expect("the board tells its memory"));
        // What `rwkv fit` says of it.
        let cost = verdict.instructions_per_token.expect("the emulator counts").mean as f64;
        let predicted = predicted(board, &image, &prompt);
        println!("{predicted:.0} instructions per token predicted\n");
        assert!((predicted / cost - 1.0).abs() <= 0.1, "{predicted} predicted, {cost} counted");
    }
}

/// Blocks that are larger than what state and scratch leave of the RAM come in pieces.
#[test]
fn a_board_without_room_for_a_block_reads_it_in_pieces() {
    let board = QemuBoard::Lm3s6965Evb;
    if !can_run(board) {
        return;
    }
    let checkpoint = random::wider("4", 7);
    for (block_bytes, whole) in [(1 << 10, true), (1 << 15, false)] {
        let conversion = Conversion { block_bytes, ..Conversion::new(Weights::Int8) };
        let file = image_with(checkpoint.path(), &conversion);
        let image = file.open().expect("it opens");
        let device = Device::open(DeviceSpec::Qemu(board), &image, &Options::default());
        let mut device = device.expect("it starts");
        let mut host = Host::parallel(&image, WARM).expect("the host starts");
        let verdict =
            validate(&mut device, &mut host, WARM, &[1, 2], 2, |_| {}).expect("there is a verdict");
        let buffers = device.memory().expect("the board tells its memory").buffers;
        let block = 4 * image.header().block_words;
        println!("blocks of {block} bytes, buffers of {buffers}\n{verdict}\n");
        assert!(verdict.is_equal(), "{verdict}");
        assert_eq!(buffers >= block, whole, "{buffers} bytes of buffers for blocks of {block}");
    }
}

/// The models for boards of 1 MB of flash and 128 KB of RAM, on such a board.
#[test]
fn a_board_with_128_kb_writes_tunes_and_prose() {
    let board = QemuBoard::NetduinoPlus2;
    if !can_run(board) {
        return;
    }
    for (model, formats) in
        [("tunes-m4", &[Weights::Int8, Weights::Int4][..]), ("prose-m4", &[Weights::Int4])]
    {
        let checkpoint = shipped(model);
        let prompt = fs::read(checkpoint.with_file_name("prompt.txt")).expect("its prompt");
        let vocabulary = checkpoint.with_file_name("vocabulary.txt");
        let tokenizer = match vocabulary.exists() {
            true => Choice::Vocabulary(List::read(&vocabulary).expect("a list").section()),
            false => Choice::Bytes,
        };
        for weights in formats {
            let conversion = Conversion { tokenizer: &tokenizer, ..Conversion::new(*weights) };
            let file = image_with(&checkpoint, &conversion);
            let image = file.open().expect("it opens");
            let text = Tokenizer::of(&image, None).expect("its tokenizer");
            let prompt = text.encode(&prompt).expect("bytes have tokens");
            let device = DeviceSpec::Qemu(board);
            let mut device = Device::open(device, &image, &Options::default()).expect("it starts");
            let mut host = Host::parallel(&image, WARM).expect("the host starts");
            let verdict = validate(&mut device, &mut host, WARM, &prompt, TOKENS, |_| {})
                .expect("there is a verdict");
            let written: Vec<&[u8]> = verdict.generated.iter().map(|t| text.decode(*t)).collect();
            println!("{model}\n{verdict}\n{}\n", String::from_utf8_lossy(&written.concat()));
            assert!(verdict.is_equal(), "{model}: {verdict}");
            let memory = device.memory().expect("the board tells its memory");
            has_room(DeviceSpec::Qemu(board), memory);
        }
    }
}

/// The stack of the agent keeps away from the arena.
fn has_room(spec: DeviceSpec, memory: Memory) {
    let left = spec.left_by_arena().expect("a board has an arena");
    let stack = memory.stack.expect("the board measures its stack");
    let statics = memory.statics.expect("the board knows its statics");
    let untouched = left.saturating_sub(statics + stack);
    println!("{spec}: {stack} bytes of stack, {untouched} bytes never touched\n");
    assert!(untouched >= HEADROOM, "{spec}: {untouched} bytes below the stack");
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
            let mut host = Host::parallel(&image, WARM).expect("the host starts");
            let mut tokens = Vec::new();
            let progress = |token: &Token| tokens.push(*token);
            let verdict = validate(&mut device, &mut host, WARM, &prompt, TOKENS, progress)
                .expect("there is a verdict");
            println!("{spec}, version {version}, {weights:?}\n{verdict}\n");
            assert!(verdict.is_equal(), "{spec}, {version}, {weights:?}: {verdict}");
            assert_eq!(verdict.tokens, 2 * TOKENS);
            if let DeviceSpec::Qemu(board) = spec {
                // Widths here are no multiples of 32: kernels take detours that nobody predicts, and
                // a driver that moves each byte itself is not counted. So this is shown, not held.
                let predicted = predicted(board, &image, &prompt);
                println!("{predicted:.0} instructions per token predicted\n");
            }
            let memory = device.memory().expect("the board tells its memory");
            assert_eq!(memory.heap, 0);
            assert!(memory.stack.is_some_and(|bytes| bytes > 0));
            has_room(spec, memory);
            check_reads(spec, &image, &tokens);
            shows_the_bits_of_the_host(&mut device, &image);
            device.verify().expect("the image is whole");
            // Neither does what else the agent is asked for take the room.
            has_room(spec, device.memory().expect("the board tells its memory"));
            device.halt().expect("it ends");
            verdicts.push(verdict);
        }
    }
    Ok(verdicts)
}
