//! A model on a part: what it needs, what is there, and what limits it.

use rwkv_core::{Image, image::PIECE_WORDS};
use rwkv_embedded::stream::words_around;
use serde::Serialize;

use super::{Board, Core, Layout, Place, SD_CARD, SPI_NOR, Time, Trace, over, stream};
use crate::convert::{Options, Packing, Weights};

/// A part, and the firmware on it.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it is called.
    pub name: String,
    /// Its core.
    pub core: Core,
    /// Instructions per second at most.
    pub per_second: Option<f64>,
    /// Bytes of memory for firmware and image.
    pub flash: u64,
    /// Whether that memory is the RAM.
    pub runs_from_ram: bool,
    /// Bytes of RAM.
    pub ram: u64,
    /// Where the image lies.
    pub image: Place,
    /// Bytes of the firmware.
    pub firmware: u64,
    /// Bytes of its stack and static variables, the model's memory left out.
    pub stack: u64,
    /// Buffers of a stream: one, or two of which one is read into while the core computes from the
    /// other.
    pub buffers: u8,
}

impl From<Board> for Part {
    fn from(board: Board) -> Self {
        Self {
            name: board.name.to_owned(),
            core: board.core,
            per_second: board.clock.map(|clock| clock * board.core.per_cycle()),
            flash: board.flash,
            runs_from_ram: board.runs_from_ram,
            ram: board.ram,
            image: board.image,
            firmware: board.core.firmware(),
            stack: board.core.stack(),
            buffers: board.image.buffers(),
        }
    }
}

/// A memory: bytes that are needed, and that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Needed.
    pub needed: u64,
    /// There.
    pub there: u64,
}

impl Need {
    /// Whether it is enough.
    pub const fn is_met(self) -> bool {
        self.needed <= self.there
    }
}

/// What the RAM holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ram {
    /// The state.
    pub state: u64,
    /// The scratch of a token.
    pub scratch: u64,
    /// The buffers of a stream.
    pub buffers: u64,
    /// The shortest that there may be: long rows come in pieces.
    pub least_buffers: u64,
    /// Stack and static variables.
    pub stack: u64,
    /// Firmware, and an image in place, where they lie in RAM.
    pub program: u64,
    /// A copy of the state, which a stream that can fail may have on top: with it, a token that
    /// failed is undone. Not counted; 0 in place.
    pub undo: u64,
    /// What a state in 16 bits would save, if there were one: it is in f32 in every image.
    pub half_state: u64,
    /// All of it, and what there is.
    #[serde(flatten)]
    pub total: Need,
}

/// What a token takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Token {
    /// Bytes that are read.
    pub bytes: u64,
    /// Of them without the columns that may be passed over.
    pub fixed_bytes: u64,
    /// Columns of sparse products.
    pub columns: u64,
    /// The share of them that is read.
    pub live: f64,
    /// Reads of the medium; none in place.
    pub reads: u64,
    /// Instructions, logits included.
    pub instructions: f64,
    /// Of them those that move bytes, where the core itself does that.
    pub moving: f64,
}

/// What a token waits for most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Weights.
    Reading,
    /// Instructions.
    Instructions,
}

/// Tokens per second at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// If reading were all; `None` where nobody knows how fast it is.
    pub reading: Option<f64>,
    /// If computing were all; `None` where there is no clock.
    pub instructions: Option<f64>,
    /// Both together.
    pub tokens_per_second: Option<f64>,
    /// Which of both binds.
    pub binds: Option<Limit>,
}

/// A model on a part.
#[derive(Debug, Clone, Serialize)]
pub struct Fit {
    /// The part.
    pub part: String,
    /// Its core.
    pub core: Core,
    /// How weights are reached.
    pub image_in: &'static str,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Bytes of the firmware.
    pub firmware_bytes: u64,
    /// Memory of the firmware, and of an image in place; `None` where that is the RAM.
    pub flash: Option<Need>,
    /// The medium of an image that is streamed.
    pub medium: Option<Need>,
    /// The RAM.
    pub ram: Ram,
    /// What a token takes.
    pub token: Token,
    /// How fast it can be.
    pub limits: Limits,
    /// Whether every memory is large enough.
    pub fits: bool,
}

