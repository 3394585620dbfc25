//! The recurrences over a chunk of tokens.

use rwkv_core::{
    Error,
    kernel::Kernel,
    op::{self, Head5, Head7},
};

use super::chunk::{Keys, Reads};

/// That of versions 5 and 6: a token reads the state, then adds its key times its value.
pub(super) fn wkv5(
    kernel: impl Kernel,
    params: &[f32],
    epsilon: f32,
    [r, w, k, v, y]: [&mut [f32]; 5],
    state: &mut [f32],
) -> Result<(), Error> {
    let n = params.len() / 3;
    let tokens = r.len() / n.max(1);
    let (mut keys, mut reads) = (Keys::new(kernel, n, tokens), Reads::new(tokens));
    for ((r, w), k) in r.chunks_exact(n).zip(w.chunks_exact(n)).zip(k.chunks_exact(n)) {
        keys.read(r, &mut reads);
        keys.decay(w);
        keys.push(k);
    }
    let mut outputs = vec![0.0; tokens * n];
    reads.all((state, v), n, &mut outputs)?;
    keys.apply(v, state)?;

    let vectors = r.chunks_exact_mut(n).zip(w.chunks_exact(n)).zip(k.chunks_exact(n));
    let vectors = vectors.zip(v.chunks_exact(n)).zip(y.chunks_exact_mut(n));
    for (((((r, w), k), v), y), output) in vectors.zip(outputs.chunks_exact(n)) {
        let mut head = Head5 { r, w, k, v, y };
        let bonus = head.open(params);
        head.y.copy_from_slice(output);
        head.close(params, epsilon, bonus);
    }
    Ok(())
}

/// That of version 7: a token takes out of the state what its removal key finds there, adds its
/// key times its value, and reads. What is taken out is a key with a value, too, known as
/// soon as all that came before it is.
pub(super) fn wkv7(
    kernel: impl Kernel,
    params: &[f32],
    epsilon: f32,
    mut vectors: [&mut [f32]; 8],
    state: &mut [f32],
) -> Result<(), Error> {
    let n = params.len() / 5;
    let tokens = vectors[0].len() / n.max(1);
    let mut keys = Keys::new(kernel, n, 2 * tokens);
    let (mut removals, mut reads) = (Reads::new(2 * tokens), Reads::new(2 * tokens));
    let mut bonuses = Vec::with_capacity(tokens);
    for token in 0..tokens {
        let mut head = head(&mut vectors, token, n);
        bonuses.push(head.open(params));
        keys.read(head.kk, &mut removals);
        keys.decay(head.w);
        keys.push(head.k);
        keys.push(head.a);
        keys.read(head.r, &mut reads);
    }

    let mut outputs = vec![0.0; tokens * n];
    removals.before(state, n, &mut outputs)?;
    let mut values = Vec::with_capacity(2 * tokens * n);
    let mut found = vec![0.0; n];
    for (token, removed) in outputs.chunks_exact(n).enumerate() {
        op::product_by(&removals.scores(token)[..2 * token], &values, &mut found);
        values.extend_from_slice(head(&mut vectors, token, n).v);
        values.extend(removed.iter().zip(&found).map(|(removed, found)| -(removed + found)));
    }
    reads.all((state, &values), n, &mut outputs)?;
    keys.apply(&values, state)?;

    for (token, (output, bonus)) in outputs.chunks_exact(n).zip(bonuses).enumerate() {
        let head = head(&mut vectors, token, n);
        head.y.copy_from_slice(output);
        head.close(params, epsilon, bonus);
    }
    Ok(())
}

/// The vectors of one token.
fn head<'a>(vectors: &'a mut [&mut [f32]; 8], token: usize, n: usize) -> Head7<'a> {
    let of_token = vectors.each_mut().map(|vector| &mut vector[token * n..(token + 1) * n]);
    let [r, w, k, v, a, g, kk, y] = of_token;
    Head7 { r, w, k, v, a, g, kk, y }
}
