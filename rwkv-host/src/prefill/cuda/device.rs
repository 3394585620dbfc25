//! NVIDIA's driver, loaded when it is asked for.

#![allow(unsafe_code)]

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::{CString, c_void},
    ptr,
    rc::Rc,
};

use cudarc::driver::{
    DriverError, result,
    sys::{self, CUcontext, CUdevice, CUdevice_attribute, CUfunction, CUmodule},
};

use super::{CudaError, Driver, Launch, compile, driver::Argument};

/// A device. What is asked of it happens in one order, that of the default stream.
#[derive(Debug)]
pub struct Device {
    context: Rc<Context>,
    functions: RefCell<HashMap<&'static str, CUfunction>>,
    name: String,
    origin: String,
}

/// The device's primary context, and the kernels in it.
#[derive(Debug)]
struct Context {
    device: CUdevice,
    context: CUcontext,
    module: CUmodule,
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: buffers keep the context, so nothing of it is used afterwards. A module that
        // could not be loaded is null.
        unsafe {
            if !self.module.is_null() {
                let _ = result::module::unload(self.module);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

/// Memory of the device.
#[derive(Debug)]
pub struct Buffer {
    address: sys::CUdeviceptr,
    words: usize,
    context: Rc<Context>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the driver gave it, and waits for kernels that use it.
        let _ = unsafe { self.context.enter().and_then(|()| result::free_sync(self.address)) };
    }
}

impl Context {
    /// Makes the context that of this thread.
    fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: it was retained, and is released only when this value is dropped.
        unsafe { result::ctx::set_current(self.context) }
    }
}

fn failed(what: &str) -> impl Fn(DriverError) -> CudaError {
    let what = what.to_owned();
    move |error| {
        let reason = format!("{error}; nvidia-smi shows how the GPU is, --backend cpu needs none");
        CudaError::Driver { what: what.clone(), reason }
    }
}

impl Device {
    /// Opens the first device.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::NoDevice`], [`CudaError::OldDevice`], or the driver's.
    pub fn open() -> Result<Self, CudaError> {
        // SAFETY: loading NVIDIA's library runs nothing but its initialisers. Nothing else of
        // cudarc may be called without it: that panics.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        match result::init() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => {
                return Err(CudaError::NoDevice);
            }
            other => other.map_err(failed("starting the CUDA driver"))?,
        }
        if result::device::get_count().map_err(failed("counting devices"))? == 0 {
            return Err(CudaError::NoDevice);
        }
        let device = result::device::get(0).map_err(failed("opening the first device"))?;
        let name = result::device::get_name(device).map_err(failed("naming the device"))?;
        let attribute = |attribute| {
            // SAFETY: the driver gave the device.
            unsafe { result::device::get_attribute(device, attribute) }
                .map_err(failed("asking for the compute capability"))
        };
        let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if (major, minor) < (7, 5) {
            return Err(CudaError::OldDevice { name, major, minor });
        }
        // SAFETY: the driver gave the device.
        let context = unsafe { result::primary_ctx::retain(device) }
            .map_err(failed("taking the device's context"))?;
        let mut context = Context { device, context, module: ptr::null_mut() };
        context.enter().map_err(failed("entering the device's context"))?;
        let (module, origin) = load(10 * major + minor)?;
        context.module = module;
        let (context, functions) = (Rc::new(context), RefCell::default());
        Ok(Self { context, functions, name, origin })
    }

    /// Where the kernels come from, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn function(&self, kernel: &'static str) -> Result<CUfunction, CudaError> {
        if let Some(function) = self.functions.borrow().get(kernel) {
            return Ok(*function);
        }
        let name = CString::new(kernel).map_err(|_| CudaError::Internal)?;
        // SAFETY: the module is loaded as long as the context is.
        let function = unsafe { result::module::get_function(self.context.module, name) }
            .map_err(failed(&format!("finding the kernel {kernel}")))?;
        self.functions.borrow_mut().insert(kernel, function);
        Ok(function)
    }
}