impl Fit {
    /// The memories that are too small, with the bytes that are missing.
    pub fn missing(&self) -> Vec<(&'static str, u64)> {
        let all =
            [("flash", self.flash), (self.image_in, self.medium), ("RAM", Some(self.ram.total))];
        let short = all.into_iter().filter_map(|(name, need)| {
            let need = need.filter(|need| !need.is_met())?;
            Some((name, need.needed - need.there))
        });
        short.collect()
    }
}

/// Another format or another way to the weights.
#[derive(Debug, Clone, Serialize)]
pub struct Alternative {
    /// The format; `None` for the one that the image has.
    pub weights: Option<&'static str>,
    /// The buffers of a stream.
    pub buffers: u8,
    /// What becomes of it.
    pub fit: Fit,
}

/// A layout on a part; `live` is the share of columns that are not passed over.
pub fn assess(layout: &Layout, part: &Part, live: f64) -> Fit {
    let trace = Trace::new(layout, &part.core.costs(), live);
    let header = &layout.header;
    let (flash, medium, in_ram) = match part.image {
        Place::InPlace { .. } => (part.firmware + layout.bytes, None, layout.bytes),
        Place::Streamed { room, .. } => {
            (part.firmware, Some(Need { needed: layout.bytes, there: room }), 0)
        }
    };
    let flash = Need { needed: flash, there: part.flash };
    let flash = Some(flash).filter(|_| !part.runs_from_ram);
    let ram = {
        let state = 4 * header.state_words() as u64;
        let scratch = 4 * u64::from(header.scratch_words);
        let [buffers, least_buffers] = buffer_bytes(layout, part);
        let program = if part.runs_from_ram { part.firmware + in_ram } else { 0 };
        let needed = state + scratch + buffers + part.stack + program;
        let total = Need { needed, there: part.ram };
        let undo = if medium.is_some() { state } else { 0 };
        let half_state = state / 2;
        let stack = part.stack;
        Ram { state, scratch, buffers, least_buffers, stack, program, undo, half_state, total }
    };
    let (time, limits, image_in) = limits(&trace, layout, part);
    let none = Trace::new(layout, &part.core.costs(), 0.0);
    let moving = moving(part, time);
    let token = Token {
        bytes: time.map_or(4 * trace.words(), |time| time.bytes),
        fixed_bytes: 4 * none.words(),
        columns: layout.columns(),
        live,
        reads: time.map_or(0, |time| time.reads),
        instructions: trace.instructions + moving,
        moving,
    };
    let needs = [flash, medium, Some(ram.total)];
    Fit {
        part: part.name.clone(),
        core: part.core,
        image_in,
        image_bytes: layout.bytes,
        firmware_bytes: part.firmware,
        flash,
        medium,
        ram,
        token,
        limits,
        fits: needs.into_iter().flatten().all(Need::is_met),
    }
}

/// Instructions that move the bytes of a token.
fn moving(part: &Part, time: Option<Time>) -> f64 {
    match (part.image, time) {
        (Place::Streamed { medium, .. }, Some(time)) => medium.per_byte * time.bytes as f64,
        _ => 0.0,
    }
}

/// Bytes of the buffers of a stream, and of the shortest that there may be.
fn buffer_bytes(layout: &Layout, part: &Part) -> [u64; 2] {
    let Place::Streamed { medium, .. } = part.image else { return [0; 2] };
    let words = stream::words(layout, medium.unit, part.buffers);
    let least = words_around(layout.least_words.max(PIECE_WORDS), medium.unit as usize);
    [words, words.map(|words| words.min(least))].map(|words| 4 * words.iter().sum::<usize>() as u64)
}

