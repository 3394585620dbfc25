//! Devices that run the agent: simulated, emulated, or on the desk.
//!
//! A [`Device`] sends the requests of [`rwkv_embedded::agent::protocol`] over a [`Transport`] and
//! waits for the replies. The simulated device is the same agent in a thread; the emulated one is
//! the firmware of a board in QEMU or in another emulator.

mod boards;
mod error;
mod firmware;
mod link;
mod log;
mod process;
mod qemu;
mod rp2040;
mod serial;
mod sim;
mod spec;
mod transport;

#[cfg(test)]
mod tests;

use std::{ops::Range, path::PathBuf, time::Duration};

use rwkv_core::{Digest, Error, Image};
use rwkv_embedded::agent::protocol::{
    AgentError, Depth, ImageInfo, Info, MAX_FEED, MAX_STATE, Memory, PROTOCOL_VERSION, Reply,
    Request, SamplerSettings, Spent, Token,
};

pub use boards::QemuBoard;
pub use error::{DeviceError, Log, Refusal};
pub use serial::{NotASerial, Serial};
pub use spec::{DeviceName, DeviceSpec, Fault, Flip, NotABit, NotAFault, UnknownDevice};
pub use transport::Transport;

use link::Link;

/// How to open a device.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the device may be silent.
    pub timeout: Duration,
    /// The firmware of an emulated board, instead of one built from the tree.
    pub firmware: Option<PathBuf>,
    /// A bit that flips in the simulated flash once the image has been checked.
    pub flip: Option<Flip>,
    /// What the simulated device computes wrong.
    pub fault: Option<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), firmware: None, flip: None, fault: None }
    }
}

/// What a device shows of a token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Looked {
    /// Digests of its sections, or of the operations of one.
    pub digests: Vec<Digest>,
    /// The values that one of its operations writes.
    pub values: Vec<f32>,
    /// The token, unless the device could not compute it.
    pub token: Option<Token>,
    /// Why it could not.
    pub refused: Option<Error>,
}

/// A device that runs an image.
#[derive(Debug)]
pub struct Device {
    link: Link,
    info: Info,
    /// Words of a state of its image, where that is at hand.
    state_words: Option<usize>,
}

