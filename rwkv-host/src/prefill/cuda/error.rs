//! What can go wrong with a device.

use rwkv_core::Error;

/// Why a prompt was not run on a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// What a step refuses as well.
    #[error(transparent)]
    Model(#[from] Error),
    /// There is no driver on this machine.
    #[error(
        "there is no CUDA driver here (libcuda could not be loaded): install NVIDIA's driver, or use --backend cpu"
    )]
    NoDriver,
    /// The driver has no device for this program.
    #[error(
        "the CUDA driver has no device: nvidia-smi lists what it has, and CUDA_VISIBLE_DEVICES what programs may use; or use --backend cpu"
    )]
    NoDevice,
    /// The device is older than the kernels.
    #[error(
        "{name} has compute capability {major}.{minor}; the kernels need 7.5 (Turing) or newer: use --backend cpu"
    )]
    OldDevice {
        /// What people call it.
        name: String,
        /// Its compute capability before the point.
        major: i32,
        /// And after it.
        minor: i32,
    },
    /// This build has no driver.
    #[error("this build of rwkv has no CUDA: build it with --features cuda, or use --backend cpu")]
    NotBuilt,
    /// There is too little memory on the device.
    #[error(
        "the device has no room for {bytes} bytes more: use a smaller model or --backend cpu ({reason})"
    )]
    Memory {
        /// What was asked for.
        bytes: u64,
        /// What the driver said.
        reason: String,
    },
    /// The driver refused.
    #[error("{what} failed: {reason}")]
    Driver {
        /// What was tried.
        what: String,
        /// What the driver said.
        reason: String,
    },
    /// The image's gates are computed with micromath, for which there are no kernels.
    #[error("the image has the math mode micromath, which only the CPU has: use --backend cpu")]
    MathMode,
    /// A head is wider than a block of threads.
    #[error("heads of {0} channels are too wide for the kernels, whose most is 1024")]
    HeadSize(u32),
    /// The executor asked for something senseless.
    #[error("a kernel was asked for what is not there")]
    Internal,
}

impl From<rwkv_core::ImageError> for CudaError {
    fn from(error: rwkv_core::ImageError) -> Self {
        Self::Model(error.into())
    }
}
