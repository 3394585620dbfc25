//! Media that cannot be addressed: the same bits through every stream, no byte too many, and no
//! time lost. What fails is in `faults`.

use std::cell::Cell;

use rwkv_core::{
    Digest, Error, Image, Model, StateView, StreamError, exec::Columns, stream::Stream,
};
use rwkv_embedded::stream::{
    Buffered, GivingWay, Medium, Placed, PlacedRange, ReadAhead, Reads, buffer_words, row_words,
    words_around,
};
use rwkv_host::{convert::Options, file::ImageFile, memory::Memory};
use rwkv_tests::{
    baked, formats, image_with,
    medium::{Clock, Costly, Fault, SimFlash, token_bytes},
    random::{self, VERSIONS},
    shipped, step,
};

pub(crate) const PROMPT: [u32; 4] = [88, 58, 49, 10];

/// The stream that a test runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Buffered,
    Ahead,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Buffered, Kind::Ahead];

/// Where the image lies on the medium.
pub(crate) const FIRST: usize = 4096;

pub(crate) fn on_medium(image: &ImageFile) -> Vec<u8> {
    let mut bytes = vec![0xff; FIRST];
    bytes.extend_from_slice(image.bytes());
    bytes
}

/// What a run over a medium came to.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) digests: Vec<Digest>,
    columns: Columns,
    pub(crate) reads: Reads,
}

/// What lies in a memory besides: nothing, or some ranges.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) ranges: Vec<PlacedRange>,
    pub(crate) memory: Vec<u32>,
}

/// A model's memory, and a copy of its state where tokens can be undone.
pub(crate) struct Room {
    pub(crate) memory: Memory,
    undo: Option<Vec<f32>>,
}

impl Room {
    pub(crate) fn new(image: &Image<'_>, undo: bool) -> Self {
        let undo = undo.then(|| vec![0.0; image.header().state_words()]);
        Self { memory: Memory::new(image), undo }
    }
}

/// Steps through tokens over a stream; a token that fails is tried once more.
async fn tokens<S: Stream>(
    image: &Image<'_>,
    room: &mut Room,
    stream: S,
    run: &mut Run,
) -> Result<usize, Error> {
    let header = *image.header();
    let (mut state, scratch) = room.memory.split(image)?;
    let mut model = Model::new(header, stream, scratch)?;
    if let Some(undo) = &mut room.undo {
        model = model.with_undo(undo)?;
    }
    let mut failures = 0;
    for token in PROMPT {
        let mut digest = Digest::default();
        if let Err(error) = model.step_async(state.reborrow(), token, &mut digest).await {
            if state.is_broken() {
                return Err(error);
            }
            failures += 1;
            digest = Digest::default();
            model.step_async(state.reborrow(), token, &mut digest).await?;
        }
        run.digests.push(Digest::token(&header, &state, digest)?);
    }
    run.columns = model.columns();
    Ok(failures)
}

/// Runs the prompt over a stream of some kind.
pub(crate) fn over<M: Medium>(
    kind: Kind,
    image: &Image<'_>,
    room: &mut Room,
    clock: &Clock,
    medium: M,
    place: &Place,
) -> (Run, Result<usize, Error>) {
    let words = buffer_words(image.header(), M::UNIT);
    over_buffers(kind, image, room, clock, medium, place, words)
}

