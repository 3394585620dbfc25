//! Error codes with names, for every error of the libraries.

use core::ffi::{CStr, c_char};

use rwkv_core::{
    Error, ImageError, StreamError,
    sampler::SamplerError,
    saved::SavedError,
    tokenizer::{TokenizerError, VocabularyError},
};
use rwkv_embedded::{selftest::SelfTestError, snapshot::SnapshotError};

/// What a function returns. The numbers are stable: a later version only adds some. In brackets:
/// what the details say.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum rwkv_error {
    /// All went well.
    Ok = 0,

    /// A pointer is null that may not be.
    NullPointer = 1,
    /// A pointer is not aligned for what it points to.
    MisalignedPointer = 2,
    /// A struct was not initialised, or its initialisation failed.
    Uninitialised = 3,
    /// An array is too small (place: elements that are there; value: elements needed).
    Room = 4,
    /// The image holds no tokenizer that can be used: it is on a medium, or the host has it.
    NoTokenizer = 5,
    /// The vocabulary has no such token (value: the token).
    UnknownToken = 6,
    /// Weights on a medium need a buffer (value: words needed).
    NoBuffer = 7,
    /// The caller's function that takes text has failed.
    Write = 8,
    /// A stop text has no bytes.
    EmptyStopText = 9,

    /// The token is not in the vocabulary (place: the token; value: tokens in the vocabulary).
    Token = 20,
    /// The memory of a state has another size (place: words that are there; value: words needed).
    StateSize = 21,
    /// The scratch memory is too small (place: words that are there; value: words needed).
    ScratchSize = 22,
    /// The array for logits is too small (value: tokens in the vocabulary).
    LogitsSize = 23,
    /// A value became infinite or not a number.
    NonFinite = 24,
    /// The state was never set, or a token failed half-way: reset or restore it.
    BrokenState = 25,
    /// A fault of the library: please report it.
    Internal = 26,

    /// The image does not start on a word boundary.
    ImageMisaligned = 40,
    /// The image ends early (place: bytes that are there; value: bytes needed).
    ImageTruncated = 41,
    /// More bytes follow the image (place: bytes that are there; value: bytes of the image).
    ImageTrailingBytes = 42,
    /// The first four bytes are not `RWKV`.
    ImageMagic = 43,
    /// An image format that this library does not read (value: its version).
    ImageFormatVersion = 44,
    /// An RWKV version that this library does not know (value: its code).
    ImageVersion = 45,
    /// A math mode that this library does not have (value: its code).
    ImageMathMode = 46,
    /// A state precision that this library does not have (value: its code).
    ImageStatePrecision = 47,
    /// A tokenizer that this library does not have (value: its code).
    ImageTokenizer = 48,
    /// A header field is out of range (place: its byte offset).
    ImageHeaderField = 49,
    /// The checksum of the header does not match.
    ImageHeaderChecksum = 50,
    /// The section table is not that of this model (place: the entry).
    ImageSectionTable = 51,
    /// The checksum of a section does not match (place: the section).
    ImageSectionChecksum = 52,
    /// A record is damaged or not the expected one (place: its byte offset; value: its identifier).
    ImageRecord = 53,
    /// A block of weights is damaged (place: its byte offset).
    ImageBlockChecksum = 54,
    /// A section does not end with its records (place: the section).
    ImageSectionLength = 55,
    /// Scratch or block size in the header are not what the model needs.
    ImagePlan = 56,
    /// A value of the start state is infinite or not a number (place: its word).
    ImageStartState = 57,
    /// The tables of the vocabulary do not fill their section.
    VocabularySize = 60,
    /// The bytes of a token are not in the vocabulary (place: the token).
    VocabularyEntry = 61,
    /// The vocabulary is out of order (place: the entry).
    VocabularyOrder = 62,
    /// Some byte is not a token by itself.
    VocabularySingles = 63,
    /// The vocabulary has more tokens than the model (value: tokens of the vocabulary).
    VocabularyVocab = 64,

    /// A read past the end of the image (place: its byte offset).
    StreamOutOfBounds = 80,
    /// The medium has failed (place: the byte offset of the read).
    StreamMedium = 81,
    /// The buffer is too small for a block (value: words of the block).
    StreamBuffer = 82,
    /// The image does not begin at a multiple of four bytes (place: where it does begin).
    StreamMisplaced = 83,
    /// A placement is of another image (place: identity of its image; value: of this one).
    StreamOtherImage = 84,
    /// Another card is there than the one that was read first (place: the byte offset of the read).
    StreamChanged = 85,

    /// The temperature is negative, subnormal, infinite or not a number.
    SamplerTemperature = 100,
    /// `top_k` exceeds RWKV_MAX_CANDIDATES.
    SamplerTopK = 101,
    /// `top_p` is outside 0..=1.
    SamplerTopP = 102,
    /// A logit is infinite or not a number (place: its token).
    SamplerNonFiniteLogit = 103,
    /// Logits came out of order (place: the token that came; value: the one that was due).
    SamplerOutOfOrder = 104,
    /// No token was computed since the last one was chosen for a first time.
    SamplerNoLogits = 105,
    /// `min_p` is outside 0..=1.
    SamplerMinP = 106,
    /// The repetition penalty is negative, subnormal, infinite or not a number.
    SamplerRepetition = 107,
    /// The presence or the frequency penalty is infinite or not a number.
    SamplerPenalty = 108,
    /// `penalty_decay` is outside 0..=1.
    SamplerPenaltyDecay = 109,
    /// There is no such order.
    SamplerOrder = 110,
    /// Banned tokens do not stand in ascending order, or one stands twice.
    SamplerBannedOrder = 111,
    /// The mask allows no token of the vocabulary.
    SamplerNothingAllowed = 112,

    /// The saved state has another length (place: bytes that are there; value: bytes needed).
    SavedLength = 120,
    /// The first four bytes are not `RWKS`.
    SavedMagic = 121,
    /// A layout of saved states that this library does not know (value: its version).
    SavedVersion = 122,
    /// The checksum of the saved state's header does not match.
    SavedHeaderChecksum = 123,
    /// A header field of the saved state is out of range.
    SavedField = 124,
    /// A state of another image (place: identity of its image; value: of this one).
    SavedOtherImage = 125,
    /// The saved state has another shape than the image's.
    SavedShape = 126,
    /// The pending token is not in the vocabulary (value: the token).
    SavedPending = 127,
    /// The checksum of the saved words does not match.
    SavedChecksum = 128,
    /// A value is infinite or not a number (place: its word).
    SavedNonFinite = 129,
    /// The state was never set, or a token failed half-way.
    SavedBroken = 130,

    /// The core counts a subnormal operand as zero.
    SelfTestSubnormalInput = 140,
    /// The core makes a subnormal result zero.
    SelfTestSubnormalOutput = 141,
    /// The core does not round to nearest even.
    SelfTestRounding = 142,
    /// Multiply and add are fused.
    SelfTestContraction = 143,

    /// The flash that snapshots lie in has failed (place: the byte offset).
    SnapshotFlash = 160,
    /// Two slots do not fit into the flash, or do not begin where it can be erased (place: bytes
    /// from the first slot to the end of the flash; value: bytes needed).
    SnapshotRoom = 161,
    /// What was written does not read back as it was (place: the byte offset of the slot).
    SnapshotWorn = 162,
    /// The flash reads or writes pieces that 64 bytes are not whole pieces of, or erases pieces
    /// that are not multiples of 64 bytes.
    SnapshotGeometry = 163,
    /// There is no snapshot; the state is as it was.
    NoSnapshot = 164,

    /// An error that this layer has no code for.
    Other = 255,
}

