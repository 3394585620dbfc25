//! RWKV-6, "Finch".

use super::{low_rank, shifted};
use crate::{
    exec::{Carry, Executor, Input, Output, Span, Wkv5},
    image::Id,
    op::{Activation, Shift},
};

/// Each input is made where its product's output goes.
pub(super) async fn time_mix<E: Executor>(ex: &mut E, x: Span) -> Result<(), E::Error> {
    let dim = ex.dims().dim;
    let [rank_w, rank_mix, ..] = ex.dims().ranks;
    let a = ex.take(dim);
    let (r, w, k) = (ex.take(dim), ex.take(dim), ex.take(dim));
    let (v, g) = (ex.take(dim), ex.take(dim));
    let z = ex.take(5 * u32::from(rank_mix));
    ex.layer_norm(Id::Ln1, x, a).await?;
    // z = tanh(M1·shift(a))
    let mixed = Input::Shifted(shifted(Id::AttMixX, a, Carry::Att, Shift::Previous));
    ex.product(Id::AttMix1, mixed, Output::Set(z, Activation::Tanh)).await?;

    // w = exp(-exp(w0 + W2·tanh(W1·xw))), k = Wk·xk, v = Wv·xv, r = Wr·xr, g = silu(Wg·xg)
    for (i, (y, m2, m, id, f)) in [
        (w, Id::AttMixW2, Id::AttMixW, Id::AttW1, Activation::Tanh),
        (k, Id::AttMixK2, Id::AttMixK, Id::AttKey, Activation::Identity),
        (v, Id::AttMixV2, Id::AttMixV, Id::AttValue, Activation::Identity),
        (r, Id::AttMixR2, Id::AttMixR, Id::AttReceptance, Activation::Identity),
        (g, Id::AttMixG2, Id::AttMixG, Id::AttGate, Activation::Silu),
    ]
    .into_iter()
    .enumerate()
    {
        // y = shift(a) with the weights m + M2·z
        let rank = usize::from(rank_mix);
        let z = Input::Plain(z.part(i * rank, rank));
        ex.product(m2, z, Output::Set(y, Activation::Identity)).await?;
        ex.bias(m, y, Activation::Identity).await?;
        ex.shift_by(y, a, Carry::Att)?;
        if id == Id::AttW1 {
            low_rank(ex, [id, Id::AttW2], Input::Plain(y), rank_w, f, y).await?;
            ex.bias(Id::AttW0, y, Activation::ExpNegExp).await?;
        } else {
            ex.product(id, Input::Plain(y), Output::Set(y, f)).await?;
        }
    }
    ex.keep(a, Carry::Att)?;

    // x += Wo·(wkv(r, w, k, v) ⊙ g)
    ex.wkv5(Wkv5 { r, w, k, v }).await?;
    ex.multiply(r, g)?;
    ex.product(Id::AttOutput, Input::Plain(r), Output::Add(x)).await?;
    ex.release(a);
    Ok(())
}
