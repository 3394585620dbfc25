//! Part of an image in memory, the rest from a medium: the same bits, and no byte too many.

use std::{cell::RefCell, rc::Rc};

use proptest::prelude::*;
use rwkv_core::{
    Digest, Error, Image, ImageError, Model, StreamError,
    exec::Columns,
    poll,
    stream::{InPlace, Stream},
};
use rwkv_embedded::stream::{Buffered, Placed, PlacedRange, ReadAhead, buffer_words, load};
use rwkv_host::{
    convert::Weights,
    fit::{Core, Layout, Placement, Trace},
    memory::Memory,
};
use rwkv_tests::{
    formats, image, image_with,
    medium::{Clock, SimFlash},
    random::{self, Container, VERSIONS},
    step,
};

const PROMPT: [u32; 4] = [88, 58, 49, 10];

/// Steps through the prompt.
async fn tokens(image: &Image<'_>, stream: impl Stream) -> Result<(Vec<Digest>, Columns), Error> {
    let header = *image.header();
    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image)?;
    let mut model = Model::new(header, stream, scratch)?;
    let mut digests = Vec::new();
    for token in PROMPT {
        let mut digest = Digest::default();
        model.step_async(state.reborrow(), token, &mut digest).await?;
        digests.push(Digest::token(&header, &state, digest)?);
    }
    Ok((digests, model.columns()))
}

/// A stream that remembers what was asked for: first word and words.
struct Watched<S> {
    stream: S,
    asked: Rc<RefCell<Vec<(usize, usize)>>>,
}

impl<S: Stream> Stream for Watched<S> {
    const VERIFY: bool = S::VERIFY;

    type Blocks = S::Blocks;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        self.asked.borrow_mut().push((self.stream.position(), words));
        self.stream.next(words).await
    }

    async fn skip(&mut self, words: usize) -> Result<(), StreamError> {
        self.stream.skip(words).await
    }

    async fn seek(&mut self, word: usize) -> Result<(), StreamError> {
        self.stream.seek(word).await
    }

    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        self.asked.borrow_mut().push((word, words));
        self.stream.read_at(word, words).await
    }

    fn position(&self) -> usize {
        self.stream.position()
    }

    fn room(&self) -> usize {
        self.stream.room()
    }
}

/// What a model asks for, word by word of the image.
fn asked(image: &Image<'_>) -> Vec<(usize, usize)> {
    let asked = Rc::default();
    let stream = Watched { stream: InPlace::new(image.words()), asked: Rc::clone(&asked) };
    poll::once(tokens(image, stream)).unwrap().unwrap();
    drop(asked.borrow());
    asked.take()
}

fn holds(ranges: &[PlacedRange], (word, words): (usize, usize)) -> bool {
    ranges.iter().any(|range| {
        let first = range.first as usize;
        word >= first && word + words <= first + range.words as usize
    })
}

/// The words of some ranges.
fn words(ranges: &[PlacedRange], image: &Image<'_>) -> Vec<u32> {
    let mut memory = vec![0; ranges.iter().map(|range| range.words as usize).sum()];
    let mut stream = InPlace::new(image.words());
    poll::once(load(ranges, &mut memory, &mut stream, 7)).unwrap().unwrap();
    assert_eq!(stream.position(), 0);
    memory
}

/// Runs an image with two memories over one buffer, and over two; returns the bytes that one
/// buffer read, and the share of live columns.
fn run(name: &str, image: &Image<'_>, [a, b]: [&[PlacedRange]; 2]) -> (u64, f64) {
    let header = *image.header();
    let wanted = step(&mut Memory::new(image), image, &PROMPT).unwrap().0;
    let memories = [a, b].map(|ranges| words(ranges, image));
    let room = buffer_words(&header, 4);
    let (mut buffer, clock) = (vec![0; room], Clock::default());
    let flash = SimFlash::<4>::new(image.bytes(), &clock);
    let mut inner = Buffered::<_, true>::new(flash, 0, header.bytes(), &mut buffer).unwrap();
    let stream = Placed::new(a, &memories[0], Placed::new(b, &memories[1], &mut inner));
    let (digests, columns) = clock.run(tokens(image, stream)).unwrap();
    assert!(digests == wanted, "{name}, one buffer");

    let mut buffers = [vec![0; room], vec![0; room], vec![0; 4096]];
    let [first, second, rows] = buffers.each_mut().map(Vec::as_mut_slice);
    let flash = SimFlash::<4>::new(image.bytes(), &clock);
    let ahead = ReadAhead::new(flash, 0, header.bytes(), [first, second], rows).unwrap();
    let stream = Placed::new(a, &memories[0], Placed::new(b, &memories[1], ahead.stream::<true>()));
    let (digests, _) = clock.run(ahead.drive(tokens(image, stream))).unwrap();
    assert!(digests == wanted, "{name}, two buffers");
    (inner.reads().bytes, columns.live as f64 / columns.all as f64)
}

/// What one buffer must read: what is asked for and lies in no memory.
fn needed(asked: &[(usize, usize)], [a, b]: [&[PlacedRange]; 2]) -> u64 {
    let outside = asked.iter().filter(|what| !holds(a, **what) && !holds(b, **what));
    outside.map(|(_, words)| 4 * *words as u64).sum()
}

