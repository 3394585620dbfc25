//! What the host computes for comparison.

use rwkv_core::{
    Digest, Error, Image, Model,
    sampler::{Banned, Sampler, SamplerError},
    stream::InPlace,
};
use rwkv_embedded::agent::protocol::SamplerSettings;

use crate::{
    memory::Memory,
    prefill::{Runner, cuda::CudaError},
};

/// What a device ought to compute.
pub trait Reference {
    /// Back to where the image begins.
    fn reset(&mut self);

    /// Goes on from a state, in the order of `StateView::words`.
    ///
    /// # Errors
    /// [`Error::StateSize`].
    fn restore(&mut self, words: &[f32]) -> Result<(), Error>;

    /// Reads `tokens` and returns the digest that each leads to.
    ///
    /// # Errors
    /// As [`Model::step`], or as [`Runner::digests`].
    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<Digest>, CudaError>;

    /// Chooses the token to follow the last one.
    ///
    /// # Errors
    /// If nothing was read, or the sampler's settings leave nothing to choose.
    fn choose(&mut self) -> Result<u32, SamplerError>;

    /// Who computes it, to look for what is wrong; `None` where it is only on record.
    fn computing(&mut self) -> Option<&mut dyn Computing>;
}

/// A way to compute what a device ought to.
pub trait Computing: Reference {
    /// The image.
    fn image(&self) -> &Image<'_>;

    /// The state after the last token, in the order of `StateView::words`.
    ///
    /// # Errors
    /// [`Error::BrokenState`].
    fn state(&mut self) -> Result<Vec<f32>, Error>;
}

/// How the host computes.
#[derive(Debug)]
enum Way<'a> {
    Parallel(Runner<'a>),
    Stepwise,
}

/// The host's processor or its GPU, with a state and a sampler of its own.
#[derive(Debug)]
pub struct Host<'a> {
    image: &'a Image<'a>,
    way: Way<'a>,
    memory: Memory,
    sampler: Sampler,
    start: Sampler,
    /// In ascending order, as `new` has seen.
    banned: Vec<u32>,
}

impl<'a> Host<'a> {
    /// By parallel prefill on the processor.
    ///
    /// # Errors
    /// If the sampler's settings are out of range.
    pub fn parallel(
        image: &'a Image<'a>,
        sampler: impl Into<SamplerSettings>,
    ) -> Result<Self, SamplerError> {
        Self::on(Runner::Cpu(image), image, sampler)
    }

    /// By parallel prefill wherever the image runs.
    ///
    /// # Errors
    /// If the sampler's settings are out of range.
    pub fn on(
        runner: Runner<'a>,
        image: &'a Image<'a>,
        sampler: impl Into<SamplerSettings>,
    ) -> Result<Self, SamplerError> {
        Self::new(image, sampler.into(), Way::Parallel(runner))
    }

    /// One token after the other, as a device does it.
    ///
    /// # Errors
    /// If the sampler's settings are out of range.
    pub fn stepwise(
        image: &'a Image<'a>,
        sampler: impl Into<SamplerSettings>,
    ) -> Result<Self, SamplerError> {
        Self::new(image, sampler.into(), Way::Stepwise)
    }

    fn new(
        image: &'a Image<'a>,
        settings: SamplerSettings,
        way: Way<'a>,
    ) -> Result<Self, SamplerError> {
        Banned::new(&settings.banned)?;
        let start = Sampler::new(settings.config)?;
        let (memory, sampler, banned) =
            (Memory::new(image), start.clone(), settings.banned.to_vec());
        Ok(Self { image, way, memory, sampler, start, banned })
    }

    fn step(&mut self, tokens: &[u32]) -> Result<Vec<Digest>, Error> {
        let header = self.image.header();
        let (mut state, scratch) = self.memory.split(self.image)?;
        let mut model = Model::new(*header, InPlace::new(self.image.words()), scratch)?;
        let (sampler, banned) = (&mut self.sampler, Banned::new(&self.banned).ok());
        let mut step = |&token: &u32| {
            let mut logits = Digest::default();
            sampler.begin();
            model.step(state.reborrow(), token, (&mut logits, sampler.within(banned)))?;
            Digest::token(header, &state, logits)
        };
        tokens.iter().map(&mut step).collect()
    }
}

impl Computing for Host<'_> {
    fn image(&self) -> &Image<'_> {
        self.image
    }

    fn state(&mut self) -> Result<Vec<f32>, Error> {
        let state = self.memory.state(self.image)?;
        state.check(self.image.header())?;
        Ok(state.words().concat())
    }
}

impl Reference for Host<'_> {
    fn reset(&mut self) {
        self.memory.reset(self.image);
        self.sampler.clone_from(&self.start);
    }

    fn restore(&mut self, words: &[f32]) -> Result<(), Error> {
        self.memory.state(self.image)?.restore(words.iter().copied())
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<Digest>, CudaError> {
        let Way::Parallel(runner) = &self.way else { return Ok(self.step(tokens)?) };
        self.sampler.begin();
        let last = self.sampler.within(Banned::new(&self.banned).ok());
        runner.digests(self.memory.state(self.image)?, tokens, &mut [last])
    }

    fn choose(&mut self) -> Result<u32, SamplerError> {
        self.sampler.finish()
    }

    fn computing(&mut self) -> Option<&mut dyn Computing> {
        Some(self)
    }
}
