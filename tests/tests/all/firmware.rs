//! What firmware is written with: a generator over model, state, tokenizer and sampler, in memory
//! that an image's header asks for.

use std::{
    cell::Cell,
    fs,
    future::Future,
    iter,
    path::Path,
    pin::pin,
    task::{Context, Waker},
};

use rwkv_core::{
    Ending, Error, GenerateError, Generator, Image, Model, StreamError,
    sampler::{Mask, Sampler, SamplerConfig, SamplerError},
    saved::{Saved, SavedError},
    stream::{InPlace, Stream, Whole},
    tokenizer::{StopStream, Tokenizer, Vocabulary},
};
use rwkv_embedded::{firmware, stream::GivingWay};
use rwkv_host::{convert::Weights, memory::Memory};
use rwkv_tests::{image, random, shipped};

const PROMPT: &[u8] = b"X:1\nT:";
const WARM: SamplerConfig =
    SamplerConfig { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 3, ..SamplerConfig::GREEDY };

/// What a loop over the model writes, token by token.
fn plain(image: &Image<'_>, config: SamplerConfig, prompt: &[u8], count: usize) -> Vec<u8> {
    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image).unwrap();
    let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch).unwrap();
    let mut sampler = Sampler::new(config).unwrap();
    sampler.begin();
    let tokens = prompt.iter().map(|byte| u32::from(*byte));
    model.prefill(state.reborrow(), tokens, &mut sampler).unwrap();
    let write = || {
        let token = sampler.finish().unwrap();
        sampler.begin();
        model.step(state.reborrow(), token, &mut sampler).unwrap();
        token as u8
    };
    iter::repeat_with(write).take(count).collect()
}

/// A generator over a stream, with an undo buffer if one is given.
fn generator<'a, S: Stream>(
    image: &Image<'a>,
    memory: &'a mut Memory,
    stream: S,
    config: SamplerConfig,
    undo: Option<&'a mut [f32]>,
) -> Generator<'a, S> {
    let (state, scratch) = memory.split(image).unwrap();
    let model = Model::new(*image.header(), stream, scratch).unwrap();
    let model = match undo {
        Some(buffer) => model.with_undo(buffer).unwrap(),
        None => model,
    };
    Generator::new(model, state, image.tokenizer().unwrap(), Sampler::new(config).unwrap())
}

#[test]
fn a_generator_writes_what_a_loop_writes() {
    for model in ["tunes-v4", "tunes-v7"] {
        let file = image(&shipped(model), Weights::Int8);
        let image = file.open().unwrap();
        let expected = plain(&image, WARM, PROMPT, 120);
        let mut memory = firmware::HeapMemory::new(image.header()).unwrap();
        let mut generator = memory.start(&image, WARM).unwrap();
        let mut found = Vec::new();
        generator.read(&PROMPT[..3]).unwrap();
        generator.read(&PROMPT[3..]).unwrap();
        for limit in [1, 0, 40, 79] {
            let ending = generator
                .generate(limit, &mut StopStream::default(), |text| found.extend_from_slice(text));
            assert_eq!(ending, Ok(Ending::Limit));
        }
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected));
        // The last token is pending.
        assert_eq!(generator.position(), (PROMPT.len() + 120 - 1) as u64);
    }
}

#[test]
fn a_stop_text_ends_it_and_the_next_text_is_read_behind() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().unwrap();
    let all = plain(&image, WARM, PROMPT, 120);
    let end = all.windows(3).position(|text| text == b"\nL:").expect("a tune has a length");
    let mut memory = Memory::new(&image);
    let mut generator = generator(&image, &mut memory, InPlace::new(image.words()), WARM, None);
    generator.reset().unwrap();
    generator.read(PROMPT).unwrap();
    let mut found = Vec::new();
    let stops: [&[u8]; 2] = [b"never", b"\nL:"];
    let mut stop = StopStream::new(&stops).unwrap();
    let ending = generator.generate(120, &mut stop, |text| found.extend_from_slice(text));
    assert_eq!(ending, Ok(Ending::Stop(1)));
    assert_eq!(found, all[..end]);
    generator.read(b"1/8\n").unwrap();
    let position = PROMPT.len() + end + 3 + 4;
    assert_eq!(generator.position(), position as u64);
    let saved = generator.saved(image.identity()).unwrap();
    assert_eq!((saved.position, saved.pending), (position as u64, None));
    let read = [PROMPT, &all[..end + 3], b"1/8\n"].concat();
    let mut other = Memory::new(&image);
    let (state, scratch) = other.split(&image).unwrap();
    let mut same = firmware::start(&image, state, scratch, WARM).unwrap();
    same.read(&read).unwrap();
    assert_eq!(same.saved(image.identity()), Ok(saved));
    // Nothing to read is nothing that changes.
    assert_eq!(generator.read(b""), Ok(()));
    assert_eq!(generator.next_token(), same.next_token());
    assert!(generator.read(b"").is_ok() && generator.position() == position as u64 + 1);
    let empty = GenerateError::from(StopStream::new(&[b""]).unwrap_err());
    assert_eq!(empty.to_string(), "a stop text is empty: give it at least one byte");
}