#[test]
fn placements_leave_what_is_predicted() {
    for version in VERSIONS {
        let checkpoint = random::checkpoint(version, Container::Safetensors);
        for (format, options) in formats() {
            let file = image_with(checkpoint.path(), &options);
            let image = file.open().unwrap();
            let (layout, asked) = (Layout::of(&image), asked(&image));
            let all = u64::from(image.header().bytes());
            let mut before = u64::MAX;
            for sizes in [[0, 0], [5_000, 3_000], [all / 3, 4_000], [all / 2, all / 4], [all, 0]] {
                let name = format!("{version} {format} {sizes:?}");
                let placement = Placement::new(&layout, 0.5, &sizes);
                let [a, b] = [0, 1].map(|i| placement.memories[i].as_slice());
                for (ranges, size) in [(a, sizes[0]), (b, sizes[1])] {
                    let bytes: u64 = ranges.iter().map(|range| 4 * u64::from(range.words)).sum();
                    assert!(bytes <= size, "{name}");
                    let mut ends = 0;
                    for range in ranges {
                        assert!(range.first >= ends, "{name}: {ranges:?}");
                        ends = range.first + range.words;
                    }
                }
                let (bytes, live) = run(&name, &image, [a, b]);
                assert_eq!(bytes, needed(&asked, [a, b]), "{name}");
                assert!(bytes <= before, "{name}");
                before = bytes;
                // Which columns are alive, nobody knows before.
                let trace = Trace::new(&layout, &Core::M4.costs(), live);
                let predicted = 4 * placement.outside(&trace).words() * PROMPT.len() as u64;
                let (most, least) = (predicted.max(bytes), predicted.min(bytes));
                let whole = 4 * trace.words() * PROMPT.len() as u64;
                assert!(most - least <= whole / 50, "{name}: {predicted} predicted, {bytes} read");
            }
            assert_eq!(before, 0, "{version} {format}: all of it is in memory");
        }
    }
}

/// A memory that holds anything else is found out by the checksums that the medium's stream wants.
#[test]
fn blocks_in_memory_are_verified_as_the_inner_stream_is() {
    let checkpoint = random::checkpoint("7", Container::Safetensors);
    let file = image(checkpoint.path(), Weights::Int8);
    let image = file.open().unwrap();
    let header = *image.header();
    let placement = Placement::new(&Layout::of(&image), 0.5, &[20_000]);
    let ranges = placement.memories[0].as_slice();
    let mut memory = words(ranges, &image);
    // A weight in the middle of a block.
    memory[100] ^= 0x0100_0000;
    let (mut buffer, clock) = (vec![0; buffer_words(&header, 4)], Clock::default());
    let flash = SimFlash::<4>::new(image.bytes(), &clock);
    let inner = Buffered::<_, true>::new(flash, 0, header.bytes(), &mut buffer).unwrap();
    let result = clock.run(tokens(&image, Placed::new(ranges, &memory, inner)));
    let damaged = |error: &Error| {
        matches!(error, Error::Image(ImageError::BlockChecksum { .. } | ImageError::Record { .. }))
    };
    assert!(result.as_ref().is_err_and(damaged), "{result:?}");
    const { assert!(<Placed<'_, Buffered<'_, SimFlash<'_, 4>, true>> as Stream>::VERIFY) };
    const { assert!(!<Placed<'_, InPlace<'_>> as Stream>::VERIFY) };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Ranges anywhere, also through the middle of blocks and headers, and tables that say more
    /// than there is.
    #[test]
    fn any_placement_gives_the_same_bits(
        version in 0..VERSIONS.len(),
        format in 0..6usize,
        gaps in proptest::collection::vec((0u32..3000, 1u32..3000), 0..12),
        short in 0usize..40,
    ) {
        let checkpoint = random::small(VERSIONS[version]);
        let file = image_with(checkpoint.path(), &formats()[format].1);
        let image = file.open().unwrap();
        let all = image.words().len() as u32;
        let mut both = [Vec::new(), Vec::new()];
        let (mut at, mut first) = ([0; 2], 0);
        for (index, (gap, words)) in gaps.into_iter().enumerate() {
            first += gap;
            let words = words.min(all.saturating_sub(first));
            if words > 0 {
                both[index % 2].push(PlacedRange { first, words, at: at[index % 2] });
                at[index % 2] += words;
            }
            first += words;
        }
        let [a, b] = [both[0].as_slice(), both[1].as_slice()];
        let name = format!("{} {} {a:?} {b:?}", VERSIONS[version], formats()[format].0);
        let (bytes, _) = run(&name, &image, [a, b]);
        prop_assert_eq!(bytes, needed(&asked(&image), [a, b]));

        let wanted = step(&mut Memory::new(&image), &image, &PROMPT).unwrap().0;
        let memory = words(a, &image);
        let memory = &memory[..memory.len().saturating_sub(short)];
        let stream = Placed::new(a, memory, InPlace::new(image.words()));
        let (digests, _) = poll::once(tokens(&image, stream)).unwrap().unwrap();
        prop_assert!(digests == wanted);
    }
}
