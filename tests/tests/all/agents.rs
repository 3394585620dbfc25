//! The agent over a medium: images are found as in memory, the bits are the same, bytes are counted,
//! and a read that fails costs no token.

use std::{collections::VecDeque, convert::Infallible, io::Read as _};

use embedded_io::{ErrorType, Read, Write};
use rwkv_core::{
    Error, Image, ImageError, Model, StreamError, image::PIECE_WORDS, sampler::SamplerConfig,
    stream::InPlace,
};
use rwkv_embedded::{
    agent::{
        Agent, Board, Weights,
        frame::{Decoder, encode},
        protocol::{AgentError, MAX_FRAME, Memory as InUse, Reply, Request, Tick, Token},
    },
    stream::{Buffered, Medium, buffer_words, words_around},
};
use rwkv_host::{convert::Options, file::ImageFile, memory::Memory};
use rwkv_tests::{
    baked, formats, image_with,
    medium::{Clock, Fault, SimFlash, token_bytes},
    random::{self, VERSIONS},
    shipped, step,
};

use crate::checks::repair;

const PROMPT: [u32; 4] = [88, 58, 49, 10];
const WARM: SamplerConfig =
    SamplerConfig { temperature: 0.9, repetition: 1.2, seed: 11, ..SamplerConfig::GREEDY };

struct Bench;

impl Board for Bench {
    const NAME: &'static str = "bench";
    const CORE: &'static str = "none";

    fn now(&mut self) -> u32 {
        0
    }

    fn tick(&self) -> Tick {
        Tick::Nanoseconds(1)
    }
}

/// A line that ends behind what is sent, and keeps what comes back.
#[derive(Default)]
struct Line {
    sent: VecDeque<u8>,
    received: Vec<u8>,
}

impl ErrorType for Line {
    type Error = Infallible;
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        Ok(self.sent.read(buffer).expect("it is memory"))
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.received.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn ask<S: Weights>(agent: &mut Agent<'_, Bench, S>, request: Request) -> Vec<Reply> {
    let mut buffer = [0; MAX_FRAME];
    let frame = encode(&request, &mut buffer).expect("it fits");
    let mut line = Line { sent: frame.iter().copied().collect(), received: Vec::new() };
    let Ok(_) = agent.run(&mut line);
    let mut decoder = Decoder::new();
    let replies = line.received.iter().filter_map(|byte| decoder.push(*byte));
    replies.map(|reply| reply.expect("it is whole")).collect()
}

fn feed<S: Weights>(
    agent: &mut Agent<'_, Bench, S>,
    tokens: &[u32],
) -> (Vec<Token>, Option<AgentError>) {
    self::tokens(ask(agent, Request::Feed(tokens.iter().copied().collect())))
}

fn tokens(mut replies: Vec<Reply>) -> (Vec<Token>, Option<AgentError>) {
    let last = replies.pop();
    let tokens = replies.into_iter().map(|reply| match reply {
        Reply::Token(token) => token,
        reply => panic!("{reply:?}"),
    });
    let error = match last {
        Some(Reply::Done) => None,
        Some(Reply::Error(error)) => Some(error),
        last => panic!("{last:?}"),
    };
    (tokens.collect(), error)
}

fn memory<S: Weights>(agent: &mut Agent<'_, Bench, S>) -> InUse {
    match ask(agent, Request::Memory)[..] {
        [Reply::Memory(memory)] => memory,
        ref replies => panic!("{replies:?}"),
    }
}

fn reset<S: Weights>(agent: &mut Agent<'_, Bench, S>) -> Vec<Reply> {
    ask(agent, Request::Reset(SamplerConfig::GREEDY.into()))
}

fn generate<S: Weights>(
    agent: &mut Agent<'_, Bench, S>,
    count: u8,
) -> (Vec<Token>, Option<AgentError>) {
    tokens(ask(agent, Request::Generate { count }))
}

/// Words of an arena that has no room for every block as a whole.
fn least_arena(image: &Image<'_>, unit: usize) -> usize {
    let header = image.header();
    let least = image.least_room().unwrap().max(PIECE_WORDS);
    header.state_words() + header.scratch_words as usize + words_around(least, unit)
}

/// Words of the least arena for whole blocks of an image, and of one with room for an undo.
fn arena(image: &Image<'_>, unit: usize) -> (usize, usize) {
    let header = image.header();
    let piece = words_around(PIECE_WORDS, unit);
    let buffer = buffer_words(header, unit).max(piece);
    let least = header.state_words() + header.scratch_words as usize + buffer;
    (least, least + header.state_words())
}

fn over<'a, M: Medium>(
    medium: M,
    bytes: u32,
    arena: &'a mut [f32],
) -> Agent<'a, Bench, Buffered<'a, M>> {
    Agent::over(Bench, medium, 0..bytes, arena)
}

