//! `exactness N`: the bits of N tokens, and what a token costs.

use core::fmt::Write;

use rwkv_core::{Digest, Image, Model, StateView, exec::Logits, kernel::Kernel, stream::InPlace};

use crate::{
    Memory, carve,
    cost::{Cost, Counter},
    failure::Failure,
    platform::Out,
};

/// Tokens between two lines of output.
const STRIDE: u32 = 100;

/// Runs `count` tokens of the image in the window, the same ones on every machine, and prints the
/// digest of all that they left behind.
pub fn run(kernel: impl Kernel, memory: Memory<'_>, count: u32) -> Result<(), Failure> {
    let image = Image::open_prefix(memory.window)?;
    let header = *image.header();
    let sizes = [header.state_words(), header.scratch_words as usize, header.dims.vocab as usize];
    let [state, scratch, logits] = carve(memory.arena, sizes)?;

    let mut broken = false;
    let mut state = StateView::over(&header, state, &mut broken)?;
    state.reset(&header);
    let mut model = Model::with_kernel(header, InPlace::new(image.words()), scratch, kernel)?;
    let counter = Counter::new();
    let (mut stream, mut cost) = (Digest::default(), Cost::default());
    for (index, token) in text().take(count as usize).enumerate() {
        let token = token % header.dims.vocab;
        let mut step = || model.step(state.reborrow(), token, &mut *logits);
        match &counter {
            Some(counter) => {
                let (once, result) = counter.once(step);
                result?;
                cost.add(once);
            }
            None => step()?,
        }
        let mut digest = Digest::default();
        digest.push(0, logits);
        stream.fold(index as u32, Digest::token(&header, &state, digest)?);
        let done = index as u32 + 1;
        if done.is_multiple_of(STRIDE) || done == count {
            let _ = writeln!(Out, "digest {done} {:08x}{:08x}", stream.0, stream.1);
        }
    }
    if counter.is_some() {
        let _ = writeln!(Out, "instructions-per-token {}", cost.per(1));
    }
    Ok(())
}

/// Bytes without meaning, the same every time.
fn text() -> impl Iterator<Item = u32> {
    let mut x = 0x2545_F491u32;
    core::iter::repeat_with(move || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x >> 24
    })
}
