//! RWKV-4, "Dove".

use crate::{
    exec::{Carry, Executor, Input, Output, Shifted, Span},
    image::Id,
    op::{Activation, Shift},
};

pub(super) async fn token<E: Executor>(ex: &mut E) -> Result<(), E::Error> {
    let d = ex.dims();
    let x = ex.take(d.dim);
    ex.embed(x).await?;
    for layer in 0..d.layers {
        ex.layer(layer).await?;
        time_mix(ex, x).await?;
        channel_mix(ex, x).await?;
    }
    ex.head(x).await
}

fn shifted(id: Id, x: Span, previous: Carry) -> Input {
    Input::Shifted(Shifted { id, x, previous, kind: Shift::Current })
}

async fn time_mix<E: Executor>(ex: &mut E, x: Span) -> Result<(), E::Error> {
    let dim = ex.dims().dim;
    let a = ex.take(dim);
    let (k, v, r) = (ex.take(dim), ex.take(dim), ex.take(dim));
    ex.layer_norm(Id::Ln1, x, a).await?;
    // k = Wk·shift(a), v = Wv·shift(a), r = σ(Wr·shift(a))
    let set = |y| Output::Set(y, Activation::Identity);
    ex.product(Id::AttKey, shifted(Id::AttMixK, a, Carry::Att), set(k)).await?;
    ex.product(Id::AttValue, shifted(Id::AttMixV, a, Carry::Att), set(v)).await?;
    let gate = Output::Set(r, Activation::Sigmoid);
    ex.product(Id::AttReceptance, shifted(Id::AttMixR, a, Carry::Att), gate).await?;
    ex.keep(a, Carry::Att)?;
    // x += Wo·(r ⊙ wkv(k, v))
    ex.wkv4(k, v, r).await?;
    ex.product(Id::AttOutput, Input::Plain(r), Output::Add(x)).await?;
    ex.release(a);
    Ok(())
}

async fn channel_mix<E: Executor>(ex: &mut E, x: Span) -> Result<(), E::Error> {
    let d = ex.dims();
    let f = ex.take(d.dim);
    let (r, k) = (ex.take(d.dim), ex.take(d.ffn));
    ex.layer_norm(Id::Ln2, x, f).await?;
    // r = σ(Wr·shift(f)), k = relu(Wk·shift(f))²
    let gate = Output::Set(r, Activation::Sigmoid);
    ex.product(Id::FfnReceptance, shifted(Id::FfnMixR, f, Carry::Ffn), gate).await?;
    let key = Output::Set(k, Activation::SquaredRelu);
    ex.product(Id::FfnKey, shifted(Id::FfnMixK, f, Carry::Ffn), key).await?;
    ex.keep(f, Carry::Ffn)?;
    // x += r ⊙ (Wv·k)
    ex.sparse_product(Id::FfnValue, k, Some(r), x).await?;
    ex.release(f);
    Ok(())
}
