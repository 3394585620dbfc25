//! State and scratch from a heap: for one firmware that runs whatever image it finds.

use alloc::vec::Vec;
use core::fmt;

use rwkv_core::{
    Error, GenerateError, Generator, Header, Image, StateView,
    sampler::SamplerConfig,
    stream::{InPlace, Stream},
    tokenizer::Tokenizer,
};

/// State and scratch of a model, from the global allocator, in the size that a header asks for. It
/// is the same memory as [`super::Memory`]; nothing else allocates, and no token does.
///
/// ```
/// # use rwkv_core::{Image, sampler::SamplerConfig};
/// # use rwkv_embedded::firmware::HeapMemory;
/// # rwkv_embedded::model!(mod tiny = "tiny.rwkv");
/// # fn demo(flash: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// let image = Image::open_prefix(flash)?;
/// let mut memory = HeapMemory::new(image.header())?;
/// let mut generator = memory.start(&image, SamplerConfig::GREEDY)?;
/// generator.read(b"Once")?;
/// # Ok(())
/// # }
/// # demo(&tiny::IMAGE.0).unwrap();
/// ```
#[derive(Debug)]
pub struct HeapMemory {
    state: Vec<f32>,
    scratch: Vec<f32>,
    /// Whether the words of the state are one.
    ready: bool,
}

rwkv_core::brief!([] HeapMemory, |memory| "HeapMemory({} bytes)", memory.bytes());

impl HeapMemory {
    /// Memory for the model of a header.
    ///
    /// # Errors
    /// [`HeapError`]: then nothing is allocated.
    pub fn new(header: &Header) -> Result<Self, HeapError> {
        let words = header.state_words().saturating_add(header.scratch_words as usize);
        let error = HeapError { bytes: words.saturating_mul(4) };
        let state = zeros(header.state_words()).ok_or(error)?;
        let scratch = zeros(header.scratch_words as usize).ok_or(error)?;
        Ok(Self { state, scratch, ready: false })
    }

    /// Bytes of state and scratch.
    pub const fn bytes(&self) -> usize {
        4 * (self.state.len() + self.scratch.len())
    }

    /// A generator over an image in place, at its start.
    ///
    /// # Errors
    /// See [`super::start`].
    pub fn start<'a>(
        &'a mut self,
        image: &Image<'a>,
        sampler: SamplerConfig,
    ) -> Result<Generator<'a, InPlace<'a>>, GenerateError> {
        let (state, scratch) = self.split(image.header())?;
        super::start(image, state, scratch, sampler)
    }

    /// A generator over a stream, whose state is to be reset or restored first.
    ///
    /// # Errors
    /// As for [`super::Memory::begin`].
    pub fn begin<'a, S: Stream>(
        &'a mut self,
        header: Header,
        stream: S,
        tokenizer: Tokenizer<'a>,
        sampler: SamplerConfig,
    ) -> Result<Generator<'a, S>, GenerateError> {
        let (state, scratch) = self.split(&header)?;
        super::begin(header, stream, (state, scratch), tokenizer, sampler)
    }

    /// State and scratch, for a model of its own making.
    ///
    /// # Errors
    /// [`Error::StateSize`] if the header asks for a larger state than the one that this was made
    /// for.
    pub fn split(&mut self, header: &Header) -> Result<(StateView<'_>, &mut [f32]), Error> {
        let state = StateView::over(header, &mut self.state, &mut self.ready)?;
        Ok((state, &mut self.scratch))
    }
}

fn zeros(words: usize) -> Option<Vec<f32>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(words).ok()?;
    memory.resize(words, 0.0);
    Some(memory)
}

/// The heap has no room for state and scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeapError {
    /// Bytes of both.
    pub bytes: usize,
}

impl fmt::Display for HeapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        write!(f, "the heap has no room for {bytes} bytes of state and scratch: enlarge it")
    }
}

impl core::error::Error for HeapError {}

#[cfg(test)]
mod tests {
    use super::*;
    use rwkv_core::image::Dims;

    const TINY: &[u8] = include_bytes!("tiny.rwkv");

    #[test]
    fn what_no_heap_can_hold_is_an_error() {
        let (mut huge, most) = (Header::parse(TINY).unwrap(), 1 << 16);
        huge.version = rwkv_core::image::Version::V7;
        huge.dims = Dims { layers: most, dim: most, head_size: most, ..huge.dims };
        let error = HeapMemory::new(&huge).unwrap_err();
        assert!(error.bytes > 1 << 49, "{error}");
    }

    #[test]
    fn a_header_of_another_size_is_refused() {
        let header = Header::parse(TINY).unwrap();
        let mut memory = HeapMemory::new(&header).unwrap();
        let mut larger = header;
        larger.dims.layers += 1;
        let needed = larger.state_words() as u32;
        let given = header.state_words() as u32;
        assert_eq!(memory.bytes(), 4 * (given + header.scratch_words) as usize);
        assert_eq!(memory.split(&larger).unwrap_err(), Error::StateSize { needed, given });
        assert!(memory.split(&header).is_ok());
    }
}