/// A medium whose reads can be made to fail while the agent has it.
struct Shared<'m, M>(&'m std::cell::RefCell<M>);

impl<M: Medium> Medium for Shared<'_, M> {
    const UNIT: usize = M::UNIT;

    #[expect(clippy::await_holding_refcell_ref, reason = "nobody else is polled meanwhile")]
    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        self.0.borrow_mut().read(offset, bytes).await
    }
}

pub(crate) fn every_image(mut test: impl FnMut(&str, &ImageFile)) {
    for version in VERSIONS {
        let file = random::checkpoint(version, random::Container::Safetensors);
        for (format, options) in [&formats()[0], &formats()[2], &formats()[4]] {
            for block_bytes in [64, 4096] {
                let options = Options { block_bytes, ..*options };
                let image = image_with(file.path(), &options);
                test(&format!("{version} {format} blocks of {block_bytes}"), &image);
            }
        }
    }
}

/// Whichever read fails at boot, the image is found.
#[test]
fn a_fault_at_boot_is_overcome() {
    let file = baked(&random::tiny_image(), &[1, 2]);
    let image = file.open().unwrap();
    let wanted = step(&mut Memory::new(&image), &image, &[3]).unwrap().0;
    let clock = Clock::default();
    let mut words = vec![0.0; arena(&image, 4).1];
    let bytes = image.header().bytes();
    let mut at = 0;
    loop {
        let flash = std::cell::RefCell::new(SimFlash::<4>::new(file.bytes(), &clock));
        let fault = [Fault::Error, Fault::Short, Fault::Flip][at % 3];
        flash.borrow_mut().fault = Some((at, fault));
        let mut agent = over(Shared(&flash), bytes, &mut words);
        assert!(agent.image().is_ok(), "{fault:?} at {at}: {:?}", agent.image());
        if flash.borrow_mut().fault.take().is_some() {
            break;
        }
        let (tokens, error) = feed(&mut agent, &[3]);
        assert_eq!((tokens[0].digest, error), (wanted[0], None), "{fault:?} at {at}");
        at += 1;
    }
    println!("{at} reads");
    assert!(at > 100);
}

/// In memory and on two media: the same digests. Bytes are those that `rwkv info` counts, where
/// words can be read, and the sectors around them, where those can.
#[test]
fn bits_are_those_of_memory_and_bytes_are_counted() {
    let mut in_pieces = 0;
    every_image(|name, file| {
        let image = file.open().unwrap();
        let wanted = step(&mut Memory::new(&image), &image, &PROMPT).unwrap().0;
        let clock = Clock::default();
        let bytes = image.header().bytes();
        let (fixed, column) = token_bytes(&image);
        let live = live_columns(&image);

        let mut words = vec![0.0; arena(&image, 4).0];
        let mut agent = over(SimFlash::<4>::new(file.bytes(), &clock), bytes, &mut words);
        let (tokens, error) = feed(&mut agent, &PROMPT);
        assert_eq!(error, None, "{name}");
        for ((token, digest), live) in tokens.iter().zip(&wanted).zip(live) {
            assert_eq!(token.digest, *digest, "{name}");
            assert_eq!(u64::from(token.read), fixed + live * column, "{name}");
        }
        assert_eq!(ask(&mut agent, Request::Verify), [Reply::Done]);
        assert_eq!(feed(&mut agent, &PROMPT[..1]).0.len(), 1, "{name}: behind a verification");

        // Blocks that the arena has no room for come in pieces, where they may.
        let mut words = vec![0.0; least_arena(&image, 4)];
        let mut agent = over(SimFlash::<4>::new(file.bytes(), &clock), bytes, &mut words);
        let (tokens, error) = feed(&mut agent, &PROMPT);
        assert_eq!(error, None, "{name}");
        in_pieces += usize::from(least_arena(&image, 4) < arena(&image, 4).0);
        for (token, digest) in tokens.iter().zip(&wanted) {
            assert_eq!(token.digest, *digest, "{name} in pieces");
        }

        let mut words = vec![0.0; arena(&image, 512).0];
        let mut agent = over(SimFlash::<512>::new(file.bytes(), &clock), bytes, &mut words);
        let (tokens, error) = feed(&mut agent, &PROMPT);
        assert_eq!(error, None, "{name}");
        for ((token, digest), live) in tokens.iter().zip(&wanted).zip(live) {
            assert_eq!(token.digest, *digest, "{name} by sectors");
            let (read, needed) = (u64::from(token.read), fixed + live * column);
            assert!(read >= needed && read.is_multiple_of(512), "{name} by sectors");
        }
    });
    println!("{in_pieces} images ran in an arena without room for a block");
    assert!(in_pieces > 0);
}

