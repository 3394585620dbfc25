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

#[cfg(test)]
mod tests {
    use super::*;
    use rwkv_core::kernel::Generic;

    /// Of the group norm: so large that it does not magnify the roundings of outputs that cancel, where
    /// a key and a receptance happen to be orthogonal.
    const EPSILON: f32 = 1.0;

    /// Numbers that look random, between two bounds.
    fn draw(seed: &mut u32, len: usize, [low, high]: [f32; 2]) -> Vec<f32> {
        let mut next = || {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            low + (high - low) * (*seed >> 8) as f32 / (1 << 24) as f32
        };
        (0..len).map(|_| next()).collect()
    }

    fn close(name: &str, chunks: &[f32], steps: &[f32]) {
        let most = steps.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
        for (chunk, step) in chunks.iter().zip(steps) {
            assert!((chunk - step).abs() <= 1e-5 * most, "{name}: {chunk} and {step} of {most}");
        }
    }

    /// Widths of heads, tokens of a chunk, and decays: usual ones, none, all, and any.
    fn each(mut test: impl FnMut(&str, usize, usize, [f32; 2])) {
        for n in [4, 16, 64, 100] {
            for tokens in [1, 2, 15, 16] {
                for decay in [[0.5, 0.99], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]] {
                    test(&format!("{n} channels, {tokens} tokens, {decay:?}"), n, tokens, decay);
                }
            }
        }
    }

    /// Outputs and state of a chunk of versions 5 and 6 are those of its steps, from any state on.
    #[test]
    fn a_chunk_of_version_5_is_its_steps() {
        let mut seed = 5;
        each(|name, n, tokens, decay| {
            let mut vector = |bounds| draw(&mut seed, n * tokens, bounds);
            let [r, k, v] = [(); 3].map(|()| vector([-1.0, 1.0]));
            let w = vector(decay);
            let params = draw(&mut seed, 3 * n, [-1.0, 1.0]);
            let state = draw(&mut seed, n * n, [-1.0, 1.0]);

            let (mut outputs, mut steps) = (r.clone(), state.clone());
            for (token, r) in outputs.chunks_exact_mut(n).enumerate() {
                let part = token * n..(token + 1) * n;
                let [w, k, v] = [&w, &k, &v].map(|vector| &vector[part.clone()]);
                let head = Head5 { r, w, k, v, y: &mut vec![0.0; n] };
                op::wkv5(Generic, &params, EPSILON, head, &mut steps);
            }

            let (mut vectors, mut chunk) = ([r, w, k, v, vec![0.0; n * tokens]], state);
            let parts = vectors.each_mut().map(Vec::as_mut_slice);
            wkv5(Generic, &params, EPSILON, parts, &mut chunk).unwrap();
            close(name, &vectors[0], &outputs);
            close(name, &chunk, &steps);
        });
    }

    /// The same of version 7.
    #[test]
    fn a_chunk_of_version_7_is_its_steps() {
        let mut seed = 7;
        each(|name, n, tokens, decay| {
            let mut vector = |bounds| draw(&mut seed, n * tokens, bounds);
            let [r, k, v, g] = [(); 4].map(|()| vector([-1.0, 1.0]));
            let (w, a) = (vector(decay), vector([0.0, 1.0]));
            let params = draw(&mut seed, 5 * n, [-1.0, 1.0]);
            let state = draw(&mut seed, n * n, [-1.0, 1.0]);

            let (mut outputs, mut steps) = (r.clone(), state.clone());
            for (token, r) in outputs.chunks_exact_mut(n).enumerate() {
                let part = token * n..(token + 1) * n;
                let [w, v, g] = [&w, &v, &g].map(|vector| &vector[part.clone()]);
                let [mut k, mut a] = [&k, &a].map(|vector| vector[part.clone()].to_vec());
                let (kk, y) = (&mut vec![0.0; n], &mut vec![0.0; n]);
                let head = Head7 { r, w, k: &mut k, v, a: &mut a, g, kk, y };
                op::wkv7(Generic, &params, EPSILON, head, &mut steps);
            }

            let room = || vec![0.0; n * tokens];
            let (mut vectors, mut chunk) = ([r, w, k, v, a, g, room(), room()], state);
            let parts = vectors.each_mut().map(Vec::as_mut_slice);
            wkv7(Generic, &params, EPSILON, parts, &mut chunk).unwrap();
            close(name, &vectors[0], &outputs);
            close(name, &chunk, &steps);
        });
    }
}
