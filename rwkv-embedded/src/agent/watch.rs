//! The clock of a token, and what the host asks to see of it.

use embedded_io::Write;
use rwkv_core::{
    Digest, Logits,
    exec::{Numbered, Work, Written},
};

use super::{
    Board,
    protocol::{Depth, MAX_DIGESTS, MAX_SPENT, MAX_VALUES, Reply, Spent},
    send,
};

/// What the host asks to see of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// What they are spent on.
    Spent,
    /// What their operations write.
    Written(Depth),
}

/// What the next reply will hold.
enum Held {
    Nothing,
    Spent(heapless::Vec<Spent, MAX_SPENT>),
    Digests(heapless::Vec<Digest, MAX_DIGESTS>),
    Values(heapless::Vec<f32, MAX_VALUES>),
}

/// Looks on while tokens are computed.
pub(super) struct Watch<'a, B, T: Write> {
    board: &'a mut B,
    pub(super) transport: &'a mut T,
    asked: Asked,
    token: u32,
    /// When the last piece of work was done.
    since: u32,
    numbered: Numbered,
    /// What is written now, and its digest so far.
    current: Option<(Written, Digest)>,
    /// The digest of its section so far.
    section: Digest,
    held: Held,
    /// The transport failed in the middle of a token.
    failed: Option<T::Error>,
}

impl<'a, B: Board, T: Write> Watch<'a, B, T> {
    pub(super) fn new(board: &'a mut B, transport: &'a mut T, asked: Asked) -> Self {
        Self {
            board,
            transport,
            asked,
            token: 0,
            since: 0,
            numbered: Numbered::default(),
            current: None,
            section: Digest::default(),
            held: Held::Nothing,
            failed: None,
        }
    }

    /// The time at which a token starts.
    pub(super) fn start(&mut self, token: u32) -> u32 {
        self.token = token;
        self.numbered = Numbered::default();
        self.since = self.board.now();
        self.since
    }

    /// Ticks since then.
    pub(super) fn since(&mut self, start: u32) -> u32 {
        self.board.now().wrapping_sub(start)
    }

    /// Sends what has not been sent yet.
    pub(super) fn finish(&mut self) -> Result<(), T::Error> {
        self.close(None);
        self.flush();
        self.failed.take().map_or(Ok(()), Err)
    }

    #[inline(never)]
    fn flush(&mut self) {
        let reply = match core::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => return,
            Held::Spent(spent) => Reply::Spent(spent),
            Held::Digests(digests) => Reply::Digests(digests),
            Held::Values(values) => Reply::Values(values),
        };
        if let Err(error) = send(self.transport, &reply) {
            self.failed = Some(error);
        }
    }

    #[inline(never)]
    fn add(&mut self, work: Work) {
        let ticks = self.board.now().wrapping_sub(self.since);
        let (section, part) = (work.section, work.part);
        let id = work.id.map_or(0, |id| id as u8);
        let new = Spent { section, id, part, times: 1, ticks };
        let known = match &mut self.held {
            Held::Spent(all) => {
                all.iter_mut().find(|s| (s.section, s.id, s.part) == (section, id, part))
            }
            _ => None,
        };
        match known {
            Some(spent) => {
                spent.ticks = spent.ticks.wrapping_add(ticks);
                spent.times = spent.times.wrapping_add(1);
            }
            None => {
                if matches!(&self.held, Held::Spent(all) if all.is_full()) {
                    self.flush();
                }
                if !matches!(self.held, Held::Spent(_)) {
                    self.held = Held::Spent(heapless::Vec::new());
                }
                if let Held::Spent(all) = &mut self.held {
                    let _ = all.push(new);
                }
            }
        }
        // The book-keeping is not the token's time.
        self.since = self.board.now();
    }

    /// A piece of what an operation writes.
    #[inline(never)]
    fn look(&mut self, work: Work, first: u32, values: &mut [f32]) {
        let written = self.numbered.piece(work, first);
        if B::FAULTY {
            self.board.wrote(self.token, written, first, values);
        }
        let Asked::Written(depth) = self.asked else { return };
        if let Depth::Values(asked) = depth {
            if written == asked {
                self.show(values);
            }
            return;
        }
        if self.current.is_none_or(|(current, _)| current != written) {
            self.close(Some(written));
        }
        if let Some((_, digest)) = &mut self.current {
            // What is no number shows in the digest.
            let _ = digest.add(first, values);
        }
    }

    /// The operation before `next` has written everything.
    fn close(&mut self, next: Option<Written>) {
        let Asked::Written(depth) = self.asked else { return };
        let done = self.current.take();
        self.current = next.map(|next| (next, Digest::default()));
        let Some((done, digest)) = done else { return };
        match depth {
            Depth::Operations { section } if section == done.section => self.hold(digest),
            Depth::Sections => {
                self.section.fold(done.operation.into(), digest);
                if next.is_none_or(|next| next.section != done.section) {
                    let section = core::mem::take(&mut self.section);
                    self.hold(section);
                }
            }
            _ => {}
        }
    }

    fn hold(&mut self, digest: Digest) {
        if matches!(&self.held, Held::Digests(all) if all.is_full()) {
            self.flush();
        }
        if !matches!(self.held, Held::Digests(_)) {
            self.held = Held::Digests(heapless::Vec::new());
        }
        if let Held::Digests(all) = &mut self.held {
            let _ = all.push(digest);
        }
    }

    fn show(&mut self, values: &[f32]) {
        for values in values.chunks(MAX_VALUES) {
            self.flush();
            self.held = Held::Values(values.iter().copied().collect());
        }
    }
}

impl<B: Board, T: Write> Logits for Watch<'_, B, T> {
    const WANTED: bool = false;
    const LOOKS: bool = true;

    fn push(&mut self, _: u32, _: &[f32]) {}

    #[inline]
    fn spent(&mut self, work: Work) {
        if self.asked == Asked::Spent {
            self.add(work);
        }
    }

    #[inline]
    fn wrote(&mut self, work: Work, first: u32, values: &mut [f32]) {
        if B::FAULTY || matches!(self.asked, Asked::Written(_)) {
            self.look(work, first, values);
        }
    }
}
