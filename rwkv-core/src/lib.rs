//! RWKV language models in fixed memory: no heap, the same bits on every core.
//!
//! RWKV is trained like a transformer and runs like a recurrent network: its state has a fixed
//! size, known when the firmware is linked. This crate computes one token after the other from a
//! *flash image* that `rwkv convert` makes.
//!
//! The layers, bottom to top:
//!
//! - [`math`]: exp, tanh and friends in plain f32 arithmetic, so that bits do not depend on a C
//!   library;
//! - [`kernel`]: the inner loops, one contract and one implementation per instruction set;
//! - [`op`]: layer norm, token shift, quantisation and the recurrences, on slices;
//! - [`image`] and [`stream`]: the format of the weights, and where they come from;
//! - [`exec`]: executors, on which the versions in [`model`] run as their formulas read;
//! - [`Model`]: the above in one type, with [`State`], [`sampler`], [`tokenizer`] and [`digest`];
//! - [`Generator`]: reads texts and continues them.
//!
//! ```no_run
//! use rwkv_core::{Image, Model, State, stream::InPlace};
//! # fn flash() -> &'static [u8] { &[] }
//! # fn demo() -> Result<(), rwkv_core::Error> {
//! let image = Image::open(flash())?;
//! let mut state = State::<4, 128, 3>::new();
//! let mut scratch = [0.0; 2048];
//! let mut model = Model::new(*image.header(), InPlace::new(image.words()), &mut scratch)?;
//! model.reset(state.view())?; // where the image begins
//! let mut logits = [0.0; 256];
//! model.step(state.view(), b'a'.into(), &mut logits[..])?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here allocates. Nothing here panics on data: images, prompts and streams end in a
//! typed [`Error`].

#![no_std]
#![deny(unsafe_code)]

#[cfg(any(feature = "std", test))]
extern crate std;

#[cfg(target_endian = "big")]
compile_error!("images are little-endian and read in place: big-endian targets are not supported");

mod brief;
pub mod digest;
mod error;
pub mod exec;
mod generate;
pub mod image;
pub mod kernel;
pub mod math;
pub mod model;
pub mod op;
pub mod poll;
pub mod sampler;
pub mod saved;
mod session;
mod soft;
mod state;
pub mod stream;
mod surprise;
pub mod tokenizer;
mod undo;

pub use digest::Digest;
pub use error::{Error, ImageError, StreamError};
pub use exec::{Hidden, Logits};
pub use generate::{Ending, GenerateError, Generator};
pub use image::{Header, Image};
pub use session::Model;
pub use state::{State, StateView};
pub use surprise::Surprise;