/// Loads the kernels for a compute capability. What was compiled or cached and is refused, by an
/// older driver for one, is replaced by what is built in.
fn load(capability: i32) -> Result<(CUmodule, String), CudaError> {
    let load = |module: &compile::Module| {
        // SAFETY: a cubin, or PTX that ends in a zero; the driver looks at it before it is taken.
        unsafe { result::module::load_data(module.bytes.as_ptr().cast()) }
    };
    let module = compile::module(capability);
    if let Ok(loaded) = load(&module) {
        return Ok((loaded, module.origin));
    }
    let module = compile::embedded("the driver refused those of NVRTC");
    let loaded = load(&module).map_err(failed("loading the kernels"))?;
    Ok((loaded, module.origin))
}

impl Buffer {
    /// The address of a part of it.
    fn part(&self, at: usize, words: usize) -> Result<sys::CUdeviceptr, CudaError> {
        let end = at.checked_add(words).ok_or(CudaError::Internal)?;
        if end > self.words {
            return Err(CudaError::Internal);
        }
        Ok(self.address + 4 * at as u64)
    }
}

// SAFETY: the driver gives as much memory as is asked for, on the device that runs the kernels, and
// keeps it until the buffer gives it back. A `Device` stays in the thread that opened it, whose
// context is its own: it is not `Send`.
unsafe impl Driver for Device {
    type Buffer = Buffer;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn allocate(&self, words: usize) -> Result<Buffer, CudaError> {
        // The driver gives no empty memory.
        let bytes = words.max(1).checked_mul(4).ok_or(CudaError::Internal)?;
        let room = |error: DriverError| CudaError::Memory {
            bytes: bytes as u64,
            reason: error.to_string(),
        };
        self.context.enter().map_err(failed("entering the device's context"))?;
        // SAFETY: kernels and copies write the memory before they read it.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(room)?;
        Ok(Buffer { address, words, context: self.context.clone() })
    }

    fn address(&self, buffer: &Buffer) -> u64 {
        buffer.address
    }

    fn clear(&self, buffer: &Buffer, words: usize) -> Result<(), CudaError> {
        let address = buffer.part(0, words)?;
        // SAFETY: the words are the buffer's, and any bits are a word.
        unsafe { result::memset_d8_sync(address, 0, 4 * words) }
            .map_err(failed("clearing memory of the device"))
    }

    fn upload(&self, words: &[u32], buffer: &Buffer, at: usize) -> Result<(), CudaError> {
        if words.is_empty() {
            return Ok(());
        }
        let address = buffer.part(at, words.len())?;
        // SAFETY: the words are the buffer's, and any bits are a word.
        unsafe { result::memcpy_htod_sync(address, words) }.map_err(failed("copying to the device"))
    }

    fn download(&self, buffer: &Buffer, at: usize, words: &mut [u32]) -> Result<(), CudaError> {
        if words.is_empty() {
            return Ok(());
        }
        let address = buffer.part(at, words.len())?;
        // SAFETY: the words are the buffer's, and any bits are a word.
        unsafe { result::memcpy_dtoh_sync(words, address) }
            .map_err(failed("copying from the device"))
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let function = self.function(launch.kernel)?;
        let mut values: Vec<u64> = launch.arguments.iter().map(Argument::word).collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| ptr::from_mut(value).cast()).collect();
        let [columns, rows] = launch.grid;
        // SAFETY: the emulation compares number and kinds of the arguments of each kernel with what
        // the executor gives it. The driver copies them before it returns. The executor answers for
        // the addresses; see `Launch`.
        unsafe {
            result::launch_kernel(
                function,
                (columns, rows, 1),
                (launch.threads, 1, 1),
                0,
                ptr::null_mut(),
                &mut pointers,
            )
        }
        .map_err(failed(&format!("starting the kernel {}", launch.kernel)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_or_device_says_so() {
        match Device::open() {
            Ok(device) => println!("skipped: there is {}, {}", device.name(), device.origin()),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("--backend cpu"), "{text}");
            }
        }
    }
}
