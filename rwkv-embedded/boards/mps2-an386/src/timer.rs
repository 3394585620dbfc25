//! TIMER0: a CMSDK APB timer at 25 MHz, used as a free-running clock.

use core::ptr;

/// Registers, as in the Cortex-M System Design Kit (ARM DDI 0479).
#[repr(C)]
struct Registers {
    ctrl: u32,
    value: u32,
    reload: u32,
}

const TIMER0: *mut Registers = 0x4000_0000 as *mut Registers;

const CTRL_ENABLE: u32 = 1 << 0;

/// Instructions per tick under `-icount shift=0`, where an instruction takes 1 ns of the 40 ns.
pub const INSTRUCTIONS_PER_TICK: u32 = 40;

/// The running clock.
#[derive(Debug)]
pub struct Timer(());

impl Timer {
    /// Starts the clock.
    ///
    /// # Safety
    /// To be called once: there is one TIMER0.
    pub unsafe fn new() -> Self {
        // SAFETY: the registers of TIMER0 lie at this address, and nobody else uses them.
        unsafe {
            ptr::write_volatile(&raw mut (*TIMER0).reload, u32::MAX);
            ptr::write_volatile(&raw mut (*TIMER0).value, u32::MAX);
            ptr::write_volatile(&raw mut (*TIMER0).ctrl, CTRL_ENABLE);
        }
        Self(())
    }

    /// Ticks since some time; wraps around after 171 seconds.
    pub fn now(&self) -> u32 {
        // SAFETY: a register of TIMER0, which this driver owns; reading it changes nothing.
        let left = unsafe { ptr::read_volatile(&raw const (*TIMER0).value) };
        u32::MAX - left
    }
}
