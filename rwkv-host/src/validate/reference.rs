//! What the host computes for comparison.

use rwkv_core::{
    Digest, Error, Image, Model, StateView,
    sampler::{Sampler, SamplerConfig, SamplerError},
    stream::InPlace,
};

use crate::prefill;

/// What a token leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// Digest of the whole state and of all logits.
    pub digest: Digest,
    /// The token that the sampler chose to follow.
    pub next: u32,
}

/// A way to compute what a device ought to.
pub trait Reference {
    /// Bytes of the image.
    fn image_bytes(&self) -> u32;

    /// Back to the state before the first token.
    fn reset(&mut self);

    /// Reads `tokens` and says what each leads to.
    ///
    /// # Errors
    /// As [`Model::step`].
    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<Outcome>, Error>;
}

/// State in memory of its own.
struct Memory {
    words: Vec<f32>,
    broken: bool,
}

impl Memory {
    fn new(image: &Image<'_>) -> Self {
        let mut memory = Self { words: vec![0.0; image.header().state_words()], broken: false };
        memory.reset(image);
        memory
    }

    fn reset(&mut self, image: &Image<'_>) {
        if let Ok(mut view) = self.view(image) {
            view.reset(image.header());
        }
    }

    fn view(&mut self, image: &Image<'_>) -> Result<StateView<'_>, Error> {
        StateView::over(image.header(), &mut self.words, &mut self.broken)
    }
}

/// Logits are digested, and the largest is found, as they appear.
type Sink = (Digest, Sampler);

fn sink(sampler: &Sampler) -> Sink {
    let mut sampler = sampler.clone();
    sampler.begin();
    (Digest::default(), sampler)
}

/// The host's parallel prefill: what a product's ready state is made with.
pub struct Parallel<'a> {
    image: &'a Image<'a>,
    memory: Memory,
    sampler: Sampler,
    start: Sampler,
}

impl<'a> Parallel<'a> {
    /// A reference before its first token.
    ///
    /// # Errors
    /// If the sampler's settings are out of range.
    pub fn new(image: &'a Image<'a>, config: SamplerConfig) -> Result<Self, SamplerError> {
        let start = Sampler::new(config)?;
        Ok(Self { image, memory: Memory::new(image), sampler: start.clone(), start })
    }
}

impl Reference for Parallel<'_> {
    fn image_bytes(&self) -> u32 {
        self.image.header().bytes()
    }

    fn reset(&mut self) {
        self.memory.reset(self.image);
        self.sampler.clone_from(&self.start);
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<Outcome>, Error> {
        let mut sinks: Vec<Sink> = tokens.iter().map(|_| sink(&self.sampler)).collect();
        let state = self.memory.view(self.image)?;
        let digests = prefill::digests_with(self.image, state, tokens, &mut sinks, |s| s.0)?;
        let rows = digests.into_iter().zip(sinks);
        rows.map(|(digest, (_, mut row))| {
            row.follow(&self.sampler);
            let next = row.finish().map_err(|_| Error::NonFinite)?;
            self.sampler = row;
            Ok(Outcome { digest, next })
        })
        .collect()
    }
}

/// One token after the other, as a device does it.
pub struct Stepwise<'a> {
    image: &'a Image<'a>,
    memory: Memory,
    scratch: Vec<f32>,
    sampler: Sampler,
    start: Sampler,
}

impl<'a> Stepwise<'a> {
    /// A reference before its first token.
    ///
    /// # Errors
    /// If the sampler's settings are out of range.
    pub fn new(image: &'a Image<'a>, config: SamplerConfig) -> Result<Self, SamplerError> {
        let start = Sampler::new(config)?;
        let scratch = vec![0.0; image.header().scratch_words as usize];
        Ok(Self { image, memory: Memory::new(image), scratch, sampler: start.clone(), start })
    }
}

impl Reference for Stepwise<'_> {
    fn image_bytes(&self) -> u32 {
        self.image.header().bytes()
    }

    fn reset(&mut self) {
        self.memory.reset(self.image);
        self.sampler.clone_from(&self.start);
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<Outcome>, Error> {
        let header = self.image.header();
        let stream = InPlace::new(self.image.words());
        let mut model: Model<'_, _> = Model::new(*header, stream, &mut self.scratch)?;
        let mut state = self.memory.view(self.image)?;
        let sampler = &mut self.sampler;
        let mut step = |&token: &u32| {
            let mut logits = Digest::default();
            sampler.begin();
            model.step(state.reborrow(), token, (&mut logits, &mut *sampler))?;
            let digest = Digest::token(header, &state, logits)?;
            let next = sampler.finish().map_err(|_| Error::NonFinite)?;
            Ok(Outcome { digest, next })
        };
        tokens.iter().map(&mut step).collect()
    }
}
