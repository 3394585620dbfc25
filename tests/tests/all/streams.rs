//! Streams that copy, verify, wait and fail: the same bits, or a typed error and a broken state.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker},
};

use rwkv_core::{
    Digest, Error, Image, ImageError, Model, StreamError,
    exec::Columns,
    image::{Id, Layout, RECORD_WORDS, SectionKind},
    stream::{InPlace, Stream, Whole},
};
use rwkv_host::{convert::Weights, memory::Memory};
use rwkv_tests::{baked, formats, image, image_with, shipped, step};

/// A medium that is copied from, block by block, into a buffer of the size that the header names.
struct Medium<'a> {
    flash: InPlace<'a>,
    buffer: Vec<u32>,
    /// Fails at this read, counted down.
    fails_at: Option<usize>,
    /// Lets every read wait once.
    waits: bool,
    reads: usize,
    words: usize,
}

impl<'a> Medium<'a> {
    fn new(image: &Image<'a>) -> Self {
        let buffer = vec![0; image.header().block_words as usize];
        let flash = InPlace::new(image.words());
        Self { flash, buffer, fails_at: None, waits: false, reads: 0, words: 0 }
    }

    async fn deliver(&mut self, at: Option<usize>, words: usize) -> Result<&[u32], StreamError> {
        if self.waits {
            let mut ready = false;
            poll_fn(|_| {
                if std::mem::replace(&mut ready, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        let offset = at.unwrap_or(self.flash.position()) as u32 * 4;
        if self.fails_at == Some(self.reads) {
            return Err(StreamError::Medium { offset });
        }
        self.reads += 1;
        self.words += words;
        let source = match at {
            Some(at) => self.flash.read_at(at, words).await?,
            None => self.flash.next(words).await?,
        };
        let buffer = self.buffer.get_mut(..words);
        let buffer = buffer.ok_or(StreamError::Buffer { words: words as u32 })?;
        buffer.copy_from_slice(source);
        Ok(buffer)
    }
}

impl Stream for Medium<'_> {
    const VERIFY: bool = true;

    type Blocks = Whole;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        self.deliver(None, words).await
    }

    async fn skip(&mut self, words: usize) -> Result<(), StreamError> {
        self.flash.skip(words).await
    }

    async fn seek(&mut self, word: usize) -> Result<(), StreamError> {
        self.flash.seek(word).await
    }

    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        self.deliver(Some(word), words).await
    }

    fn position(&self) -> usize {
        self.flash.position()
    }
}

const PROMPT: [u32; 3] = [88, 58, 49];

fn read(image: &Image<'_>, memory: &mut Memory, stream: impl Stream) -> Result<Digest, Error> {
    let header = *image.header();
    let (mut state, scratch) = memory.split(image)?;
    let mut model = Model::new(header, stream, scratch)?;
    let mut last = Digest::default();
    for token in PROMPT {
        last = Digest::default();
        let mut run = pin!(model.step_async(state.reborrow(), token, &mut last));
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(result) = run.as_mut().poll(&mut context) {
                break result?;
            }
        }
    }
    Digest::token(&header, &state, last)
}

#[test]
fn a_stream_that_copies_verifies_and_waits_gives_the_same_bits() {
    for model in ["tunes-v4", "tunes-v7"] {
        for weights in [Weights::F32, Weights::Int8] {
            let file = image(&shipped(model), weights);
            let image = file.open().expect("it opens");
            let (expected, _) = step(&mut Memory::new(&image), &image, &PROMPT).expect("it steps");
            for waits in [false, true] {
                let mut medium = Medium { waits, ..Medium::new(&image) };
                let found = read(&image, &mut Memory::new(&image), &mut medium);
                assert_eq!(found.as_ref(), Ok(&expected[2]));
            }
        }
    }
}

