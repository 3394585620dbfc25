//! RWKV on the host: converts checkpoints into flash images, prefills prompts in parallel, and
//! proves that a device computes the very same bits.
//!
//! - [`checkpoint`] reads what people have, tensor by tensor;
//! - [`convert`] writes the flash image, in the order the model text asks for;
//! - [`prefill`] runs a whole prompt at once;
//! - [`state`] saves what a prompt left behind;
//! - [`eval`] says how close an image is to its checkpoint;
//! - [`quantize`] rounds matrices to integers;
//! - [`tokenizer`] reads vocabularies and puts them into images;
//! - [`device`] talks to a simulated, emulated or real board;
//! - [`validate`] compares host and device after every token;
//! - [`trace`] records what an image computes, for later firmware to be checked against;
//! - [`prompts`] reads the prompts of many runs;
//! - [`profile`] tells where the time of a token goes;
//! - [`fit`] says whether a model fits a board, and how fast it can be;
//! - [`cli`] is the tool `rwkv`.

#![deny(unsafe_code)]

pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod convert;
pub mod device;
pub mod eval;
pub mod export;
pub mod file;
pub mod fit;
pub mod memory;
pub mod prefill;
pub mod profile;
pub mod prompts;
pub mod quantize;
pub mod state;
pub mod tokenizer;
pub mod trace;
pub mod validate;
