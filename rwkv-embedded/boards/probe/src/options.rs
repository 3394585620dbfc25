//! The command line.

use crate::failure::Failure;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Count the instructions of a C library.
    #[cfg(feature = "cmsis-nn")]
    CmsisNn,
    /// Run tokens of an image, print digests.
    Exactness,
    /// Count the instructions of everything else.
    #[cfg(feature = "functions")]
    Functions,
    /// Count the instructions of the matrix kernels.
    Kernels,
    /// Compare the kernels with the reference.
    Suite,
    /// Count the instructions of tokens.
    Tokens,
}

/// Every mode by its name.
const MODES: &[(&str, Mode)] = &[
    #[cfg(feature = "cmsis-nn")]
    ("cmsis-nn", Mode::CmsisNn),
    ("exactness", Mode::Exactness),
    #[cfg(feature = "functions")]
    ("functions", Mode::Functions),
    ("kernels", Mode::Kernels),
    ("suite", Mode::Suite),
    ("tokens", Mode::Tokens),
];

/// The parsed command line.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// What to do.
    pub mode: Mode,
    /// How often: tokens, or cases per operation.
    pub count: Option<u32>,
    /// The kernels, by name; the native ones unless told.
    pub kernel: Option<&'a str>,
    /// The file that becomes the window, on a host.
    pub image: Option<&'a str>,
}

impl<'a> Options<'a> {
    /// Reads the arguments behind the program's name.
    pub fn parse(mut words: impl Iterator<Item = &'a str>) -> Result<Self, Failure> {
        let name = words.next().ok_or(Failure::Usage("a mode is missing"))?;
        let mode = MODES.iter().find(|(known, _)| *known == name);
        let (_, mode) = mode.ok_or(Failure::Usage("there is no such mode"))?;
        let mut options = Self { mode: *mode, count: None, kernel: None, image: None };
        while let Some(word) = words.next() {
            match word {
                "--kernel" => options.kernel = words.next(),
                "--image" => options.image = words.next(),
                count => {
                    let count = count.parse().map_err(|_| Failure::Usage("not a number"))?;
                    options.count = Some(count);
                }
            }
        }
        Ok(options)
    }
}