/// Bytes of the tune, where a text ends before a stop text that several tokens make up.
const STOP: &[u8] = b"\nL:";

/// However a text is divided into calls, and whatever fails in between, it is the same, and ends
/// before the same stop text.
#[test]
fn a_stop_text_is_found_over_limits_and_failures() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().unwrap();
    let all = plain(&image, WARM, PROMPT, 120);
    let end = all.windows(3).position(|text| text == STOP).expect("a tune has a length");
    let countdown = Cell::new(0);
    let mut memory = Memory::new(&image);
    let mut undo = vec![0.0; image.header().state_words()];
    let stream = Flaky { stream: InPlace::new(image.words()), countdown: &countdown };
    let mut generator = generator(&image, &mut memory, stream, WARM, Some(&mut undo));
    let mut stop = StopStream::new(&[b"\nQ: never", STOP]).unwrap();
    for (limit, failures) in [(1, false), (2, false), (120, true), (3, true)] {
        countdown.set(0);
        generator.reset_with(WARM).unwrap();
        generator.read(PROMPT).unwrap();
        let mut found = Vec::new();
        let mut failed = 0;
        let ending = loop {
            // Ever later: in the first token, then behind it.
            countdown.set(if failures { 1 + failed } else { 0 });
            match generator.generate(limit, &mut stop, |text| found.extend_from_slice(text)) {
                Ok(Ending::Limit) if failures => failed += 1,
                Ok(Ending::Limit) => {}
                Ok(ending) => break ending,
                Err(_) => failed += 1,
            }
        };
        assert_eq!(ending, Ending::Stop(1), "{limit} {failures}");
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&all[..end]));
        assert_eq!(generator.position(), (PROMPT.len() + end + STOP.len() - 1) as u64);
        assert_eq!(failures, failed > 0);
    }
    // At the limit the rest is asked for.
    countdown.set(0);
    generator.reset_with(WARM).unwrap();
    generator.read(PROMPT).unwrap();
    let mut found = Vec::new();
    let limit = end + STOP.len() - 1;
    let ending = generator.generate(limit, &mut stop, |text| found.extend_from_slice(text));
    assert_eq!((ending, &found[..]), (Ok(Ending::Limit), &all[..end]));
    stop.finish(|text| found.extend_from_slice(text));
    assert_eq!(found, all[..limit]);
}

#[test]
fn a_reset_forgets_penalties_and_may_begin_the_sampler_anew() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().unwrap();
    let greedy = SamplerConfig { presence: 4.0, frequency: 1.0, ..SamplerConfig::GREEDY };
    let drawn = SamplerConfig { temperature: 1.0, ..greedy };
    let mut memory = Memory::new(&image);
    let mut generator = generator(&image, &mut memory, InPlace::new(image.words()), greedy, None);
    let mut write = |reset: Option<SamplerConfig>| {
        let begun = match reset {
            Some(config) => generator.reset_with(config),
            None => generator.reset(),
        };
        begun.and_then(|()| generator.read(PROMPT)).unwrap();
        let mut found = Vec::new();
        generator
            .generate(40, &mut StopStream::default(), |text| found.extend_from_slice(text))
            .unwrap();
        found
    };
    let first = plain(&image, greedy, PROMPT, 40);
    assert_ne!(first, plain(&image, SamplerConfig::GREEDY, PROMPT, 40), "penalties matter");
    assert_eq!([write(None), write(None)], [first.clone(), first]);
    let first = plain(&image, drawn, PROMPT, 40);
    assert_eq!(write(Some(drawn)), first);
    assert_ne!(write(None), first, "random numbers go on");
    assert_eq!(write(Some(drawn)), first);
    let high = SamplerConfig { top_p: 2.0, ..drawn };
    assert!(matches!(generator.reset_with(high), Err(GenerateError::Sampler(_))));
    assert!(generator.next_token().is_ok(), "all is as it was");
}