impl Device {
    /// Starts a device with `image` in its flash.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn open(
        spec: DeviceSpec,
        image: &Image<'_>,
        options: &Options,
    ) -> Result<Self, DeviceError> {
        let transport = Self::start(spec, image.bytes(), options)?;
        Self::connect(transport, image, options.timeout)
    }

    /// Starts a device with `image` in its flash, or uses one on a serial port, which has it there
    /// already.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn named(
        name: &DeviceName,
        image: &Image<'_>,
        options: &Options,
    ) -> Result<Self, DeviceError> {
        match name {
            DeviceName::Started(spec) => Self::open(*spec, image, options),
            DeviceName::Serial(_) if options.flip.is_some() || options.fault.is_some() => {
                Err(DeviceError::FlipUnsupported)
            }
            DeviceName::Serial(port) => {
                let mut device = Self::attached(port, &ImageInfo::of(image), options.timeout)?;
                device.state_words = Some(image.header().state_words());
                Ok(device)
            }
        }
    }

    /// Uses a device on a serial port that has this image in its flash, which need not be at hand.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn attached(
        port: &Serial,
        image: &ImageInfo,
        timeout: Duration,
    ) -> Result<Self, DeviceError> {
        let mut link = Link::new(Box::new(serial::open(port, timeout)?), timeout)?;
        link.synchronise()?;
        Self::over(link, image)
    }

    /// Starts a device with any bytes in its flash and hands out its line.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn start(
        spec: DeviceSpec,
        flash: &[u8],
        options: &Options,
    ) -> Result<Box<dyn Transport>, DeviceError> {
        Ok(match spec {
            DeviceSpec::Sim => Box::new(sim::start(flash, options)?),
            DeviceSpec::Qemu(_) | DeviceSpec::Rp2040js
                if options.flip.is_some() || options.fault.is_some() =>
            {
                return Err(DeviceError::FlipUnsupported);
            }
            DeviceSpec::Qemu(board) => Box::new(qemu::start(board, flash, options)?),
            DeviceSpec::Rp2040js => Box::new(rp2040::start(flash, options)?),
        })
    }

    /// Uses a device that is there already and has `image` in its flash.
    ///
    /// # Errors
    /// [`DeviceError::Protocol`], [`DeviceError::NoImage`], [`DeviceError::OtherImage`], and those
    /// of the link.
    pub fn connect(
        transport: Box<dyn Transport>,
        image: &Image<'_>,
        timeout: Duration,
    ) -> Result<Self, DeviceError> {
        let mut device = Self::over(Link::new(transport, timeout)?, &ImageInfo::of(image))?;
        device.state_words = Some(image.header().state_words());
        Ok(device)
    }

    fn over(mut link: Link, expected: &ImageInfo) -> Result<Self, DeviceError> {
        const AWAITED: &str = "its name";
        link.send(&Request::Info, AWAITED)?;
        let Reply::Info(info) = link.receive(AWAITED)? else {
            return Err(DeviceError::OutOfTurn { awaited: AWAITED });
        };
        if info.protocol != PROTOCOL_VERSION {
            let (device, host) = (info.protocol, PROTOCOL_VERSION);
            return Err(DeviceError::Protocol { device, host });
        }
        let found = info.image.map_err(DeviceError::NoImage)?;
        if found != *expected {
            let (device, host) = (found.identity, expected.identity);
            return Err(DeviceError::OtherImage { device, host });
        }
        Ok(Self { link, info, state_words: None })
    }

    /// Who the device is.
    pub const fn info(&self) -> &Info {
        &self.info
    }

    /// Back to where the image begins, with this sampler.
    ///
    /// # Errors
    /// The device's refusal and those of the link, as for all requests.
    pub fn reset(&mut self, sampler: impl Into<SamplerSettings>) -> Result<(), DeviceError> {
        self.plain(&Request::Reset(sampler.into()), "the end of a reset")
    }

    /// Reads `tokens`; `on_token` hears of each as soon as it is computed.
    ///
    /// # Errors
    /// As [`Device::reset`].
    pub fn feed(
        &mut self,
        tokens: &[u32],
        mut on_token: impl FnMut(Token),
    ) -> Result<(), DeviceError> {
        for tokens in tokens.chunks(MAX_FEED) {
            let tokens = tokens.iter().copied().collect();
            self.tokens(&Request::Feed(tokens), &mut |_| {}, &mut on_token)?;
        }
        Ok(())
    }

    /// Reads what the sampler chooses, `count` times over.
    ///
    /// # Errors
    /// As [`Device::reset`].
    pub fn generate(
        &mut self,
        count: u32,
        mut on_token: impl FnMut(Token),
    ) -> Result<(), DeviceError> {
        let mut left = count;
        while left > 0 {
            let count = u8::try_from(left).unwrap_or(u8::MAX);
            self.tokens(&Request::Generate { count }, &mut |_| {}, &mut on_token)?;
            left -= u32::from(count);
        }
        Ok(())
    }

    /// Reads `tokens`; `on_spent` hears what each was spent on before `on_token` hears of it.
    ///
    /// # Errors
    /// As [`Device::reset`].
    pub fn profile(
        &mut self,
        tokens: &[u32],
        mut on_spent: impl FnMut(Spent),
        mut on_token: impl FnMut(Token),
    ) -> Result<(), DeviceError> {
        for tokens in tokens.chunks(MAX_FEED) {
            let tokens = tokens.iter().copied().collect();
            self.tokens(&Request::Profile(tokens), &mut on_spent, &mut on_token)?;
        }
        Ok(())
    }

    /// Reads `tokens` without a digest and without the sampler, which has no logits to choose from
    /// after that. Returns the ticks that they took.
    ///
    /// # Errors
    /// As [`Device::reset`].
    pub fn benchmark(&mut self, tokens: &[u32]) -> Result<u64, DeviceError> {
        const AWAITED: &str = "the end of a benchmark";
        let mut sum = 0;
        for tokens in tokens.chunks(MAX_FEED) {
            let tokens = tokens.iter().copied().collect();
            self.link.send(&Request::Benchmark(tokens), AWAITED)?;
            match self.link.receive(AWAITED)? {
                Reply::Ticks(ticks) => sum += ticks,
                _ => return Err(DeviceError::OutOfTurn { awaited: AWAITED }),
            }
        }
        Ok(sum)
    }

    /// Reads `token` and shows what its operations write, as closely as `depth` asks for.
    ///
    /// # Errors
    /// As [`Device::reset`], but for a token that the device refuses to compute: [`Looked`] says so.
    pub fn look(&mut self, token: u32, depth: Depth) -> Result<Looked, DeviceError> {
        const AWAITED: &str = "what a token writes";
        let mut looked = Looked::default();
        self.link.send(&Request::Look { token, depth }, AWAITED)?;
        loop {
            match self.link.receive(AWAITED) {
                Ok(Reply::Digests(digests)) => looked.digests.extend(digests),
                Ok(Reply::Values(values)) => looked.values.extend(values),
                Ok(Reply::Token(token)) => looked.token = Some(token),
                Ok(Reply::Done) => return Ok(looked),
                Err(DeviceError::Refused(AgentError::Model(error))) => {
                    looked.refused = Some(error);
                    return Ok(looked);
                }
                Ok(_) => return Err(DeviceError::OutOfTurn { awaited: AWAITED }),
                Err(error) => return Err(error),
            }
        }
    }

    /// So many words of the device's image, from `first` on.
    ///
    /// # Errors
    /// As [`Device::reset`].
    pub fn read_image(&mut self, words: Range<usize>) -> Result<Vec<u32>, DeviceError> {
        const AWAITED: &str = "a piece of its image";
        let mut read = Vec::with_capacity(words.len());
        while read.len() < words.len() {
            let first = (words.start + read.len()) as u32;
            self.link.send(&Request::ReadImage { first }, AWAITED)?;
            match self.link.receive(AWAITED)? {
                Reply::Image(piece) if !piece.is_empty() => read.extend(piece),
                _ => return Err(DeviceError::OutOfTurn { awaited: AWAITED }),
            }
        }
        read.truncate(words.len());
        Ok(read)
    }

    /// The words of the device's state, in the order of `StateView::words`.
    ///
    /// # Errors
    /// As [`Device::reset`]; [`DeviceError::UnknownState`] where its image is not at hand.
    pub fn read_state(&mut self) -> Result<Vec<f32>, DeviceError> {
        const AWAITED: &str = "its state";
        let count = self.state_words.ok_or(DeviceError::UnknownState)?;
        let mut words = Vec::with_capacity(count);
        while words.len() < count {
            self.link.send(&Request::ReadState { first: words.len() as u32 }, AWAITED)?;
            match self.link.receive(AWAITED)? {
                Reply::State(piece) if !piece.is_empty() => words.extend(piece),
                _ => return Err(DeviceError::OutOfTurn { awaited: AWAITED }),
            }
        }
        words.truncate(count);
        Ok(words)
    }

    /// Gives the device another state, in the order of `StateView::words`; its sampler goes on as
    /// it is, without the logits of a token. After an error the device computes nothing until a
    /// whole state was written or it is reset.
    ///
    /// # Errors
    /// As [`Device::reset`].
    pub fn write_state(&mut self, words: &[f32]) -> Result<(), DeviceError> {
        const AWAITED: &str = "the end of a piece of state";
        for (index, words) in words.chunks(MAX_STATE).enumerate() {
            let (first, words) = ((index * MAX_STATE) as u32, words.iter().copied().collect());
            self.plain(&Request::WriteState { first, words }, AWAITED)?;
        }
        self.plain(&Request::AcceptState, "a state to be accepted")
    }

    /// The memory in use.
    ///
    /// # Errors
    /// As [`Device::reset`].
    pub fn memory(&mut self) -> Result<Memory, DeviceError> {
        const AWAITED: &str = "its memory";
        self.link.send(&Request::Memory, AWAITED)?;
        match self.link.receive(AWAITED)? {
            Reply::Memory(memory) => Ok(memory),
            _ => Err(DeviceError::OutOfTurn { awaited: AWAITED }),
        }
    }

    /// Has the device check its image again.
    ///
    /// # Errors
    /// As [`Device::reset`].
    pub fn verify(&mut self) -> Result<(), DeviceError> {
        self.plain(&Request::Verify, "the end of a verification")
    }

    /// Ends the agent, and the emulated board with it.
    ///
    /// # Errors
    /// As [`Device::reset`].
    pub fn halt(mut self) -> Result<(), DeviceError> {
        self.plain(&Request::Halt, "a halt")
    }

    /// What the device printed beside the link so far.
    pub fn log(&mut self) -> Log {
        self.link.transport().log()
    }

    fn plain(&mut self, request: &Request, awaited: &'static str) -> Result<(), DeviceError> {
        self.link.send(request, awaited)?;
        match self.link.receive(awaited)? {
            Reply::Done => Ok(()),
            _ => Err(DeviceError::OutOfTurn { awaited }),
        }
    }

    fn tokens(
        &mut self,
        request: &Request,
        on_spent: &mut dyn FnMut(Spent),
        on_token: &mut dyn FnMut(Token),
    ) -> Result<(), DeviceError> {
        const AWAITED: &str = "a token";
        self.link.send(request, AWAITED)?;
        loop {
            match self.link.receive(AWAITED)? {
                Reply::Token(token) => on_token(token),
                Reply::Spent(spent) => spent.into_iter().for_each(&mut *on_spent),
                Reply::Done => return Ok(()),
                _ => return Err(DeviceError::OutOfTurn { awaited: AWAITED }),
            }
        }
    }
}
