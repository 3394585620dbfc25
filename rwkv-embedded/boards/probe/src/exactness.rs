//! `exactness N`: the bits of N tokens. `tokens N`: what they cost.

use core::fmt::Write;

use rwkv_core::{
    Digest, Header, Image, Model, StateView, exec::Logits, kernel::Kernel, stream::InPlace,
};

use crate::{
    Memory, carve,
    cost::{Cost, Counter},
    failure::Failure,
    platform::Out,
};

/// Whether blocks of weights are compared with their checksums before they are used.
const VERIFY: bool = cfg!(feature = "verify");

/// Tokens between two lines of output.
const STRIDE: u32 = 100;

/// Runs `count` tokens of the image in the window, the same ones on every machine, and prints the
/// digest of all that they left behind.
pub fn run(kernel: impl Kernel, memory: Memory<'_>, count: u32) -> Result<(), Failure> {
    let mut ready = false;
    let mut session = Session::new(kernel, memory, &mut ready)?;
    let mut stream = Digest::default();
    for (index, token) in text().take(count as usize).enumerate() {
        session.step(token % session.header.dims.vocab)?;
        let mut digest = Digest::default();
        digest.push(0, session.logits);
        stream.fold(index as u32, Digest::token(&session.header, &session.state, digest)?);
        let done = index as u32 + 1;
        if done.is_multiple_of(STRIDE) || done == count {
            let _ = writeln!(Out, "digest {done} {:08x}{:08x}", stream.0, stream.1);
        }
    }
    Ok(())
}

/// Lets the model continue its own text for `count` tokens, the likeliest each, and prints what a
/// token costs on the way to its logits.
pub fn tokens(kernel: impl Kernel, memory: Memory<'_>, count: u32) -> Result<(), Failure> {
    let counter = Counter::new().ok_or(Failure::NoCounter)?;
    let mut ready = false;
    let mut session = Session::new(kernel, memory, &mut ready)?;
    let (mut token, mut cost) = (u32::from(b'X'), Cost::default());
    for _ in 0..count {
        let (once, result) = counter.once(|| session.step(token));
        result?;
        cost.add(once);
        let better = |best: usize, (i, logit): (usize, &f32)| {
            if session.logits.get(best).is_some_and(|best| logit > best) { i } else { best }
        };
        token = session.logits.iter().enumerate().fold(0, better) as u32;
    }
    let _ = writeln!(Out, "instructions-per-token {}", cost.per(1));
    Ok(())
}

/// A model with its state and logits.
struct Session<'a, K> {
    header: Header,
    model: Model<'a, InPlace<'a, VERIFY>, K>,
    state: StateView<'a>,
    logits: &'a mut [f32],
}

impl<'a, K: Kernel> Session<'a, K> {
    fn new(kernel: K, memory: Memory<'a>, ready: &'a mut bool) -> Result<Self, Failure> {
        let image = Image::open_prefix(memory.window)?;
        let header = *image.header();
        let words =
            [header.state_words(), header.scratch_words as usize, header.dims.vocab as usize];
        let [state, scratch, logits] = carve(memory.arena, words)?;
        let mut state = StateView::over(&header, state, ready)?;
        let mut model = Model::with_kernel(header, InPlace::with(image.words()), scratch, kernel)?;
        model.reset(state.reborrow())?;
        Ok(Self { header, model, state, logits })
    }

    /// One copy for both modes: a `microbit` has no flash for two.
    #[inline(never)]
    fn step(&mut self, token: u32) -> Result<(), Failure> {
        Ok(self.model.step(self.state.reborrow(), token, &mut *self.logits)?)
    }
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
