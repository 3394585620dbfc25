//! A model on a device, and prompts that it runs there.

use rwkv_core::{
    Digest, Error, Image, Logits, StateView, exec,
    image::{Dims, GROUP, MathMode},
    model, poll,
};

use super::{CudaError, Driver, sequence::Sequence};

/// Heads that are wider than this have no kernel: their channels are the threads of a block.
const WIDEST_HEAD: u32 = 1024;

/// With which instructions integers are multiplied. Both give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// The matrix instruction of a warp.
    Tensor,
    /// Dot products of four bytes.
    Dot4,
}

/// How a prompt is run; the bits do not depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Tokens that run at once: bounds the scratch of a long prompt.
    pub piece: usize,
    /// Tokens whose logits are computed at once: bounds the memory that they take.
    pub slab: usize,
    /// How integers are multiplied.
    pub products: Products,
}

impl Default for Options {
    fn default() -> Self {
        Self { piece: 1024, slab: 256, products: Products::Tensor }
    }
}

/// A model on a device: its image is there, and memory for a piece of a prompt.
#[derive(Debug)]
pub struct Prefill<'a, D: Driver> {
    pub(super) driver: D,
    pub(super) image: &'a Image<'a>,
    pub(super) options: Options,
    pub(super) memory: Memory<D::Buffer>,
}

/// The device's memory. A sequence has as much of it as the most tokens of a piece need.
#[derive(Debug)]
pub(super) struct Memory<B> {
    /// The image, word by word.
    pub(super) image: B,
    /// The state, in the order of [`StateView::words`].
    pub(super) state: B,
    pub(super) tokens: B,
    /// The scratch of each token.
    pub(super) scratch: B,
    /// Bytes of quantised inputs: a plane of low bytes, and one of high bytes.
    pub(super) inputs: B,
    /// The scale of each token's input.
    pub(super) scales: B,
    /// Logits of the tokens of a slab.
    pub(super) logits: B,
    /// Digests of the state after each token, layer by layer.
    pub(super) states: B,
    /// Digests of each token's logits.
    pub(super) logits_digests: B,
    /// Digests of each token.
    pub(super) digests: B,
    /// A word that is not 0 once a value was infinite or not a number.
    pub(super) failed: B,
}

/// Words of a quantised input of the longest vector that a model multiplies, one plane of them.
fn input_words(dims: &Dims) -> usize {
    let ranks = dims.ranks.iter().chain([&dims.deep_rank]).map(|rank| u32::from(*rank));
    let longest = ranks.chain([dims.dim, dims.ffn]).max().unwrap_or(0) as usize;
    longest.div_ceil(GROUP) * (GROUP / 4)
}

impl<'a, D: Driver> Prefill<'a, D> {
    /// Brings an image to the device.
    ///
    /// # Errors
    /// [`CudaError::Memory`], [`CudaError::MathMode`], [`CudaError::HeadSize`], and the driver's.
    pub fn new(driver: D, image: &'a Image<'a>, options: Options) -> Result<Self, CudaError> {
        let header = image.header();
        let dims = header.dims;
        if header.math != MathMode::Exact {
            return Err(CudaError::MathMode);
        }
        if dims.head_size > WIDEST_HEAD {
            return Err(CudaError::HeadSize(dims.head_size));
        }
        // A row of blocks per token, of which a grid has no more.
        let piece = options.piece.clamp(1, 32_768);
        let slab = options.slab.clamp(1, piece);
        let options = Options { piece, slab, ..options };
        let words = |n| driver.allocate(n);
        let memory = Memory {
            image: words(image.words().len())?,
            state: words(header.state_words())?,
            tokens: words(piece)?,
            scratch: words(piece * header.scratch_words as usize)?,
            inputs: words(2 * piece * input_words(&dims))?,
            scales: words(piece)?,
            logits: words(slab * dims.vocab as usize)?,
            states: words(2 * piece * dims.layers as usize)?,
            logits_digests: words(2 * piece)?,
            digests: words(2 * piece)?,
            failed: words(1)?,
        };
        driver.upload(image.words(), &memory.image, 0)?;
        Ok(Self { driver, image, options, memory })
    }

    /// The device.
    pub const fn driver(&self) -> &D {
        &self.driver
    }

    /// Runs a prompt: the state moves on by all tokens, with the bits of as many steps.
    ///
    /// `logits` are sinks for the last tokens, one each; none are needed.
    ///
    /// # Errors
    /// As [`crate::prefill::prefill`], and the driver's.
    pub fn prefill<L: Logits>(
        &self,
        state: StateView<'_>,
        tokens: &[u32],
        logits: &mut [L],
    ) -> Result<(), CudaError> {
        self.run(state, tokens, logits, None)
    }

    /// As [`Prefill::prefill`], and returns the digest of every token as a device reports it.
    ///
    /// # Errors
    /// As [`Prefill::prefill`].
    pub fn digests<L: Logits>(
        &self,
        state: StateView<'_>,
        tokens: &[u32],
        logits: &mut [L],
    ) -> Result<Vec<Digest>, CudaError> {
        let mut digests = Vec::with_capacity(tokens.len());
        self.run(state, tokens, logits, Some(&mut digests))?;
        Ok(digests)
    }

    fn run<L: Logits>(
        &self,
        mut state: StateView<'_>,
        tokens: &[u32],
        logits: &mut [L],
        mut digests: Option<&mut Vec<Digest>>,
    ) -> Result<(), CudaError> {
        let header = self.image.header();
        exec::check(header, &state, tokens, logits)?;
        state.set_broken(true);
        let [shift, recurrent] = state.words();
        self.driver.upload(bytemuck::cast_slice(shift), &self.memory.state, 0)?;
        self.driver.upload(bytemuck::cast_slice(recurrent), &self.memory.state, shift.len())?;
        self.driver.clear(&self.memory.failed, 1)?;

        let mut silent = tokens.len().saturating_sub(logits.len());
        let mut logits = logits;
        for piece in tokens.chunks(self.options.piece) {
            let before = silent.min(piece.len());
            silent -= before;
            let (now, later) = logits.split_at_mut((piece.len() - before).min(logits.len()));
            logits = later;
            let mut sequence = Sequence::new(self, piece, now, digests.is_some())?;
            // Nothing ever waits, so one poll completes it.
            poll::once(model::token(header.version, &mut sequence))
                .unwrap_or(Err(CudaError::Internal))?;
            sequence.finish(digests.as_deref_mut())?;
        }

        let [shift, recurrent] = state.words_mut();
        let shift_words = shift.len();
        self.driver.download(&self.memory.state, 0, bytemuck::cast_slice_mut(shift))?;
        let recurrent = bytemuck::cast_slice_mut(recurrent);
        self.driver.download(&self.memory.state, shift_words, recurrent)?;
        state.set_broken(false);
        Ok(())
    }

    /// Refuses what a kernel has found to be infinite or not a number.
    pub(super) fn check(&self) -> Result<(), CudaError> {
        let mut failed = [0];
        self.driver.download(&self.memory.failed, 0, &mut failed)?;
        if failed == [0] { Ok(()) } else { Err(Error::NonFinite.into()) }
    }
}
