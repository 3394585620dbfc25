//! The clock of a token, and what it was spent on if the host asks.

use embedded_io::Write;
use rwkv_core::{Logits, exec::Work};

use super::{
    Board,
    protocol::{MAX_SPENT, Reply, Spent},
    send,
};

/// Looks on while tokens are computed.
pub(super) struct Watch<'a, B, T: Write> {
    board: &'a mut B,
    pub(super) transport: &'a mut T,
    /// Whether the host asks.
    profiling: bool,
    /// When the last piece of work was done.
    since: u32,
    spent: heapless::Vec<Spent, MAX_SPENT>,
    /// The transport failed in the middle of a token.
    failed: Option<T::Error>,
}

impl<'a, B: Board, T: Write> Watch<'a, B, T> {
    pub(super) fn new(board: &'a mut B, transport: &'a mut T, profiling: bool) -> Self {
        Self { board, transport, profiling, since: 0, spent: heapless::Vec::new(), failed: None }
    }

    /// The time at which a token starts.
    pub(super) fn start(&mut self) -> u32 {
        self.since = self.board.now();
        self.since
    }

    /// Ticks since then.
    pub(super) fn since(&mut self, start: u32) -> u32 {
        self.board.now().wrapping_sub(start)
    }

    /// Sends what has not been sent yet.
    pub(super) fn finish(&mut self) -> Result<(), T::Error> {
        self.flush();
        self.failed.take().map_or(Ok(()), Err)
    }

    fn flush(&mut self) {
        if !self.spent.is_empty() {
            let spent = core::mem::take(&mut self.spent);
            if let Err(error) = send(self.transport, &Reply::Spent(spent)) {
                self.failed = Some(error);
            }
        }
    }

    #[inline(never)]
    fn add(&mut self, work: Work) {
        let ticks = self.board.now().wrapping_sub(self.since);
        let id = work.id.map_or(0, |id| id as u8);
        let key = (work.section, id, work.part);
        let known = self.spent.iter_mut().find(|s| (s.section, s.id, s.part) == key);
        match known {
            Some(spent) => {
                spent.ticks = spent.ticks.wrapping_add(ticks);
                spent.times = spent.times.wrapping_add(1);
            }
            None => {
                if self.spent.is_full() {
                    self.flush();
                }
                let (section, part) = (work.section, work.part);
                let _ = self.spent.push(Spent { section, id, part, times: 1, ticks });
            }
        }
        // The book-keeping is not the token's time.
        self.since = self.board.now();
    }
}

impl<B: Board, T: Write> Logits for Watch<'_, B, T> {
    const WANTED: bool = false;

    fn push(&mut self, _: u32, _: &[f32]) {}

    #[inline]
    fn spent(&mut self, work: Work) {
        if self.profiling {
            self.add(work);
        }
    }
}
