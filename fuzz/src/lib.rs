//! What each fuzz target does with the bytes of a hostile file: any end is right but a panic, an
//! overflow, a second, or more memory than [`bounded`] allows.

mod checkpoints;
mod others;

use std::{alloc::System, cell::RefCell, fs, path::Path};

use cap::Cap;
use tempfile::NamedTempFile;

pub use checkpoints::{gguf, pickle, rwkv_cpp, safetensors, shards, torch};
pub use others::{frame, image, prompts, recipe, state, tokens, trace, vocabulary};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes that a reader may allocate, whatever it reads.
const ALLOWANCE: usize = 4 << 20;
/// And for each byte of the file.
const PER_BYTE: usize = 64;

/// Runs a target with 4 MiB and 64 bytes of memory per byte of the file. More ends the process, as
/// it would if the machine had no more.
pub fn bounded(bytes: &[u8], target: fn(&[u8])) {
    let most = ALLOCATOR.allocated() + ALLOWANCE + PER_BYTE * bytes.len();
    ALLOCATOR.set_limit(most).expect("there is less than that in use");
    target(bytes);
    ALLOCATOR.set_limit(usize::MAX).expect("there is no limit");
}

/// Hands on a file of these bytes.
fn with_file(bytes: &[u8], read: impl FnOnce(&Path)) {
    thread_local! {
        static FILE: RefCell<Option<NamedTempFile>> = const { RefCell::new(None) };
    }
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| NamedTempFile::new().expect("a file"));
        fs::write(file.path(), bytes).expect("written");
        read(file.path());
    });
}
