//! A board in an emulator: start-up, memory, and the outer world through semihosting.

#[cfg_attr(target_arch = "arm", path = "arm.rs")]
#[cfg_attr(target_arch = "riscv32", path = "riscv.rs")]
mod core_specific;

use core::{fmt, hint, ptr, slice};

use rwkv_core::kernel::native;
use semihosting::{
    experimental::env,
    io::{self, Write},
    print, println, process,
};

use crate::{Memory, failure::Failure, options::Options};

pub use core_specific::{TICKS, spin, ticks};

/// Words of a command line, and bytes of all of them.
const WORDS: usize = 8;
const BYTES: usize = 256;

/// Between arena and stack: a stack that grows too deep writes over it first.
const GUARD_WORDS: usize = 16;
const GUARD: f32 = -12_345.0;

unsafe extern "C" {
    static mut __sheap: u32;
    static _stack_start: u32;
    static _stack_size: u32;
    static _window_start: u32;
    static _window_end: u32;
}

/// Everything behind the static variables but the stack.
///
/// # Safety
/// To be called once: the reference is exclusive.
unsafe fn arena() -> &'static mut [f32] {
    let start = (&raw mut __sheap).cast::<f32>();
    let end = (&raw const _stack_start).addr() - (&raw const _stack_size).addr();
    let words = end.saturating_sub(start.addr()) / size_of::<f32>();
    // SAFETY: RAM that no variable and, up to its size, no stack occupies; exclusive, as the
    // caller promises. All words are written before there is a reference to them.
    unsafe {
        ptr::write_bytes(start, 0, words);
        slice::from_raw_parts_mut(start, words)
    }
}

fn window() -> &'static [u8] {
    let start = (&raw const _window_start).cast::<u8>();
    let len = (&raw const _window_end).addr() - start.addr();
    // SAFETY: memory of the board that the linker leaves alone and nothing writes to.
    unsafe { slice::from_raw_parts(start, len) }
}

/// What the start-up code calls.
fn main() -> ! {
    // SAFETY: this is the first function and it runs once.
    let arena = unsafe { arena() };
    let (arena, guard) = arena.split_at_mut(arena.len().saturating_sub(GUARD_WORDS));
    guard.fill(GUARD);
    match run(Memory { window: window(), arena }) {
        // The compiler knows of no other writer than this function: the stack.
        Ok(()) if hint::black_box(&*guard).iter().any(|word| *word != GUARD) => {
            println!("failed: the stack is too small");
            process::exit(1)
        }
        Ok(()) => process::exit(0),
        Err(failure) => {
            println!("failed: {failure}");
            process::exit(1)
        }
    }
}

fn run(memory: Memory<'_>) -> Result<(), Failure> {
    let args = env::args::<BYTES>().map_err(|_| Failure::Usage("no command line"))?;
    let mut words = [""; WORDS];
    for (slot, word) in words.iter_mut().zip(&args) {
        *slot = word.map_err(|_| Failure::Usage("not UTF-8"))?;
    }
    let given = words.into_iter().skip(1).take_while(|word| !word.is_empty());
    let options = Options::parse(given)?;
    if options.image.is_some() || options.kernel.is_some_and(|name| name != "native") {
        return Err(Failure::Usage("a board has its own image and kernels"));
    }
    crate::run(&options, memory, native())
}

/// The standard output of the emulator.
pub struct Out;

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut out = io::stdout().map_err(|_| fmt::Error)?;
        out.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    print!("{info}\n");
    process::exit(1)
}
