//! RWKV-7, "Goose", and 7a, which has a DeepEmbed.

use super::{low_rank, shifted};
use crate::{
    exec::{Carry, Executor, Input, Output, Span, Wkv7},
    image::Id,
    op::{Activation, Shift},
};

/// `first` is the value of layer 0 for the same token; it is not carried to the next.
pub(super) async fn time_mix<E: Executor>(
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
    let mixed = |id| Input::Shifted(shifted(id, c, Carry::Att, Shift::Previous));
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
        ex.shift(shifted(Id::AttMixV, c, Carry::Att, Shift::Previous), xv).await?;
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

pub(super) async fn channel_mix<E: Executor>(ex: &mut E, x: Span) -> Result<(), E::Error> {
    let d = ex.dims();
    let (c, k) = (ex.take(d.dim), ex.take(d.ffn));
    ex.layer_norm(Id::Ln2, x, c).await?;
    // x += Wv·relu(Wk·shift(c))²
    let mixed = Input::Shifted(shifted(Id::FfnMixK, c, Carry::Ffn, Shift::Previous));
    ex.product(Id::FfnKey, mixed, Output::Set(k, Activation::SquaredRelu)).await?;
    if d.deep_rank > 0 {
        deep_embed(ex, c, k).await?;
    }
    ex.keep(c, Carry::Ffn)?;
    ex.sparse_product(Id::FfnValue, k, None, x).await?;
    ex.release(c);
    Ok(())
}

/// `k ⊙= S2·(T·S1·c) + s0`, where `T` is a matrix of the token's own.
async fn deep_embed<E: Executor>(ex: &mut E, c: Span, k: Span) -> Result<(), E::Error> {
    let d = ex.dims();
    let rank = u32::from(d.deep_rank);
    let (z, inner, matrix) = (ex.take(rank), ex.take(rank), ex.take(rank * rank));
    let set = |y| Output::Set(y, Activation::Identity);
    ex.product(Id::FfnS1, Input::Plain(c), set(inner)).await?;
    ex.deep_row(matrix).await?;
    ex.product_by(inner, matrix, z)?;
    ex.release(inner);
    let gate = ex.take(d.ffn);
    ex.product(Id::FfnS2, Input::Plain(z), set(gate)).await?;
    ex.bias(Id::FfnS0, gate, Activation::Identity).await?;
    ex.multiply(k, gate)?;
    ex.release(z);
    Ok(())
}
