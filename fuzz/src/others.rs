//! Images, vocabularies, states, traces, prompts, recipes and frames.

use std::sync::LazyLock;

use embedded_io::{ErrorType, Read, Write};
use rwkv_core::{
    Error, Header, Image, Model, StateView,
    image::{CRC, HEADER_BYTES, SECTION_BYTES},
    saved::SAVED_BYTES,
    stream::InPlace,
    tokenizer::{Tokenizer, Vocabulary},
};
use rwkv_embedded::agent::{
    Agent, Board,
    frame::Decoder,
    protocol::{MAX_FRAME, Reply, Request, Tick},
};
use rwkv_host::{
    convert::Folds,
    export::Export,
    file::ImageFile,
    memory::Memory,
    prompts,
    quantize::Recipe,
    state,
    tokenizer::List,
    trace::{Trace, TraceError},
};
use rwkv_tests::{
    damage,
    medium::{Clock, SimFlash, check_over},
    random, repair_header, step,
};

/// An image whose checksums are right, so that changes of its content count.
pub fn image(bytes: &[u8]) {
    let mut file = ImageFile::new(bytes);
    repair(file.bytes_mut());
    // On a medium it is the same image, or refused for the same reason.
    let in_memory =
        Image::open_prefix(file.bytes()).map(|image| (*image.header(), image.identity()));
    let over = check_over::<512>(SimFlash::new(file.bytes(), &Clock::default()));
    assert_eq!(over.map(|found| (found.header, found.identity)), in_memory.map_err(Error::Image));
    if let Ok(image) = file.open()
        && image.header().state_words() < MOST_STATE
    {
        let _ = step(&mut Memory::new(&image), &image, &[1, 2]);
        // What its metadata say is read by these.
        let _ = Folds::of(&image);
        let _ = Export::new(&image);
    }
    // Firmware that trusts its flash only parses the header: a step over it must end as well.
    if let Ok(header) = Header::parse(file.bytes()) {
        let _ = trusting(header, file.bytes());
    }
}

/// Words of state that firmware has room for.
const MOST_STATE: usize = 1 << 16;

fn trusting(header: Header, bytes: &[u8]) -> Option<()> {
    if header.state_words() > MOST_STATE {
        return None;
    }
    let (mut words, mut ready) = (vec![0.0; header.state_words()], false);
    let mut state = StateView::over(&header, &mut words, &mut ready).ok()?;
    let mut scratch = vec![0.0; (header.scratch_words as usize).min(1 << 16)];
    let flash = bytemuck::cast_slice(&bytes[..bytes.len() / 4 * 4]);
    let mut model = Model::new(header, InPlace::new(flash), &mut scratch).ok()?;
    let mut logits = vec![0.0; 1 << 16];
    if model.reset(state.reborrow()).is_err() {
        state.clear(&header);
    }
    model.step(state.reborrow(), 1, logits.as_mut_slice()).ok()
}

fn repair(bytes: &mut [u8]) {
    let Some(front) = bytes.get(..HEADER_BYTES) else { return };
    let sections = usize::from(u16::from_le_bytes([front[56], front[57]]));
    let room = (bytes.len() - HEADER_BYTES) / SECTION_BYTES;
    (0..sections.min(room)).for_each(|section| damage::repair_section(bytes, section));
    repair_header(bytes);
}

/// A list of tokens such as that of World, and texts by it.
pub fn tokens(bytes: &[u8]) {
    if let Ok(list) = List::parse(bytes) {
        let words = list.section();
        let vocabulary = Vocabulary::open(&words).expect("a list is a vocabulary");
        there_and_back(vocabulary, bytes);
    }
}

/// The vocabulary section of an image, and a text by it.
pub fn vocabulary(bytes: &[u8]) {
    let mut words = vec![0u32; bytes.len().div_ceil(4)];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    if let Ok(vocabulary) = Vocabulary::open(&words) {
        there_and_back(vocabulary, bytes);
    }
}

/// Every text has tokens, and they have its bytes.
fn there_and_back(vocabulary: Vocabulary<'_>, text: &[u8]) {
    let text = &text[..text.len().min(1024)];
    let tokenizer = Tokenizer::Vocabulary(vocabulary);
    let tokens = tokenizer.encode(text);
    let again: Vec<u8> = tokens
        .flat_map(|token| tokenizer.decode(token).expect("a token of its own"))
        .copied()
        .collect();
    assert_eq!(again, text);
}