/// How long a token takes, over a medium; how fast it is; and how weights are reached.
fn limits(trace: &Trace, layout: &Layout, part: &Part) -> (Option<Time>, Limits, &'static str) {
    let of = |seconds: f64| (seconds > 0.0).then(|| 1.0 / seconds);
    let in_place = part.per_second.map(|rate| trace.instructions / rate);
    let (time, reading, both, name) = match part.image {
        Place::InPlace { bandwidth } => {
            let reading = bandwidth.map(|rate| 4.0 * trace.words() as f64 / rate);
            (None, reading, in_place.map(|c| c.max(reading.unwrap_or_default())), "in place")
        }
        Place::Streamed { name, medium, .. } => {
            let rate = part.per_second.unwrap_or(f64::INFINITY);
            // The layouts here are whole, and units are checked where they are given.
            let time = over(layout, trace, &medium, part.buffers, rate).ok();
            (time, time.map(|time| time.reading), time.map(|time| time.seconds), name)
        }
    };
    let instructions = trace.instructions + moving(part, time);
    let computing = part.per_second.map(|rate| instructions / rate);
    let binds = match (reading, computing) {
        (Some(reading), Some(computing)) if reading > computing => Some(Limit::Reading),
        (_, Some(_)) => Some(Limit::Instructions),
        (Some(_), None) => Some(Limit::Reading),
        (None, None) => None,
    };
    let limits = Limits {
        reading: reading.and_then(of),
        instructions: computing.and_then(of),
        tokens_per_second: both.or(reading).and_then(of),
        binds,
    };
    (time, limits, name)
}

/// An image on a part, and what other formats and ways to the weights would come to.
pub fn fit(image: &Image<'_>, part: &Part, live: f64) -> (Fit, Vec<Alternative>) {
    let own = Layout::of(image);
    let fit = assess(&own, part, live);
    let mut layouts = vec![(None, own)];
    for (name, weights) in [("f16", Weights::F16), ("int8", Weights::Int8), ("int4", Weights::Int4)]
    {
        let layout = Layout::planned(image, &options(image, part.core, weights));
        if layout.bytes < fit.image_bytes {
            layouts.push((Some(name), layout));
        }
    }
    let mut alternatives = Vec::new();
    for (weights, layout) in layouts {
        for part in ways(part) {
            let other = assess(&layout, &part, live);
            let is_own = weights.is_none() && other.image_in == fit.image_in;
            if !(is_own && other.ram.buffers == fit.ram.buffers) {
                alternatives.push(Alternative { weights, buffers: part.buffers, fit: other });
            }
        }
    }
    (fit, alternatives)
}

/// How a core likes a format, with blocks as large as the image's.
fn options(image: &Image<'_>, core: Core, weights: Weights) -> Options<'static> {
    let narrow = !core.has_wide_multiply();
    let lanes = narrow && weights == Weights::Int4;
    Options {
        packing: if lanes { Packing::Lanes } else { Packing::Pairs },
        input_bits: narrow.then_some(8),
        block_bytes: (4 * image.header().block_words).next_power_of_two(),
        ..Options::new(weights)
    }
}

/// The part as it is, with other buffers, and with chips and cards that it might have.
fn ways(part: &Part) -> Vec<Part> {
    let with = |image: Place, buffers: u8| Part { image, buffers, ..part.clone() };
    match part.image {
        image @ Place::Streamed { buffers, .. } => (1..=buffers).map(|n| with(image, n)).collect(),
        image @ Place::InPlace { .. } => {
            let nor =
                Place::Streamed { name: "SPI NOR", room: 16 << 20, medium: SPI_NOR, buffers: 2 };
            let card =
                Place::Streamed { name: "SD card", room: 4 << 30, medium: SD_CARD, buffers: 2 };
            vec![
                with(image, part.buffers),
                with(nor, 1),
                with(nor, 2),
                with(card, 1),
                with(card, 2),
            ]
        }
    }
}
