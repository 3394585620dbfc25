//! Models over the kinds of weights that there are.

use core::{
    mem::MaybeUninit,
    pin::pin,
    task::{Context, Poll, Waker},
};

use rwkv_core::{
    Error, Header, Model, StateView,
    exec::Columns,
    poll,
    stream::{InPlace, Stream},
    tokenizer::Tokenizer,
};
use rwkv_embedded::stream::{Ahead, Buffered, Placed, ReadAhead, least_block_words, row_words};

use crate::{
    error::{Fault, rwkv_error},
    image::{Opened, Weights, buffer_words, buffer_words_for},
    medium::{Beginning, Blocked, UNIT, Waiting},
    open::Placement,
    output::Sink,
};

/// Words of the buffer that hold what is known of the reads ahead.
///
/// cbindgen:ignore
pub(crate) const AHEAD_WORDS: usize = 16 * size_of::<usize>();
// It is aligned, which may take one of the words.
const _: () = assert!(size_of::<Reads>() + 4 <= 4 * AHEAD_WORDS);

type OnMedium = Buffered<'static, Blocked<Waiting>, true>;
type Reads = ReadAhead<'static, Beginning>;
/// A stream of which parts lie in flash and in RAM.
type InMemories<S> = Placed<'static, Placed<'static, S>>;
type PlacedOnMedium = InMemories<OnMedium>;
type ReadingAhead = InMemories<Ahead<'static, 'static, Beginning, true, 2>>;

