//! Several buffers: one is read into while the core computes from another.

use core::{
    cell::{Cell, Ref, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use rwkv_core::{
    StreamError,
    image::RECORD_WORDS,
    stream::{InPieces, Stream},
};

use super::{
    Medium, Place, Reads,
    plan::{Plan, Run},
    words_within,
};

/// A medium and `N` buffers, two or more. [`ReadAhead::stream`] is what a model reads from, and
/// [`ReadAhead::drive`] lets both run: the model computes while the next words are on their way.
///
/// What is next is known from the header of each record, and for columns of sparse products, from
/// the model ([`Stream::ahead`]). The buffers form a ring. Short records are put together in one
/// buffer, so that what lies ahead takes about as long to compute with as to read. Rows of tables
/// have a buffer of their own, and disturb nothing; what does not fit into it goes through the ring.
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
pub struct ReadAhead<'b, M, const N: usize = 2> {
    medium: RefCell<M>,
    place: Place,
    slots: [Slot<'b>; N],
    /// Words that fit into every slot, wherever they lie.
    room: usize,
    /// The slot that the model reads from, and the one that was filled last.
    front: Cell<usize>,
    fill: Cell<usize>,
    /// The word that the model comes to next.
    at: Cell<usize>,
    /// Rows of tables.
    rows: Slot<'b>,
    /// What is read, or is to be, and into which slot; rows of tables come first.
    asked: Cell<Option<(usize, Run)>>,
    wanted: Cell<Option<Run>>,
    /// What could not be read.
    failed: Cell<Option<(Run, StreamError)>>,
    missed: Cell<Option<StreamError>>,
    plan: Cell<Plan>,
    /// Where the last header ends that was looked at; those before it were, too.
    learnt: Cell<usize>,
    reads: Cell<Reads>,
    /// Whether the other side may have something to do.
    news: Cell<bool>,
}

rwkv_core::brief!([M, const N: usize] ReadAhead<'_, M, N>, |from| "ReadAhead(at word {}, {})",
    from.at.get(), from.reads.get());

/// A buffer, and the words of the image that lie in it: whole units.
#[derive(Debug)]
struct Slot<'b> {
    buffer: RefCell<&'b mut [u32]>,
    held: Cell<(usize, usize)>,
}

impl<'b> Slot<'b> {
    fn new(buffer: &'b mut [u32]) -> Self {
        Self { buffer: RefCell::new(buffer), held: Cell::default() }
    }

    /// Where some words of the image lie in it.
    fn find(&self, word: usize, words: usize) -> Option<usize> {
        let (first, len) = self.held.get();
        let covers = word >= first && word.saturating_add(words) <= first + len;
        (len > 0 && covers).then(|| word - first)
    }

    fn clear(&self) {
        self.held.set((0, 0));
    }
}

impl<'b, M: Medium, const N: usize> ReadAhead<'b, M, N> {
    /// An image of `bytes` bytes ([`rwkv_core::Header::bytes`]) that begins at byte `first` of
    /// the medium, a multiple of its unit. Each of the buffers has room for a block
    /// ([`super::buffer_words`]) or a piece ([`super::least_buffer_words`]); `rows` for a row of a
    /// table ([`super::row_words`]) or a piece.
    ///
    /// # Errors
    /// [`StreamError::Misplaced`] if the image does not begin with a unit.
    pub fn new(
        medium: M,
        first: u32,
        bytes: u32,
        buffers: [&'b mut [u32]; N],
        rows: &'b mut [u32],
    ) -> Result<Self, StreamError> {
        const { assert!(N >= 2, "one buffer cannot be read into while the core computes from it") };
        Ok(Self {
            medium: RefCell::new(medium),
            place: Place::new::<M>(first, bytes)?,
            room: words_within(buffers.iter().map(|words| words.len()).min().unwrap_or(0), M::UNIT),
            slots: buffers.map(Slot::new),
            front: Cell::default(),
            fill: Cell::default(),
            at: Cell::default(),
            rows: Slot::new(rows),
            asked: Cell::default(),
            wanted: Cell::default(),
            failed: Cell::default(),
            missed: Cell::default(),
            plan: Cell::default(),
            learnt: Cell::default(),
            reads: Cell::default(),
            news: Cell::default(),
        })
    }

    /// What a model reads from. Only one may be in use.
    pub const fn stream<const VERIFY: bool>(&self) -> Ahead<'_, 'b, M, VERIFY, N> {
        Ahead { from: self, held: None }
    }

    /// What was read of the medium so far.
    pub const fn reads(&self) -> Reads {
        self.reads.get()
    }

    /// Runs a model's work over the stream, reading ahead meanwhile; gives way to other tasks
    /// at every block.
    pub async fn drive<F: Future>(&self, work: F) -> F::Output {
        // A read that was dropped half-way has left nothing.
        self.asked.set(None);
        self.wanted.set(None);
        self.failed.set(None);
        self.missed.set(None);
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
            if let Some(run) = self.wanted.get() {
                self.rows.clear();
                let result = self.fetch(run, &self.rows).await;
                self.wanted.set(None);
                self.missed.set(result.err());
            } else if let Some((index, run)) = self.asked.get() {
                let slot = &self.slots[index % N];
                let result = self.fetch(run, slot).await;
                self.asked.set(None);
                match result {
                    Ok(()) if run.header => self.learn(run, slot),
                    Ok(()) => {}
                    Err(error) => self.failed.set(Some((run, error))),
                }
                self.ask();
            } else {
                pause().await;
                continue;
            }
            self.news.set(true);
        }
    }

    /// Reads the units around a run into a slot: behind what lies there, or in its place.
    #[expect(
        clippy::await_holding_refcell_ref,
        reason = "whoever reads a slot waits until it is filled"
    )]
    async fn fetch(&self, run: Run, slot: &Slot<'b>) -> Result<(), StreamError> {
        let small = StreamError::Buffer { words: run.words as u32 };
        let mut buffer = slot.buffer.try_borrow_mut().map_err(|_| small)?;
        let mut medium = self.medium.try_borrow_mut().map_err(|_| small)?;
        let (low, high) = self.place.units::<M>(run.first, run.words)?;
        let (first, len) = slot.held.get();
        let appends = len > 0 && (first..=first + len).contains(&low);
        let (first, len) = if appends { (first, len) } else { (low, 0) };
        if len > 0 && high <= first + len {
            // The unit that it ends in was read with what lies there.
            return Ok(());
        }
        let into = buffer.get_mut(len..high - first).ok_or(small)?;
        slot.held.set((first, len));
        let mut reads = self.reads.get();
        reads.add(4 * into.len());
        self.reads.set(reads);
        self.place.read(&mut *medium, first + len, into).await?;
        slot.held.set((first, high - first));
        Ok(())
    }

    /// Looks at the header at the end of what was read.
    fn learn(&self, run: Run, slot: &Slot<'b>) {
        if !matches!(self.plan.get(), Plan::Nothing) {
            // A piece that is as long as a header; the model has said what comes behind it.
            return;
        }
        let (first, _) = slot.held.get();
        let Ok(buffer) = slot.buffer.try_borrow() else { return };
        let header = (run.end() - first).checked_sub(RECORD_WORDS).and_then(|at| buffer.get(at..));
        self.plan.set(Plan::learn(header.unwrap_or_default(), run.end()));
        self.learnt.set(run.end());
    }

    /// Asks for what comes next, if that is known and there is room for it.
    fn ask(&self) {
        if self.asked.get().is_some() || self.failed.get().is_some() {
            return;
        }
        if let Plan::Told(run) = self.plan.get()
            && self.slots.iter().any(|slot| slot.find(run.first, run.words).is_some())
        {
            // It came with other words.
            self.plan.set(Plan::Nothing);
            return;
        }
        let (front, fill) = (self.front.get(), self.fill.get());
        let next = (fill + 1) % N;
        // The model waits for a slot that is being filled: so behind other words only while it has
        // enough to do.
        let (first, len) = self.slots[front % N].held.get();
        let left = (first + len).saturating_sub(self.at.get());
        for (index, append) in [(next, false), (fill, true)] {
            if index == front {
                continue;
            }
            let slot = &self.slots[index % N];
            let Ok(buffer) = slot.buffer.try_borrow() else { continue };
            let (first, len) = slot.held.get();
            let fits = |word: usize, words: usize| {
                let Ok((low, high)) = self.place.units::<M>(word, words) else { return false };
                if append {
                    let behind = len > 0 && (first..=first + len).contains(&low);
                    behind && words <= left && high - first <= buffer.len()
                } else {
                    high - low <= buffer.len()
                }
            };
            if let Some((run, after)) = self.plan.get().next(fits) {
                if !append {
                    slot.clear();
                }
                self.plan.set(after);
                self.fill.set(index);
                self.asked.set(Some((index, run)));
                self.news.set(true);
                return;
            }
        }
    }

    /// Asks for words that nobody expected: whatever was read ahead was in vain.
    fn start(&self, word: usize, words: usize) {
        self.slots.iter().for_each(Slot::clear);
        self.plan.set(Plan::Nothing);
        self.learnt.set(0);
        self.failed.set(None);
        let next = (self.front.get() + 1) % N;
        self.fill.set(next);
        self.asked.set(Some((next, Run::new(word, words))));
        self.news.set(true);
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
pub struct Ahead<'r, 'b, M, const VERIFY: bool, const N: usize> {
    from: &'r ReadAhead<'b, M, N>,
    held: Option<Ref<'r, &'b mut [u32]>>,
}

rwkv_core::brief!([M, const VERIFY: bool, const N: usize] Ahead<'_, '_, M, VERIFY, N>,
    |stream| "Ahead({})", stream.from);

impl<M: Medium, const VERIFY: bool, const N: usize> Ahead<'_, '_, M, VERIFY, N> {
    /// Words of the front slot.
    fn front(&mut self, at: usize, words: usize) -> Result<&[u32], StreamError> {
        let small = StreamError::Buffer { words: words as u32 };
        let slot = &self.from.slots[self.from.front.get() % N];
        let buffer = slot.buffer.try_borrow().map_err(|_| small)?;
        self.held.insert(buffer).get(at..at + words).ok_or(small)
    }

    /// Waits until some words are in the front slot. Returns where they lie.
    async fn bring(&mut self, word: usize, words: usize) -> Result<usize, StreamError> {
        let from = self.from;
        loop {
            let front = from.front.get();
            if let Some(at) = from.slots[front % N].find(word, words) {
                return Ok(at);
            }
            self.held = None;
            let ring = |i| (front + i) % N;
            let found = (0..N).find(|i| from.slots[ring(*i)].find(word, words).is_some());
            match (found, from.asked.get(), from.failed.get()) {
                (Some(found), asked, _) if asked.is_none_or(|(index, _)| index != ring(found)) => {
                    (0..found).for_each(|i| from.slots[ring(i)].clear());
                    from.front.set(ring(found));
                    from.ask();
                }
                (_, Some(_), _) => pause().await,
                (None, None, Some((run, error))) if (run.first..run.end()).contains(&word) => {
                    from.failed.set(None);
                    from.plan.set(Plan::Nothing);
                    return Err(error);
                }
                _ => from.start(word, words),
            }
        }
    }
}

impl<M: Medium, const VERIFY: bool, const N: usize> Stream for Ahead<'_, '_, M, VERIFY, N> {
    const VERIFY: bool = VERIFY;

    type Blocks = InPieces;

    async fn next(&mut self, words: usize) -> Result<&[u32], StreamError> {
        if words == 0 {
            return Ok(&[]);
        }
        let word = self.position();
        let at = self.bring(word, words).await?;
        self.from.at.set(word + words);
        let unread = words == RECORD_WORDS && self.from.learnt.get() < word + words;
        if unread && matches!(self.from.plan.get(), Plan::Nothing) {
            // It came with the unit that the last block ends in, unexpected, so nobody looked at it.
            let plan = Plan::learn(self.front(at, words)?, word + words);
            self.held = None;
            self.from.plan.set(plan);
            self.from.learnt.set(word + words);
            self.from.ask();
        }
        if words > RECORD_WORDS {
            // The next read begins before the model computes, and other tasks have their turn.
            self.from.news.set(true);
            pause().await;
        }
        self.front(at, words)
    }

    async fn skip(&mut self, words: usize) -> Result<(), StreamError> {
        self.from.at.set(self.position().saturating_add(words));
        Ok(())
    }

    async fn seek(&mut self, word: usize) -> Result<(), StreamError> {
        self.from.at.set(word);
        self.from.learnt.set(0);
        Ok(())
    }

    async fn read_at(&mut self, word: usize, words: usize) -> Result<&[u32], StreamError> {
        self.held = None;
        let from = self.from;
        let room = from.rows.buffer.try_borrow().map_or(0, |rows| rows.len());
        let fits = from.place.units::<M>(word, words).is_ok_and(|(low, high)| high - low <= room);
        if !fits {
            // Larger than a row, as the blocks of a start state are.
            let at = self.bring(word, words).await?;
            return self.front(at, words);
        }
        from.wanted.set(Some(Run::new(word, words)));
        from.news.set(true);
        while from.wanted.get().is_some() {
            pause().await;
        }
        if let Some(error) = from.missed.take() {
            return Err(error);
        }
        let small = StreamError::Buffer { words: words as u32 };
        let at = from.rows.find(word, words).ok_or(small)?;
        let buffer = from.rows.buffer.try_borrow().map_err(|_| small)?;
        self.held.insert(buffer).get(at..at + words).ok_or(small)
    }

    fn ahead(&mut self, word: usize, words: usize) {
        self.from.plan.set(Plan::Told(Run::new(word, words)));
        self.from.ask();
    }

    fn forget(&mut self) {
        self.held = None;
        self.from.slots.iter().for_each(Slot::clear);
        self.from.plan.set(Plan::Nothing);
        self.from.learnt.set(0);
        self.from.failed.set(None);
    }

    fn position(&self) -> usize {
        self.from.at.get()
    }

    fn room(&self) -> usize {
        self.from.room
    }
}
