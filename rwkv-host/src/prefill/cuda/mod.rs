//! A whole prompt at once on a GPU, with the bits of the step executor.
//!
//! The executor runs the same model text as every other one. A driver gives it memory and starts
//! kernels: the one in `device` is NVIDIA's, and `emulate` runs the very same kernels on the CPU,
//! so that their bits can be compared on a machine without a GPU. The kernels are in `kernels/`;
//! the book's chapter *CUDA* describes them.

#[cfg(feature = "cuda")]
mod compile;
#[cfg(feature = "cuda")]
pub mod device;
mod driver;
#[cfg(feature = "cuda-emulation")]
pub mod emulate;
mod error;
mod run;
mod sequence;

pub use driver::{Driver, Launch};
pub use error::CudaError;
pub use run::{Options, Prefill, Products};
