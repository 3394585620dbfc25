//! The least that firmware links: an image in flash is opened and one token follows the other.
//! What this takes of the flash is the size of rwkv-core.

#![no_std]
#![no_main]

use core::{hint::black_box, slice};

use rwkv_core::{Digest, Image, Model, StateView, stream::InPlace};

/// Words of state and scratch.
const ARENA_WORDS: usize = 2048;

unsafe extern "C" {
    static _window_start: u32;
    static _window_end: u32;
}

#[cfg_attr(target_arch = "arm", cortex_m_rt::entry)]
#[cfg_attr(target_arch = "riscv32", riscv_rt::entry)]
fn main() -> ! {
    let start = (&raw const _window_start).cast::<u8>();
    let len = (&raw const _window_end).addr() - start.addr();
    // SAFETY: memory of the board that the linker leaves alone and nothing writes to.
    let flash = unsafe { slice::from_raw_parts(start, len) };
    let mut arena = [0.0; ARENA_WORDS];
    _ = black_box(run(flash, black_box(&mut arena)));
    loop {
        core::hint::spin_loop();
    }
}

fn run(flash: &[u8], arena: &mut [f32]) -> Result<Digest, rwkv_core::Error> {
    let image = Image::open_prefix(flash)?;
    let header = *image.header();
    let (mut ready, mut digest) = (false, Digest::default());
    let (state, scratch) =
        arena.split_at_mut_checked(header.state_words()).ok_or(rwkv_core::Error::Internal)?;
    let mut state = StateView::over(&header, state, &mut ready)?;
    let mut model = Model::new(header, InPlace::new(image.words()), scratch)?;
    model.reset(state.reborrow())?;
    for token in 0..black_box(100) {
        model.step(state.reborrow(), token, &mut digest)?;
    }
    Ok(digest)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
