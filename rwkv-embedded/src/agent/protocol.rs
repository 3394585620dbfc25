//! What host and agent say to each other.
//!
//! A message is [postcard](https://postcard.jamesmunns.com/wire-format), followed by the CRC-32
//! (ISO-HDLC) of its bytes, little-endian, in one COBS frame that ends with a zero byte. The host
//! asks, the agent answers with one or more replies; only the last of them is none of
//! [`Reply::Token`], [`Reply::Spent`], [`Reply::Digests`] and [`Reply::Values`].

use rwkv_core::{
    Digest, Error, Header,
    exec::{Part, Written},
    sampler::SamplerConfig,
};
use serde::{Deserialize, Serialize};

/// Goes up with every change of the messages.
pub const PROTOCOL_VERSION: u16 = 5;

/// Tokens in one [`Request::Feed`], at most.
pub const MAX_FEED: usize = 64;

/// Tokens that [`SamplerSettings`] ban, at most.
pub const MAX_BANNED: usize = 32;

/// Pieces of work in one [`Reply::Spent`], at most.
pub const MAX_SPENT: usize = 24;

/// Words of state in one [`Request::WriteState`] or [`Reply::State`], at most.
pub const MAX_STATE: usize = 64;

/// Digests in one [`Reply::Digests`], at most.
pub const MAX_DIGESTS: usize = 32;

/// Values in one [`Reply::Values`], at most.
pub const MAX_VALUES: usize = 64;

/// Words of the image in one [`Reply::Image`], at most.
pub const MAX_IMAGE: usize = 64;

/// Bytes of the longest frame, its final zero included.
pub const MAX_FRAME: usize = 384;

/// What the host asks. It waits for the last reply before it asks again: an agent that computes
/// does not listen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Request {
    /// Who are you? Answered by [`Reply::Info`].
    Info,
    /// Back to where the image begins, with this sampler. Answered by [`Reply::Done`].
    Reset(SamplerSettings),
    /// Read these tokens. Answered by a [`Reply::Token`] each, then [`Reply::Done`].
    Feed(heapless::Vec<u32, MAX_FEED>),
    /// Read the token that the sampler chose, `count` times over. Answered as a feed. A token that
    /// was chosen and could not be read comes first the next time, unless another request reads or
    /// writes the state in between.
    Generate {
        /// How many tokens.
        count: u8,
    },
    /// How much memory is in use? Answered by [`Reply::Memory`].
    Memory,
    /// Check the image again. Answered by [`Reply::Done`] or the error.
    Verify,
    /// Leave the agent: an emulated board ends. Answered by [`Reply::Done`].
    Halt,
    /// Read these tokens and say what they are spent on. Answered as a feed, with any number of
    /// [`Reply::Spent`] before each token.
    Profile(heapless::Vec<u32, MAX_FEED>),
    /// What are the words of the state, from one on, in their order? Answered by [`Reply::State`],
    /// with fewer than [`MAX_STATE`] only at the end.
    ReadState {
        /// The first of them.
        first: u32,
    },
    /// Put these into the state. Pieces follow one another from word 0 on; another piece at word 0
    /// begins anew. No token is computed, and no state read, before [`Request::AcceptState`] or
    /// [`Request::Reset`]. Answered by [`Reply::Done`].
    WriteState {
        /// The place of the first word.
        first: u32,
        /// The words.
        words: heapless::Vec<f32, MAX_STATE>,
    },
    /// Go on from the state that was written, if it is whole and finite. The sampler keeps its
    /// settings and random numbers. Answered by [`Reply::Done`].
    AcceptState,
    /// Read these tokens as fast as firmware would: their logits are computed, without a digest and
    /// without the sampler, which has nothing to choose from after that. Answered by
    /// [`Reply::Ticks`].
    Benchmark(heapless::Vec<u32, MAX_FEED>),
    /// Read this token and show what its operations write. Answered as a feed, with any number of
    /// [`Reply::Digests`] or [`Reply::Values`] before the token; a token that fails has them, too,
    /// up to where it failed: the last digest is of what was written until then.
    Look {
        /// The token.
        token: u32,
        /// How closely.
        depth: Depth,
    },
    /// What are the words of the image, from one on? Answered by [`Reply::Image`], with fewer than
    /// [`MAX_IMAGE`] only at the end; behind it there are none, which is an error.
    ReadImage {
        /// The first of them.
        first: u32,
    },
}

/// How closely to look at a token: each depth says where to look at the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Depth {
    /// A digest for the embedding, for each layer, and for the head: those of its operations,
    /// folded in their order.
    Sections,
    /// A digest for each operation of a section, of the values that it writes.
    Operations {
        /// 0 for the embedding, then the layers from 1 on, then the head.
        section: u16,
    },
    /// The values that an operation writes.
    Values(Written),
}

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SamplerSettings {
    /// The sampler's own settings.
    pub config: SamplerConfig,
    /// Tokens that are never chosen, in ascending order.
    pub banned: heapless::Vec<u32, MAX_BANNED>,
}

