//! RWKV language models in firmware: what a board links to run an image of [`rwkv_core`].
//!
//! - [`model!`] includes an image, with memory of the size that it asks for: see [`firmware`];
//! - [`agent`] answers a host over a serial port: it computes tokens and returns their digests, so
//!   that `rwkv validate` can prove that the board computes the very same numbers;
//! - [`snapshot`] keeps states in flash, so that a power failure loses no more than the last one;
//! - [`stream`] reads weights from flash chips and cards that the core cannot address;
//! - [`selftest`] refuses a core whose float arithmetic is not that of the book.
//!
//! The logic knows no chip. Every board is a small package of its own under `boards/`, with the
//! drivers, the memory map and the command that starts it.
//!
//! Nothing here allocates but `firmware::HeapMemory`, behind the feature `alloc`, and nothing that
//! comes over the wire panics.

#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub use rwkv_core;

pub mod agent;
pub mod firmware;
pub mod selftest;
pub mod snapshot;
pub mod stream;
