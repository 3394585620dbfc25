//! Cortex-M: where the firmware starts, the stack pointer, the modes of the floats, and faults.

use cortex_m_rt::{ExceptionFrame, exception};
use semihosting::process;

unsafe extern "C" {
    static __vector_table: u32;
}

/// The address of the first word of the firmware.
pub fn firmware_start() -> usize {
    (&raw const __vector_table).addr()
}

/// Where the stack ends at present.
pub fn stack_pointer() -> usize {
    cortex_m::register::msp::read() as usize
}

/// Refuses to go on where the floating-point unit, if there is one, loses bits.
pub fn check_float_modes() {
    #[cfg(target_abi = "eabihf")]
    {
        /// Flush-to-zero and default-NaN in FPSCR: both must be off.
        const FPSCR_MODES: u32 = 1 << 24 | 1 << 25;
        let modes = fpscr() & FPSCR_MODES;
        if modes != 0 {
            defmt::panic!("FPSCR has flush-to-zero or default-NaN set: {:#x}", modes);
        }
    }
}

#[cfg(target_abi = "eabihf")]
fn fpscr() -> u32 {
    let value;
    // SAFETY: reads the status register of the floating-point unit, which the start-up code has
    // switched on.
    unsafe {
        core::arch::asm!("vmrs {}, fpscr", out(reg) value, options(nomem, nostack));
    }
    value
}

/// Logs where the fault came from and leaves the emulator with a failure.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    defmt::error!("hard fault at {:#010x}", frame.pc());
    process::exit(1)
}
