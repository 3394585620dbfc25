//! RISC-V in machine mode: where the firmware starts, the stack pointer, the modes of the floats,
//! a count of instructions, and traps.

use core::arch::asm;

use riscv::register::{
    mcause, mepc,
    mstatus::{self, FS},
};
use semihosting::process;

unsafe extern "C" {
    static __stext: u32;
}

/// The address of the first word of the firmware.
pub fn firmware_start() -> usize {
    (&raw const __stext).addr()
}

/// Where the stack ends at present.
pub fn stack_pointer() -> usize {
    let pointer;
    // SAFETY: copies a register.
    unsafe { asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack)) };
    pointer
}

/// Instructions since some time, wrapping around: `minstret`.
pub fn instructions() -> u32 {
    let count;
    // SAFETY: reads a counter, in machine mode.
    unsafe { asm!("csrr {}, minstret", out(reg) count, options(nomem, nostack)) };
    count
}

/// Refuses to go on where the floating-point unit, if the start-up code has switched one on, does
/// not round to nearest even.
pub fn check_float_modes() {
    if mstatus::read().fs() == FS::Off {
        return;
    }
    let fcsr: u32;
    // SAFETY: reads the status register of the floating-point unit, which is on. By its number:
    // the assembler knows the name only where the target has floats.
    unsafe { asm!("csrr {}, 0x003", out(reg) fcsr, options(nomem, nostack)) };
    let mode = fcsr >> 5 & 0b111;
    if mode != 0 {
        defmt::panic!("fcsr does not round to nearest even: mode {}", mode);
    }
}

/// Logs what the start-up code has caught and leaves the emulator with a failure.
#[unsafe(export_name = "ExceptionHandler")]
fn exception(_: &riscv_rt::TrapFrame) -> ! {
    defmt::error!("trap {} at {:#010x}", mcause::read().code(), mepc::read());
    process::exit(1)
}
