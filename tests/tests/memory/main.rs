//! What takes how much memory: a program of its own, whose allocator counts.

use std::{alloc::System, sync::Mutex};

use cap::Cap;

mod conversion;
mod hostile;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Whoever counts is alone.
static ALONE: Mutex<()> = Mutex::new(());
