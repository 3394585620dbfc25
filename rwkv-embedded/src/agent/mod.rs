//! The agent: runs whatever image lies in the board's flash, or on a medium of it, and reports what
//! it computes.
//!
//! One binary per board serves every image that fits: the state, the scratch and what a stream
//! needs share an arena of the board's size. The host speaks [`protocol`] in frames of [`frame`]
//! over any serial transport. A board without a usable image still answers, and says what is wrong
//! with it.
//!
//! Every frame is answered: damaged, too long, empty or unknown ones by one
//! [`AgentError::Frame`]. A host that does not know where it stands sends a zero byte and reads
//! until it sees that reply.

pub mod frame;
pub mod protocol;
mod state;
mod watch;
mod weights;

use core::slice;

use embedded_io::{Read, Write};
use rwkv_core::{
    Digest, Error, Header, Image, ImageError, Model, StateView, StreamError,
    exec::Written,
    poll,
    sampler::{Banned, Sampler, SamplerError},
    stream::InPlace,
};

use frame::{Decoder, FrameError, encode};
use protocol::{
    AgentError, ImageInfo, Info, MAX_BANNED, MAX_FRAME, MAX_IMAGE, Memory, PROTOCOL_VERSION, Reply,
    Request, SamplerSettings, Tick, Token,
};
use watch::{Asked, Watch};
pub use weights::Weights;

/// Bytes taken from the transport at once, at most.
const CHUNK: usize = 64;

/// What the agent asks of the board that it runs on.
pub trait Board {
    /// The name of the board, such as `mps2-an386`, of 24 bytes at most.
    const NAME: &'static str;
    /// The name of its core, such as `Cortex-M4F`, of 24 bytes at most.
    const CORE: &'static str;
    /// Whether [`Board::wrote`] is asked: a simulated board can have faults.
    const FAULTY: bool = false;

    /// The time, in ticks; it counts up and wraps around.
    fn now(&mut self) -> u32;

    /// What a tick is.
    fn tick(&self) -> Tick;

    /// The most stack, in bytes, that was in use since boot, where the board can tell.
    fn stack_used(&self) -> Option<u32> {
        None
    }

    /// Static variables in bytes, the agent's arena left out, where the board can tell.
    fn statics(&self) -> Option<u32> {
        None
    }

    /// Flash in bytes that the firmware fills, the image left out, where the board can tell.
    fn firmware(&self) -> Option<u32> {
        None
    }

    /// Sees what an operation of a token has written, from its element `first` on, before anything
    /// reads it: what is changed here is what the token goes on with.
    fn wrote(&mut self, token: u32, written: Written, first: u32, values: &mut [f32]) {
        let _ = (token, written, first, values);
    }
}

/// Why [`Agent::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum End {
    /// The host asked for it.
    Halted,
    /// The transport reached its end.
    Closed,
}

/// A board, where its image is, and the memory to run it.
#[derive(Debug)]
pub struct Agent<'a, B, S = InPlace<'a>> {
    board: B,
    image: Result<ImageInfo, Error>,
    session: Result<Session<'a, S>, AgentError>,
}