/// Live columns of each token of the prompt.
fn live_columns(image: &Image<'_>) -> [u64; PROMPT.len()] {
    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image).unwrap();
    let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch).unwrap();
    PROMPT.map(|token| {
        let before = model.columns().live;
        model.step(state.reborrow(), token, ()).unwrap();
        model.columns().live - before
    })
}

/// Every read of a token fails in every way. With room for an undo, the state is as before, and
/// the same token is read again.
#[test]
fn no_fault_of_a_token_is_silent_or_final() {
    for version in ["4", "7"] {
        let file = random::tiny(version, random::Container::Safetensors);
        let file = image_with(random::file(&file).path(), &formats()[2].1);
        let image = file.open().unwrap();
        let wanted = step(&mut Memory::new(&image), &image, &[1, 2]).unwrap().0;
        let clock = Clock::default();
        let flash = std::cell::RefCell::new(SimFlash::<4>::new(file.bytes(), &clock));
        let bytes = image.header().bytes();
        let (least, most) = arena(&image, 4);
        let (mut small, mut large) = (vec![0.0; least], vec![0.0; most]);
        let mut marked = over(Shared(&flash), bytes, &mut small);
        let mut undone = over(Shared(&flash), bytes, &mut large);
        let [with, without] = [memory(&mut undone), memory(&mut marked)].map(|m| m.buffers);
        assert_eq!(with - without, 4 * image.header().state_words() as u32);
        let warm = Request::Reset(WARM.into());
        assert_eq!(ask(&mut undone, warm.clone()), [Reply::Done]);
        assert_eq!(feed(&mut undone, &[1]).1, None);
        let (chosen, error) = generate(&mut undone, 4);
        assert_eq!((chosen.len(), error), (4, None));
        let mut at = 0;
        loop {
            let mut faults = 0;
            for fault in [Fault::Error, Fault::Short, Fault::Flip] {
                let name = format!("{version}: {fault:?} at read {at}");
                assert_eq!(reset(&mut undone), [Reply::Done]);
                assert_eq!(feed(&mut undone, &[1]).0[0].digest, wanted[0], "{name}");
                flash.borrow_mut().fault = Some((at, fault));
                let (tokens, error) = feed(&mut undone, &[2]);
                if flash.borrow_mut().fault.take().is_some() {
                    continue;
                }
                faults += 1;
                assert!(tokens.is_empty() && typed(fault, error), "{name}: {error:?}");
                // The logits of a token that failed are none to choose from.
                let nothing = [Reply::Error(AgentError::NothingRead)];
                assert_eq!(ask(&mut undone, Request::Generate { count: 1 }), nothing, "{name}");
                let (tokens, error) = feed(&mut undone, &[2]);
                assert_eq!(error, None, "{name}");
                assert_eq!(tokens[0].digest, wanted[1], "{name}");

                // A token that was chosen is the next one still, and no other is drawn.
                assert_eq!(ask(&mut undone, warm.clone()), [Reply::Done]);
                assert_eq!(feed(&mut undone, &[1]).1, None, "{name}");
                flash.borrow_mut().fault = Some((at, fault));
                let (mut tokens, error) = generate(&mut undone, 1);
                if flash.borrow_mut().fault.take().is_none() {
                    assert!(tokens.is_empty() && typed(fault, error), "{name}: {error:?}");
                }
                let rest = 4 - tokens.len() as u8;
                tokens.extend(generate(&mut undone, rest).0);
                assert_eq!(tokens, chosen, "{name}");
                // Another token takes its place.
                assert_eq!(ask(&mut undone, warm.clone()), [Reply::Done]);
                assert_eq!(feed(&mut undone, &[1]).1, None, "{name}");
                flash.borrow_mut().fault = Some((at, fault));
                if generate(&mut undone, 1).1.is_some() {
                    assert_eq!(feed(&mut undone, &[2]).0[0].digest, wanted[1], "{name}");
                    assert_ne!(ask(&mut undone, Request::Generate { count: 1 }), nothing);
                }
                flash.borrow_mut().fault = None;

                assert_eq!(reset(&mut marked), [Reply::Done]);
                flash.borrow_mut().fault = Some((at, fault));
                let (_, error) = feed(&mut marked, &[1]);
                assert!(typed(fault, error), "{name}: {error:?}");
                let (_, error) = feed(&mut marked, &[1]);
                assert_eq!(error, Some(AgentError::Model(Error::BrokenState)), "{name}");
            }
            if faults == 0 {
                break;
            }
            at += 1;
        }
        println!("{version}: {at} reads");
        assert!(at > 40);
    }
}

