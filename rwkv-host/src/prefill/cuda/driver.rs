//! What the executor needs of a driver: memory of the device, and kernels that run there in order.

#![cfg_attr(
    not(any(feature = "cuda", feature = "cuda-emulation")),
    allow(dead_code, reason = "this build has no driver")
)]
#![allow(unsafe_code)]

use super::CudaError;

/// A device, or what stands for one. Everything happens in the order in which it is asked for.
///
/// # Safety
/// [`Driver::address`] is that of memory which [`Driver::launch`] reaches, of as many words as were
/// asked for, that lives as long as the buffer: kernels read and write there without looking.
pub unsafe trait Driver {
    /// Words of the device's memory, given back when dropped.
    type Buffer;

    /// What people call the device.
    fn name(&self) -> String;

    /// Takes memory; its content is undefined.
    ///
    /// # Errors
    /// [`CudaError::Memory`].
    fn allocate(&self, words: usize) -> Result<Self::Buffer, CudaError>;

    /// Where a buffer begins, in the device's addresses.
    fn address(&self, buffer: &Self::Buffer) -> u64;

    /// Fills the first `words` words with zeros.
    ///
    /// # Errors
    /// [`CudaError::Driver`]; [`CudaError::Internal`] if the buffer is shorter.
    fn clear(&self, buffer: &Self::Buffer, words: usize) -> Result<(), CudaError>;

    /// Copies words to the device, from word `at` of the buffer on.
    ///
    /// # Errors
    /// As [`Driver::clear`].
    fn upload(&self, words: &[u32], buffer: &Self::Buffer, at: usize) -> Result<(), CudaError>;

    /// Waits for all that was asked for, and copies words from the device.
    ///
    /// # Errors
    /// As [`Driver::clear`], and whatever went wrong in a kernel before.
    fn download(
        &self,
        buffer: &Self::Buffer,
        at: usize,
        words: &mut [u32],
    ) -> Result<(), CudaError>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError>;
}

// SAFETY: it is the same device.
unsafe impl<D: Driver> Driver for &D {
    type Buffer = D::Buffer;

    fn name(&self) -> String {
        (**self).name()
    }

    fn allocate(&self, words: usize) -> Result<Self::Buffer, CudaError> {
        (**self).allocate(words)
    }

    fn address(&self, buffer: &Self::Buffer) -> u64 {
        (**self).address(buffer)
    }

    fn clear(&self, buffer: &Self::Buffer, words: usize) -> Result<(), CudaError> {
        (**self).clear(buffer, words)
    }

    fn upload(&self, words: &[u32], buffer: &Self::Buffer, at: usize) -> Result<(), CudaError> {
        (**self).upload(words, buffer, at)
    }

    fn download(
        &self,
        buffer: &Self::Buffer,
        at: usize,
        words: &mut [u32],
    ) -> Result<(), CudaError> {
        (**self).download(buffer, at, words)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        (**self).launch(launch)
    }
}

/// A kernel and what it works on. Only the executor makes them, and it answers for every address
/// that it makes of [`Driver::address`]: what a kernel reads and writes from there on lies in one
/// buffer.
#[derive(Debug)]
pub struct Launch<'a> {
    pub(super) kernel: &'static str,
    /// Columns and rows of blocks.
    pub(super) grid: [u32; 2],
    /// Threads of a block.
    pub(super) threads: u32,
    pub(super) arguments: &'a [Argument],
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    /// An address of the device; 0 is none.
    Address(u64),
    /// An unsigned number.
    Word(u32),
    /// A number in binary32.
    Float(f32),
}

impl Argument {
    /// As a kernel reads it, at the front of a little-endian word.
    pub(super) fn word(&self) -> u64 {
        match *self {
            Self::Address(address) => address,
            Self::Word(word) => word.into(),
            Self::Float(x) => x.to_bits().into(),
        }
    }
}
