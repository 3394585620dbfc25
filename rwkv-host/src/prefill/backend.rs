//! Where a prompt runs: on this machine's processor, or on a GPU. The bits are the same.

use rwkv_core::{Digest, Image, Logits, StateView, kernel::native};

#[cfg(feature = "cuda")]
use super::cuda::{Options, Prefill, device::Device};
use super::{cuda::CudaError, digests_with, prefill};

/// Where a prompt is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Backend {
    /// This machine's processor
    #[default]
    Cpu,
    /// The first NVIDIA GPU
    Cuda,
    /// The GPU if there is one that can, else the processor
    Auto,
}

/// An image where it runs.
#[derive(Debug)]
pub enum Runner<'a> {
    /// On the processor.
    Cpu(&'a Image<'a>),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(Box<Prefill<'a, Device>>),
}

impl Backend {
    /// Brings an image there. Where the choice is not the caller's, the second value says in a
    /// sentence what was chosen, and why.
    ///
    /// # Errors
    /// What is missing for the GPU, if it was asked for by name.
    pub fn open<'a>(self, image: &'a Image<'a>) -> Result<(Runner<'a>, Option<String>), CudaError> {
        match self {
            Self::Cpu => Ok((Runner::Cpu(image), None)),
            Self::Cuda => Ok((gpu(image)?, None)),
            Self::Auto => Ok(match gpu(image) {
                Ok(runner) => {
                    let note = format!("the prompt runs on {runner}");
                    (runner, Some(note))
                }
                Err(error) => {
                    (Runner::Cpu(image), Some(format!("the prompt runs on the CPU: {error}")))
                }
            }),
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu<'a>(image: &'a Image<'a>) -> Result<Runner<'a>, CudaError> {
    let prefill = Prefill::new(Device::open()?, image, Options::default())?;
    Ok(Runner::Cuda(Box::new(prefill)))
}

#[cfg(not(feature = "cuda"))]
fn gpu<'a>(_: &'a Image<'a>) -> Result<Runner<'a>, CudaError> {
    Err(CudaError::NotBuilt)
}

impl std::fmt::Display for Runner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu(_) => f.write_str("the CPU"),
            #[cfg(feature = "cuda")]
            Self::Cuda(on) => {
                use super::cuda::Driver;
                write!(f, "{} ({})", on.driver().name(), on.driver().origin())
            }
        }
    }
}

impl Runner<'_> {
    /// Runs a prompt: see [`prefill`].
    ///
    /// # Errors
    /// As there, and the driver's.
    pub fn prefill<L: Logits + Send>(
        &self,
        state: StateView<'_>,
        tokens: &[u32],
        logits: &mut [L],
    ) -> Result<(), CudaError> {
        match self {
            Self::Cpu(image) => Ok(prefill(image, state, tokens, logits)?),
            #[cfg(feature = "cuda")]
            Self::Cuda(on) => on.prefill(state, tokens, logits),
        }
    }

    /// As [`Runner::prefill`], and returns the digest of every token.
    ///
    /// # Errors
    /// As there.
    pub fn digests<L: Logits + Send>(
        &self,
        state: StateView<'_>,
        tokens: &[u32],
        logits: &mut [L],
    ) -> Result<Vec<Digest>, CudaError> {
        match self {
            Self::Cpu(image) => {
                let mut sinks: Vec<_> = tokens.iter().map(|_| (Digest::default(), None)).collect();
                for ((_, sink), last) in sinks.iter_mut().rev().zip(logits.iter_mut().rev()) {
                    *sink = Some(last);
                }
                Ok(digests_with(native(), image, state, tokens, &mut sinks, |sink| sink.0)?)
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(on) => on.digests(state, tokens, logits),
        }
    }
}
