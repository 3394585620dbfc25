//! What can go wrong between host and device, and what to do next.

use std::{io, path::PathBuf, time::Duration};

use rwkv_core::{Error, ImageError};
use rwkv_embedded::agent::{frame::FrameError, protocol::AgentError};
use thiserror::Error;

/// Why a device could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The device said nothing for too long.
    #[error(
        "the device said nothing for {} s while {awaited} was awaited; \
         give it more time, or look at its log with --device-log{log}",
        timeout.as_secs()
    )]
    Timeout {
        /// What was awaited.
        awaited: &'static str,
        /// How long.
        timeout: Duration,
        /// The device's last words.
        log: Log,
    },
    /// The device ended.
    #[error("the device ended while {awaited} was awaited{log}")]
    Ended {
        /// What was awaited.
        awaited: &'static str,
        /// The device's last words.
        log: Log,
    },
    /// The link failed.
    #[error("the link to the device failed while {awaited} was awaited: {error}{log}")]
    Link {
        /// What was awaited.
        awaited: &'static str,
        /// What the operating system says.
        error: io::Error,
        /// The device's last words.
        log: Log,
    },
    /// A frame is damaged.
    #[error(
        "the link carried a damaged frame while {awaited} was awaited: {error}; \
         check that nothing else writes to the same port"
    )]
    Frame {
        /// What was awaited.
        awaited: &'static str,
        /// What is wrong with it.
        error: FrameError,
    },
    /// The device answered something else.
    #[error(
        "the device answered out of turn while {awaited} was awaited; \
         rebuild its firmware from the sources of this tool"
    )]
    OutOfTurn {
        /// What was awaited.
        awaited: &'static str,
    },
    /// The device refused a request.
    #[error("the device refused: {}", Refusal(*.0))]
    Refused(AgentError),
    /// The device speaks another version of the protocol.
    #[error(
        "the device speaks protocol version {device}, this tool version {host}; \
         rebuild its firmware from the sources of this tool"
    )]
    Protocol {
        /// The device's version.
        device: u16,
        /// The host's version.
        host: u16,
    },
    /// The device cannot use what lies in its flash.
    #[error("the device found no usable image in its flash: {0}; write the image to it again")]
    NoImage(Error),
    /// The device runs another image.
    #[error(
        "the device runs another image (identity {device:08x}, expected {host:08x}); \
         write the image to it again"
    )]
    OtherImage {
        /// Identity of the image on the device.
        device: u32,
        /// Identity of the image on the host.
        host: u32,
    },
    /// How large the device's state is, only its image tells.
    #[error("the state of a device cannot be read without its image; give the image, too")]
    UnknownState,
    /// The image does not fit the board.
    #[error("the image has {needed} bytes, {board} has room for {room}; choose a smaller format")]
    TooLarge {
        /// The board.
        board: &'static str,
        /// Bytes of the image.
        needed: usize,
        /// Bytes that there are.
        room: usize,
    },
    /// The bit to flip is not in the image.
    #[error("byte {offset} cannot be damaged: the image has {len} bytes")]
    FlipRange {
        /// Where the bit was to be flipped.
        offset: usize,
        /// Bytes of the image.
        len: usize,
    },
    /// Only the simulated device can have faults.
    #[error("only the simulated device can flip a bit or compute one wrong; use --device sim")]
    FlipUnsupported,
    /// A serial port cannot be opened.
    #[error(
        "cannot open the serial port {port}: {error}; look for its name and its permissions, such as \
         those of ls -l /dev/tty*"
    )]
    Serial {
        /// Its name.
        port: String,
        /// What the operating system says.
        error: serialport::Error,
    },
    /// The emulator is not installed.
    #[error(
        "{program} is not installed; \
         run: apt-get install --no-install-recommends {package}"
    )]
    NoEmulator {
        /// The program that was not found.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// What runs a simulator was not found.
    #[error("there is no {0} in the current directory or above it; run in the project's directory")]
    NoSimulator(&'static str),
    /// What node needs to emulate a board is not installed.
    #[error(
        "the npm package {package} is not installed in {dir}; run: npm ci --no-audit --no-fund --prefix {dir}",
        dir = dir.display()
    )]
    NoPackage {
        /// The package.
        package: &'static str,
        /// The folder that names it, with its version.
        dir: PathBuf,
    },
    /// The firmware given by hand is not there.
    #[error("there is no firmware at {}; build it, or leave --firmware out", .0.display())]
    NoFirmware(PathBuf),
    /// The firmware given by hand is for something else.
    #[error(
        "{} is no firmware for {board}; build it in rwkv-embedded/boards/{board}, or leave \
         --firmware out",
        elf.display()
    )]
    OtherFirmware {
        /// The file.
        elf: PathBuf,
        /// The board.
        board: &'static str,
    },
    /// The sources of the firmware were not found.
    #[error(
        "the sources of the firmware were not found: there is no {} in the current directory or \
         above it; run in the project's directory, or give an ELF file with --firmware",
        .0.display()
    )]
    NoSources(PathBuf),
    /// The compiler cannot build for the board.
    #[error("the Rust target {target} is not installed; run: rustup target add {target}")]
    NoTarget {
        /// The target.
        target: &'static str,
    },
    /// The firmware could not be built.
    #[error("the firmware in {} could not be built:\n{message}", dir.display())]
    Build {
        /// The board's directory.
        dir: PathBuf,
        /// What the compiler says.
        message: String,
    },
    /// The operating system refused something.
    #[error("cannot {action}: {error}")]
    Io {
        /// What was tried.
        action: String,
        /// What the operating system says.
        error: io::Error,
    },
}

impl DeviceError {
    /// Adds what was tried to an error of the operating system.
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |error| Self::Io { action: action.into(), error }
    }
}

/// The host's own image is refused before a device sees it.
impl From<ImageError> for DeviceError {
    fn from(error: ImageError) -> Self {
        Self::NoImage(error.into())
    }
}

/// What a device printed last, empty if nothing.
#[derive(Debug, Clone, Default)]
pub struct Log(pub String);

impl std::fmt::Display for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.trim_end() {
            "" => Ok(()),
            text => write!(f, "; its last words:\n{text}"),
        }
    }
}

/// A refusal in words.
#[derive(Debug, Clone, Copy)]
pub struct Refusal(pub AgentError);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            AgentError::Model(error) => error.fmt(f),
            AgentError::Frame => f.write_str("the frame was damaged on its way; try again"),
            AgentError::NothingRead => {
                f.write_str("there is nothing to continue: feed at least one token first")
            }
            AgentError::Sampler => {
                f.write_str("the sampler's settings are out of range, or leave no token to choose")
            }
            AgentError::Arena { needed, given } => write!(
                f,
                "state and scratch of this image need {needed} bytes, the board gives {given}; \
                 choose a smaller model"
            ),
            AgentError::StateRange { words } => {
                write!(f, "the device's state has {words} words, and these reach beyond it")
            }
            AgentError::StateOrder { next } => {
                write!(f, "the state is not whole: its next piece begins at word {next}")
            }
            AgentError::StateNonFinite { word } => {
                write!(f, "word {word} of the state is infinite or not a number")
            }
            AgentError::OtherImage { identity } => write!(
                f,
                "there is an image without a fault, {identity:08x}, and not the one that was there \
                 when the device started; restart it"
            ),
            error => write!(f, "{error:?}"),
        }
    }
}