/// As [`over`], with buffers of so many words.
pub(crate) fn over_buffers<M: Medium>(
    kind: Kind,
    image: &Image<'_>,
    room: &mut Room,
    clock: &Clock,
    medium: M,
    Place { ranges, memory }: &Place,
    words: usize,
) -> (Run, Result<usize, Error>) {
    let header = image.header();
    let row = words.min(row_words(header, M::UNIT));
    let mut buffers = [vec![0; words], vec![0; words], vec![0; row]];
    let [a, b, rows] = buffers.each_mut().map(Vec::as_mut_slice);
    let mut run = Run::default();
    let result = match kind {
        Kind::Buffered => {
            let mut stream =
                Buffered::<_, true>::new(medium, FIRST as u32, header.bytes(), a).unwrap();
            let result = match ranges.is_empty() {
                true => clock.run(tokens(image, room, &mut stream, &mut run)),
                false => {
                    let placed = Placed::new(ranges, memory, &mut stream);
                    clock.run(tokens(image, room, placed, &mut run))
                }
            };
            run.reads = stream.reads();
            result
        }
        Kind::Ahead => {
            let ahead = ReadAhead::new(medium, FIRST as u32, header.bytes(), [a, b], rows).unwrap();
            let stream = ahead.stream::<true>();
            let result = match ranges.is_empty() {
                true => clock.run(ahead.drive(tokens(image, room, stream, &mut run))),
                false => {
                    let placed = Placed::new(ranges, memory, stream);
                    clock.run(ahead.drive(tokens(image, room, placed, &mut run)))
                }
            };
            run.reads = ahead.reads();
            result
        }
    };
    (run, result)
}