rwkv_core::brief!([B: Board, S] Agent<'_, B, S>, |agent| "Agent({}, {})", B::NAME, agent.image);

impl<'a, B: Board> Agent<'a, B> {
    /// Checks the image at the start of `flash` and puts state and scratch into `arena`.
    ///
    /// What goes wrong here is told to the host when it asks.
    #[inline(never)]
    pub fn new(board: B, flash: &'a [u8], arena: &'a mut [f32]) -> Self {
        match Image::open_prefix(flash) {
            Ok(image) => Self::checked(board, &image, flash, arena),
            Err(error) => Self::without(board, error.into()),
        }
    }

    /// Runs from `flash` without checking it: it held `image` when that was checked. A flash that
    /// has changed since is what a simulated device shows with this.
    pub fn checked(board: B, image: &Image<'_>, flash: &'a [u8], arena: &'a mut [f32]) -> Self {
        let session = match bytemuck::try_cast_slice(flash) {
            Ok(words) => Session::new(*image.header(), InPlace::new(words), arena),
            Err(_) => Err(AgentError::Model(ImageError::Misaligned.into())),
        };
        Self { board, image: Ok(ImageInfo::of(image)), session }
    }
}

impl<B: Board, S: Weights> Agent<'_, B, S> {
    /// An agent that says why there is no image.
    const fn without(board: B, error: Error) -> Self {
        Self { board, image: Err(error), session: Err(AgentError::Model(error)) }
    }

    /// The image, or why there is none.
    ///
    /// # Errors
    /// What was wrong with it, or that it could not be read.
    pub const fn image(&self) -> Result<ImageInfo, Error> {
        self.image
    }

    /// Answers requests until the host asks to halt or the transport ends.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn run<T: Read + Write>(&mut self, mut transport: T) -> Result<End, T::Error> {
        let mut decoder = Decoder::new();
        let mut chunk = [0; CHUNK];
        loop {
            let received = transport.read(&mut chunk)?;
            if received == 0 {
                return Ok(End::Closed);
            }
            for byte in chunk.iter().take(received) {
                let Some(request) = decoder.push(*byte) else { continue };
                self.serve(&request, &mut transport)?;
                if matches!(request, Ok(Request::Halt)) {
                    return Ok(End::Halted);
                }
            }
        }
    }

    /// Does what the host asks, and sends the tokens and the last reply.
    ///
    /// Requests and replies are large, so they are lent, and each function here has a frame of its
    /// own: what is not at work takes no stack while a token is computed.
    #[inline(never)]
    fn serve<T: Write>(
        &mut self,
        request: &Result<Request, FrameError>,
        transport: &mut T,
    ) -> Result<(), T::Error> {
        let Ok(request) = request else {
            return send(transport, &Reply::Error(AgentError::Frame));
        };
        #[cfg(feature = "defmt")]
        defmt::debug!("{}", request);
        let (tokens, asked) = match request {
            Request::Feed(tokens) => (Tokens::Given(tokens), Asked::Nothing),
            Request::Profile(tokens) => (Tokens::Given(tokens), Asked::Spent),
            Request::Look { token, depth } => {
                (Tokens::Given(slice::from_ref(token)), Asked::Written(*depth))
            }
            Request::Generate { count } => (Tokens::Chosen(*count), Asked::Nothing),
            Request::Benchmark(tokens) => return self.benchmark(tokens, transport),
            _ => return self.reply(request, transport),
        };
        let fed = match &mut self.session {
            Ok(session) => session.feed(tokens, Watch::new(&mut self.board, transport, asked))?,
            Err(error) => Err(*error),
        };
        finish(transport, fed)
    }

    /// Reads tokens without proof, and sends what they took.
    #[inline(never)]
    fn benchmark<T: Write>(&mut self, tokens: &[u32], transport: &mut T) -> Result<(), T::Error> {
        let ticks = match &mut self.session {
            Ok(session) => session
                .benchmark(tokens, &mut Watch::new(&mut self.board, transport, Asked::Nothing)),
            Err(error) => Err(*error),
        };
        send(transport, &ticks.map_or_else(Reply::Error, Reply::Ticks))
    }

    /// Answers a request without tokens.
    #[inline(never)]
    fn reply<T: Write>(&mut self, request: &Request, transport: &mut T) -> Result<(), T::Error> {
        send(transport, &self.answer(request).unwrap_or_else(Reply::Error))
    }

    fn answer(&mut self, request: &Request) -> Result<Reply, AgentError> {
        match request {
            Request::Info => return Ok(Reply::Info(self.info())),
            Request::Halt => return Ok(Reply::Done),
            _ => {}
        }
        let session = match &mut self.session {
            Ok(session) => session,
            Err(error) => return Err(*error),
        };
        match request {
            Request::Reset(settings) => session.reset(settings),
            Request::Memory => return Ok(Reply::Memory(session.memory(&self.board))),
            Request::Verify => session.verify(self.image),
            Request::ReadState { first } => return session.read_state(*first).map(Reply::State),
            Request::WriteState { first, words } => session.write_state(*first, words),
            Request::AcceptState => session.accept_state(),
            Request::ReadImage { first } => return session.read_image(*first).map(Reply::Image),
            // Answered above, or by `serve`.
            Request::Info
            | Request::Halt
            | Request::Feed(_)
            | Request::Profile(_)
            | Request::Benchmark(_)
            | Request::Look { .. }
            | Request::Generate { .. } => Ok(()),
        }?;
        Ok(Reply::Done)
    }

    fn info(&self) -> Info {
        const { assert!(B::NAME.len() <= 24 && B::CORE.len() <= 24, "a name is too long") };
        Info {
            protocol: PROTOCOL_VERSION,
            board: B::NAME.try_into().unwrap_or_default(),
            core: B::CORE.try_into().unwrap_or_default(),
            tick: self.board.tick(),
            image: self.image,
        }
    }
}