/// A saved state of version 7, its checksums right: of the words in bytes 36 to 39, and of the
/// header in bytes 60 to 63.
pub fn state(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if let Some((front, words)) = bytes.split_at_mut_checked(SAVED_BYTES) {
        front[36..40].copy_from_slice(&CRC.checksum(words).to_le_bytes());
        front[60..].fill(0);
        let crc = CRC.checksum(front);
        front[60..].copy_from_slice(&crc.to_le_bytes());
    }
    static IMAGE: LazyLock<ImageFile> = LazyLock::new(random::tiny_image);
    let image = IMAGE.open().expect("it opens");
    let mut memory = Memory::new(&image);
    if state::restore(&image, &mut memory, &bytes).is_ok() {
        let _ = step(&mut memory, &image, &[1]);
    }
}

/// A golden trace, its length and its checksum right: whatever is read is written again.
pub fn trace(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if let Some(content) = bytes.len().checked_sub(16) {
        bytes[8..12].copy_from_slice(&(content as u32).to_le_bytes());
        let (covered, end) = bytes.split_at_mut(content + 12);
        end.copy_from_slice(&CRC.checksum(covered).to_le_bytes());
    }
    match Trace::parse(&bytes) {
        Ok(trace) => {
            let again = trace.to_bytes().expect("it is as short");
            assert_eq!(Trace::parse(&again), Ok(trace));
        }
        Err(error) => assert_ne!(error, TraceError::Checksum),
    }
}

/// A file of prompts, for a model of bytes.
pub fn prompts(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(cases) = prompts::parse(text, 256, 64, |text| {
            Ok(text.iter().map(|byte| u32::from(*byte)).collect())
        })
    {
        let is_usable = |tokens: &[u32]| !tokens.is_empty() && tokens.iter().all(|id| *id < 256);
        assert!(cases.iter().all(|case| is_usable(&case.tokens)));
    }
}

/// A recipe in TOML, over the names of a model.
pub fn recipe(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(recipe) = Recipe::parse(text)
    {
        let names = ["emb.weight", "blocks.0.att.key.weight", "head.weight"].map(str::to_owned);
        let _ = recipe.check(&names);
        for name in &names {
            let _ = recipe.rule(name);
        }
    }
}

/// Bytes on the wire, for an agent and for a host: as many answers as zero bytes. Then the same
/// bytes as a message in a frame whose checksum is right.
pub fn frame(bytes: &[u8]) {
    wire(bytes);
    let mut message = bytes[..bytes.len().min(MAX_FRAME)].to_vec();
    message.extend(CRC.checksum(&message).to_le_bytes());
    let mut frame = vec![0; cobs::max_encoding_length(message.len()) + 1];
    let len = cobs::encode(&message, &mut frame);
    wire(&frame[..=len]);
}

/// Bytes for an agent that runs a model; its answers go nowhere.
struct Line<'a>(&'a [u8]);

impl ErrorType for Line<'_> {
    type Error = core::convert::Infallible;
}

impl Read for Line<'_> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Self::Error> {
        let (now, later) = self.0.split_at(into.len().min(self.0.len()));
        into[..now.len()].copy_from_slice(now);
        self.0 = later;
        Ok(now.len())
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

struct Nowhere;

impl Board for Nowhere {
    const NAME: &'static str = "nowhere";
    const CORE: &'static str = "none";

    fn now(&mut self) -> u32 {
        0
    }

    fn tick(&self) -> Tick {
        Tick::Nanoseconds(1)
    }
}

fn wire(bytes: &[u8]) {
    static IMAGE: LazyLock<ImageFile> = LazyLock::new(random::tiny_image);
    let mut arena = [0.0; 1 << 12];
    let mut agent = Agent::new(Nowhere, IMAGE.bytes(), &mut arena);
    // A few frames ask for thousands of tokens.
    assert!(agent.run(Line(&bytes[..bytes.len().min(256)])).is_ok());
    let (mut agent, mut host) = (Decoder::new(), Decoder::new());
    for byte in bytes {
        let request = agent.push::<Request>(*byte).is_some();
        let reply = host.push::<Reply>(*byte).is_some();
        assert_eq!((request, reply), (*byte == 0, *byte == 0));
    }
}
