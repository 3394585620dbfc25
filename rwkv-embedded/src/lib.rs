//! RWKV language models in firmware: what a board links to run an image of [`rwkv_core`].
//!
//! - [`agent`] answers a host over a serial port: it computes tokens and returns their digests, so
//!   that `rwkv validate` can prove that the board computes the very same numbers;
//! - [`snapshot`] keeps states in flash, so that a power failure loses no more than the last one;
//! - [`stream`] reads weights from flash chips and cards that the core cannot address;
//! - [`selftest`] refuses a core whose float arithmetic is not that of the book.
//!
//! The logic knows no chip. Every board is a small package of its own under `boards/`, with the
//! drivers, the memory map and the command that starts it.
//!
//! Nothing here allocates, and nothing that comes over the wire panics.

#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod agent;
pub mod selftest;
pub mod snapshot;
pub mod stream;