#[test]
fn a_saved_state_goes_on_with_the_token_that_is_pending() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().unwrap();
    let expected = plain(&image, SamplerConfig::GREEDY, PROMPT, 60);
    let [mut first, mut second] = [Memory::new(&image), Memory::new(&image)];
    let stream = || InPlace::new(image.words());
    let mut before = generator(&image, &mut first, stream(), SamplerConfig::GREEDY, None);
    assert_eq!(before.read(PROMPT).and(before.next_token().map(|_| ())), Ok(()));
    before.generate(29, &mut StopStream::default(), |_| {}).unwrap();
    let saved = before.saved(image.identity()).unwrap();
    assert_eq!(saved.pending, Some(u32::from(expected[29])));
    let mut after = generator(&image, &mut second, stream(), SamplerConfig::GREEDY, None);
    let words = before.state().words().concat();
    let mut other = words.clone();
    other[7] += 1.0;
    let broken = GenerateError::Model(Error::BrokenState);
    let far = Saved { pending: Some(1 << 20), ..saved };
    let cases = [
        (&other, saved, SavedError::Checksum),
        (&words, Saved { layers: saved.layers + 1, ..saved }, SavedError::Shape),
        (&words, far, SavedError::Pending(1 << 20)),
    ];
    assert_eq!(after.resume(&saved), Err(SavedError::Checksum), "no words were restored");
    for (words, saved, error) in cases {
        after.state().restore(words.clone()).unwrap();
        assert_eq!(after.resume(&saved), Err(error));
        assert_eq!(after.next_token(), Err(broken));
    }
    after.state().restore(words).unwrap();
    after.resume(&saved).unwrap();
    let mut found = Vec::new();
    let mut stop = StopStream::default();
    after.generate(30, &mut stop, |text| found.extend_from_slice(text)).unwrap();
    assert_eq!(found, expected[30..]);
}

/// Fails once whenever the countdown reaches zero.
struct Flaky<'a> {
    stream: InPlace<'a>,
    countdown: &'a Cell<u32>,
}

impl Flaky<'_> {
    fn pass(&self) -> Result<(), StreamError> {
        self.countdown.set(self.countdown.get().wrapping_sub(1));
        match self.countdown.get() {
            0 => Err(StreamError::Medium { offset: 0 }),
            _ => Ok(()),
        }
    }
}

impl Stream for Flaky<'_> {
    const VERIFY: bool = false;

    type Blocks = Whole;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        self.pass()?;
        self.stream.next(words).await
    }

    async fn skip(&mut self, words: usize) -> Result<(), StreamError> {
        self.stream.skip(words).await
    }

    async fn seek(&mut self, word: usize) -> Result<(), StreamError> {
        self.stream.seek(word).await
    }

    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        self.stream.read_at(word, words).await
    }

    fn position(&self) -> usize {
        self.stream.position()
    }
}

#[test]
fn a_token_that_failed_is_tried_again() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().unwrap();
    let expected = plain(&image, WARM, PROMPT, 40);
    let countdown = Cell::new(0);
    let mut memory = Memory::new(&image);
    let mut undo = vec![0.0; image.header().state_words()];
    let stream = Flaky { stream: InPlace::new(image.words()), countdown: &countdown };
    let mut generator = generator(&image, &mut memory, stream, WARM, Some(&mut undo));
    let broken = GenerateError::Model(Error::BrokenState);
    let failed = GenerateError::Model(Error::Stream(StreamError::Medium { offset: 0 }));
    // A text that was read in part is no place to go on from.
    generator.reset().unwrap();
    countdown.set(100);
    assert_eq!(generator.read(PROMPT), Err(failed));
    assert_eq!(generator.read(PROMPT), Err(broken));
    assert_eq!(generator.next_token(), Err(broken));
    assert_eq!(generator.saved(0), Err(SavedError::Broken));
    generator.reset().unwrap();
    assert_eq!(generator.next_token(), Err(GenerateError::Sampler(SamplerError::NoLogits)));
    generator.read(PROMPT).unwrap();
    let mut found = Vec::new();
    for failure in 1.. {
        if found.len() == expected.len() {
            break;
        }
        countdown.set(failure);
        let limit = expected.len() - found.len();
        let mut stop = StopStream::default();
        match generator.generate(limit, &mut stop, |text| found.extend_from_slice(text)) {
            Ok(ending) => assert_eq!(ending, Ending::Limit),
            Err(error) => assert_eq!(error, failed),
        }
    }
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected));
}

