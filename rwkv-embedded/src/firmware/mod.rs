//! An image that is linked into the firmware: [`model!`](crate::model) and what it stands on.
//!
//! ```
//! use rwkv_core::{GenerateError, sampler::SamplerConfig, tokenizer::StopStream};
//!
//! rwkv_embedded::model!(mod tiny = "tiny.rwkv", ram = 1024);
//!
//! fn write(memory: &mut tiny::Memory) -> Result<(), GenerateError> {
//!     let mut generator = tiny::start(memory, SamplerConfig::GREEDY)?; // checks every byte
//!     generator.read(b"Once")?;
//!     let print = |text: &[u8]| print!("{}", text.escape_ascii());
//!     let mut stop = StopStream::new(&[b"\n"])?;
//!     generator.generate(16, &mut stop, print)?;
//!     stop.finish(print);
//!     Ok(())
//! }
//!
//! // In firmware it is a static: its RAM is known when the firmware is linked.
//! let mut memory = tiny::Memory::new();
//! write(&mut memory)?;
//! # // Nothing was read: there is nothing to go on from.
//! # let mut generator = tiny::start(&mut memory, SamplerConfig::GREEDY)?;
//! # generator.generate(1, &mut StopStream::default(), |_| ()).unwrap_err();
//! # assert!(tiny::Memory::BYTES <= 1024 && tiny::IMAGE.0.len() == tiny::HEADER.bytes() as usize);
//! # Ok::<(), GenerateError>(())
//! ```

#[cfg(feature = "alloc")]
mod heap;
mod message;

#[cfg(feature = "alloc")]
pub use heap::{HeapError, HeapMemory};
pub use message::{Message, budget, header};

use rwkv_core::{
    Error, GenerateError, Generator, Header, Image, Model, State, StateView,
    sampler::{Sampler, SamplerConfig},
    stream::{InPlace, Stream},
    tokenizer::Tokenizer,
};

/// Includes an image, and makes types of the sizes that it asks for.
///
/// `model!(mod name = "file.rwkv", ram = bytes)` is a module with
///
/// - `IMAGE`, the bytes in flash, aligned;
/// - `HEADER`, a [`Header`](rwkv_core::Header), read when the firmware is compiled;
/// - `Memory`, the [`Memory`] of its state and scratch, for a static;
/// - `open()`, which checks every byte of the image: an [`Image`](rwkv_core::Image) or why there is
///   none;
/// - `start(memory, sampler)`, which opens the image and returns a
///   [`Generator`](rwkv_core::Generator) at its start.
///
/// The path is as in `include_bytes!`: beside the file that names it, or
/// `concat!(env!("OUT_DIR"), "/file.rwkv")` for an image that a build script makes. Attributes and
/// a visibility may stand before `mod`. What firmware does not name is not linked: if the image
/// itself lies elsewhere, such as on a card, `HEADER` and `Memory` give the sizes all the same.
///
/// # Errors
/// Compilation ends with a message if the image is cut short or followed by other data, its header
/// is damaged or of another version, or `Memory` has more bytes than `ram`, which may be left out:
///
/// ```compile_fail
/// // evaluation panicked: tiny.rwkv: state and scratch need … bytes of RAM, the budget is 512: …
/// rwkv_embedded::model!(mod tiny = "tiny.rwkv", ram = 512);
/// ```
///
/// ```compile_fail
/// // evaluation panicked: damaged.rwkv: the header is damaged, its CRC-32 does not match: …
/// rwkv_embedded::model!(mod damaged = "damaged.rwkv");
/// ```
#[macro_export]
macro_rules! model {
    ($(#[$attribute:meta])* $visible:vis mod $name:ident = $path:expr $(, ram = $ram:expr)? $(,)?) => {
        $(#[$attribute])*
        #[allow(dead_code, reason = "firmware need not use all of it")]
        $visible mod $name {
            /// The image.
            pub static IMAGE: &$crate::firmware::Aligned<[u8]> =
                &$crate::firmware::Aligned(*::core::include_bytes!($path));

            /// Its header.
            pub const HEADER: $crate::rwkv_core::Header =
                $crate::firmware::header($path, &IMAGE.0);

            /// Its state and scratch.
            pub type Memory = $crate::firmware::Memory<
                { HEADER.dims.layers as usize },
                { HEADER.dims.dim as usize },
                { HEADER.state_width() as usize },
                { HEADER.scratch_words as usize },
            >;

            /// Checks every byte of the image.
            ///
            /// # Errors
            /// What is wrong with it.
            pub fn open() -> ::core::result::Result<
                $crate::rwkv_core::Image<'static>,
                $crate::rwkv_core::ImageError,
            > {
                $crate::rwkv_core::Image::open(&IMAGE.0)
            }

            /// Opens the image and goes to its start.
            ///
            /// # Errors
            /// What is wrong with the image or the sampler's settings.
            pub fn start(
                memory: &mut Memory,
                sampler: $crate::rwkv_core::sampler::SamplerConfig,
            ) -> ::core::result::Result<
                $crate::rwkv_core::Generator<'_, $crate::rwkv_core::stream::InPlace<'_>>,
                $crate::rwkv_core::GenerateError,
            > {
                memory.start(&open()?, sampler)
            }
        }

        $(const _: () = $crate::firmware::budget(
            $path,
            &$name::HEADER,
            $name::Memory::BYTES,
            $ram,
        );)?
    };
}

/// Bytes that begin where words may be read.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Aligned<T: ?Sized>(
    /// The bytes.
    pub T,
);

rwkv_core::brief!([T: ?Sized] Aligned<T>, |bytes| "Aligned({} bytes)", size_of_val(&bytes.0));

/// State and scratch of a model: its whole memory beside the sampler and the stack. The numbers are
/// those of a [`Header`]; [`model!`](crate::model) fills them in.
#[derive(Debug)]
pub struct Memory<const LAYERS: usize, const DIM: usize, const WIDTH: usize, const SCRATCH: usize> {
    /// The state.
    pub state: State<LAYERS, DIM, WIDTH>,
    /// The scratch of a token.
    pub scratch: [f32; SCRATCH],
}

rwkv_core::brief!([const LAYERS: usize, const DIM: usize, const WIDTH: usize, const SCRATCH: usize]
    Memory<LAYERS, DIM, WIDTH, SCRATCH>, |_memory| "Memory({} bytes)", Self::BYTES);

impl<const LAYERS: usize, const DIM: usize, const WIDTH: usize, const SCRATCH: usize>
    Memory<LAYERS, DIM, WIDTH, SCRATCH>
{
    /// Bytes of it.
    pub const BYTES: usize = size_of::<Self>();

    /// Memory for a static: all zeros, so that it takes no flash.
    pub const fn new() -> Self {
        Self { state: State::new(), scratch: [0.0; SCRATCH] }
    }

    /// A generator over an image in place, at its start.
    ///
    /// # Errors
    /// See [`start`].
    pub fn start<'a>(
        &'a mut self,
        image: &Image<'a>,
        sampler: SamplerConfig,
    ) -> Result<Generator<'a, InPlace<'a>>, GenerateError> {
        start(image, self.state.view(), &mut self.scratch, sampler)
    }

    /// A generator over a stream, whose state is to be reset or restored first.
    ///
    /// # Errors
    /// [`GenerateError::Model`] if the scratch is smaller than the header's,
    /// [`GenerateError::Sampler`] if the settings are out of range.
    pub fn begin<'a, S: Stream>(
        &'a mut self,
        header: Header,
        stream: S,
        tokenizer: Tokenizer<'a>,
        sampler: SamplerConfig,
    ) -> Result<Generator<'a, S>, GenerateError> {
        begin(header, stream, (self.state.view(), &mut self.scratch), tokenizer, sampler)
    }
}

