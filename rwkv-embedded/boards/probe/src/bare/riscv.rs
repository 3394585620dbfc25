//! RISC-V: `minstret` counts.

use core::arch::asm;

use riscv_rt::entry;
use semihosting::{println, process};

/// The bits of a tick count.
pub const TICKS: u32 = u32::MAX;

#[entry]
fn start() -> ! {
    super::main()
}

/// Instructions since some time.
pub fn ticks() -> Option<u32> {
    let count;
    // SAFETY: reads a counter, in machine mode.
    unsafe { asm!("csrr {}, minstret", out(reg) count, options(nomem, nostack)) };
    Some(count)
}

/// Two instructions per turn.
pub fn spin(turns: u32) {
    // SAFETY: counts a register down.
    unsafe {
        asm!("2: addi {0}, {0}, -1", "bnez {0}, 2b", inout(reg) turns => _, options(nomem, nostack));
    }
}

/// What the start-up code calls on any exception.
#[unsafe(export_name = "ExceptionHandler")]
fn exception(_: &riscv_rt::TrapFrame) -> ! {
    let (cause, at): (u32, u32);
    // SAFETY: reads two registers, in machine mode.
    unsafe {
        asm!("csrr {}, mcause", "csrr {}, mepc", out(reg) cause, out(reg) at, options(nomem, nostack));
    }
    println!("failed: exception {cause} at {at:#010x}");
    process::exit(1)
}