#[test]
fn a_blocking_step_over_a_stream_that_waits_is_an_error() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().expect("it opens");
    let mut memory = Memory::new(&image);
    let (mut state, scratch) = memory.split(&image).expect("it fits");
    let medium = Medium { waits: true, ..Medium::new(&image) };
    let mut model = Model::new(*image.header(), medium, scratch).expect("it fits");
    assert_eq!(model.step(state.reborrow(), 65, ()), Err(Error::Internal));
    assert!(state.is_broken());
}

/// A bit that flips after the image was opened is a wrong logit, or an error where it was asked for.
#[test]
fn weights_in_place_are_verified_on_request() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().expect("it opens");
    let expected = step(&mut Memory::new(&image), &image, &PROMPT).expect("it steps").0[2];
    let both = |words: &[u32]| {
        let memory = || Memory::new(&image);
        let trusting = read(&image, &mut memory(), InPlace::new(words));
        (trusting, read(&image, &mut memory(), InPlace::verified(words)))
    };
    let mut words = image.words().to_vec();
    assert_eq!(both(&words), (Ok(expected), Ok(expected)));
    let key = image.sections().filter(|s| s.kind == SectionKind::Layer).nth(1).expect("a layer");
    words[(key.offset + key.length / 2) as usize / 4] ^= 0x0040_0000;
    let (trusting, verified) = both(&words);
    assert!(trusting.is_ok_and(|digest| digest != expected), "{trusting:?}");
    let damaged = matches!(verified, Err(Error::Image(ImageError::BlockChecksum { .. })));
    assert!(damaged, "{verified:?}");
}

#[test]
fn every_failed_read_breaks_the_state_and_a_reset_mends_it() {
    for model in ["tunes-v4", "tunes-v7"] {
        let file = image(&shipped(model), Weights::Int8);
        let image = file.open().expect("it opens");
        let mut medium = Medium::new(&image);
        let mut memory = Memory::new(&image);
        let expected = read(&image, &mut memory, &mut medium).expect("it reads");
        let total = medium.reads;
        for fails_at in (0..total).step_by(total / 97) {
            let mut medium = Medium { fails_at: Some(fails_at), ..Medium::new(&image) };
            memory.reset(&image);
            let error = read(&image, &mut memory, &mut medium).expect_err("it fails");
            assert!(matches!(error, Error::Stream(StreamError::Medium { .. })), "{error}");
            medium.fails_at = None;
            assert_eq!(read(&image, &mut memory, &mut medium), Err(Error::BrokenState));
            memory.reset(&image);
            assert_eq!(read(&image, &mut memory, &mut medium), Ok(expected));
        }
    }
}

/// Polls until it is ready.
fn wait<T>(run: impl Future<Output = T>) -> T {
    let (mut run, mut context) = (pin!(run), Context::from_waker(Waker::noop()));
    loop {
        if let Poll::Ready(result) = run.as_mut().poll(&mut context) {
            return result;
        }
    }
}