/// A model that runs, its state, and what chooses the next token.
#[derive(Debug)]
struct Session<'a, S> {
    model: Model<'a, S>,
    state: &'a mut [f32],
    /// Whether the words of the state are one.
    ready: bool,
    /// Words of a state that the host is writing.
    written: u32,
    /// Has seen the logits of the last token, if one was read.
    sampler: Sampler,
    /// Chosen and not read: reading it failed, and the next one that is generated is this one.
    pending: Option<u32>,
    /// In ascending order.
    banned: heapless::Vec<u32, MAX_BANNED>,
    /// Bytes of the arena that the weights need.
    buffers: u32,
}

impl<'a, S: Weights> Session<'a, S> {
    /// A session in an arena that holds state and scratch.
    fn new(header: Header, stream: S, arena: &'a mut [f32]) -> Result<Self, AgentError> {
        let needed = header.state_words().saturating_add(header.scratch_words as usize);
        let small = AgentError::Arena { needed: bytes(needed), given: bytes(arena.len()) };
        if arena.len() < needed {
            return Err(small);
        }
        let (state, scratch) = arena.split_at_mut_checked(header.state_words()).ok_or(small)?;
        let model = Model::new(header, stream, scratch).map_err(AgentError::Model)?;
        Self::start(model, state, 0)
    }

    fn start(model: Model<'a, S>, state: &'a mut [f32], buffers: u32) -> Result<Self, AgentError> {
        let (ready, written, pending) = (false, 0, None);
        let (sampler, banned) = (Sampler::GREEDY, heapless::Vec::new());
        let mut session = Self { model, state, ready, written, sampler, pending, banned, buffers };
        weights::insist(|| session.begin())?;
        Ok(session)
    }

    fn memory(&self, board: &impl Board) -> Memory {
        let header = self.model.header();
        Memory {
            state: bytes(header.state_words()),
            scratch: bytes(header.scratch_words as usize),
            stack: board.stack_used(),
            statics: board.statics(),
            heap: 0,
            flash: board.firmware(),
            buffers: self.buffers,
        }
    }

    /// Checks the image again: it still is the one that was found at boot.
    fn verify(&mut self, image: Result<ImageInfo, Error>) -> Result<(), AgentError> {
        let (_, found) = weights::check(self.model.stream()).map_err(AgentError::Model)?;
        if Ok(found) == image {
            Ok(())
        } else {
            Err(AgentError::OtherImage { identity: found.identity })
        }
    }

    /// The words of the image from `first` on, as many as a reply holds.
    fn read_image(&mut self, first: u32) -> Result<heapless::Vec<u32, MAX_IMAGE>, AgentError> {
        let end = self.model.header().bytes() / 4;
        let words = end.saturating_sub(first).min(MAX_IMAGE as u32) as usize;
        if words == 0 {
            let offset = first.saturating_mul(4);
            return Err(AgentError::Model(StreamError::OutOfBounds { offset }.into()));
        }
        let read = poll::once(self.model.stream().read_at(first as usize, words));
        let read = read.map(|read| read.map_err(Error::Stream));
        let read = read.unwrap_or(Err(Error::Internal)).map_err(AgentError::Model)?;
        Ok(read.iter().copied().take(MAX_IMAGE).collect())
    }

    /// Back to where the image begins; untouched if the sampler's settings are out of range.
    fn reset(&mut self, settings: &SamplerSettings) -> Result<(), AgentError> {
        Banned::new(&settings.banned).map_err(|_| AgentError::Sampler)?;
        self.sampler.reset(settings.config).map_err(|_| AgentError::Sampler)?;
        self.banned.clone_from(&settings.banned);
        self.begin()
    }

    /// The state back to where the image begins.
    fn begin(&mut self) -> Result<(), AgentError> {
        (self.written, self.pending) = (0, None);
        let state = StateView::over(self.model.header(), self.state, &mut self.ready);
        let begun = state.and_then(|state| self.model.reset(state));
        begun.map_err(AgentError::Model)
    }