/// Over a flash that takes no time.
fn over_flash<const UNIT: usize>(
    kind: Kind,
    (image, bytes): (&Image<'_>, &[u8]),
) -> (Run, Result<usize, Error>) {
    let clock = Clock::default();
    let flash = SimFlash::<UNIT>::new(bytes, &clock);
    over(kind, image, &mut Room::new(image, false), &clock, flash, &Place::default())
}

/// As [`over_flash`], with buffers for so many words wherever they lie.
fn over_flash_in_pieces<const UNIT: usize>(
    kind: Kind,
    (image, bytes): (&Image<'_>, &[u8]),
    words: usize,
) -> (Run, Result<usize, Error>) {
    let clock = Clock::default();
    let flash = SimFlash::<UNIT>::new(bytes, &clock);
    let (mut room, words) = (Room::new(image, false), words_around(words, UNIT));
    over_buffers(kind, image, &mut room, &clock, flash, &Place::default(), words)
}

pub(crate) fn expected(image: &Image<'_>) -> Vec<Digest> {
    step(&mut Memory::new(image), image, &PROMPT).unwrap().0
}

fn every_image(mut test: impl FnMut(&str, &ImageFile)) {
    for version in VERSIONS {
        let file = random::checkpoint(version, random::Container::Safetensors);
        for (format, options) in formats() {
            // Blocks of one row, and of many.
            for block_bytes in [64, 1024] {
                let options = Options { block_bytes, ..options };
                let image = image_with(file.path(), &options);
                test(&format!("{version} {format} blocks of {block_bytes}"), &image);
            }
        }
    }
}

/// Of a medium that is read by words, no byte is read that is not needed: not in vain ahead, and
/// no column whose input is zero.
#[test]
fn every_stream_gives_the_same_bits_and_reads_what_it_needs() {
    every_image(|name, file| {
        let image = file.open().unwrap();
        let bytes = on_medium(file);
        let wanted = expected(&image);
        let (fixed, column) = token_bytes(&image);
        for kind in KINDS {
            let (run, result) = over_flash::<4>(kind, (&image, &bytes));
            assert_eq!(result, Ok(0), "{name} {kind:?}");
            assert!(run.digests == wanted, "{name} {kind:?}");
            let needed = PROMPT.len() as u64 * fixed + run.columns.live * column;
            assert_eq!(run.reads.bytes, needed, "{name} {kind:?}");

            let (run, result) = over_flash::<512>(kind, (&image, &bytes));
            assert_eq!(result, Ok(0), "{name} {kind:?} by sectors");
            assert!(run.digests == wanted, "{name} {kind:?} by sectors");
            assert!(run.reads.bytes.is_multiple_of(512));
        }
    });
}

/// A buffer may be shorter than a row: the same bits, of the same bytes.
#[test]
fn blocks_that_are_longer_than_the_buffer_come_in_pieces() {
    let mut shortest = usize::MAX;
    every_image(|name, file| {
        let least = in_pieces(name, &file.open().unwrap(), file);
        shortest = shortest.min(least);
    });
    // Lines with several words of sub-scales.
    let model = random::wide("7");
    for (format, options) in formats() {
        let file = image_with(model.path(), &options);
        in_pieces(&format!("wide 7 {format}"), &file.open().unwrap(), &file);
    }
    println!("the shortest buffer has {shortest} words");
}

/// Buffers from the shortest on, over both streams. Returns its words.
fn in_pieces(name: &str, image: &Image<'_>, file: &ImageFile) -> usize {
    let (bytes, wanted) = (on_medium(file), expected(image));
    let (fixed, column) = token_bytes(image);
    let (least, block) = (image.least_room().unwrap(), image.header().block_words as usize);
    assert!(least <= block.max(20), "{name}: {least} of {block}");
    for kind in KINDS {
        for words in [least, least + 13] {
            let (run, result) = over_flash_in_pieces::<4>(kind, (image, &bytes), words);
            assert_eq!(result, Ok(0), "{name} {kind:?} {words} of {block}");
            assert!(run.digests == wanted, "{name} {kind:?} {words} of {block}");
            let needed = PROMPT.len() as u64 * fixed + run.columns.live * column;
            assert_eq!(run.reads.bytes, needed, "{name} {kind:?} {words} of {block}");
        }
    }
    for kind in KINDS {
        let (run, result) = over_flash_in_pieces::<512>(kind, (image, &bytes), least);
        assert_eq!(result, Ok(0), "{name} by sectors");
        assert!(run.digests == wanted, "{name} by sectors");
        if kind == Kind::Buffered {
            // In pieces or not: what was read is not read again.
            let (whole, _) = over_flash::<512>(kind, (image, &bytes));
            assert_eq!(run.reads.bytes, whole.reads.bytes, "{name} by sectors");
        }
    }
    // One word less is not enough, and says so.
    if least > 20 {
        for kind in KINDS {
            let (_, result) = over_flash_in_pieces::<4>(kind, (image, &bytes), least - 1);
            let needed = StreamError::Buffer { words: least as u32 };
            assert_eq!(result, Err(Error::Stream(needed)), "{name} {kind:?}");
        }
    }
    least
}

/// Sectors are read once where words are read one after the other.
#[test]
fn sectors_are_not_read_twice_and_skipping_shows() {
    let file = image_with(&shipped("tunes-v4"), &formats()[0].1);
    let image = file.open().unwrap();
    let bytes = on_medium(&file);
    let (run, _) = over_flash::<512>(Kind::Buffered, (&image, &bytes));
    let (fixed, column) = token_bytes(&image);
    let tokens = PROMPT.len() as u64;
    let Columns { live, all } = run.columns;
    let (needed, whole) = (tokens * fixed + live * column, tokens * fixed + all * column);
    println!(
        "{needed} bytes needed, {} read in sectors, {whole} without skipping",
        run.reads.bytes
    );
    // A sector more at both ends of each run of columns, at most.
    assert!(
        run.reads.bytes >= needed && run.reads.bytes <= needed + live * 2 * 512 + tokens * 8 * 512
    );
    assert!(run.reads.bytes < whole);
}

/// With reads as slow as the computation, reading ahead takes the time of one of them. Virtual
/// time: what a word costs to read and to compute with is set, and nothing else takes time.
#[test]
fn reading_ahead_hides_the_medium() {
    let [four, seven] = ["4", "7"].map(random::wide);
    let (int8, int4) = (&formats()[2], &formats()[3]);
    // Blocks about as large as a vector.
    for (model, path, block_bytes, (format, options)) in [
        ("4", four.path(), 1024, int8),
        ("4", four.path(), 1024, int4),
        ("7", seven.path(), 1024, int8),
        ("7", seven.path(), 1024, int4),
        ("tunes-v4", &shipped("tunes-v4"), 384, int8),
        ("tunes-v7", &shipped("tunes-v7"), 384, int8),
    ] {
        let options = Options { block_bytes, ..*options };
        let file = image_with(path, &options);
        let image = file.open().unwrap();
        let bytes = on_medium(&file);
        for latency in [0, 100] {
            let times = || Times::new(&image, &bytes, latency);
            let [one, two, four] = [
                times().with_one_buffer(),
                times().with_buffers::<2>(),
                times().with_buffers::<4>(),
            ];
            let ratio = |[time, busy, spent]: [u64; 3]| time as f64 / busy.max(spent) as f64;
            println!(
                "{model} {format}, latency {latency}: reading {}, computing {}; of the longer: {:.3} with one buffer, {:.3} with two, {:.3} with four",
                one[1],
                one[2],
                ratio(one),
                ratio(two),
                ratio(four)
            );
            assert_eq!(one[0], one[1] + one[2]);
            assert!(ratio(two) <= 1.05 && ratio(four) <= 1.05);
        }
    }
}

/// Room of all buffers together, in blocks.
const BLOCKS: usize = 8;

/// What takes time in a timed run.
struct Times<'a> {
    image: &'a Image<'a>,
    bytes: &'a [u8],
    clock: Clock,
    spent: Cell<u64>,
    latency: u64,
}

impl<'a> Times<'a> {
    fn new(image: &'a Image<'a>, bytes: &'a [u8], latency: u64) -> Self {
        Self { image, bytes, clock: Clock::default(), spent: Cell::new(0), latency }
    }

    fn flash(&self) -> SimFlash<'_, 4> {
        let mut flash = SimFlash::new(self.bytes, &self.clock);
        (flash.latency, flash.per_word) = (self.latency, 10);
        flash
    }

    /// A stream whose words take as long to compute with as to read, latency included.
    fn costly<S: Stream>(&self, stream: S) -> Costly<'_, S> {
        let per_word = if self.latency > 0 { 11 } else { 10 };
        Costly { stream, clock: &self.clock, per_word, spent: &self.spent, handed: 0 }
    }

    async fn read(&self, stream: impl Stream) {
        let mut room = Room::new(self.image, false);
        let run = &mut Run::default();
        tokens(self.image, &mut room, self.costly(stream), run).await.unwrap();
    }

    /// The time of the prompt, what of it the medium was busy, and what was spent with computing.
    fn with_one_buffer(self) -> [u64; 3] {
        let header = self.image.header();
        let mut buffer = vec![0; BLOCKS * buffer_words(header, 4)];
        let mut flash = self.flash();
        let stream =
            Buffered::<_, true>::new(&mut flash, FIRST as u32, header.bytes(), &mut buffer);
        self.clock.run(self.read(stream.unwrap()));
        [self.clock.now(), flash.busy, self.spent.get()]
    }

    /// As above, the same memory in several buffers.
    fn with_buffers<const N: usize>(self) -> [u64; 3] {
        let header = self.image.header();
        let words = BLOCKS * buffer_words(header, 4) / N;
        let mut memory: [Vec<u32>; N] = std::array::from_fn(|_| vec![0; words]);
        let mut rows = vec![0; 4096];
        let buffers = memory.each_mut().map(Vec::as_mut_slice);
        let mut flash = self.flash();
        let ahead =
            ReadAhead::new(&mut flash, FIRST as u32, header.bytes(), buffers, &mut rows).unwrap();
        self.clock.run(ahead.drive(self.read(ahead.stream::<true>())));
        [self.clock.now(), flash.busy, self.spent.get()]
    }
}

