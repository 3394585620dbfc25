//! Where the time of a token goes, as a device counts it.
//!
//! The device computes the same tokens twice: once to learn what they cost, once more with a look
//! at its counter after every piece of work. What the looking costs is spread evenly over the
//! looks and taken off again.

mod command;
mod picture;
mod table;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use rwkv_core::{
    Image,
    exec::Part,
    image::{Dims, Id},
};
use rwkv_embedded::agent::protocol::{Info, SamplerSettings, Spent, Tick, Token};
use serde::Serialize;
use thiserror::Error as ThisError;

pub use command::{ProfileArgs, command};
pub use picture::picture;

use crate::device::{Device, DeviceError};

/// Why there is no profile.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ProfileError {
    /// There is nothing to read.
    #[error("the prompt is empty; give at least one token")]
    EmptyPrompt,
    /// The device computed something else when it was looked at.
    #[error("token {0} has other bits when the device looks at its counter")]
    Differs(usize),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// What tokens were spent on, on average.
#[derive(Debug, Clone, Serialize)]
pub struct Profile {
    /// Who the device is and what it runs.
    pub info: Info,
    /// What is counted.
    pub unit: &'static str,
    /// Tokens that were measured.
    pub tokens: usize,
    /// What one of them cost.
    pub per_token: f64,
    /// Elements of the recurrent state.
    pub state_elements: usize,
    /// Channels of all layers together.
    pub channels: usize,
    /// The sum of products: rows and columns.
    pub products: f64,
    /// The sum of recurrences.
    pub recurrence: f64,
    /// The pieces of work in the order of a token.
    pub pieces: Vec<Piece>,
}

/// A piece of work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Piece {
    /// Embedding, a layer, or head.
    pub section: String,
    /// The operation of the executor.
    pub operation: &'static str,
    /// The record that it reads, if it reads one.
    pub record: Option<String>,
    /// The part of the operation.
    #[serde(serialize_with = "lower_case")]
    pub part: Part,
    /// How often it is done in a token.
    pub times: f64,
    /// What it costs in a token.
    pub cost: f64,
}

fn lower_case<S: serde::Serializer>(part: &Part, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}", part_name(*part)))
}

/// A part in words.
pub(crate) fn part_name(part: Part) -> String {
    format!("{part:?}").to_lowercase()
}

impl Profile {
    /// Instructions, or whatever is counted, outside of products and recurrences.
    pub fn rest(&self) -> f64 {
        self.per_token - self.products - self.recurrence
    }

    /// Of the recurrence, per element of its state.
    pub fn recurrence_per_element(&self) -> f64 {
        self.recurrence / self.state_elements.max(1) as f64
    }

    /// Of all but products and recurrence, per channel and layer.
    pub fn rest_per_channel(&self) -> f64 {
        self.rest() / self.channels.max(1) as f64
    }
}

/// Has `device` read `prompt` and continue it by `generate` tokens, and asks what they were spent
/// on.
///
/// # Errors
/// See [`ProfileError`].
pub fn profile(
    device: &mut Device,
    image: &Image<'_>,
    sampler: impl Into<SamplerSettings>,
    prompt: &[u32],
    generate: u32,
    mut progress: impl FnMut(),
) -> Result<Profile, ProfileError> {
    if prompt.is_empty() {
        return Err(ProfileError::EmptyPrompt);
    }
    let mut plain: Vec<Token> = Vec::new();
    let mut on_token = |token| {
        plain.push(token);
        progress();
    };
    let sampler = sampler.into();
    device.reset(sampler.clone())?;
    device.feed(prompt, &mut on_token)?;
    device.generate(generate, &mut on_token)?;

    let tokens: Vec<u32> = plain.iter().map(|token| token.token).collect();
    let mut digests = Vec::new();
    let mut sums = Sums::default();
    device.reset(sampler)?;
    device.profile(
        &tokens,
        |spent| sums.add(spent),
        |token| {
            digests.push(token.digest);
            progress();
        },
    )?;
    let same = plain.iter().zip(&digests).take_while(|(a, b)| a.digest == **b).count();
    if same < tokens.len() {
        return Err(ProfileError::Differs(same));
    }
    let ticks = plain.iter().map(|token| u64::from(token.ticks)).sum();
    Ok(sums.profile(device.info(), &image.header().dims, image, ticks, tokens.len()))
}

