//! SysTick as a clock that counts up, for boards without a timer that can be read.

use core::cell::Cell;

use cortex_m::peripheral::{SYST, syst::SystClkSource};

/// The counter has 24 bits.
const MASK: u32 = 0x00ff_ffff;

/// The running clock, at the rate of the core. While something is measured it must be asked once
/// in 2^24 ticks.
#[derive(Debug)]
pub struct Clock {
    /// What the counter showed last, and the ticks up to then.
    last: Cell<u32>,
    ticks: Cell<u32>,
}

impl Clock {
    /// Starts the clock.
    ///
    /// # Safety
    /// To be called once: there is one SysTick.
    pub unsafe fn new() -> Self {
        // SAFETY: nobody else uses SysTick, as the caller promises.
        let mut systick = unsafe { cortex_m::Peripherals::steal() }.SYST;
        systick.set_clock_source(SystClkSource::Core);
        systick.set_reload(MASK);
        systick.clear_current();
        systick.enable_counter();
        Self { last: Cell::new(SYST::get_current()), ticks: Cell::new(0) }
    }

    /// Ticks since some time; wraps around.
    pub fn now(&self) -> u32 {
        // It counts down.
        let current = SYST::get_current();
        let passed = self.last.replace(current).wrapping_sub(current) & MASK;
        self.ticks.set(self.ticks.get().wrapping_add(passed));
        self.ticks.get()
    }
}