/// Where something failed and what was expected: see the error.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct rwkv_detail {
    /// Byte, token, word or section.
    pub place: u32,
    /// What was needed, or found.
    pub value: u32,
}

impl rwkv_detail {
    pub(crate) const NONE: Self = Self { place: 0, value: 0 };
}

/// An error with its details.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) error: rwkv_error,
    pub(crate) detail: rwkv_detail,
}

impl Fault {
    pub(crate) const fn new(error: rwkv_error, place: u32, value: u32) -> Self {
        Self { error, detail: rwkv_detail { place, value } }
    }

    /// An array of `given` elements where `needed` are.
    pub(crate) fn room(given: usize, needed: usize) -> Self {
        Self::new(rwkv_error::Room, clip(given as u64), clip(needed as u64))
    }
}

fn clip(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl From<rwkv_error> for Fault {
    fn from(error: rwkv_error) -> Self {
        Self::new(error, 0, 0)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        use rwkv_error as E;
        match error {
            Error::Image(error) => error.into(),
            Error::Stream(error) => error.into(),
            Error::Token { token, vocab } => Self::new(E::Token, token, vocab),
            Error::StateSize { needed, given } => Self::new(E::StateSize, given, needed),
            Error::ScratchSize { needed, given } => Self::new(E::ScratchSize, given, needed),
            Error::LogitsSize { needed } => Self::new(E::LogitsSize, 0, needed),
            Error::NonFinite => E::NonFinite.into(),
            Error::BrokenState => E::BrokenState.into(),
            Error::Internal => E::Internal.into(),
            _ => E::Other.into(),
        }
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        use rwkv_error as E;
        let at = |error, place| Self::new(error, place, 0);
        let is = |error, value| Self::new(error, 0, value);
        match error {
            ImageError::Misaligned => E::ImageMisaligned.into(),
            ImageError::Truncated { needed, given } => Self::new(E::ImageTruncated, given, needed),
            ImageError::TrailingBytes { expected, given } => {
                Self::new(E::ImageTrailingBytes, given, expected)
            }
            ImageError::Magic => E::ImageMagic.into(),
            ImageError::FormatVersion(v) => is(E::ImageFormatVersion, v.into()),
            ImageError::Version(v) => is(E::ImageVersion, v.into()),
            ImageError::MathMode(v) => is(E::ImageMathMode, v.into()),
            ImageError::StatePrecision(v) => is(E::ImageStatePrecision, v.into()),
            ImageError::Tokenizer(v) => is(E::ImageTokenizer, v.into()),
            ImageError::HeaderField { offset } => at(E::ImageHeaderField, offset.into()),
            ImageError::HeaderChecksum => E::ImageHeaderChecksum.into(),
            ImageError::SectionTable { section } => at(E::ImageSectionTable, section.into()),
            ImageError::SectionChecksum { section } => at(E::ImageSectionChecksum, section.into()),
            ImageError::Record { offset, expected } => {
                Self::new(E::ImageRecord, offset, expected.into())
            }
            ImageError::BlockChecksum { offset } => at(E::ImageBlockChecksum, offset),
            ImageError::SectionLength { section } => at(E::ImageSectionLength, section.into()),
            ImageError::Plan => E::ImagePlan.into(),
            ImageError::StartState { word } => at(E::ImageStartState, word),
            ImageError::Vocabulary(error) => match error {
                VocabularyError::Size => E::VocabularySize.into(),
                VocabularyError::Entry { token } => at(E::VocabularyEntry, token),
                VocabularyError::Order { rank } => at(E::VocabularyOrder, rank),
                VocabularyError::Singles => E::VocabularySingles.into(),
                VocabularyError::Vocab { ids } => is(E::VocabularyVocab, ids),
                _ => E::Other.into(),
            },
            _ => E::Other.into(),
        }
    }
}

impl From<StreamError> for Fault {
    fn from(error: StreamError) -> Self {
        use rwkv_error as E;
        match error {
            StreamError::OutOfBounds { offset } => Self::new(E::StreamOutOfBounds, offset, 0),
            StreamError::Medium { offset } => Self::new(E::StreamMedium, offset, 0),
            StreamError::Buffer { words } => Self::new(E::StreamBuffer, 0, words),
            StreamError::Misplaced { offset } => Self::new(E::StreamMisplaced, offset, 0),
            StreamError::Changed { offset } => Self::new(E::StreamChanged, offset, 0),
            _ => E::Other.into(),
        }
    }
}

impl From<SamplerError> for Fault {
    fn from(error: SamplerError) -> Self {
        use rwkv_error as E;
        match error {
            SamplerError::Temperature => E::SamplerTemperature.into(),
            SamplerError::TopK => E::SamplerTopK.into(),
            SamplerError::TopP => E::SamplerTopP.into(),
            SamplerError::NonFiniteLogit { token } => Self::new(E::SamplerNonFiniteLogit, token, 0),
            SamplerError::OutOfOrder { expected, found } => {
                Self::new(E::SamplerOutOfOrder, found, expected)
            }
            SamplerError::NoLogits => E::SamplerNoLogits.into(),
            SamplerError::MinP => E::SamplerMinP.into(),
            SamplerError::Repetition => E::SamplerRepetition.into(),
            SamplerError::Penalty => E::SamplerPenalty.into(),
            SamplerError::PenaltyDecay => E::SamplerPenaltyDecay.into(),
            SamplerError::BannedOrder => E::SamplerBannedOrder.into(),
            SamplerError::NothingAllowed => E::SamplerNothingAllowed.into(),
            _ => E::Other.into(),
        }
    }
}

impl From<SavedError> for Fault {
    fn from(error: SavedError) -> Self {
        use rwkv_error as E;
        match error {
            SavedError::Length { needed, given } => {
                Self::new(E::SavedLength, clip(given), clip(needed))
            }
            SavedError::Magic => E::SavedMagic.into(),
            SavedError::Version(v) => Self::new(E::SavedVersion, 0, v.into()),
            SavedError::HeaderChecksum => E::SavedHeaderChecksum.into(),
            SavedError::Field => E::SavedField.into(),
            SavedError::OtherImage { state, image } => Self::new(E::SavedOtherImage, state, image),
            SavedError::Shape => E::SavedShape.into(),
            SavedError::Pending(token) => Self::new(E::SavedPending, 0, token),
            SavedError::Checksum => E::SavedChecksum.into(),
            SavedError::NonFinite { word } => Self::new(E::SavedNonFinite, word, 0),
            SavedError::Broken => E::SavedBroken.into(),
            _ => E::Other.into(),
        }
    }
}

impl From<SnapshotError> for Fault {
    fn from(error: SnapshotError) -> Self {
        use rwkv_error as E;
        match error {
            SnapshotError::Flash { offset, .. } => Self::new(E::SnapshotFlash, offset, 0),
            SnapshotError::Room { needed, given } => Self::new(E::SnapshotRoom, given, needed),
            SnapshotError::Worn { offset } => Self::new(E::SnapshotWorn, offset, 0),
            SnapshotError::State(error) => error.into(),
            _ => E::Other.into(),
        }
    }
}

impl From<TokenizerError> for Fault {
    fn from(error: TokenizerError) -> Self {
        match error {
            TokenizerError::UnknownToken { token } => Self::new(rwkv_error::UnknownToken, 0, token),
            _ => rwkv_error::Other.into(),
        }
    }
}

impl From<SelfTestError> for rwkv_error {
    fn from(error: SelfTestError) -> Self {
        match error {
            SelfTestError::SubnormalInput => Self::SelfTestSubnormalInput,
            SelfTestError::SubnormalOutput => Self::SelfTestSubnormalOutput,
            SelfTestError::Rounding => Self::SelfTestRounding,
            SelfTestError::Contraction => Self::SelfTestContraction,
            _ => Self::Other,
        }
    }
}

/// The name of an error as it stands in this header, or null for a number that is none. The text
/// is constant and ends with a zero.
#[unsafe(no_mangle)]
pub extern "C" fn rwkv_error_name(error: i32) -> *const c_char {
    let name = NAMES.iter().find(|(code, _)| *code as i32 == error);
    name.map_or(core::ptr::null(), |(_, name)| name.as_ptr())
}

/// Every error with its name in C, which `cargo xtask c` compares with the header.
#[rustfmt::skip]
const NAMES: &[(rwkv_error, &CStr)] = &[
    (rwkv_error::Ok, c"RWKV_ERROR_OK"),
    (rwkv_error::NullPointer, c"RWKV_ERROR_NULL_POINTER"),
    (rwkv_error::MisalignedPointer, c"RWKV_ERROR_MISALIGNED_POINTER"),
    (rwkv_error::Uninitialised, c"RWKV_ERROR_UNINITIALISED"),
    (rwkv_error::Room, c"RWKV_ERROR_ROOM"),
    (rwkv_error::NoTokenizer, c"RWKV_ERROR_NO_TOKENIZER"),
    (rwkv_error::UnknownToken, c"RWKV_ERROR_UNKNOWN_TOKEN"),
    (rwkv_error::NoBuffer, c"RWKV_ERROR_NO_BUFFER"),
    (rwkv_error::Write, c"RWKV_ERROR_WRITE"),
    (rwkv_error::EmptyStopText, c"RWKV_ERROR_EMPTY_STOP_TEXT"),
    (rwkv_error::Token, c"RWKV_ERROR_TOKEN"),
    (rwkv_error::StateSize, c"RWKV_ERROR_STATE_SIZE"),
    (rwkv_error::ScratchSize, c"RWKV_ERROR_SCRATCH_SIZE"),
    (rwkv_error::LogitsSize, c"RWKV_ERROR_LOGITS_SIZE"),
    (rwkv_error::NonFinite, c"RWKV_ERROR_NON_FINITE"),
    (rwkv_error::BrokenState, c"RWKV_ERROR_BROKEN_STATE"),
    (rwkv_error::Internal, c"RWKV_ERROR_INTERNAL"),
    (rwkv_error::ImageMisaligned, c"RWKV_ERROR_IMAGE_MISALIGNED"),
    (rwkv_error::ImageTruncated, c"RWKV_ERROR_IMAGE_TRUNCATED"),
    (rwkv_error::ImageTrailingBytes, c"RWKV_ERROR_IMAGE_TRAILING_BYTES"),
    (rwkv_error::ImageMagic, c"RWKV_ERROR_IMAGE_MAGIC"),
    (rwkv_error::ImageFormatVersion, c"RWKV_ERROR_IMAGE_FORMAT_VERSION"),
    (rwkv_error::ImageVersion, c"RWKV_ERROR_IMAGE_VERSION"),
    (rwkv_error::ImageMathMode, c"RWKV_ERROR_IMAGE_MATH_MODE"),
    (rwkv_error::ImageStatePrecision, c"RWKV_ERROR_IMAGE_STATE_PRECISION"),
    (rwkv_error::ImageTokenizer, c"RWKV_ERROR_IMAGE_TOKENIZER"),
    (rwkv_error::ImageHeaderField, c"RWKV_ERROR_IMAGE_HEADER_FIELD"),
    (rwkv_error::ImageHeaderChecksum, c"RWKV_ERROR_IMAGE_HEADER_CHECKSUM"),
    (rwkv_error::ImageSectionTable, c"RWKV_ERROR_IMAGE_SECTION_TABLE"),
    (rwkv_error::ImageSectionChecksum, c"RWKV_ERROR_IMAGE_SECTION_CHECKSUM"),
    (rwkv_error::ImageRecord, c"RWKV_ERROR_IMAGE_RECORD"),
    (rwkv_error::ImageBlockChecksum, c"RWKV_ERROR_IMAGE_BLOCK_CHECKSUM"),
    (rwkv_error::ImageSectionLength, c"RWKV_ERROR_IMAGE_SECTION_LENGTH"),
    (rwkv_error::ImagePlan, c"RWKV_ERROR_IMAGE_PLAN"),
    (rwkv_error::ImageStartState, c"RWKV_ERROR_IMAGE_START_STATE"),
    (rwkv_error::VocabularySize, c"RWKV_ERROR_VOCABULARY_SIZE"),
    (rwkv_error::VocabularyEntry, c"RWKV_ERROR_VOCABULARY_ENTRY"),
    (rwkv_error::VocabularyOrder, c"RWKV_ERROR_VOCABULARY_ORDER"),
    (rwkv_error::VocabularySingles, c"RWKV_ERROR_VOCABULARY_SINGLES"),
    (rwkv_error::VocabularyVocab, c"RWKV_ERROR_VOCABULARY_VOCAB"),
    (rwkv_error::StreamOutOfBounds, c"RWKV_ERROR_STREAM_OUT_OF_BOUNDS"),
    (rwkv_error::StreamMedium, c"RWKV_ERROR_STREAM_MEDIUM"),
    (rwkv_error::StreamBuffer, c"RWKV_ERROR_STREAM_BUFFER"),
    (rwkv_error::StreamMisplaced, c"RWKV_ERROR_STREAM_MISPLACED"),
    (rwkv_error::StreamOtherImage, c"RWKV_ERROR_STREAM_OTHER_IMAGE"),
    (rwkv_error::StreamChanged, c"RWKV_ERROR_STREAM_CHANGED"),
    (rwkv_error::SamplerTemperature, c"RWKV_ERROR_SAMPLER_TEMPERATURE"),
    (rwkv_error::SamplerTopK, c"RWKV_ERROR_SAMPLER_TOP_K"),
    (rwkv_error::SamplerTopP, c"RWKV_ERROR_SAMPLER_TOP_P"),
    (rwkv_error::SamplerNonFiniteLogit, c"RWKV_ERROR_SAMPLER_NON_FINITE_LOGIT"),
    (rwkv_error::SamplerOutOfOrder, c"RWKV_ERROR_SAMPLER_OUT_OF_ORDER"),
    (rwkv_error::SamplerNoLogits, c"RWKV_ERROR_SAMPLER_NO_LOGITS"),
    (rwkv_error::SamplerMinP, c"RWKV_ERROR_SAMPLER_MIN_P"),
    (rwkv_error::SamplerRepetition, c"RWKV_ERROR_SAMPLER_REPETITION"),
    (rwkv_error::SamplerPenalty, c"RWKV_ERROR_SAMPLER_PENALTY"),
    (rwkv_error::SamplerPenaltyDecay, c"RWKV_ERROR_SAMPLER_PENALTY_DECAY"),
    (rwkv_error::SamplerOrder, c"RWKV_ERROR_SAMPLER_ORDER"),
    (rwkv_error::SamplerBannedOrder, c"RWKV_ERROR_SAMPLER_BANNED_ORDER"),
    (rwkv_error::SamplerNothingAllowed, c"RWKV_ERROR_SAMPLER_NOTHING_ALLOWED"),
    (rwkv_error::SavedLength, c"RWKV_ERROR_SAVED_LENGTH"),
    (rwkv_error::SavedMagic, c"RWKV_ERROR_SAVED_MAGIC"),
    (rwkv_error::SavedVersion, c"RWKV_ERROR_SAVED_VERSION"),
    (rwkv_error::SavedHeaderChecksum, c"RWKV_ERROR_SAVED_HEADER_CHECKSUM"),
    (rwkv_error::SavedField, c"RWKV_ERROR_SAVED_FIELD"),
    (rwkv_error::SavedOtherImage, c"RWKV_ERROR_SAVED_OTHER_IMAGE"),
    (rwkv_error::SavedShape, c"RWKV_ERROR_SAVED_SHAPE"),
    (rwkv_error::SavedPending, c"RWKV_ERROR_SAVED_PENDING"),
    (rwkv_error::SavedChecksum, c"RWKV_ERROR_SAVED_CHECKSUM"),
    (rwkv_error::SavedNonFinite, c"RWKV_ERROR_SAVED_NON_FINITE"),
    (rwkv_error::SavedBroken, c"RWKV_ERROR_SAVED_BROKEN"),
    (rwkv_error::SelfTestSubnormalInput, c"RWKV_ERROR_SELF_TEST_SUBNORMAL_INPUT"),
    (rwkv_error::SelfTestSubnormalOutput, c"RWKV_ERROR_SELF_TEST_SUBNORMAL_OUTPUT"),
    (rwkv_error::SelfTestRounding, c"RWKV_ERROR_SELF_TEST_ROUNDING"),
    (rwkv_error::SelfTestContraction, c"RWKV_ERROR_SELF_TEST_CONTRACTION"),
    (rwkv_error::SnapshotFlash, c"RWKV_ERROR_SNAPSHOT_FLASH"),
    (rwkv_error::SnapshotRoom, c"RWKV_ERROR_SNAPSHOT_ROOM"),
    (rwkv_error::SnapshotWorn, c"RWKV_ERROR_SNAPSHOT_WORN"),
    (rwkv_error::SnapshotGeometry, c"RWKV_ERROR_SNAPSHOT_GEOMETRY"),
    (rwkv_error::NoSnapshot, c"RWKV_ERROR_NO_SNAPSHOT"),
    (rwkv_error::Other, c"RWKV_ERROR_OTHER"),
];
