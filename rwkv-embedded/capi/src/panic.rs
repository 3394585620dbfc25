//! What becomes of a panic, which no data leads to: a fault of the library.

use core::arch::global_asm;

unsafe extern "C" {
    /// The firmware's own, or else the one below, which stays where it is.
    fn rwkv_panic() -> !;
}

// Stable Rust has no weak symbols, assemblers do.
#[cfg(target_arch = "arm")]
global_asm!(
    ".pushsection .text.rwkv_panic,\"ax\",%progbits",
    ".weak rwkv_panic",
    ".type rwkv_panic,%function",
    ".thumb_func",
    "rwkv_panic: b rwkv_panic",
    ".popsection",
);
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
global_asm!(
    ".pushsection .text.rwkv_panic,\"ax\",%progbits",
    ".weak rwkv_panic",
    "rwkv_panic: j rwkv_panic",
    ".popsection",
);
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.rwkv_panic,\"ax\",@progbits",
    ".weak rwkv_panic",
    "rwkv_panic: ud2",
    ".popsection",
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.rwkv_panic,\"ax\",%progbits",
    ".weak rwkv_panic",
    "rwkv_panic: brk #1",
    ".popsection",
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: a function without arguments that never returns, here or in the firmware.
    unsafe { rwkv_panic() }
}
