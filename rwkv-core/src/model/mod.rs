//! The versions of RWKV, one file each, written as their formulas over an [`Executor`].

mod v4;
mod v5;
mod v6;
mod v7;

use crate::{
    exec::{Carry, Executor, Input, Output, Shifted, Span},
    image::{Id, Version},
    op::{Activation, Shift},
};

/// Computes one token (or, on a sequence executor, a run of them): what all versions have in common.
///
/// # Errors
/// The executor's.
pub async fn token<E: Executor>(version: Version, ex: &mut E) -> Result<(), E::Error> {
    let d = ex.dims();
    let x = ex.take(d.dim);
    let goose = matches!(version, Version::V7 | Version::V7a);
    let first = ex.take(if goose { d.dim } else { 0 });
    let shift = if version == Version::V6 { Shift::Previous } else { Shift::Current };
    ex.embed(x).await?;
    for layer in 0..d.layers {
        ex.layer(layer).await?;
        match version {
            Version::V4 => v4::time_mix(ex, x).await?,
            Version::V50 | Version::V52 => {
                v5::time_mix(ex, version == Version::V52, x).await?;
            }
            Version::V6 => v6::time_mix(ex, x).await?,
            Version::V7 | Version::V7a => v7::time_mix(ex, layer, x, first).await?,
        }
        if goose {
            v7::channel_mix(ex, x).await?;
        } else {
            channel_mix(ex, shift, x).await?;
        }
    }
    ex.head(x).await
}

const fn shifted(id: Id, x: Span, previous: Carry, kind: Shift) -> Shifted {
    Shifted { id, x, previous, kind }
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

/// The channel mix of versions 4 to 6.
async fn channel_mix<E: Executor>(ex: &mut E, kind: Shift, x: Span) -> Result<(), E::Error> {
    let d = ex.dims();
    let f = ex.take(d.dim);
    let (r, k) = (ex.take(d.dim), ex.take(d.ffn));
    let mixed = |id| Input::Shifted(shifted(id, f, Carry::Ffn, kind));
    ex.layer_norm(Id::Ln2, x, f).await?;
    // r = σ(Wr·shift(f)), k = relu(Wk·shift(f))²
    let gate = Output::Set(r, Activation::Sigmoid);
    ex.product(Id::FfnReceptance, mixed(Id::FfnMixR), gate).await?;
    let key = Output::Set(k, Activation::SquaredRelu);
    ex.product(Id::FfnKey, mixed(Id::FfnMixK), key).await?;
    ex.keep(f, Carry::Ffn)?;
    // x += r ⊙ (Wv·k)
    ex.sparse_product(Id::FfnValue, k, Some(r), x).await?;
    ex.release(f);
    Ok(())
}
