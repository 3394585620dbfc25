//! Which tokens were generated, and how often: what penalties go by.

/// Tokens that are remembered for the penalties, at most.
pub const MAX_HISTORY: usize = 64;

/// A token and how often it was generated, older times counting less.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Entry {
    pub(super) token: u32,
    pub(super) count: f32,
}

/// The tokens in ascending order.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct History {
    entries: [Entry; MAX_HISTORY],
    len: usize,
}

impl History {
    pub(super) const EMPTY: Self =
        Self { entries: [Entry { token: 0, count: 0.0 }; MAX_HISTORY], len: 0 };

    pub(super) const fn clear(&mut self) {
        self.len = 0;
    }

    /// The first token from `token` on.
    pub(super) fn at_or_after(&self, token: u32) -> Option<Entry> {
        let known = self.known();
        known.get(known.partition_point(|entry| entry.token < token)).copied()
    }

    /// Lets every count decay, then counts a token once more. Where there is no room for it, the
    /// token with the least count is forgotten, and of several the one with the lowest id.
    pub(super) fn count(&mut self, token: u32, decay: f32) {
        self.entries.iter_mut().take(self.len).for_each(|entry| entry.count *= decay);
        let at = self.known().partition_point(|entry| entry.token < token);
        match self.entries.iter_mut().take(self.len).nth(at) {
            Some(entry) if entry.token == token => entry.count += 1.0,
            _ => self.insert(at, Entry { token, count: 1.0 }),
        }
    }

    fn known(&self) -> &[Entry] {
        self.entries.get(..self.len).unwrap_or_default()
    }

    /// Puts an entry behind the first `at`; those between it and the free or forgotten place move.
    fn insert(&mut self, at: usize, new: Entry) {
        let place = if self.len < MAX_HISTORY { self.len } else { self.least() };
        self.len += usize::from(self.len < MAX_HISTORY);
        let mut moved = new;
        let mut put = |entry| core::mem::swap(entry, &mut moved);
        if place < at {
            self.entries.iter_mut().take(at).skip(place).rev().for_each(&mut put);
        } else {
            self.entries.iter_mut().take(place + 1).skip(at).for_each(&mut put);
        }
    }

    /// Where the entry with the least count is, the first of several.
    fn least(&self) -> usize {
        let (mut at, mut least) = (0, f32::INFINITY);
        for (i, entry) in self.known().iter().enumerate() {
            if entry.count < least {
                (at, least) = (i, entry.count);
            }
        }
        at
    }
}