fn typed(fault: Fault, error: Option<AgentError>) -> bool {
    match (fault, error) {
        (Fault::Flip, Some(AgentError::Model(Error::Image(error)))) => {
            matches!(error, ImageError::BlockChecksum { .. } | ImageError::Record { .. })
        }
        (Fault::Error | Fault::Short, Some(AgentError::Model(Error::Stream(error)))) => {
            matches!(error, StreamError::Medium { .. })
        }
        _ => false,
    }
}

/// What was wrong at boot is said, and so is what went wrong since.
#[test]
fn boot_and_verification_say_what_is_wrong() {
    let file = image_with(&shipped("tunes-v4"), &formats()[2].1);
    let image = file.open().unwrap();
    let (bytes, least) = (image.header().bytes(), least_arena(&image, 512));
    let clock = Clock::default();
    let flash = SimFlash::<512>::new(file.bytes(), &clock);
    let mut words = vec![0.0; least - 1];
    let mut agent = over(flash, bytes, &mut words);
    let (needed, given) = (4 * least as u32, 4 * least as u32 - 4);
    let small = [Reply::Error(AgentError::Arena { needed, given })];
    assert_eq!(ask(&mut agent, Request::Memory), small);

    let mut damaged = file.bytes().to_vec();
    let at = damaged.len() - 100;
    damaged[at] ^= 1;
    let mut words = vec![0.0; least];
    let agent = over(SimFlash::<512>::new(&damaged, &clock), bytes, &mut words);
    let section = image.header().section_count() - 1;
    assert_eq!(agent.image(), Err(Error::Image(ImageError::SectionChecksum { section })));

    // A flash that begins elsewhere than a unit.
    let mut words = vec![0.0; least];
    let flash = SimFlash::<512>::new(file.bytes(), &clock);
    let agent: Agent<'_, _, Buffered<'_, _>> = Agent::over(Bench, flash, 4..bytes, &mut words);
    assert_eq!(agent.image(), Err(Error::Stream(StreamError::Misplaced { offset: 4 })));

    let flash = std::cell::RefCell::new(SimFlash::<512>::new(file.bytes(), &clock));
    let mut words = vec![0.0; least];
    let mut agent = over(Shared(&flash), bytes, &mut words);
    assert_eq!(ask(&mut agent, Request::Verify), [Reply::Done]);
    let other = SimFlash::<512>::new(&damaged, &clock);
    *flash.borrow_mut() = other;
    let wrong = AgentError::Model(Error::Image(ImageError::SectionChecksum { section }));
    assert_eq!(ask(&mut agent, Request::Verify), [Reply::Error(wrong)]);
    // Without a fault, and another one.
    let mut other = damaged.clone();
    repair(&mut other, image.header().section_count().into());
    let other = ImageFile::new(&other);
    let identity = other.open().expect("it is repaired").identity();
    *flash.borrow_mut() = SimFlash::<512>::new(other.bytes(), &clock);
    let other = AgentError::OtherImage { identity };
    assert_eq!(ask(&mut agent, Request::Verify), [Reply::Error(other)]);
    flash.borrow_mut().fault = Some((3, Fault::Error));
    let replies = ask(&mut agent, Request::Verify);
    assert!(
        matches!(
            replies[..],
            [Reply::Error(AgentError::Model(Error::Stream(StreamError::Medium { .. })))]
        ),
        "{replies:?}"
    );
}
