//! The kernels on the CPU, compiled from the same source: see `kernels/emulate.cpp`.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_void};

use super::{
    CudaError, Driver, Launch,
    driver::Argument::{self, Address, Float, Word},
};

/// Runs a kernel: see `kernels/emulate.cpp`.
type Run = unsafe extern "C" fn(
    name: *const c_char,
    columns: u32,
    rows: u32,
    threads: u32,
    backward: bool,
    arguments: *mut *mut c_void,
    kinds: *const u32,
    count: u32,
) -> c_int;

unsafe extern "C" {
    fn rwkv_emulate_750(
        name: *const c_char,
        columns: u32,
        rows: u32,
        threads: u32,
        backward: bool,
        arguments: *mut *mut c_void,
        kinds: *const u32,
        count: u32,
    ) -> c_int;
    fn rwkv_emulate_800(
        name: *const c_char,
        columns: u32,
        rows: u32,
        threads: u32,
        backward: bool,
        arguments: *mut *mut c_void,
        kinds: *const u32,
        count: u32,
    ) -> c_int;
}

/// For which devices the kernels are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Compute capability 7.5: products of 8 by 8 by 16.
    Turing,
    /// From compute capability 8.0 on: products of 16 by 8 by 32.
    Ampere,
}

/// A device that is not there.
#[derive(Debug, Clone, Copy)]
pub struct Emulated {
    /// What it would be.
    pub generation: Generation,
    /// Whether the threads of a block take turns from the last one on. Results must not depend on
    /// it.
    pub backward: bool,
}

/// Memory that kernels write through addresses.
#[derive(Debug)]
pub struct Buffer {
    words: *mut u32,
    len: usize,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: it came from a box of this length, and nothing else frees it.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(self.words, self.len)) });
    }
}

impl Buffer {
    /// A part of it.
    fn part(&self, at: usize, len: usize) -> Result<*mut u32, CudaError> {
        let end = at.checked_add(len).ok_or(CudaError::Internal)?;
        if end > self.len {
            return Err(CudaError::Internal);
        }
        Ok(self.words.wrapping_add(at))
    }
}

impl Driver for Emulated {
    type Buffer = Buffer;

    fn name(&self) -> String {
        "a device that is emulated".to_owned()
    }

    fn allocate(&self, words: usize) -> Result<Buffer, CudaError> {
        // Not zeros, so that a kernel which counts on them is noticed.
        let memory = vec![0x7fba_d000u32; words].into_boxed_slice();
        Ok(Buffer { words: Box::into_raw(memory).cast(), len: words })
    }

    fn address(&self, buffer: &Buffer) -> u64 {
        buffer.words as u64
    }

    fn clear(&self, buffer: &Buffer, words: usize) -> Result<(), CudaError> {
        let to = buffer.part(0, words)?;
        // SAFETY: the words are the buffer's, and no kernel runs meanwhile.
        unsafe { to.write_bytes(0, words) };
        Ok(())
    }

    fn upload(&self, words: &[u32], buffer: &Buffer, at: usize) -> Result<(), CudaError> {
        let to = buffer.part(at, words.len())?;
        // SAFETY: the words are the buffer's, and no kernel runs meanwhile.
        unsafe { to.copy_from_nonoverlapping(words.as_ptr(), words.len()) };
        Ok(())
    }

    fn download(&self, buffer: &Buffer, at: usize, words: &mut [u32]) -> Result<(), CudaError> {
        let from = buffer.part(at, words.len())?;
        // SAFETY: the words are the buffer's, and no kernel runs meanwhile.
        unsafe { from.copy_to_nonoverlapping(words.as_mut_ptr(), words.len()) };
        Ok(())
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let failed = |reason: &str| CudaError::Driver {
            what: format!("the emulation of {}", launch.kernel),
            reason: reason.to_owned(),
        };
        let name = CString::new(launch.kernel).map_err(|_| CudaError::Internal)?;
        let mut values: Vec<u64> = launch.arguments.iter().map(word).collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let kinds: Vec<u32> = launch.arguments.iter().map(kind).collect();
        let run: Run = match self.generation {
            Generation::Turing => rwkv_emulate_750,
            Generation::Ampere => rwkv_emulate_800,
        };
        let ([columns, rows], threads) = (launch.grid, launch.threads);
        // SAFETY: the name ends in a zero. Number and kinds of the arguments are compared with what
        // the kernel takes, and each is a little-endian word of eight bytes. The executor answers
        // for the addresses; see `Launch`.
        let end = unsafe {
            run(
                name.as_ptr(),
                columns,
                rows,
                threads,
                self.backward,
                pointers.as_mut_ptr(),
                kinds.as_ptr(),
                kinds.len() as u32,
            )
        };
        match end {
            0 => Ok(()),
            1 => Err(failed("there is no such kernel")),
            2 => Err(failed("it takes other arguments")),
            3 => Err(failed("it takes another number of threads")),
            4 => Err(failed("threads wait at a barrier for ever")),
            _ => Err(failed("there is no memory for stacks")),
        }
    }
}

/// An argument as the kernel reads it, at the front of a word.
fn word(argument: &Argument) -> u64 {
    match *argument {
        Address(address) => address,
        Word(word) => word.into(),
        Float(x) => x.to_bits().into(),
    }
}

/// Which kind it is, as `emulate.cpp` counts them.
fn kind(argument: &Argument) -> u32 {
    match argument {
        Address(_) => 0,
        Word(_) => 1,
        Float(_) => 2,
    }
}
