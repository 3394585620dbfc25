//! Where things lie: the arena, the image, the stack and the static variables.
//!
//! `memory.x` gives `_image_start` and `_image_end`, and `_arena_size`, a multiple of 4. The arena
//! lies behind the static variables, the stack between the arena and the end of the RAM.

use core::{ptr, slice};

use crate::architecture;

/// What unused stack is filled with.
const PAINT: u32 = 0xC5C5_C5C5;
/// Bytes below the stack pointer that the painter leaves alone: its own frame.
const OWN_FRAME: usize = 256;

// Of these only the addresses mean something.
unsafe extern "C" {
    static mut __sheap: u32;
    static _arena_size: u32;
    static _image_start: u32;
    static _image_end: u32;
    static __sdata: u32;
    static __edata: u32;
    static __sbss: u32;
    static __ebss: u32;
    static _stack_start: u32;
    static __sidata: u32;
}

/// The memory for state and scratch, its words zero.
///
/// # Safety
/// To be called once: the reference is exclusive.
pub unsafe fn arena() -> &'static mut [f32] {
    let words = (&raw const _arena_size).addr() / size_of::<f32>();
    let arena = (&raw mut __sheap).cast::<f32>();
    // SAFETY: exclusive, as the caller promises: no variable lies there, and the stack ends above.
    // Nothing is loaded there at boot, so every word is written before there is a reference to it.
    unsafe {
        ptr::write_bytes(arena, 0, words);
        slice::from_raw_parts_mut(arena, words)
    }
}

/// The window of flash in which the image lies.
pub fn image() -> &'static [u8] {
    let start = (&raw const _image_start).addr();
    let len = (&raw const _image_end).addr() - start;
    // SAFETY: flash up to its end, which the linker leaves alone and nothing writes to.
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), len) }
}

/// Bytes of static variables, the arena left out.
pub fn statics() -> u32 {
    let data = (&raw const __edata).addr() - (&raw const __sdata).addr();
    let bss = (&raw const __ebss).addr() - (&raw const __sbss).addr();
    (data + bss) as u32
}

/// Bytes of flash from the start of the program to the initial values of static variables.
pub fn firmware() -> u32 {
    let data = (&raw const __edata).addr() - (&raw const __sdata).addr();
    ((&raw const __sidata).addr() - architecture::firmware_start() + data) as u32
}

/// The lowest word that the stack may use: behind the arena.
fn stack_floor() -> *mut u32 {
    (&raw mut __sheap).wrapping_byte_add((&raw const _arena_size).addr())
}

/// Fills the unused stack, so that [`stack_used`] can tell how deep it went.
///
/// # Safety
/// To be called once, from the first function, before anything else needs the stack.
pub unsafe fn paint_stack() {
    let top = architecture::stack_pointer() - OWN_FRAME;
    let mut word = stack_floor();
    while word.addr() < top {
        // SAFETY: RAM between the arena and this function's frame, which nobody uses yet.
        unsafe { ptr::write_volatile(word, PAINT) };
        word = word.wrapping_add(1);
    }
}

/// The most stack in use since [`paint_stack`], in bytes.
pub fn stack_used() -> u32 {
    let top = (&raw const _stack_start).addr();
    let mut word = stack_floor();
    // SAFETY: aligned RAM below the top of the stack; what the stack holds is read as bits.
    while word.addr() < top && unsafe { ptr::read_volatile(word) } == PAINT {
        word = word.wrapping_add(1);
    }
    (top - word.addr()) as u32
}
