//! Two buffers: the one is read while the core computes from the other.

use core::{
    cell::{Cell, Ref, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use rwkv_core::{StreamError, image::RECORD_WORDS, stream::Stream};

use super::{
    Medium, Place, Reads,
    plan::{Plan, Run},
};

/// A medium and two buffers. [`ReadAhead::stream`] is what a model reads from, and
/// [`ReadAhead::drive`] lets both run: the model computes while the next words are on their way.
///
/// What is next is known from the header of each record, and for columns of sparse products, from
/// the model ([`Stream::ahead`]). Rows of tables have a buffer of their own, so that they disturb
/// nothing.
///
/// ```
/// # use rwkv_core::{Error, Header, Model, StateView, sampler::Sampler};
/// # use rwkv_embedded::stream::{Medium, ReadAhead};
/// # async fn run(
/// #     flash: impl Medium, header: Header, mut state: StateView<'_>, scratch: &mut [f32],
/// #     buffers: [&mut [u32]; 3], mut sampler: Sampler, token: u32,
/// # ) -> Result<(), Error> {
/// let [a, b, rows] = buffers;
/// let flash = ReadAhead::new(flash, 0x10_0000, header.bytes(), [a, b], rows)?;
/// let mut model = Model::new(header, flash.stream::<true>(), scratch)?;
/// flash.drive(model.step_async(state.reborrow(), token, &mut sampler)).await
/// # }
/// ```
#[derive(Debug)]
pub struct ReadAhead<'b, M> {
    medium: RefCell<M>,
    place: Place,
    buffers: [RefCell<&'b mut [u32]>; 2],
    rows: RefCell<&'b mut [u32]>,
    slots: Cell<[Slot; 2]>,
    /// What to read into the buffer for rows.
    wanted: Cell<Slot>,
    /// The buffer that the model reads from; the other one is read ahead.
    front: Cell<Side>,
    plan: Cell<Plan>,
    reads: Cell<Reads>,
    /// Whether something was asked for, or has come, since the last look.
    news: Cell<bool>,
}

/// What a buffer holds: whole units of words of the image.
#[derive(Debug, Clone, Copy, Default)]
enum Slot {
    #[default]
    Empty,
    /// To be read.
    Asked(Run),
    /// From this word on, so many.
    Full(usize, usize),
    /// From this word on, so many were to be read.
    Failed(usize, usize, StreamError),
}

/// One of two buffers.
#[derive(Debug, Clone, Copy, Default)]
enum Side {
    #[default]
    A,
    B,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl Slot {
    /// Where some words of the image lie in it.
    fn find(self, word: usize, words: usize) -> Option<usize> {
        match self {
            Self::Full(first, len)
                if word >= first && word.saturating_add(words) <= first + len =>
            {
                Some(word - first)
            }
            _ => None,
        }
    }
}

impl<'b, M: Medium> ReadAhead<'b, M> {
    /// An image of `bytes` bytes ([`rwkv_core::Header::bytes`]) that begins at byte `first` of
    /// the medium, a multiple of its unit. Each of the two buffers has room for a block
    /// ([`super::buffer_words`]), better for several; `rows` for a row of a table.
    ///
    /// # Errors
    /// [`StreamError::Misplaced`] if the image does not begin with a unit.
    pub fn new(
        medium: M,
        first: u32,
        bytes: u32,
        buffers: [&'b mut [u32]; 2],
        rows: &'b mut [u32],
    ) -> Result<Self, StreamError> {
        Ok(Self {
            medium: RefCell::new(medium),
            place: Place::new::<M>(first, bytes)?,
            buffers: buffers.map(RefCell::new),
            rows: RefCell::new(rows),
            slots: Cell::default(),
            wanted: Cell::default(),
            front: Cell::default(),
            plan: Cell::default(),
            reads: Cell::default(),
            news: Cell::default(),
        })
    }

    /// What a model reads from. Only one may be in use.
    pub const fn stream<const VERIFY: bool>(&self) -> Ahead<'_, 'b, M, VERIFY> {
        Ahead { from: self, at: 0, held: None }
    }

    /// What was read of the medium so far.
    pub const fn reads(&self) -> Reads {
        self.reads.get()
    }

    /// Runs a model's work over the stream, reading ahead meanwhile; gives way to other tasks
    /// at every block.
    pub async fn drive<F: Future>(&self, work: F) -> F::Output {
        // A read that was dropped half-way has left nothing.
        self.slots.set(self.slots.get().map(|slot| match slot {
            Slot::Full(..) => slot,
            _ => Slot::Empty,
        }));
        self.wanted.set(Slot::Empty);
        let (mut work, mut reader) = (pin!(work), pin!(self.read()));
        poll_fn(|context| {
            self.news.set(false);
            // The reader never ends.
            let _ = reader.as_mut().poll(context);
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            if self.news.get() {
                // The next read is on its way before others run.
                let _ = reader.as_mut().poll(context);
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    /// Reads whatever is asked for, for ever.
    async fn read(&self) {
        loop {
            let back = self.front.get().other();
            if let Slot::Asked(run) = self.wanted.get() {
                self.wanted.set(self.fetch(run, &self.rows).await);
            } else if let Slot::Asked(run) = self.slot(back) {
                let slot = self.fetch(run, self.buffer(back)).await;
                if run.header {
                    self.learn(run, slot);
                }
                self.set(back, slot);
            } else {
                pause().await;
                continue;
            }
            self.news.set(true);
        }
    }

    #[expect(
        clippy::await_holding_refcell_ref,
        reason = "nobody else writes, or reads this buffer"
    )]
    async fn fetch(&self, run: Run, buffer: &RefCell<&'b mut [u32]>) -> Slot {
        let failed = |error| Slot::Failed(run.first, run.words, error);
        let small = failed(StreamError::Buffer { words: run.words as u32 });
        // Only the reader writes, and the model has let go of what it asks for.
        let (Ok(mut buffer), Ok(mut medium)) =
            (buffer.try_borrow_mut(), self.medium.try_borrow_mut())
        else {
            return small;
        };
        let (low, high) = match self.place.units::<M>(run.first, run.words) {
            Ok(units) => units,
            Err(error) => return failed(error),
        };
        let Some(into) = buffer.get_mut(..high - low) else { return small };
        let mut reads = self.reads.get();
        reads.add(4 * into.len());
        self.reads.set(reads);
        match self.place.read(&mut *medium, low, into).await {
            Ok(()) => Slot::Full(low, high - low),
            Err(error) => failed(error),
        }
    }

    /// Looks at the header at the end of what was read.
    fn learn(&self, run: Run, slot: Slot) {
        let end = run.first + run.words;
        let (Slot::Full(first, _), Ok(buffer)) =
            (slot, self.buffer(self.front.get().other()).try_borrow())
        else {
            return;
        };
        let header = (end - first).checked_sub(RECORD_WORDS).and_then(|at| buffer.get(at..));
        self.plan.set(Plan::learn(header.unwrap_or_default(), end));
    }

    fn slot(&self, side: Side) -> Slot {
        let [a, b] = self.slots.get();
        match side {
            Side::A => a,
            Side::B => b,
        }
    }

    fn set(&self, side: Side, slot: Slot) {
        let [a, b] = self.slots.get();
        self.slots.set(match side {
            Side::A => [slot, b],
            Side::B => [a, slot],
        });
    }

    const fn buffer(&self, side: Side) -> &RefCell<&'b mut [u32]> {
        let [a, b] = &self.buffers;
        match side {
            Side::A => a,
            Side::B => b,
        }
    }

    /// Asks for what comes next, if that is known and there is a buffer for it.
    fn ask(&self) {
        let back = self.front.get().other();
        let (Slot::Empty, Ok(buffer)) = (self.slot(back), self.buffer(back).try_borrow()) else {
            return;
        };
        let room = buffer.len();
        let fits = |word, words| {
            self.place.units::<M>(word, words).is_ok_and(|(low, high)| high - low <= room)
        };
        let mut plan = self.plan.get();
        if let Some(run) = plan.take(fits) {
            self.set(back, Slot::Asked(run));
            self.news.set(true);
        }
        self.plan.set(plan);
    }
}

/// Lets the other side run.
async fn pause() {
    let mut paused = false;
    poll_fn(
        |_| if core::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending },
    )
    .await;
}

/// The stream of a [`ReadAhead`].
#[derive(Debug)]
pub struct Ahead<'r, 'b, M, const VERIFY: bool> {
    from: &'r ReadAhead<'b, M>,
    at: usize,
    held: Option<Ref<'r, &'b mut [u32]>>,
}

impl<M: Medium, const VERIFY: bool> Ahead<'_, '_, M, VERIFY> {
    /// Waits until some words are in the front buffer. Returns where they lie.
    async fn bring(&mut self, word: usize, words: usize) -> Result<usize, StreamError> {
        let from = self.from;
        loop {
            let front = from.front.get();
            let back = front.other();
            if let Some(at) = from.slot(front).find(word, words) {
                return Ok(at);
            }
            self.held = None;
            match from.slot(back) {
                slot if slot.find(word, words).is_some() => {
                    from.set(front, Slot::Empty);
                    from.front.set(back);
                    from.ask();
                }
                Slot::Asked(_) => pause().await,
                Slot::Failed(first, len, error) if word >= first && word < first + len => {
                    from.set(back, Slot::Empty);
                    from.plan.set(Plan::Nothing);
                    return Err(error);
                }
                Slot::Empty | Slot::Full(..) | Slot::Failed(..) => {
                    // Unexpected: whatever was read ahead was in vain.
                    let header = words == RECORD_WORDS;
                    from.plan.set(Plan::Nothing);
                    from.set(back, Slot::Asked(Run { first: word, words, header }));
                    from.news.set(true);
                }
            }
        }
    }
}

impl<M: Medium, const VERIFY: bool> Stream for Ahead<'_, '_, M, VERIFY> {
    const VERIFY: bool = VERIFY;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        let at = self.bring(self.at, words).await?;
        self.at += words;
        if words > RECORD_WORDS {
            // The next read begins before the model computes, and other tasks have their turn.
            self.from.news.set(true);
            pause().await;
        }
        let small = StreamError::Buffer { words: words as u32 };
        let buffer = self.from.buffer(self.from.front.get()).try_borrow().map_err(|_| small)?;
        self.held.insert(buffer).get(at..at + words).ok_or(small)
    }

    async fn skip(&mut self, words: usize) -> Result<(), StreamError> {
        self.at = self.at.saturating_add(words);
        Ok(())
    }

    async fn seek(&mut self, word: usize) -> Result<(), StreamError> {
        self.at = word;
        Ok(())
    }

    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        self.held = None;
        let from = self.from;
        from.wanted.set(Slot::Asked(Run { first: word, words, header: false }));
        from.news.set(true);
        let slot = loop {
            match from.wanted.get() {
                Slot::Asked(_) => pause().await,
                slot => break slot,
            }
        };
        let small = StreamError::Buffer { words: words as u32 };
        let at = match slot {
            Slot::Failed(.., error) => return Err(error),
            slot => slot.find(word, words).ok_or(small)?,
        };
        let buffer = from.rows.try_borrow().map_err(|_| small)?;
        self.held.insert(buffer).get(at..at + words).ok_or(small)
    }

    fn ahead(&mut self, word: usize, words: usize) {
        let header = words == RECORD_WORDS;
        self.from.plan.set(Plan::Told(Run { first: word, words, header }));
        self.from.ask();
    }

    fn position(&self) -> usize {
        self.at
    }
}