/// A start state comes over every stream, larger than a row as its blocks are; a read that fails
/// leaves no state, and the next try has it.
#[test]
fn a_start_state_is_read_over_every_stream() {
    let file = baked(&image_with(&shipped("tunes-v4"), &formats()[2].1), &PROMPT);
    let image = file.open().unwrap();
    let wanted: Vec<f32> = image.start_state().unwrap().collect();
    let bytes = on_medium(&file);
    for fault in [None, Some(Fault::Error), Some(Fault::Short), Some(Fault::Flip)] {
        for at in 0..if fault.is_some() { 3 } else { 1 } {
            let fault = fault.map(|fault| (at, fault));
            for words in [image.header().block_words as usize, image.least_room().unwrap()] {
                begin::<4>(&image, &bytes, fault, words, &wanted);
                begin::<512>(&image, &bytes, fault, words, &wanted);
            }
        }
    }
}

fn begin<const UNIT: usize>(
    image: &Image<'_>,
    bytes: &[u8],
    fault: Option<(usize, Fault)>,
    words: usize,
    wanted: &[f32],
) {
    let (header, first) = (*image.header(), FIRST as u32);
    let words = words_around(words, UNIT);
    let clock = Clock::default();
    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image).unwrap();
    let mut check = |reset: &mut dyn FnMut(&mut StateView<'_>) -> Result<(), Error>| {
        let result = reset(&mut state);
        match fault {
            Some(_) if UNIT == 4 => assert!(result.is_err() && state.is_broken(), "{fault:?}"),
            Some(_) => {}
            None => assert_eq!(result, Ok(())),
        }
        assert_eq!(reset(&mut state), Ok(()));
        assert!(state.words().concat() == wanted);
    };
    let mut flash = SimFlash::<UNIT>::new(bytes, &clock);
    flash.fault = fault;
    let mut buffer = vec![0; words];
    let stream = Buffered::<_, true>::new(flash, first, header.bytes(), &mut buffer).unwrap();
    let mut model = Model::new(header, stream, scratch).unwrap();
    check(&mut |state| clock.run(model.reset_async(state.reborrow())));

    let mut flash = SimFlash::<UNIT>::new(bytes, &clock);
    flash.fault = fault;
    let mut buffers = [vec![0; words], vec![0; words], vec![0; 64]];
    let [a, b, rows] = buffers.each_mut().map(Vec::as_mut_slice);
    let ahead = ReadAhead::new(flash, first, header.bytes(), [a, b], rows).unwrap();
    let mut scratch = vec![0.0; header.scratch_words as usize];
    let mut model = Model::new(header, ahead.stream::<true>(), &mut scratch).unwrap();
    check(&mut |state| clock.run(ahead.drive(model.reset_async(state.reborrow()))));
}

