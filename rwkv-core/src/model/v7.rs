//! RWKV-7, "Goose".

use crate::{
    exec::{Carry, Executor, Input, Output, Shifted, Span, Wkv7},
    image::Id,
    op::{Activation, Shift},
};

pub(super) async fn token<E: Executor>(ex: &mut E) -> Result<(), E::Error> {
    let d = ex.dims();
    let (x, first) = (ex.take(d.dim), ex.take(d.dim));
    ex.embed(x).await?;
    for layer in 0..d.layers {
        ex.layer(layer).await?;
        time_mix(ex, layer, x, first).await?;
        channel_mix(ex, x).await?;
    }
    ex.head(x).await
}

const fn shifted(id: Id, x: Span, previous: Carry) -> Shifted {
    Shifted { id, x, previous, kind: Shift::Previous }
}

/// `out = W2·f(W1·x)`, through a vector of the rank's length.
async fn low_rank<E: Executor>(
    ex: &mut E,
    [w1, w2]: [Id; 2],
    x: Input,
    rank: u16,
    f: Activation,
    out: Span,
) -> Result<(), E::Error> {
    let inner = ex.take(rank.into());
    ex.product(w1, x, Output::Set(inner, f)).await?;
    ex.product(w2, Input::Plain(inner), Output::Set(out, Activation::Identity)).await?;
    ex.release(inner);
    Ok(())
}

/// `first` is the value of layer 0 for the same token; it is not carried to the next.
async fn time_mix<E: Executor>(
    ex: &mut E,
    layer: u32,
    x: Span,
    first: Span,
) -> Result<(), E::Error> {
    let dim = ex.dims().dim;
    let [rank_w, rank_a, rank_v, rank_g] = ex.dims().ranks;
    let c = ex.take(dim);
    let (r, w, k) = (ex.take(dim), ex.take(dim), ex.take(dim));
    let (v, a, g) = (ex.take(dim), ex.take(dim), ex.take(dim));
    let set = |y| Output::Set(y, Activation::Identity);
    let mixed = |id| Input::Shifted(shifted(id, c, Carry::Att));
    ex.layer_norm(Id::Ln1, x, c).await?;

    ex.product(Id::AttReceptance, mixed(Id::AttMixR), set(r)).await?;

    // w = exp(-0.606531·σ(w0 + W2·tanh(W1·xw)))
    let w12 = [Id::AttW1, Id::AttW2];
    low_rank(ex, w12, mixed(Id::AttMixW), rank_w, Activation::Tanh, w).await?;
    ex.bias(Id::AttW0, w, Activation::Decay).await?;

    ex.product(Id::AttKey, mixed(Id::AttMixK), set(k)).await?;

    if layer == 0 {
        ex.product(Id::AttValue, mixed(Id::AttMixV), set(v)).await?;
        ex.copy(v, first)?;
    } else {
        // v += (first - v)·σ(v0 + V2·V1·xv)
        let xv = ex.take(dim);
        let gate = ex.take(dim);
        ex.shift(shifted(Id::AttMixV, c, Carry::Att), xv).await?;
        ex.product(Id::AttValue, Input::Plain(xv), set(v)).await?;
        let v12 = [Id::AttV1, Id::AttV2];
        low_rank(ex, v12, Input::Plain(xv), rank_v, Activation::Identity, gate).await?;
        ex.bias(Id::AttV0, gate, Activation::Sigmoid).await?;
        ex.lerp(v, first, gate)?;
        ex.release(xv);
    }

    // a = σ(a0 + A2·A1·xa), g = G2·σ(G1·xg)
    let a12 = [Id::AttA1, Id::AttA2];
    low_rank(ex, a12, mixed(Id::AttMixA), rank_a, Activation::Identity, a).await?;
    ex.bias(Id::AttA0, a, Activation::Sigmoid).await?;
    let g12 = [Id::AttG1, Id::AttG2];
    low_rank(ex, g12, mixed(Id::AttMixG), rank_g, Activation::Sigmoid, g).await?;
    ex.keep(c, Carry::Att)?;

    ex.wkv7(Wkv7 { r, w, k, v, a, g }).await?;
    ex.product(Id::AttOutput, Input::Plain(r), Output::Add(x)).await?;
    ex.release(c);
    Ok(())
}

async fn channel_mix<E: Executor>(ex: &mut E, x: Span) -> Result<(), E::Error> {
    let d = ex.dims();
    let (c, k) = (ex.take(d.dim), ex.take(d.ffn));
    ex.layer_norm(Id::Ln2, x, c).await?;
    // x += Wv·relu(Wk·shift(c))²
    let mixed = Input::Shifted(shifted(Id::FfnMixK, c, Carry::Ffn));
    ex.product(Id::FfnKey, mixed, Output::Set(k, Activation::SquaredRelu)).await?;
    ex.keep(c, Carry::Ffn)?;
    ex.sparse_product(Id::FfnValue, k, None, x).await?;
    ex.release(c);
    Ok(())
}
