//! RWKV-4, "Dove".

use super::shifted;
use crate::{
    exec::{Carry, Executor, Input, Output, Span},
    image::Id,
    op::{Activation, Shift},
};

pub(super) async fn time_mix<E: Executor>(ex: &mut E, x: Span) -> Result<(), E::Error> {
    let dim = ex.dims().dim;
    let a = ex.take(dim);
    let (k, v, r) = (ex.take(dim), ex.take(dim), ex.take(dim));
    ex.layer_norm(Id::Ln1, x, a).await?;
    // k = Wk·shift(a), v = Wv·shift(a), r = σ(Wr·shift(a))
    let set = |y| Output::Set(y, Activation::Identity);
    let mixed = |id| Input::Shifted(shifted(id, a, Carry::Att, Shift::Current));
    ex.product(Id::AttKey, mixed(Id::AttMixK), set(k)).await?;
    ex.product(Id::AttValue, mixed(Id::AttMixV), set(v)).await?;
    let gate = Output::Set(r, Activation::Sigmoid);
    ex.product(Id::AttReceptance, mixed(Id::AttMixR), gate).await?;
    ex.keep(a, Carry::Att)?;
    // x += Wo·(r ⊙ wkv(k, v))
    ex.wkv4(k, v, r).await?;
    ex.product(Id::AttOutput, Input::Plain(r), Output::Add(x)).await?;
    ex.release(a);
    Ok(())
}
