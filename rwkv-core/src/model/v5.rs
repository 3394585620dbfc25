//! RWKV-5, "Eagle": 5.0, and 5.1 and 5.2, which have a gate.

use super::shifted;
use crate::{
    exec::{Carry, Executor, Input, Output, Span, Wkv5},
    image::Id,
    op::{Activation, Shift},
};

pub(super) async fn time_mix<E: Executor>(
    ex: &mut E,
    gated: bool,
    x: Span,
) -> Result<(), E::Error> {
    let dim = ex.dims().dim;
    let a = ex.take(dim);
    let (r, k, v) = (ex.take(dim), ex.take(dim), ex.take(dim));
    let g = ex.take(if gated { dim } else { 0 });
    ex.layer_norm(Id::Ln1, x, a).await?;
    // k = Wk·shift(a), v = Wv·shift(a), r = Wr·shift(a), g = silu(Wg·shift(a))
    for (mix, id, y, f) in [
        (Id::AttMixK, Id::AttKey, k, Activation::Identity),
        (Id::AttMixV, Id::AttValue, v, Activation::Identity),
        (Id::AttMixR, Id::AttReceptance, r, Activation::Identity),
        (Id::AttMixG, Id::AttGate, g, Activation::Silu),
    ] {
        if gated || id != Id::AttGate {
            let mixed = Input::Shifted(shifted(mix, a, Carry::Att, Shift::Current));
            ex.product(id, mixed, Output::Set(y, f)).await?;
        }
    }
    ex.keep(a, Carry::Att)?;
    // x += Wo·(wkv(r, w, k, v) ⊙ g); the decay w takes the place of a
    ex.vector(Id::AttDecay, a).await?;
    ex.wkv5(Wkv5 { r, w: a, k, v }).await?;
    if gated {
        ex.multiply(r, g)?;
    }
    ex.product(Id::AttOutput, Input::Plain(r), Output::Add(x)).await?;
    ex.release(a);
    Ok(())
}