/// The start state comes through the stream, tile by tile: its bits, or an error and a broken state.
#[test]
fn a_start_state_is_read_from_any_medium() {
    for model in ["tunes-v4", "tunes-v7"] {
        let good = baked(&image(&shipped(model), Weights::Int8), &PROMPT);
        let image = good.open().expect("it opens");
        let expected: Vec<f32> = image.start_state().expect("a state").collect();
        let header = *image.header();
        let section =
            image.sections().find(|s| s.offset == header.start_offset).expect("it is there");
        let mut scratch = vec![0.0; header.scratch_words as usize];
        let mut begin = |medium: &mut Medium<'_>| {
            let mut memory = Memory::new(&image);
            let mut state = memory.state(&image).expect("it fits");
            state.clear(&header);
            let mut model = Model::new(header, medium, &mut scratch).expect("it fits");
            let result = wait(model.reset_async(state.reborrow()));
            assert_eq!(result.is_err(), state.is_broken());
            result.map(|()| state.words().concat())
        };
        let mut medium = Medium::new(&image);
        assert_eq!(begin(&mut medium).as_ref(), Ok(&expected));
        assert_eq!(medium.position(), 0);
        let reads = medium.reads;
        assert!(reads > 2, "{reads} reads: more than one tile");
        let mut medium = Medium { waits: true, ..Medium::new(&image) };
        assert_eq!(begin(&mut medium).as_ref(), Ok(&expected));
        for fails_at in 0..reads {
            let mut medium = Medium { fails_at: Some(fails_at), ..Medium::new(&image) };
            let error = begin(&mut medium).expect_err("it fails");
            assert!(matches!(error, Error::Stream(StreamError::Medium { .. })), "{error}");
        }
        // Bits that flip after the image was opened, up to the zeros that fill the section.
        let words = (4 + reads - 1 + expected.len()) * 4;
        assert_eq!(words.next_multiple_of(16), section.length as usize);
        for (n, at) in section.range().take(words).step_by(61).enumerate() {
            let mut flash = good.clone();
            flash.bytes_mut()[at] ^= 1 << (n % 8);
            let flash = InPlace::new(bytemuck::cast_slice(flash.bytes()));
            let error = begin(&mut Medium { flash, ..Medium::new(&image) }).expect_err("noticed");
            let noticed = matches!(
                error,
                Error::Image(ImageError::BlockChecksum { .. } | ImageError::Record { .. })
            );
            assert!(noticed, "byte {at}: {error}");
        }
    }
}

#[test]
fn a_column_whose_input_is_zero_is_not_read() {
    for model in ["tunes-v4", "tunes-v7"] {
        for (name, options) in formats() {
            let file = image_with(&shipped(model), &options);
            let image = file.open().expect("it opens");
            let (mut fixed, mut columns, mut column) = (0, 0, 0);
            let walk = image.walk(|_, found| {
                let record = found.record;
                fixed += RECORD_WORDS;
                fixed += match (record.id, record.layout) {
                    (Id::Embedding, _) => record.tile_words(1),
                    (_, Layout::RowMajor) => found.payload.len(),
                    (_, Layout::InputMajor) => {
                        columns += u64::from(record.cols);
                        column = 1 + record.line_words();
                        found.payload.len() - column * record.cols as usize
                    }
                };
                Ok(())
            });
            walk.expect("it walks");

            let mut memory = Memory::new(&image);
            let mut medium = Medium::new(&image);
            let (mut state, scratch) = memory.split(&image).expect("it fits");
            let mut model = Model::new(*image.header(), &mut medium, scratch).expect("it fits");
            let mut logits = Digest::default();
            for token in PROMPT {
                model.step(state.reborrow(), token, &mut logits).expect("it steps");
            }
            let Columns { live, all } = model.columns();
            println!("{name}: {live} of {all} columns");
            assert_eq!(all, PROMPT.len() as u64 * columns);
            assert!(0 < live && live < all / 2);
            assert_eq!(medium.words, PROMPT.len() * fixed + live as usize * column);
        }
    }
}

/// Bits that flip after the image was opened: a block that is used is a block that was verified.
#[test]
fn a_block_that_changed_is_never_used() {
    let good = image(&shipped("tunes-v4"), Weights::Int8);
    let image = good.open().expect("it opens");
    let mut memory = Memory::new(&image);
    let expected = read(&image, &mut memory, &mut Medium::new(&image)).expect("it reads");
    let (start, end) = (image.header().layers_offset as usize, good.bytes().len());
    let mut noticed = 0;
    for (n, at) in (start..end).step_by(9973).enumerate() {
        let mut flash = good.clone();
        flash.bytes_mut()[at] ^= 1 << (n % 8);
        let words = bytemuck::cast_slice(flash.bytes());
        let mut medium = Medium { flash: InPlace::new(words), ..Medium::new(&image) };
        memory.reset(&image);
        match read(&image, &mut memory, &mut medium) {
            // A column whose input is zero is not read; metadata and padding are not either.
            Ok(digest) => assert_eq!(digest, expected),
            Err(Error::Image(ImageError::BlockChecksum { .. } | ImageError::Record { .. })) => {
                noticed += 1
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(noticed > 20, "{noticed}");
}
