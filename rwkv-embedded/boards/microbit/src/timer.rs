//! TIMER0 of the nRF51822 as a free-running clock of 8 MHz.

use core::ptr;

/// Registers, as in the reference manual of the nRF51 series.
const fn register(offset: usize) -> *mut u32 {
    (0x4000_8000 + offset) as *mut u32
}

const TASKS_START: *mut u32 = register(0x000);
const TASKS_CAPTURE0: *mut u32 = register(0x040);
const BITMODE: *mut u32 = register(0x508);
const PRESCALER: *mut u32 = register(0x510);
const CC0: *mut u32 = register(0x540);

const BITMODE_32: u32 = 3;
/// 16 MHz over 2 to this power: a tick is then a whole number of nanoseconds.
const HALF: u32 = 1;

/// Instructions per tick under `-icount shift=0`, where an instruction takes 1 ns of the 125 ns.
pub const INSTRUCTIONS_PER_TICK: u32 = 125;

/// The running clock.
#[derive(Debug)]
pub struct Timer(());

impl Timer {
    /// Starts the clock.
    ///
    /// # Safety
    /// To be called once: there is one TIMER0.
    pub unsafe fn new() -> Self {
        // SAFETY: the registers of TIMER0 lie at these addresses, and nobody else uses them.
        unsafe {
            ptr::write_volatile(BITMODE, BITMODE_32);
            ptr::write_volatile(PRESCALER, HALF);
            ptr::write_volatile(TASKS_START, 1);
        }
        Self(())
    }

    /// Ticks since some time; wraps around after 536 seconds.
    pub fn now(&self) -> u32 {
        // SAFETY: registers of TIMER0, which this driver owns; capturing disturbs no count.
        unsafe {
            ptr::write_volatile(TASKS_CAPTURE0, 1);
            ptr::read_volatile(CC0)
        }
    }
}
