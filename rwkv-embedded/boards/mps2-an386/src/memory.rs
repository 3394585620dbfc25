//! Where things lie: the arena, the image, the stack and the static variables.

use core::{cell::UnsafeCell, ptr, slice};

/// Words of state and scratch, together: 1 MB.
const ARENA_WORDS: usize = 1 << 18;

/// Where the image starts: behind the firmware's 512 KB, as in `memory.x`.
const IMAGE_START: usize = 0x0008_0000;
/// Where code memory ends.
const IMAGE_END: usize = 0x0040_0000;

/// What unused stack is filled with.
const PAINT: u32 = 0xC5C5_C5C5;
/// Bytes below the stack pointer that the painter leaves alone: its own frame.
const OWN_FRAME: usize = 256;

struct Arena(UnsafeCell<[f32; ARENA_WORDS]>);

// SAFETY: `arena` hands out its one reference once, and there is one core without threads.
unsafe impl Sync for Arena {}

#[unsafe(link_section = ".arena")]
static ARENA: Arena = Arena(UnsafeCell::new([0.0; ARENA_WORDS]));

unsafe extern "C" {
    static __sdata: u32;
    static __edata: u32;
    static __sbss: u32;
    static __ebss: u32;
    static _stack_start: u32;
    static __vector_table: u32;
    static __sidata: u32;
}

/// The memory for state and scratch, its words zero.
///
/// # Safety
/// To be called once: the reference is exclusive.
pub unsafe fn arena() -> &'static mut [f32] {
    let arena = ARENA.0.get().cast::<f32>();
    // SAFETY: exclusive, as the caller promises. The section is not loaded at boot, so every word
    // is written before there is a reference to it.
    unsafe {
        ptr::write_bytes(arena, 0, ARENA_WORDS);
        slice::from_raw_parts_mut(arena, ARENA_WORDS)
    }
}

/// The window of code memory in which the image lies.
pub fn image() -> &'static [u8] {
    let start = ptr::with_exposed_provenance(IMAGE_START);
    // SAFETY: code memory up to its end, which the linker leaves alone and nothing writes to.
    unsafe { slice::from_raw_parts(start, IMAGE_END - IMAGE_START) }
}

/// Bytes of static variables, the arena left out.
pub fn statics() -> u32 {
    let data = (&raw const __edata).addr() - (&raw const __sdata).addr();
    let bss = (&raw const __ebss).addr() - (&raw const __sbss).addr();
    (data + bss) as u32
}

/// Bytes of code memory from the vector table to the initial values of static variables.
pub fn firmware() -> u32 {
    let data = (&raw const __edata).addr() - (&raw const __sdata).addr();
    ((&raw const __sidata).addr() - (&raw const __vector_table).addr() + data) as u32
}

/// The lowest word that the stack may use: behind the arena.
fn stack_floor() -> *mut u32 {
    ARENA.0.get().wrapping_add(1).cast()
}

/// Fills the unused stack, so that [`stack_used`] can tell how deep it went.
///
/// # Safety
/// To be called once, from the first function, before anything else needs the stack.
pub unsafe fn paint_stack() {
    let top = cortex_m::register::msp::read() as usize - OWN_FRAME;
    let mut word = stack_floor();
    while word.addr() < top {
        // SAFETY: RAM between the last variable and this function's frame, which nobody uses yet.
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