impl<const LAYERS: usize, const DIM: usize, const WIDTH: usize, const SCRATCH: usize> Default
    for Memory<LAYERS, DIM, WIDTH, SCRATCH>
{
    fn default() -> Self {
        Self::new()
    }
}

/// A generator over an image in place, at its start, in memory of any size.
///
/// # Errors
/// [`GenerateError::Model`] if state or scratch is not of the image's size or its start state is of
/// no use, [`GenerateError::Sampler`] if the settings are out of range,
/// [`GenerateError::NoTokenizer`].
pub fn start<'a>(
    image: &Image<'a>,
    state: StateView<'a>,
    scratch: &'a mut [f32],
    sampler: SamplerConfig,
) -> Result<Generator<'a, InPlace<'a>>, GenerateError> {
    let tokenizer = image.tokenizer().ok_or(GenerateError::NoTokenizer)?;
    let stream = InPlace::new(image.words());
    let mut generator = begin(*image.header(), stream, (state, scratch), tokenizer, sampler)?;
    generator.reset()?;
    Ok(generator)
}

/// A model and its state in one arena, for firmware that runs whatever image it finds. `ready` says
/// whether there is a state: it is false at first. What is beyond [`Header::state_words`] and
/// [`Header::scratch_words`] is not used.
///
/// ```
/// # use rwkv_core::{Image, stream::InPlace};
/// # use rwkv_embedded::firmware::in_arena;
/// # rwkv_embedded::model!(mod tiny = "tiny.rwkv");
/// # fn demo(image: &Image<'_>, arena: &mut [f32]) -> Result<(), rwkv_core::Error> {
/// let mut ready = false;
/// let stream = InPlace::new(image.words());
/// let (mut model, mut state) = in_arena(*image.header(), stream, arena, &mut ready)?;
/// model.reset(state.reborrow())?;
/// # Ok(())
/// # }
/// # let (image, mut arena) = (tiny::open().unwrap(), [0.0; 1024]);
/// # demo(&image, &mut arena).unwrap();
/// # demo(&image, &mut arena[..8]).unwrap_err();
/// ```
///
/// # Errors
/// [`Error::StateSize`] if the arena has no room for the state, that of [`Model::new`] if it has
/// none for the scratch.
pub fn in_arena<'a, S: Stream>(
    header: Header,
    stream: S,
    arena: &'a mut [f32],
    ready: &'a mut bool,
) -> Result<(Model<'a, S>, StateView<'a>), Error> {
    let (needed, given) = (header.state_words(), arena.len() as u32);
    let small = Error::StateSize { needed: needed as u32, given };
    let (state, scratch) = arena.split_at_mut_checked(needed).ok_or(small)?;
    let state = StateView::over(&header, state, ready)?;
    Ok((Model::new(header, stream, scratch)?, state))
}

fn begin<'a, S: Stream>(
    header: Header,
    stream: S,
    (state, scratch): (StateView<'a>, &'a mut [f32]),
    tokenizer: Tokenizer<'a>,
    sampler: SamplerConfig,
) -> Result<Generator<'a, S>, GenerateError> {
    let sampler = Sampler::new(sampler)?;
    let model = Model::new(header, stream, scratch)?;
    Ok(Generator::new(model, state, tokenizer, sampler))
}
