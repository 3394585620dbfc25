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

use rwkv_core::StreamError;
use rwkv_embedded::stream::Medium;

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
        self.now.set(self.now.get().saturating_add(time));
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

    /// What lies in it.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<const UNIT: usize> Medium for SimFlash<'_, UNIT> {
    const UNIT: usize = UNIT;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        assert!((offset as usize).is_multiple_of(UNIT) && bytes.len().is_multiple_of(UNIT));
        let time =
            self.latency.saturating_add(self.per_word.saturating_mul(bytes.len() as u64 / 4));
        self.busy = self.busy.saturating_add(time);
        self.reads += 1;
        let done = self.clock.now().saturating_add(time);
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
