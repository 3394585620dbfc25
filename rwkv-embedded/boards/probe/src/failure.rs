//! Why a mode ends early.

use core::fmt;

use rwkv_core::kernel::cases;

/// What is printed before the program exits with a failure.
#[derive(Debug, Clone, Copy)]
pub enum Failure {
    /// The command line is wrong.
    Usage(&'static str),
    /// The model refuses, or its image.
    Model(rwkv_core::Error),
    /// Only an emulated core counts its instructions.
    NoCounter,
    /// A kernel does not compute what the reference does.
    Difference(cases::Difference),
    /// The arena has fewer words than the mode needs.
    Arena {
        /// Words needed.
        needed: usize,
        /// Words there are.
        given: usize,
    },
}

impl From<rwkv_core::Error> for Failure {
    fn from(error: rwkv_core::Error) -> Self {
        Self::Model(error)
    }
}

impl From<rwkv_core::ImageError> for Failure {
    fn from(error: rwkv_core::ImageError) -> Self {
        Self::Model(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => {
                write!(f, "{what}; usage: MODE [COUNT] [--kernel NAME] [--image FILE]")
            }
            Self::Model(error) => error.fmt(f),
            Self::NoCounter => f.write_str("there is no counter of instructions on this machine"),
            Self::Difference(difference) => difference.fmt(f),
            Self::Arena { needed, given } => {
                write!(f, "this needs {needed} words of RAM, there are {given}")
            }
        }
    }
}
