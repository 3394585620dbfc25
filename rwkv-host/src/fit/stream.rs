//! How long a token takes over a medium that cannot be addressed.
//!
//! Both functions do with the touches of a token what the streams of `rwkv-embedded` do with the
//! words that a model asks for, on a clock of their own.

use serde::Serialize;

use super::{Known, Touch, Trace};

/// A medium.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Medium {
    /// Bytes that are read together: 4 or more, a power of two.
    pub unit: u32,
    /// Bytes per second.
    pub bandwidth: f64,
    /// Seconds before the first byte of a read.
    pub latency: f64,
}

/// What a token takes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Time {
    /// Reads of the medium.
    pub reads: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Seconds that the medium is busy.
    pub reading: f64,
    /// Seconds that the core computes.
    pub computing: f64,
    /// Seconds from the beginning to the end.
    pub seconds: f64,
}

impl Time {
    /// A read of some words; returns how long it takes.
    fn read(&mut self, medium: &Medium, words: usize) -> f64 {
        let bytes = 4 * words as u64;
        let seconds = medium.latency + bytes as f64 / medium.bandwidth;
        self.reads += 1;
        self.bytes += bytes;
        self.reading += seconds;
        seconds
    }
}

impl Medium {
    /// The whole units around some words, in words.
    fn units(&self, word: usize, words: usize) -> (usize, usize) {
        let unit = (self.unit as usize / 4).max(1);
        (word / unit * unit, (word + words).next_multiple_of(unit))
    }
}

/// A token through one buffer: what is asked for is read when it is asked for. `per_second` are
/// the instructions of the core.
pub fn one_buffer(trace: &Trace, medium: &Medium, per_second: f64) -> Time {
    let mut time = Time::default();
    let (mut first, mut held) = (0, 0);
    for touch in &trace.touches {
        if touch.word < first || touch.word + touch.words > first + held {
            let (low, high) = medium.units(touch.word, touch.words);
            let kept = if (first..first + held).contains(&low) { first + held - low } else { 0 };
            time.read(medium, (high - low).saturating_sub(kept));
            (first, held) = (low, high - low);
        }
        time.computing += touch.work / per_second;
    }
    time.seconds = time.reading + time.computing;
    time
}

/// A token through two buffers of `room` words each: one is read into while the core computes
/// from the other.
pub fn two_buffers(trace: &Trace, medium: &Medium, room: usize, per_second: f64) -> Time {
    let runs = runs(&trace.touches, medium, room);
    let mut pipe = Pipe {
        medium,
        room,
        touches: &trace.touches,
        runs: &runs,
        time: Time::default(),
        asked: 0,
        read: 0,
        busy: None,
        slots: [Slot::default(); 2],
        front: 0,
        fill: 0,
        at: 0,
    };
    pipe.run(per_second);
    pipe.time
}

/// Words that are read at once.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The first touch of it.
    touch: usize,
    word: usize,
    words: usize,
    known: Known,
}

/// Words of a run, but for its last block: as in `rwkv_embedded::stream`.
const RUN: usize = 64;

/// The touches in runs, as the plan of the stream makes them.
fn runs(touches: &[Touch], medium: &Medium, room: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    // Whether the last run is one of blocks that others may join.
    let mut open = false;
    let straight = touches.iter().enumerate().filter(|(_, touch)| touch.known != Known::Aside);
    for (index, touch) in straight {
        let is_header = touch.words == rwkv_core::image::RECORD_WORDS;
        let joins = |run: &&mut Run| {
            let (low, high) = medium.units(run.word, run.words + touch.words);
            let follows = run.word + run.words == touch.word && high - low <= room;
            follows && (is_header || run.words < RUN)
        };
        match runs.last_mut().filter(|_| open && touch.known == Known::Straight).filter(joins) {
            Some(run) => run.words += touch.words,
            None => {
                let Touch { word, words, known, .. } = *touch;
                runs.push(Run { touch: index, word, words, known });
            }
        }
        open = touch.known == Known::Straight && !is_header;
    }
    runs
}

/// Whole units of the image in a buffer.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    first: usize,
    len: usize,
    /// The last run that lies in it, counted from 1.
    last: usize,
}