    /// Reads tokens and sends what each one gave, up to the first that fails.
    #[inline(never)]
    fn feed<B: Board, T: Write>(
        &mut self,
        tokens: Tokens<'_>,
        mut watch: Watch<'_, B, T>,
    ) -> Result<Result<(), AgentError>, T::Error> {
        for at in 0..tokens.len() {
            let token = self.step(tokens.get(at), &mut watch);
            watch.finish()?;
            match token {
                Ok(token) => send(watch.transport, &Reply::Token(token))?,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// Reads a token, or for `None` the one that the sampler chooses now: random numbers are drawn
    /// for tokens that are generated, and for no others. One that was chosen and could not be read is
    /// read again.
    #[inline(never)]
    fn step<B: Board, T: Write>(
        &mut self,
        token: Option<u32>,
        watch: &mut Watch<'_, B, T>,
    ) -> Result<Token, AgentError> {
        let generated = token.is_none();
        let token = match token.or(self.pending) {
            Some(token) => token,
            None => self.sampler.finish().map_err(|error| match error {
                SamplerError::NoLogits => AgentError::NothingRead,
                _ => AgentError::Sampler,
            })?,
        };
        self.pending = generated.then_some(token);
        let mut logits = Digest::default();
        let before = self.model.stream().bytes_read();
        let ticks = self.compute(token, Some(&mut logits), watch)?;
        let read = self.model.stream().bytes_read().wrapping_sub(before);
        let header: Header = *self.model.header();
        let state = StateView::over(&header, self.state, &mut self.ready);
        let mut state = state.map_err(AgentError::Model)?;
        let digest = Digest::token(&header, &state, logits).map_err(|error| {
            state.set_broken(true);
            self.sampler.begin();
            AgentError::Model(error)
        })?;
        self.pending = None;
        Ok(Token { token, digest, ticks, read })
    }

    /// Computes a token; its logits are for a digest and the sampler, or for nobody. Returns its
    /// ticks.
    #[inline(never)]
    fn compute<B: Board, T: Write>(
        &mut self,
        token: u32,
        digest: Option<&mut Digest>,
        watch: &mut Watch<'_, B, T>,
    ) -> Result<u32, AgentError> {
        let header: Header = *self.model.header();
        let state = StateView::over(&header, self.state, &mut self.ready);
        let state = state.map_err(AgentError::Model)?;
        let banned = Banned::new(&self.banned).map_err(|_| AgentError::Sampler)?;
        let start = watch.start(token);
        self.sampler.begin();
        // Sinks of one type, so that the firmware holds the model's text once.
        let sampler = digest.is_some().then(|| self.sampler.within(banned));
        let step = self.model.step(state, token, ((digest, sampler), &mut *watch));
        let ticks = watch.since(start);
        if let Err(error) = step {
            // Some of the logits are no logits to choose from.
            self.sampler.begin();
            return Err(AgentError::Model(error));
        }
        Ok(ticks)
    }

    /// Reads tokens whose logits are for nobody. Returns the ticks of all of them.
    fn benchmark<B: Board, T: Write>(
        &mut self,
        tokens: &[u32],
        watch: &mut Watch<'_, B, T>,
    ) -> Result<u64, AgentError> {
        let mut sum = 0;
        self.pending = None;
        for token in tokens {
            sum += u64::from(self.compute(*token, None, watch)?);
        }
        Ok(sum)
    }
}

/// Tokens to read.
#[derive(Debug, Clone, Copy)]
enum Tokens<'a> {
    /// These.
    Given(&'a [u32]),
    /// So many that the sampler chooses.
    Chosen(u8),
}

impl Tokens<'_> {
    const fn len(&self) -> usize {
        match self {
            Self::Given(tokens) => tokens.len(),
            Self::Chosen(count) => *count as usize,
        }
    }

    /// `None` for one that the sampler chooses.
    fn get(&self, at: usize) -> Option<u32> {
        match self {
            Self::Given(tokens) => tokens.get(at).copied(),
            Self::Chosen(_) => None,
        }
    }
}

/// Sends the last reply to a request for tokens.
#[inline(never)]
fn finish<T: Write>(transport: &mut T, fed: Result<(), AgentError>) -> Result<(), T::Error> {
    send(transport, &fed.map_or_else(Reply::Error, |()| Reply::Done))
}

#[inline(never)]
fn send<T: Write>(transport: &mut T, reply: &Reply) -> Result<(), T::Error> {
    let mut buffer = [0; MAX_FRAME];
    // No reply is longer than a frame: see the tests.
    if let Ok(frame) = encode(reply, &mut buffer) {
        transport.write_all(frame)?;
        transport.flush()?;
    }
    Ok(())
}

/// The size of so many words, as it travels.
fn bytes(words: usize) -> u32 {
    u32::try_from(words.saturating_mul(4)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
