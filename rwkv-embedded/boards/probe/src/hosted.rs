//! A host: files, and no counter of instructions.

use std::{
    env, fmt, fs,
    io::{self, Write},
    process::ExitCode,
};

use rwkv_core::kernel::{Choice, native};

use crate::{Memory, failure::Failure, options::Options};

/// Words of the arena: more than any board has.
const ARENA_WORDS: usize = 1 << 20;

/// The bits of a tick count.
pub const TICKS: u32 = u32::MAX;

/// There is no counter.
pub const fn ticks() -> Option<u32> {
    None
}

/// Nothing to compare a counter with.
pub const fn spin(_: u32) {}

/// The standard output.
pub struct Out;

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        io::stdout().write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// What the operating system calls.
pub fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), Failure> {
    let options = Options::parse(words.iter().map(String::as_str))?;
    let mut window = Vec::<u32>::new();
    if let Some(path) = options.image {
        let bytes = fs::read(path).map_err(|_| Failure::Usage("the image cannot be read"))?;
        window.resize(bytes.len().div_ceil(4), 0);
        bytemuck::cast_slice_mut(&mut window)[..bytes.len()].copy_from_slice(&bytes);
    }
    let mut arena = vec![0.0; ARENA_WORDS];
    let memory = Memory { window: bytemuck::cast_slice(&window), arena: &mut arena };
    match options.kernel {
        None | Some("native") => crate::run(&options, memory, native()),
        Some(name) => match Choice::by_name(name) {
            Some(kernel) => crate::run(&options, memory, kernel),
            None => Err(Failure::Usage("this machine has no such kernels")),
        },
    }
}