struct Pipe<'a> {
    medium: &'a Medium,
    room: usize,
    touches: &'a [Touch],
    runs: &'a [Run],
    time: Time,
    /// Runs that were asked for, and those of them that are there.
    asked: usize,
    read: usize,
    /// When the read that is on its way ends.
    busy: Option<f64>,
    slots: [Slot; 2],
    front: usize,
    fill: usize,
    /// The touch that the model wants or computes with.
    at: usize,
}

impl Pipe<'_> {
    fn run(&mut self, per_second: f64) {
        let mut now = 0.0;
        let mut run = 0;
        for at in 0..self.touches.len() {
            self.at = at;
            let touch = self.touches[at];
            if touch.known == Known::Aside {
                now = self.busy.map_or(now, |end| end.max(now));
                self.arrive();
                now += self.time.read(self.medium, self.span(touch.word, touch.words));
            } else {
                // Runs are counted from 1.
                while self.runs.get(run).is_some_and(|run| run.touch <= at) {
                    run += 1;
                }
                // Words may lie in a unit that came with those before them.
                let Slot { first, len, .. } = self.slots[self.front];
                let held = touch.word >= first && touch.word + touch.words <= first + len;
                now = if held { now } else { self.bring(run, now) };
            }
            let work = touch.work / per_second;
            self.time.computing += work;
            self.advance(now, now + work);
            now += work;
        }
        self.time.seconds = now;
    }

    fn span(&self, word: usize, words: usize) -> usize {
        let (low, high) = self.medium.units(word, words);
        high - low
    }

    /// The read that was on its way has ended.
    fn arrive(&mut self) {
        if self.busy.take().is_some() {
            self.read = self.asked;
        }
    }

    /// Lets reads begin and end while the model computes.
    fn advance(&mut self, from: f64, to: f64) {
        self.ask(from);
        while let Some(end) = self.busy.filter(|end| *end <= to) {
            self.arrive();
            self.ask(end);
        }
    }

    /// Waits until a run is in the front slot; returns when that is.
    fn bring(&mut self, run: usize, mut now: f64) -> f64 {
        self.ask(now);
        while self.read < run {
            match self.busy {
                Some(end) => {
                    now = now.max(end);
                    self.arrive();
                }
                // The model waits for it, so there is room.
                None => self.start(now),
            }
            if self.read < run {
                self.ask(now);
            }
        }
        if run > self.slots[self.front].last {
            self.front = 1 - self.front;
            self.ask(now);
        }
        now
    }

    /// Asks for the next run, if it is known and there is room for it.
    fn ask(&mut self, now: f64) {
        let Some(run) = self.runs.get(self.asked).copied().filter(|_| self.busy.is_none()) else {
            return;
        };
        let known = match run.known {
            Known::Straight => true,
            Known::Told => self.at + 1 >= run.touch,
            Known::Asked | Known::Aside => self.at >= run.touch,
        };
        if !known {
            return;
        }
        if self.fill == self.front {
            return self.start(now);
        }
        // Behind what lies there, while the model has enough to do.
        let (low, high) = self.medium.units(run.word, run.words);
        let slot = self.slots[self.fill];
        let behind = slot.len > 0 && (slot.first..=slot.first + slot.len).contains(&low);
        let touch = self.touches[self.at];
        let front = self.slots[self.front];
        let left = (front.first + front.len).saturating_sub(touch.word + touch.words);
        if behind && run.words <= left && high - slot.first <= self.room {
            self.load(now, (slot.first, slot.first + slot.len), high);
        }
    }

    /// Reads the next run into the slot that is not in front.
    fn start(&mut self, now: f64) {
        let Some(run) = self.runs.get(self.asked) else { return };
        let (low, high) = self.medium.units(run.word, run.words);
        self.fill = 1 - self.front;
        self.load(now, (low, low), high);
    }

    /// Reads from `held.1` up to `high` into the slot that is filled, which begins at `held.0`.
    fn load(&mut self, now: f64, held: (usize, usize), high: usize) {
        let words = high.saturating_sub(held.1);
        self.asked += 1;
        self.slots[self.fill] = Slot { first: held.0, len: high - held.0, last: self.asked };
        if words > 0 {
            self.busy = Some(now + self.time.read(self.medium, words));
        } else {
            self.read = self.asked;
        }
    }
}
