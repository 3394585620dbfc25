//! Counting instructions.

use core::fmt;

use crate::platform;

/// Ticks that a measurement lasts at least: a tick more or less is then below 0.01 %.
const ENOUGH: u64 = 40_000;
/// Instructions of a turn of the loop that the counter is compared with.
const LOOP: u64 = 2;
const TURNS: u32 = 4_000_000;

/// A counter whose ticks have been compared with instructions.
#[derive(Debug, Clone, Copy)]
pub struct Counter {
    ticks_per_loop: u64,
}

impl Counter {
    /// The platform's counter, or `None` where there is none.
    pub fn new() -> Option<Self> {
        let mut counter = Self { ticks_per_loop: 1 };
        let (ticks, calls) = counter.ticks(|| platform::spin(TURNS))?;
        counter.ticks_per_loop = ticks / calls;
        Some(counter)
    }

    /// What a call of `f` costs: it is called until the granularity of the counter no longer
    /// matters, each time within one period of the counter.
    pub fn cost(&self, f: impl FnMut()) -> Cost {
        let (ticks, calls) = self.ticks(f).unwrap_or_default();
        Cost { instructions: self.instructions(ticks), calls }
    }

    /// What one call costs.
    pub fn once<T>(&self, f: impl FnOnce() -> T) -> (Cost, T) {
        let start = platform::ticks().unwrap_or_default();
        let result = f();
        let end = platform::ticks().unwrap_or_default();
        let ticks = u64::from(end.wrapping_sub(start) & platform::TICKS);
        (Cost { instructions: self.instructions(ticks), calls: 1 }, result)
    }

    fn instructions(&self, ticks: u64) -> u64 {
        ticks * (LOOP * u64::from(TURNS)) / self.ticks_per_loop
    }

    fn ticks(&self, mut f: impl FnMut()) -> Option<(u64, u64)> {
        let (mut ticks, mut calls) = (0, 0);
        let mut last = platform::ticks()?;
        while ticks < ENOUGH {
            f();
            let now = platform::ticks()?;
            ticks += u64::from(now.wrapping_sub(last) & platform::TICKS);
            last = now;
            calls += 1;
        }
        Some((ticks, calls))
    }
}

/// Instructions of a number of calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    instructions: u64,
    calls: u64,
}

impl Cost {
    /// Adds calls of the same thing.
    pub fn add(&mut self, other: Self) {
        self.instructions += other.instructions;
        self.calls += other.calls;
    }

    /// Without what else was done in every call.
    pub fn less(self, other: Self) -> Self {
        let other = other.instructions * self.calls / other.calls.max(1);
        Self { instructions: self.instructions.saturating_sub(other), ..self }
    }

    /// Instructions per unit, where a call does `units` of something.
    pub fn per(self, units: usize) -> Ratio {
        let units = (self.calls * units as u64).max(1);
        Ratio((self.instructions * Ratio::ONE + units / 2) / units)
    }
}

/// A number with four decimals: formatting a float would take more flash than the kernels.
#[derive(Debug, Clone, Copy)]
pub struct Ratio(u64);

impl Ratio {
    const ONE: u64 = 10_000;
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04}", self.0 / Self::ONE, self.0 % Self::ONE)
    }
}