/// A token that nobody waits for any longer is undone as well.
#[test]
fn a_token_that_is_dropped_is_undone() {
    let file = image_with(&shipped("tunes-v7"), &formats()[2].1);
    let image = file.open().unwrap();
    let header = *image.header();
    let mut room = Room::new(&image, true);
    let (mut state, scratch) = room.memory.split(&image).unwrap();
    let stream = GivingWay(rwkv_core::stream::InPlace::new(image.words()));
    let model = Model::new(header, stream, scratch).unwrap();
    let mut model = model.with_undo(room.undo.as_mut().unwrap()).unwrap();
    let mut digests = Vec::new();
    for (turn, token) in PROMPT.into_iter().enumerate() {
        for polls in [1, 40 * turn, usize::MAX] {
            let mut digest = Digest::default();
            let mut step = Box::pin(model.step_async(state.reborrow(), token, &mut digest));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let mut ready = None;
            for _ in 0..polls {
                if let std::task::Poll::Ready(result) = step.as_mut().poll(&mut context) {
                    ready = Some(result);
                    break;
                }
            }
            drop(step);
            assert!(!state.is_broken());
            match ready {
                Some(result) => {
                    result.unwrap();
                    digests.push(Digest::token(&header, &state, digest).unwrap());
                }
                None => assert!(polls < usize::MAX),
            }
        }
    }
    assert_eq!(digests, expected(&image));
}
