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

// SAFETY: a buffer is a box of so many words, and kernels run in this process.
unsafe impl Driver for Emulated {
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
        let mut values: Vec<u64> = launch.arguments.iter().map(Argument::word).collect();
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

/// Which kind it is, as `emulate.cpp` counts them.
fn kind(argument: &Argument) -> u32 {
    match argument {
        Address(_) => 0,
        Word(_) => 1,
        Float(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use rwkv_core::math;

    use super::*;

    const FORWARD: Emulated = Emulated { generation: Generation::Ampere, backward: false };
    const BACKWARD: Emulated = Emulated { backward: true, ..FORWARD };

    /// Runs a kernel that takes an address last, and returns what it wrote there.
    fn run(
        device: Emulated,
        kernel: &'static str,
        threads: u32,
        arguments: &[Argument],
    ) -> Result<Vec<u32>, CudaError> {
        let out = device.allocate(64)?;
        let arguments = [arguments, &[Address(device.address(&out))]].concat();
        device.launch(&Launch { kernel, grid: [1, 1], threads, arguments: &arguments })?;
        let mut words = vec![0; 64];
        device.download(&out, 0, &mut words)?;
        Ok(words)
    }

    #[test]
    fn a_missing_barrier_shows_in_the_other_direction() {
        let found =
            [FORWARD, BACKWARD].map(|device| run(device, "mistake_missing_barrier", 64, &[]));
        assert!(found[0].is_ok() && found[1].is_ok());
        assert_ne!(found[0], found[1]);
    }

    #[test]
    fn threads_that_wait_for_ever_are_reported() {
        for kernel in ["mistake_barrier_for_some", "mistake_shuffle_for_some"] {
            for device in [FORWARD, BACKWARD] {
                let error = run(device, kernel, 64, &[]).unwrap_err().to_string();
                assert!(error.contains(kernel) && error.contains("for ever"), "{error}");
                // And the next kernel runs.
                run(device, "mistake_missing_barrier", 64, &[]).unwrap();
            }
        }
    }

    #[test]
    fn a_wrong_launch_is_refused() {
        let kernel = "mistake_missing_barrier";
        for (name, threads, arguments, said) in [
            ("no_such_kernel", 64, &[][..], "no such kernel"),
            (kernel, 64, &[Word(0)], "other arguments"),
            ("check_finite", 64, &[Address(0), Word(0), Float(0.0), Word(0)], "other arguments"),
            (kernel, 512, &[], "number of threads"),
            (kernel, 48, &[], "number of threads"),
        ] {
            let error = run(FORWARD, name, threads, arguments).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    /// Applies a function of `scalar_functions` to bit patterns.
    fn function(index: u32, inputs: &[u32]) -> Vec<u32> {
        let len = inputs.len();
        let [from, to] = [(); 2].map(|()| FORWARD.allocate(len).unwrap());
        FORWARD.upload(inputs, &from, 0).unwrap();
        let places = [&from, &to].map(|buffer| Address(FORWARD.address(buffer)));
        let arguments = [Word(index), places[0], places[1], Word(len as u32)];
        let grid = [len.div_ceil(256) as u32, 1];
        let launch =
            Launch { kernel: "scalar_functions", grid, threads: 256, arguments: &arguments };
        FORWARD.launch(&launch).unwrap();
        let mut outputs = vec![0; len];
        FORWARD.download(&to, 0, &mut outputs).unwrap();
        outputs
    }

    fn same(a: u32, b: f32) -> bool {
        a == b.to_bits() || (f32::from_bits(a).is_nan() && b.is_nan())
    }

    #[test]
    fn scalar_functions_have_the_bits_of_the_core() {
        type Function = fn(f32) -> f32;
        let functions: [(&str, Function); 7] = [
            ("exp", math::exp),
            ("ln", math::ln),
            ("tanh", math::tanh),
            ("sigmoid", math::sigmoid),
            ("softplus", math::softplus),
            ("sqrt", math::sqrt),
            ("rsqrt", math::rsqrt),
        ];
        // A prime, so that all mantissas and exponents mix.
        let inputs: Vec<u32> = (0..=u32::MAX).step_by(4099).collect();
        for (index, (name, f)) in (0..).zip(functions) {
            for (x, y) in inputs.iter().zip(function(index, &inputs)) {
                let (x, y) = (f32::from_bits(*x), y);
                assert!(same(y, f(x)), "{name}({x:e}) = {:e}, not {:e}", f32::from_bits(y), f(x));
            }
        }
    }

    #[test]
    fn halves_are_widened_exactly() {
        let inputs: Vec<u32> = (0..0x1_0000).collect();
        for (half, x) in inputs.iter().zip(function(7, &inputs)) {
            assert!(same(x, f16::from_bits(*half as u16).to_f32()), "{half:04x}");
        }
    }
}
