//! Cortex-M: SysTick counts, at the core's clock.

use core::{arch::asm, ptr};

use cortex_m_rt::{ExceptionFrame, entry, exception};
use semihosting::{println, process};

/// The bits of a tick count.
pub const TICKS: u32 = 0x00ff_ffff;

/// Registers of SysTick, as in the architecture manuals.
#[repr(C)]
struct SysTick {
    control: u32,
    reload: u32,
    value: u32,
}

const SYSTICK: *mut SysTick = 0xE000_E010 as *mut SysTick;

const CONTROL_ENABLE: u32 = 1 << 0;
const CONTROL_CORE_CLOCK: u32 = 1 << 2;

#[entry]
fn start() -> ! {
    // SAFETY: the registers of SysTick lie at this address, and nobody else uses them.
    unsafe {
        ptr::write_volatile(&raw mut (*SYSTICK).reload, TICKS);
        ptr::write_volatile(&raw mut (*SYSTICK).value, 0);
        ptr::write_volatile(&raw mut (*SYSTICK).control, CONTROL_ENABLE | CONTROL_CORE_CLOCK);
    }
    super::main()
}

/// Ticks since some time, modulo [`TICKS`] + 1.
#[expect(clippy::unnecessary_wraps, reason = "a host has no counter")]
pub fn ticks() -> Option<u32> {
    // SAFETY: a register of SysTick, which only `start` writes; reading it changes nothing.
    let left = unsafe { ptr::read_volatile(&raw const (*SYSTICK).value) };
    Some(!left & TICKS)
}

/// Two instructions per turn.
pub fn spin(turns: u32) {
    // SAFETY: counts a register down.
    unsafe {
        asm!("2: subs {0}, {0}, #1", "bne 2b", inout(reg) turns => _, options(nomem, nostack));
    }
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    println!("failed: hard fault at {:#010x}", frame.pc());
    process::exit(1)
}