#[test]
fn a_token_that_was_dropped_is_tried_again() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().unwrap();
    let expected = plain(&image, WARM, PROMPT, 20);
    let mut memory = Memory::new(&image);
    let mut undo = vec![0.0; image.header().state_words()];
    let stream = GivingWay(InPlace::new(image.words()));
    let mut generator = generator(&image, &mut memory, stream, WARM, Some(&mut undo));
    fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        (0..times).find_map(|_| match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    }
    const MANY: usize = 1 << 20;
    assert_eq!(generator.reset(), Ok(()));
    assert!(polled(generator.read_async(PROMPT), MANY).unwrap().is_ok());
    assert_eq!(generator.read(b"x"), Err(GenerateError::Model(Error::Internal)), "it waits");
    polled(generator.reset_async(), MANY).unwrap().unwrap();
    assert!(polled(generator.read_async(PROMPT), 9).is_none());
    let broken = GenerateError::Model(Error::BrokenState);
    assert_eq!(polled(generator.next_token_async(), MANY), Some(Err(broken)));
    polled(generator.reset_async(), MANY).unwrap().unwrap();
    polled(generator.read_async(PROMPT), MANY).unwrap().unwrap();
    let mut found = Vec::new();
    while found.len() < expected.len() {
        // The first token of a prompt is chosen at once.
        let dropped = polled(generator.next_token_async(), 3);
        let token = dropped.or_else(|| polled(generator.next_token_async(), MANY));
        found.extend_from_slice(token.unwrap().unwrap().unwrap());
    }
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected));
}

/// A vocabulary whose token 0 ends a text, and whose others are the bytes.
fn vocabulary() -> Vec<u32> {
    let entries = (0..=256).map(|id: u32| if id == 0 { 0 } else { (id - 1) | (1 << 24) });
    let order = (0..128).map(|pair| (2 * pair + 1) | ((2 * pair + 2) << 16));
    let bytes = (0..64).map(|i| 0x0302_0100 + i * 0x0404_0404);
    [257, 256, 256, 0].into_iter().chain(entries).chain(order).chain(bytes).collect()
}

struct Only<'a>(&'a Cell<u32>);

impl Mask for Only<'_> {
    fn allows(&self, token: u32) -> bool {
        token == self.0.get()
    }
}

#[test]
fn the_end_of_a_text_is_no_text_and_a_mask_decides() {
    let file = image(random::small("4").path(), Weights::Int8);
    let image = file.open().unwrap();
    let words = vocabulary();
    let tokenizer = Tokenizer::Vocabulary(Vocabulary::open(&words).unwrap());
    let mut memory = Memory::new(&image);
    let (state, scratch) = memory.split(&image).unwrap();
    let model = Model::new(*image.header(), InPlace::new(image.words()), scratch).unwrap();
    let sampler = Sampler::new(SamplerConfig::GREEDY).unwrap();
    let only = Cell::new(u32::from(b'a') + 1);
    let generator = Generator::new(model, state, tokenizer, sampler);
    let mut generator = generator.with_mask(Only(&only));
    generator.reset().unwrap();
    generator.read(b"Once").unwrap();
    let mut found = Vec::new();
    let mut write = |text: &[u8]| found.extend_from_slice(text);
    let mut stop = StopStream::new(&[b"aab"]).unwrap();
    assert_eq!(generator.generate(2, &mut stop, &mut write), Ok(Ending::Limit));
    only.set(0);
    assert_eq!(generator.generate(9, &mut stop, &mut write), Ok(Ending::EndOfText));
    only.set(300);
    let nothing = Err(GenerateError::Sampler(SamplerError::NothingAllowed));
    assert_eq!(generator.generate(9, &mut stop, &mut write), nothing);
    assert_eq!(found, b"aa");
}

/// The images that the documentation of `rwkv_embedded::model!` includes.
/// `RWKV_BLESS=1 cargo test` writes them anew.
#[test]
fn the_documented_images_are_the_converters() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rwkv-embedded/src/firmware");
    let tiny = image(random::small("4").path(), Weights::Int8);
    let tiny = tiny.bytes();
    let mut damaged = tiny[..256].to_vec();
    damaged[24] ^= 4;
    for (name, bytes) in [("tiny.rwkv", tiny), ("damaged.rwkv", &damaged)] {
        let path = dir.join(name);
        if std::env::var_os("RWKV_BLESS").is_some() {
            fs::write(&path, bytes).unwrap();
        }
        assert!(fs::read(&path).unwrap() == bytes, "{name} is out of date");
    }
}
