//! Why a checkpoint cannot be opened or a tensor cannot be read.

use std::{io, path::PathBuf};

use super::{Container, SHARING, opcode, pickle::MAX_LEN};

/// Why a checkpoint cannot be opened or a tensor cannot be read. Every message names the file,
/// the place, what was expected and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be opened or mapped.
    #[error("{}: cannot be opened; check the path and its permissions", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The first bytes belong to no known container.
    #[error(
        "{}: starts with the bytes {start:02x?}, expected a PyTorch zip (.pth), a .safetensors, an \
         rwkv.cpp .bin or a .gguf file; give a checkpoint in one of these formats",
        path.display()
    )]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// At most its first eight bytes.
        start: Vec<u8>,
    },
    /// The container is intact, but uses something that is not read here.
    #[error("{}: {found} not supported, expected {expected}; {remedy}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What was found, with its verb.
        found: String,
        /// What can be read.
        expected: &'static str,
        /// What to do next.
        remedy: &'static str,
    },
    /// The container contradicts itself or ends too early.
    #[error(
        "{}: byte {at}: {problem}, so the {container} is damaged or incomplete; \
         copy or export it again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The container that was recognised.
        container: Container,
        /// Offset in bytes from the start of the file.
        at: usize,
        /// What was found and what was expected.
        problem: String,
    },
    /// An index of shards is wrong, or does not fit them.
    #[error(
        "{}: {problem}; get the whole folder again, the index and every shard that it names",
        path.display()
    )]
    Shards {
        /// The index.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// A tensor does not have the form in which its naming stores it.
    #[error(
        "{}: tensor `{tensor}` has shape {shape:?}, expected {expected}; export the model again",
        path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// The name in the file.
        tensor: String,
        /// Its size along each dimension.
        shape: Vec<usize>,
        /// What the naming needs.
        expected: String,
    },
    /// Two tensors have one name.
    #[error(
        "{}: there are two tensors `{tensor}`, expected one; remove one of them or export the \
         model again",
        path.display()
    )]
    Twice {
        /// The file.
        path: PathBuf,
        /// The official name of both.
        tensor: String,
    },
    /// The pickle of a PyTorch checkpoint is refused.
    #[error("{}: member `{member}`", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Name of the zip member.
        member: String,
        /// Where and why.
        source: PickleError,
    },
    /// A tensor reaches beyond the values stored for it.
    #[error(
        "{}: tensor `{tensor}`: shape {shape:?} with strides {strides:?} from value {offset} on \
         does not lie within the {available} values stored for it, expected a view of at most 8 \
         dimensions that repeats no value; save `tensor.contiguous()` or export the file again",
        path.display()
    )]
    Bounds {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Its size along each dimension.
        shape: Vec<usize>,
        /// Distance in values between neighbours along each dimension.
        strides: Vec<usize>,
        /// Index of its first value in the storage.
        offset: usize,
        /// Number of values that the storage holds.
        available: usize,
    },
    /// The tensors share values as those of no model do.
    #[error(
        "{}: the tensors are {total} bytes long together, expected at most {max} in files of {len}, \
         with values that {sharing} tensors share on average; save clones of the tensors",
        path.display(),
        max = len.saturating_mul(SHARING),
        sharing = SHARING
    )]
    Shared {
        /// The file.
        path: PathBuf,
        /// Bytes of all tensors, those that several share counted for each.
        total: usize,
        /// Bytes of the file, or of all shards.
        len: usize,
    },
    /// The name belongs to something other than floating-point values of 16 or 32 bits.
    #[error(
        "{}: `{tensor}` holds {found}, expected a tensor of F32, F16 or BF16 values; \
         convert it with `.float()` and save the checkpoint again",
        path.display()
    )]
    NotWeights {
        /// The file.
        path: PathBuf,
        /// The name that was asked for.
        tensor: String,
        /// What it names.
        found: String,
    },
    /// No tensor has the name that was asked for.
    #[error(
        "{}: has no tensor `{tensor}` among its {count}; \
         check that the model is an RWKV under its official names",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The name that was asked for.
        tensor: String,
        /// Number of tensors in the file.
        count: usize,
    },
    /// The file holds no tensor that could be a weight.
    #[error(
        "{}: the {container} holds no tensor of F32, F16 or BF16 values, expected a flat \
         dictionary of tensors; save the model's `state_dict()` by itself",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
        /// The container that was recognised.
        container: Container,
    },
}

/// Why a pickle is refused. Offsets are bytes from the start of the pickle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The pickle is longer than any dictionary of weights needs.
    #[error(
        "is {len} bytes long, expected at most {MAX_LEN}; save the model's `state_dict()` by itself"
    )]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The pickle ends before its STOP instruction.
    #[error("byte {at}: ends inside this instruction, expected more; copy the file again")]
    Truncated {
        /// Offset of the instruction.
        at: usize,
    },
    /// An instruction that no dictionary of tensors needs.
    #[error(
        "byte {at}: instruction {} ({code:#04x}) is refused, expected only what a dictionary of \
         tensors needs; save the model's `state_dict()` by itself",
        opcode::name(*code)
    )]
    Opcode {
        /// Offset of the instruction.
        at: usize,
        /// Its code.
        code: u8,
    },
    /// A Python object that no dictionary of tensors needs.
    #[error(
        "byte {at}: the Python object `{name}` is refused, expected only what a dictionary of \
         tensors needs; save the model's `state_dict()` by itself"
    )]
    Global {
        /// Offset of the instruction that asks for it.
        at: usize,
        /// Module and name, separated by a dot.
        name: String,
    },
    /// Instructions that do not fit together.
    #[error("byte {at}: expected {expected}; save the checkpoint again with `torch.save`")]
    Malformed {
        /// Offset of the instruction.
        at: usize,
        /// What the instruction needs and did not find.
        expected: &'static str,
    },
}