enum Running {
    InPlace(Model<'static, InPlace<'static>>),
    OnMedium(Model<'static, OnMedium>),
    Placed(Model<'static, PlacedOnMedium>),
    Ahead(Model<'static, ReadingAhead>, &'static Reads),
}

pub(crate) struct Loaded {
    running: Running,
    calls: &'static Calls,
    pub(crate) tokenizer: Option<Tokenizer<'static>>,
}

impl Loaded {
    pub(crate) const fn header(&self) -> &Header {
        match &self.running {
            Running::InPlace(model) => model.header(),
            Running::OnMedium(model) => model.header(),
            Running::Placed(model) => model.header(),
            Running::Ahead(model, _) => model.header(),
        }
    }

    pub(crate) fn reset(&mut self, state: StateView<'_>) -> Result<(), Error> {
        (self.calls.reset)(&mut self.running, state)
    }

    pub(crate) fn step(
        &mut self,
        state: StateView<'_>,
        token: u32,
        sink: Option<&mut Sink<'_>>,
    ) -> Result<(), Error> {
        (self.calls.step)(&mut self.running, state, token, sink)
    }

    pub(crate) const fn columns(&self) -> Columns {
        match &self.running {
            Running::InPlace(model) => model.columns(),
            Running::OnMedium(model) => model.columns(),
            Running::Placed(model) => model.columns(),
            Running::Ahead(model, _) => model.columns(),
        }
    }
}

/// What a model does, for one kind of weights: a program links those of the images that it opens.
struct Calls {
    reset: fn(&mut Running, StateView<'_>) -> Result<(), Error>,
    step: fn(&mut Running, StateView<'_>, u32, Option<&mut Sink<'_>>) -> Result<(), Error>,
}

pub(crate) type Loader = fn(&Opened, Memory) -> Result<Loaded, Fault>;

/// The memory of a model.
pub(crate) struct Memory {
    pub(crate) scratch: &'static mut [f32],
    pub(crate) undo: Option<&'static mut [f32]>,
    pub(crate) buffer: Option<&'static mut [u32]>,
}

/// A stream, where it is, and how work over it comes to its end.
trait Source: Stream + Sized + 'static {
    /// What reads beside the work.
    type Reader: Copy;

    fn of(running: &mut Running) -> Option<(&mut Model<'static, Self>, Self::Reader)>;

    /// Runs work to its end; `None` if it waits for what will not come.
    fn run<F: Future>(_: Self::Reader, work: F) -> Option<F::Output> {
        poll::once(work)
    }

    const CALLS: Calls = Calls {
        reset: |running, state| {
            let (model, reader) = Self::of(running).ok_or(Error::Internal)?;
            Self::run(reader, model.reset_async(state)).unwrap_or(Err(Error::Internal))
        },
        step: |running, state, token, sink| {
            let (model, reader) = Self::of(running).ok_or(Error::Internal)?;
            let done = match sink {
                Some(sink) if sink.wants_logits() => {
                    Self::run(reader, model.step_async(state, token, sink))
                }
                sink => {
                    let hidden = sink.and_then(|sink| sink.hidden_only());
                    Self::run(reader, model.step_async(state, token, hidden))
                }
            };
            done.unwrap_or(Err(Error::Internal))
        },
    };
}

impl Source for InPlace<'static> {
    type Reader = ();

    fn of(running: &mut Running) -> Option<(&mut Model<'static, Self>, ())> {
        match running {
            Running::InPlace(model) => Some((model, ())),
            _ => None,
        }
    }
}

impl Source for OnMedium {
    type Reader = ();

    fn of(running: &mut Running) -> Option<(&mut Model<'static, Self>, ())> {
        match running {
            Running::OnMedium(model) => Some((model, ())),
            _ => None,
        }
    }
}

impl Source for PlacedOnMedium {
    type Reader = ();

    fn of(running: &mut Running) -> Option<(&mut Model<'static, Self>, ())> {
        match running {
            Running::Placed(model) => Some((model, ())),
            _ => None,
        }
    }
}

impl Source for ReadingAhead {
    type Reader = &'static Reads;

    fn of(running: &mut Running) -> Option<(&mut Model<'static, Self>, &'static Reads)> {
        match running {
            Running::Ahead(model, reads) => Some((model, reads)),
            _ => None,
        }
    }

    /// Each time round, the medium is asked, and the model computes as far as it can.
    fn run<F: Future>(reads: &'static Reads, work: F) -> Option<F::Output> {
        let mut driven = pin!(reads.drive(work));
        loop {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(output) = driven.as_mut().poll(&mut context) {
                return Some(output);
            }
        }
    }
}

fn load<S: Source>(
    image: &Opened,
    stream: S,
    scratch: &'static mut [f32],
    undo: Option<&'static mut [f32]>,
) -> Result<Model<'static, S>, Fault> {
    let model = Model::new(image.header, stream, scratch)?;
    Ok(match undo {
        Some(undo) => model.with_undo(undo)?,
        None => model,
    })
}

fn loaded<S: Source>(image: &Opened, running: Running) -> Loaded {
    Loaded { running, calls: &S::CALLS, tokenizer: image.tokenizer() }
}

/// The buffer, if it has room for the header and for what comes whole in every image of it. Whether
/// it has for blocks of many narrow rows is seen when they are read.
fn buffer(image: &Opened, given: Option<&'static mut [u32]>) -> Result<&'static mut [u32], Fault> {
    let all = buffer_words(image) as u32;
    let buffer = given.ok_or(Fault::new(rwkv_error::NoBuffer, 0, all))?;
    let needed = buffer_words_for(image, least_block_words(&image.header));
    if buffer.len() < needed {
        return Err(Fault::room(buffer.len(), needed));
    }
    Ok(buffer)
}

fn in_memories<S: Stream>([flash, ram]: [Placement; 2], stream: S) -> InMemories<S> {
    Placed::new(flash.0, flash.1, Placed::new(ram.0, ram.1, stream))
}

pub(crate) fn in_place(image: &Opened, memory: Memory) -> Result<Loaded, Fault> {
    let Weights::Memory(held) = &image.weights else { return Err(rwkv_error::Internal.into()) };
    let model = load(image, InPlace::new(held.words()), memory.scratch, memory.undo)?;
    Ok(loaded::<InPlace<'static>>(image, Running::InPlace(model)))
}

pub(crate) fn on_medium(image: &Opened, memory: Memory) -> Result<Loaded, Fault> {
    let Weights::Medium(held) = image.weights else { return Err(rwkv_error::Internal.into()) };
    let buffer = buffer(image, memory.buffer)?;
    let stream = Buffered::new(Blocked(held.medium), held.first, image.header.bytes(), buffer)?;
    let model = load(image, stream, memory.scratch, memory.undo)?;
    Ok(loaded::<OnMedium>(image, Running::OnMedium(model)))
}

pub(crate) fn placed(image: &Opened, memory: Memory) -> Result<Loaded, Fault> {
    let Weights::Medium(held) = image.weights else { return Err(rwkv_error::Internal.into()) };
    let buffer = buffer(image, memory.buffer)?;
    let stream = Buffered::new(Blocked(held.medium), held.first, image.header.bytes(), buffer)?;
    let stream = in_memories(held.placed, stream);
    let model = load(image, stream, memory.scratch, memory.undo)?;
    Ok(loaded::<PlacedOnMedium>(image, Running::Placed(model)))
}

pub(crate) fn ahead(image: &Opened, memory: Memory) -> Result<Loaded, Fault> {
    let Weights::Ahead(held) = image.weights else { return Err(rwkv_error::Internal.into()) };
    let buffer = buffer(image, memory.buffer)?;
    // They fit: see `buffer_words_for`.
    let split = |from: &'static mut [u32], words| {
        from.split_at_mut_checked(words).ok_or(rwkv_error::Internal)
    };
    let (known, rest) = split(buffer, AHEAD_WORDS)?;
    let (rows, rest) = split(rest, row_words(&image.header, UNIT))?;
    let half = rest.len() / 2;
    let (one, other) = split(rest, half)?;
    // SAFETY: any memory is a `MaybeUninit`.
    let (_, places, _) = unsafe { known.align_to_mut::<MaybeUninit<Reads>>() };
    let place = places.first_mut().ok_or(rwkv_error::Internal)?;
    let bytes = image.header.bytes();
    let reads = &*place.write(ReadAhead::new(held.medium, held.first, bytes, [one, other], rows)?);
    let stream = in_memories(held.placed, reads.stream());
    let model = load(image, stream, memory.scratch, memory.undo)?;
    Ok(loaded::<ReadingAhead>(image, Running::Ahead(model, reads)))
}
