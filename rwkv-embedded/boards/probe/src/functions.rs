//! `functions`: instructions per call of the scalar functions, beside those of other libraries,
//! and per element of what surrounds the products.

use core::{fmt::Write, hint::black_box};

use micromath::F32;
use rwkv_core::{
    kernel::{Kernel, cases::Random},
    math,
    op::{self, Head7, Quantiser, Shift},
};

use crate::{Memory, carve, cost::Counter, failure::Failure, platform::Out};

/// Elements of a measured vector.
const LEN: usize = 64;
/// The head of version 7 that is measured.
const HEAD: usize = 32;

/// Prints a line per function and library, then one per operation.
pub fn run(kernel: impl Kernel, memory: Memory<'_>) -> Result<(), Failure> {
    let counter = Counter::new().ok_or(Failure::NoCounter)?;
    let [x, y] = carve(&mut *memory.arena, [LEN, LEN])?;
    scalar(&counter, x, y);
    operations(kernel, &counter, memory.arena)
}

/// Every function over inputs of its usual range.
fn scalar(counter: &Counter, x: &mut [f32], y: &mut [f32]) {
    let mut random = Random(5);
    macro_rules! functions {
        ($name:literal, $input:ident: $($library:literal $f:expr,)*) => {
            x.iter_mut().for_each(|x| *x = $input(random.word()));
            $(measure($name, $library, counter, x, y, $f);)*
        };
    }
    functions!("copy", near: "loop" |x| x,);
    functions!("exp", near:
        "rwkv" math::exp,
        "libm" libm::expf,
        "micromath" |x| F32(x).exp().0,
    );
    functions!("sigmoid", near:
        "rwkv" math::sigmoid,
        "libm" |x| 1.0 / (1.0 + libm::expf(-x)),
        "micromath" |x| 1.0 / (1.0 + F32(-x).exp().0),
    );
    functions!("tanh", near:
        "rwkv" math::tanh,
        "libm" libm::tanhf,
        "micromath" |x| 1.0 - 2.0 / (F32(x + x).exp().0 + 1.0),
    );
    functions!("softplus", near:
        "rwkv" math::softplus,
        "libm" |x| libm::log1pf(libm::expf(x)),
        "micromath" |x| F32(1.0 + F32(x).exp().0).ln().0,
    );
    functions!("ln", positive:
        "rwkv" math::ln,
        "libm" libm::logf,
        "micromath" |x| F32(x).ln().0,
    );
    functions!("sqrt", positive:
        "rwkv" math::sqrt,
        "libm" libm::sqrtf,
        "micromath" |x| F32(x).sqrt().0,
    );
    functions!("rsqrt", positive:
        "rwkv" math::rsqrt,
        "libm" |x| 1.0 / libm::sqrtf(x),
        "micromath" |x| F32(x).invsqrt().0,
    );
}

/// Within ±4.
fn near(word: u32) -> f32 {
    word as i32 as f32 / (1u32 << 29) as f32
}

/// From 0.05 to 8.
fn positive(word: u32) -> f32 {
    word as f32 / (1u32 << 29) as f32 + 0.05
}

/// Calls a function for every element, as an activation does; load, store and loop are counted.
fn measure(
    name: &str,
    library: &str,
    counter: &Counter,
    x: &[f32],
    y: &mut [f32],
    f: impl Fn(f32) -> f32,
) {
    let cost = counter.cost(|| {
        black_box(&mut *y).iter_mut().zip(black_box(x)).for_each(|(y, x)| *y = f(*x));
    });
    let _ = writeln!(Out, "function {name} {library} {}", cost.per(LEN));
}

/// Every operation beside the products, per element.
fn operations(kernel: impl Kernel, counter: &Counter, arena: &mut [f32]) -> Result<(), Failure> {
    let [state, params, rest] = carve(arena, [HEAD * HEAD, 5 * LEN, 9 * LEN])?;
    let mut random = Random(9);
    let mut refill =
        |x: &mut [f32]| x.iter_mut().for_each(|x| *x = 0.1 + near(random.word()) / 8.0);
    [&mut *state, &mut *params, &mut *rest].into_iter().for_each(&mut refill);
    let say = |name: &str, cost: crate::cost::Cost, units: usize| {
        let _ = writeln!(Out, "operation {name} {}", cost.per(units));
    };
    let mut vectors = rest.chunks_exact_mut(LEN);
    let mut next = || vectors.next().unwrap_or_default();
    let [x, y, a, b, c] = [next(), next(), next(), next(), next()];

    let cost = counter.cost(|| {
        let moments = op::moments(black_box(x), 1e-5);
        op::normalise(x, moments, params, black_box(y));
    });
    say("layer-norm", cost, LEN);
    for (name, kind) in [("shift-v4", Shift::Current), ("shift-v7", Shift::Previous)] {
        let cost = counter.cost(|| op::shift(kind, black_box(x), a, b, black_box(y)));
        say(name, cost, LEN);
    }
    let cost = counter.cost(|| {
        let quantiser = Quantiser::new(black_box(x), 15).ok();
        let values = x.iter().map(|x| quantiser.map_or(0, |quantiser| quantiser.value(*x)));
        black_box(&mut *y).iter_mut().zip(values).for_each(|(y, q)| *y = f32::from_bits(q as u32));
    });
    say("quantise", cost, LEN);
    // What a recurrence overwrites is filled anew each time, or its values would run away.
    let r = next();
    let copies = counter.cost(|| r.copy_from_slice(black_box(a)));
    let cost = counter.cost(|| {
        r.copy_from_slice(black_box(a));
        op::wkv4(params, x, y, r, [&mut *b, &mut *c, &mut *state]);
    });
    say("wkv4", cost.less(copies), LEN);

    [&mut *b, &mut *c, &mut *state].into_iter().for_each(&mut refill);
    let [kk, room] = [next(), next()].map(|x| x.get_mut(..HEAD).unwrap_or_default());
    let [w, v, g] = [x, y, a].map(|x| x.get(..HEAD).unwrap_or_default());
    let mut changed = [r, b, c].map(|x| x.get_mut(..HEAD).unwrap_or_default());
    let copies = counter.cost(|| changed.iter_mut().for_each(|x| x.copy_from_slice(black_box(w))));
    let cost = counter.cost(|| {
        changed.iter_mut().for_each(|x| x.copy_from_slice(black_box(w)));
        let [r, k, a] = changed.each_mut().map(|x| &mut **x);
        let head = Head7 { r, w, k, v, a, g, kk, y: &mut *room };
        op::wkv7(kernel, params, 64e-5, head, black_box(&mut *state));
    });
    say("wkv7", cost.less(copies), HEAD * HEAD);
    Ok(())
}
