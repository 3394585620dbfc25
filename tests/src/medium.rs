//! A simulated flash with a clock of its own: time passes where it is told to, and nowhere else.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use rwkv_core::{
    Error, Image, StreamError,
    image::{Checked, Id, Layout, PIECE_WORDS, RECORD_WORDS, check},
    poll,
    stream::Stream,
};
use rwkv_embedded::stream::{Buffered, Medium, words_around};

/// The time, in any unit, and when the medium will be ready.
#[derive(Debug, Default)]
pub struct Clock {
    now: Cell<u64>,
    due: Cell<Option<u64>>,
}

impl Clock {
    /// The time.
    pub const fn now(&self) -> u64 {
        self.now.get()
    }

    /// Lets time pass.
    pub fn pass(&self, time: u64) {
        self.now.set(self.now.get() + time);
    }

    /// Runs a future to its end. Where nothing can go on before the medium is ready, time passes.
    ///
    /// # Panics
    /// If it waits for something else.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            if !woken.0.swap(false, Ordering::Relaxed) {
                let due = self.due.take().expect("it waits for the medium");
                self.now.set(due.max(self.now.get()));
            }
        }
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What goes wrong at a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The medium reports an error.
    Error,
    /// Only half of the bytes come, and the medium notices.
    Short,
    /// A bit of the first words comes wrong, and nobody notices.
    Flip,
}

/// A flash of which a read takes `latency` and then `per_word` for each word.
#[derive(Debug)]
pub struct SimFlash<'a, const UNIT: usize> {
    bytes: &'a [u8],
    clock: &'a Clock,
    /// Time before the first word.
    pub latency: u64,
    /// Time for each word.
    pub per_word: u64,
    /// What goes wrong, and at which read from now on.
    pub fault: Option<(usize, Fault)>,
    /// Time that it was busy.
    pub busy: u64,
    /// Reads of it.
    pub reads: usize,
}

impl<'a, const UNIT: usize> SimFlash<'a, UNIT> {
    /// A flash that takes no time.
    pub const fn new(bytes: &'a [u8], clock: &'a Clock) -> Self {
        Self { bytes, clock, latency: 0, per_word: 0, fault: None, busy: 0, reads: 0 }
    }
}

impl<const UNIT: usize> Medium for SimFlash<'_, UNIT> {
    const UNIT: usize = UNIT;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        assert!((offset as usize).is_multiple_of(UNIT) && bytes.len().is_multiple_of(UNIT));
        let time = self.latency + self.per_word * bytes.len() as u64 / 4;
        self.busy += time;
        self.reads += 1;
        let done = self.clock.now() + time;
        poll_fn(|_| {
            if self.clock.now() >= done {
                return Poll::Ready(());
            }
            self.clock.due.set(Some(done));
            Poll::Pending
        })
        .await;
        // Beyond the end it is erased.
        let source = self.bytes.iter().skip(offset as usize).chain(std::iter::repeat(&0xff));
        bytes.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
        match &mut self.fault {
            Some((0, fault)) => {
                let fault = *fault;
                self.fault = None;
                match fault {
                    Fault::Error => return Err(StreamError::Medium { offset }),
                    Fault::Short => {
                        let half = bytes.len() / 2;
                        bytes[half..].fill(0xaa);
                        return Err(StreamError::Medium { offset: offset + half as u32 });
                    }
                    Fault::Flip => bytes[bytes.len() / 3] ^= 4,
                }
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        Ok(())
    }
}

/// A stream whose words take time to compute with.
#[derive(Debug)]
pub struct Costly<'a, S> {
    /// The stream.
    pub stream: S,
    /// The clock that it takes the time of.
    pub clock: &'a Clock,
    /// Time for each word.
    pub per_word: u64,
    /// Time that was spent.
    pub spent: &'a Cell<u64>,
    /// Words that were handed out and not computed with.
    pub handed: usize,
}

impl<S> Costly<'_, S> {
    fn compute(&mut self) {
        let time = self.per_word * std::mem::take(&mut self.handed) as u64;
        self.clock.pass(time);
        self.spent.set(self.spent.get() + time);
    }
}

impl<S: Stream> Stream for Costly<'_, S> {
    const VERIFY: bool = S::VERIFY;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        self.compute();
        self.handed = words;
        self.stream.next(words).await
    }

    async fn skip(&mut self, words: usize) -> Result<(), StreamError> {
        self.compute();
        self.stream.skip(words).await
    }

    async fn seek(&mut self, word: usize) -> Result<(), StreamError> {
        self.compute();
        self.stream.seek(word).await
    }

    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        self.compute();
        self.handed = words;
        self.stream.read_at(word, words).await
    }

    fn position(&self) -> usize {
        self.stream.position()
    }

    fn ahead(&mut self, word: usize, words: usize) {
        self.compute();
        self.stream.ahead(word, words);
    }

    fn forget(&mut self) {
        self.stream.forget();
    }
}

/// Bytes that a token reads of an image without the columns of its sparse products, and bytes of
/// one column.
///
/// # Panics
/// If the image is none.
pub fn token_bytes(image: &Image<'_>) -> (u64, u64) {
    let (mut fixed, mut column) = (0, 0);
    let walk = image.walk(|_, found| {
        let record = found.record;
        fixed += RECORD_WORDS as u64;
        fixed += match (record.id, record.layout) {
            (Id::Embedding, _) => record.tile_words(1) as u64,
            // A header and a row for each layer.
            (Id::DeepEmbed, _) => {
                let layers = u64::from(image.header().dims.layers);
                layers * (RECORD_WORDS + record.tile_words(1)) as u64 - RECORD_WORDS as u64
            }
            (_, Layout::RowMajor) => found.payload.len() as u64,
            (_, Layout::InputMajor) => {
                column = 1 + record.line_words() as u64;
                found.payload.len() as u64 - column * u64::from(record.cols)
            }
        };
        Ok(())
    });
    walk.expect("it was checked");
    (4 * fixed, 4 * column)
}

/// Checks the image on a flash that is read by so many bytes, through the smallest buffer.
///
/// # Errors
/// Those of the check.
pub fn check_over<const UNIT: usize>(flash: SimFlash<'_, UNIT>) -> Result<Checked, Error> {
    let given = flash.bytes.len() as u32;
    let mut buffer = vec![0; words_around(PIECE_WORDS, UNIT)];
    let mut stream = Buffered::<_, true>::new(flash, 0, given, &mut buffer)?;
    poll::once(check(&mut stream, given)).expect("such a flash takes no time")
}