impl From<SamplerConfig> for SamplerSettings {
    fn from(config: SamplerConfig) -> Self {
        Self { config, banned: heapless::Vec::new() }
    }
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Reply {
    /// Who the agent is and what it runs.
    Info(Info),
    /// A token was computed.
    Token(Token),
    /// The memory in use.
    Memory(Memory),
    /// The request is done.
    Done,
    /// The request failed.
    Error(AgentError),
    /// What the coming token was spent on, since the last such reply.
    Spent(heapless::Vec<Spent, MAX_SPENT>),
    /// Words of the state.
    State(heapless::Vec<f32, MAX_STATE>),
    /// Ticks that the tokens of a [`Request::Benchmark`] took together.
    Ticks(u64),
    /// Digests of sections or operations, in their order.
    Digests(heapless::Vec<Digest, MAX_DIGESTS>),
    /// Values that an operation wrote, in their order.
    Values(heapless::Vec<f32, MAX_VALUES>),
    /// Words of the image.
    Image(heapless::Vec<u32, MAX_IMAGE>),
}

/// Who the agent is and what it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Info {
    /// [`PROTOCOL_VERSION`].
    pub protocol: u16,
    /// The board, such as `mps2-an386`.
    pub board: heapless::String<24>,
    /// The core, such as `Cortex-M4F`.
    pub core: heapless::String<24>,
    /// What a tick of [`Token::ticks`] is.
    pub tick: Tick,
    /// The image, or why there is none.
    pub image: Result<ImageInfo, Error>,
}

/// What a tick counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Tick {
    /// So many instructions of an emulated core (an emulator counts instructions, not cycles).
    Instructions(u32),
    /// So many nanoseconds.
    Nanoseconds(u32),
    /// So many cycles of a simulated core, as its simulator counts them: not those of the chip,
    /// whose flash has wait states.
    SimulatedCycles(u32),
}

/// The image that an agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ImageInfo {
    /// The code of its RWKV version, as in the header.
    pub version: u8,
    /// CRC-32 of its whole header, which covers the CRCs of all sections: the image's identity.
    pub identity: u32,
    /// Tokens in its vocabulary.
    pub vocab: u32,
}

impl ImageInfo {
    /// What an image says of itself.
    pub fn of(image: &rwkv_core::Image<'_>) -> Self {
        Self::new(image.header(), image.identity())
    }

    /// What an image with this header and identity says of itself.
    pub const fn new(header: &Header, identity: u32) -> Self {
        Self { version: header.version as u8, identity, vocab: header.dims.vocab }
    }
}

/// One computed token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Token {
    /// The token that was read.
    pub token: u32,
    /// Digest of the whole state and of all logits after it.
    pub digest: Digest,
    /// Ticks that it took, the digest of the state left out.
    pub ticks: u32,
    /// Bytes that were read for it of a medium that the core cannot address.
    pub read: u32,
}

/// What went into one piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Spent {
    /// 0 for the embedding, then the layers from 1 on, then the head.
    pub section: u16,
    /// The code of the operation's record, 0 where none is read.
    pub id: u8,
    /// The part of the operation.
    pub part: Part,
    /// How often it was done.
    pub times: u32,
    /// Ticks that it took, the counting itself included in part.
    pub ticks: u32,
}

/// Memory in use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Memory {
    /// The model's state.
    pub state: u32,
    /// The scratch of a token.
    pub scratch: u32,
    /// The most stack that was in use since boot, where the board can tell.
    pub stack: Option<u32>,
    /// Static variables, state and scratch left out, where the board can tell.
    pub statics: Option<u32>,
    /// Heap: nothing that the agent links allocates.
    pub heap: u32,
    /// Flash that the firmware fills, the image left out, where the board can tell.
    pub flash: Option<u32>,
    /// What weights on a medium need beside state and scratch: the stream's buffer, and the copy of
    /// the state that a token which fails is undone with. 0 where the core can address the weights.
    pub buffers: u32,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum AgentError {
    /// The model or its image: see there.
    Model(Error),
    /// The frame was damaged, too long, empty, or not a request. Whatever was sent, one such reply
    /// at most answers each zero byte.
    Frame,
    /// [`Request::Generate`] needs a token to have been read before.
    NothingRead,
    /// The sampler's settings are out of range, or leave nothing to choose from.
    Sampler,
    /// The board's arena has too little room for this image, in bytes.
    Arena {
        /// Bytes that the image needs.
        needed: u32,
        /// Bytes that the board gives.
        given: u32,
    },
    /// A piece of state reaches beyond its end.
    StateRange {
        /// Words of the state.
        words: u32,
    },
    /// Another piece of state is due first.
    StateOrder {
        /// The word that it begins with.
        next: u32,
    },
    /// The state that was written has a value that is infinite or not a number.
    StateNonFinite {
        /// Its index among the words.
        word: u32,
    },
    /// [`Request::Verify`] found an image without a fault, and not the one that was found at boot.
    OtherImage {
        /// Its identity.
        identity: u32,
    },
}
