//! Whether a model fits a board, and how fast it can be at most.
//!
//! - [`Layout`] knows where the records of an image lie, also of one in another format that was
//!   never made;
//! - [`Trace`] is a token over it: what is read, and the instructions in between;
//! - [`over`] says how long that takes over a medium: the streams of firmware run over a
//!   [`SimFlash`] in virtual time;
//! - [`Board`] and [`Core`] are tables of what data sheets and emulators say;
//! - [`Fit`] puts them together;
//! - [`Placement`] chooses what of an image lies in memory, where only part of it fits.

mod assess;
mod boards;
mod command;
mod costs;
mod layout;
mod place;
mod place_command;
mod report;
mod simulated;
mod stream;
mod trace;

#[cfg(test)]
mod tests;

pub use assess::{Alternative, Fit, Limit, Limits, Need, Part, Ram, Token, assess, fit};
pub use boards::{BOARDS, Board, Place, SD_CARD, SPI_NOR};
pub use command::{FitArgs, LiveArgs, command};
pub use costs::{Core, Costs, Line};
pub use layout::Layout;
pub use place::Placement;
pub use place_command::{PlaceArgs, command as place_command};
pub use simulated::{Clock, Fault, SimFlash};
pub use stream::{Medium, Time, over};
pub use trace::{Known, Touch, Trace};

use rwkv_core::{
    Error, Image, Model,
    sampler::{Sampler, SamplerConfig},
    stream::InPlace,
};

use crate::memory::Memory;

/// The share of columns of sparse products that are not passed over, in a prompt and the text that
/// the model itself writes behind it, up to `tokens` tokens.
///
/// # Errors
/// The model's.
pub fn live_share(image: &Image<'_>, prompt: &[u32], tokens: usize) -> Result<f64, Error> {
    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image)?;
    let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch)?;
    let Ok(mut sampler) = Sampler::new(SamplerConfig::GREEDY) else { return Ok(1.0) };
    let mut prompt = prompt.iter().copied();
    for _ in 0..tokens {
        let Some(token) = prompt.next().or_else(|| sampler.finish().ok()) else { break };
        sampler.begin();
        model.step(state.reborrow(), token, &mut sampler)?;
    }
    let columns = model.columns();
    Ok(columns.live as f64 / columns.all.max(1) as f64)
}