/// Pieces of work in the order in which they came first.
#[derive(Debug, Default)]
struct Sums {
    places: HashMap<(u16, u8, Part), usize>,
    all: Vec<(Spent, u64, u64)>,
}

impl Sums {
    fn add(&mut self, spent: Spent) {
        let key = (spent.section, spent.id, spent.part);
        let place = *self.places.entry(key).or_insert_with(|| {
            self.all.push((spent, 0, 0));
            self.all.len() - 1
        });
        let (_, times, ticks) = &mut self.all[place];
        *times += u64::from(spent.times);
        *ticks += u64::from(spent.ticks);
    }

    /// Averages over `tokens` tokens, which take `plain` ticks where nobody looks.
    fn profile(
        &self,
        info: &Info,
        dims: &Dims,
        image: &Image<'_>,
        plain: u64,
        tokens: usize,
    ) -> Profile {
        let (unit, each) = match info.tick {
            Tick::Instructions(n) => ("instructions", n),
            Tick::Nanoseconds(n) => ("nanoseconds", n),
            Tick::SimulatedCycles(n) => ("simulated cycles", n),
        };
        let each = f64::from(each) / tokens.max(1) as f64;
        let times: u64 = self.all.iter().map(|(_, times, _)| times).sum();
        let ticks: u64 = self.all.iter().map(|(_, _, ticks)| ticks).sum();
        let look = (ticks as f64 - plain as f64) / times.max(1) as f64;
        let mut pieces: Vec<Piece> = Vec::new();
        let (mut products, mut recurrence) = (0.0, 0.0);
        for (spent, times, ticks) in &self.all {
            let cost = (*ticks as f64 - look * *times as f64) * each;
            match spent.part {
                Part::Rows | Part::Columns => products += cost,
                Part::Recurrence => recurrence += cost,
                _ => {}
            }
            let id = Id::from_code(spent.id);
            pieces.push(Piece {
                section: section_name(spent.section, dims.layers),
                operation: operation_name(id, spent.part),
                record: id.map(|id| format!("{id:?}")),
                part: spent.part,
                times: *times as f64 / tokens.max(1) as f64,
                cost,
            });
        }
        let header = image.header();
        Profile {
            info: info.clone(),
            unit,
            tokens,
            per_token: plain as f64 * each,
            state_elements: header.state_words() - header.shift_words(),
            channels: dims.layers as usize * dims.dim as usize,
            products,
            recurrence,
            pieces,
        }
    }
}

/// A section of the image in words.
pub(crate) fn section_name(section: u16, layers: u32) -> String {
    match section {
        0 => "embedding".to_owned(),
        n if u32::from(n) <= layers => format!("layer {}", n - 1),
        _ => "head".to_owned(),
    }
}

/// The operation of the executor that reads a record, of which `part` is a part.
pub(crate) const fn operation_name(id: Option<Id>, part: Part) -> &'static str {
    use Id::{
        AttA0, AttDecay, AttMixA, AttMixG, AttMixK, AttMixR, AttMixV, AttMixW, AttV0, AttW0,
        AttWkv4, AttWkv5, AttWkv7, DeepEmbed, Embedding, FfnMixK, FfnMixR, FfnS0, FfnValue, Head,
        Ln1, Ln2, LnOut,
    };
    // Version 6 adds the weights of a token shift to those that it computes.
    if matches!(part, Part::Bias) {
        return "bias";
    }
    match id {
        None if matches!(part, Part::State) => "keep",
        None => "vectors",
        Some(Embedding) => "embed",
        Some(DeepEmbed) => "deep_row",
        Some(Ln1 | Ln2 | LnOut) => "layer_norm",
        Some(AttMixR | AttMixK | AttMixV | AttMixW | AttMixA | AttMixG | FfnMixK | FfnMixR) => {
            "shift"
        }
        Some(AttWkv4) => "wkv4",
        Some(AttDecay) => "vector",
        Some(AttWkv5) => "wkv5",
        Some(AttWkv7) => "wkv7",
        Some(AttW0 | AttA0 | AttV0 | FfnS0) => "bias",
        Some(FfnValue) => "sparse_product",
        Some(Head) => "head",
        Some(_) => "product",
    }
}
