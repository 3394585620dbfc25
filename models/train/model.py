"""RWKV-4 and RWKV-7 over sequences, in JAX, with the official tensor names and shapes.

Parameters are one flat dict {official name: array}. `forward(p, tokens, state)` returns the logits of every
position and the state after the last one; all shapes have a leading batch axis. Everything but the recurrence
is row-wise over time. RWKV-4 runs its recurrence as a scan; RWKV-7 runs it in C (recurrence.py), or in chunks of 16
tokens where there is no compiler.
"""
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from recurrence import compiler, wkv7

CHUNK = 16          # 1/prod(w) stays below 1.6e4 because every decay w exceeds 0.5453


@dataclass(frozen=True)
class Config:
    version: int
    width: int
    layers: int
    ffn: int
    head: int = 0               # RWKV-7: head size
    ranks: tuple = ()           # RWKV-7: low-rank sizes of decay (w), a, v, g
    vocab: int = 256
    deep: int = 0               # RWKV-7a: rank of the DeepEmbed; 0: none
    input_bits: int = 0         # inputs of products are rounded to so many bits, as with integer weights; 0: they are not


CONFIGS = {
    "tunes-16k": Config(4, 64, 4, 160),
    "tunes-v4": Config(4, 96, 4, 288),
    "tunes-v7": Config(7, 128, 4, 192, head=32, ranks=(16, 16, 16, 32)),
    "tunes-m4": Config(7, 128, 4, 256, head=32, ranks=(16, 16, 16, 32)),
    "prose-m4": Config(7, 128, 5, 352, head=32, ranks=(16, 16, 16, 32)),
    "prose-nor": Config(7, 160, 4, 640, head=32, ranks=(16, 16, 16, 32), deep=16),
}


def init_params(cfg, seed):
    """Initial weights, after the official schemes."""
    rng = np.random.default_rng(seed)
    c, f, layers = cfg.width, cfg.ffn, cfg.layers
    uniform = lambda shape, a: rng.uniform(-a, a, shape)
    ramp = np.arange(c) / c
    line = np.arange(c) / (c - 1)
    p = {"emb.weight": uniform((cfg.vocab, c), 1e-2), "head.weight": uniform((cfg.vocab, c), 1 / math.sqrt(c))}

    def norm(name):
        p[name + ".weight"], p[name + ".bias"] = np.ones(c), np.zeros(c)

    norm("blocks.0.ln0")
    norm("ln_out")
    for l in range(layers):
        up, down = l / max(1, layers - 1), 1 - l / layers
        att, ffn = f"blocks.{l}.att.", f"blocks.{l}.ffn."
        norm(f"blocks.{l}.ln1")
        norm(f"blocks.{l}.ln2")
        for name in ("receptance", "key", "value"):
            scale = 0.05 if name == "key" and cfg.version == 7 else 0.5
            p[att + name + ".weight"] = uniform((c, c), scale / math.sqrt(c) * 2)
        p[att + "output.weight"] = np.zeros((c, c))
        p[ffn + "key.weight"] = uniform((f, c), 1 / math.sqrt(c))
        p[ffn + "value.weight"] = np.zeros((c, f))
        if cfg.version == 4:
            zigzag = (np.arange(c) + 1) % 3 - 1
            p[att + "time_decay"] = -5 + 8 * line ** (0.7 + 1.3 * up)
            p[att + "time_first"] = np.full(c, math.log(0.3)) + zigzag * 0.5
            mix = ramp ** down
            p[att + "time_mix_k"], p[att + "time_mix_v"] = mix, mix + 0.3 * up
            p[att + "time_mix_r"] = 0.5 * ramp ** (0.5 * down)
            p[ffn + "time_mix_k"] = p[ffn + "time_mix_r"] = mix
            p[ffn + "receptance.weight"] = np.zeros((c, c))
            names = [att + "time_mix_" + n for n in "kvr"] + [ffn + "time_mix_" + n for n in "kr"]
        else:
            heads, n = c // cfg.head, cfg.head
            zigzag = (np.arange(c) % n - (n - 1) / 2) / ((n - 1) / 2)
            zigzag = zigzag * np.abs(zigzag)
            for name, power in zip("rwkvag", (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)):
                p[att + "x_" + name] = 1 - ramp ** (power * down)
            p[att + "w0"] = -6 + 6 * line ** (1 + up ** 0.3) + 0.5 + zigzag * 2.5
            p[att + "a0"] = -0.19 + zigzag * 0.3 + (line - 0.5) * 0.4
            p[att + "v0"] = 0.73 - (line - 0.5) * 0.4
            p[att + "k_k"], p[att + "k_a"] = 0.71 - (line - 0.5) * 0.1, np.full(c, 1.02)
            for name, rank in zip("wavg", cfg.ranks):
                p[att + name + "1"] = np.zeros((c, rank))
                p[att + name + "2"] = uniform((rank, c), 0.1 / math.sqrt(rank))
            if l == 0:
                for name in ("v0", "v1", "v2"):
                    del p[att + name]
            p[att + "r_k"] = np.full((heads, n), -0.04)
            p[att + "ln_x.weight"], p[att + "ln_x.bias"] = np.full(c, ((1 + l) / layers) ** 0.7), np.zeros(c)
            p[ffn + "x_k"] = 1 - ramp ** (down ** 4)
            if cfg.deep:
                p[ffn + "s_emb.weight"] = uniform((cfg.vocab, cfg.deep ** 2), 1e-2)
                p[ffn + "s_emb_x.weight"] = uniform((cfg.deep ** 2, c), 1 / math.sqrt(c))
                p[ffn + "s0"] = np.ones(f)
                p[ffn + "s1"] = uniform((c, cfg.deep), 1 / math.sqrt(c))
                p[ffn + "s2"] = uniform((cfg.deep, f), 0.1 / math.sqrt(cfg.deep))
            names = [att + x for x in ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "v0", "k_k", "k_a")]
            names.append(ffn + "x_k")
        for name in names:
            if name in p:
                p[name] = p[name].reshape(1, 1, c)
    return {k: jnp.asarray(v, jnp.float32) for k, v in sorted(p.items())}


def init_state(cfg, batch):
    """Per layer: RWKV-4 (att_prev, ffn_prev, aa, bb, pp), RWKV-7 (att_prev, ffn_prev, S[head, value, key])."""
    z = jnp.zeros((batch, cfg.width))
    if cfg.version == 4:
        return [(z, z, z, z, z - 1e30) for _ in range(cfg.layers)]
    s = jnp.zeros((batch, cfg.width // cfg.head, cfg.head, cfg.head))
    return [(z, z, s) for _ in range(cfg.layers)]


def reset(state, fresh, keep):
    """Each row of the state where keep is 1, of a fresh state where it is 0."""
    pick = lambda a, b: jnp.where(keep.reshape((-1,) + (1,) * (a.ndim - 1)) > 0, a, b)
    return jax.tree.map(pick, state, fresh)


def layer_norm(x, p, name):
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p[name + ".weight"] + p[name + ".bias"]


@jax.custom_vjp
def product(x, w):
    """x [B, T, I] times w [O, I] transposed.

    The barriers keep XLA from computing the elementwise work before a product anew in the order of a transposed
    operand, which is several times slower on a CPU than all the rest of a step.
    """
    return jax.lax.optimization_barrier(x) @ w.T


def _product_forward(x, w):
    x = jax.lax.optimization_barrier(x)
    return x @ w.T, (x, w)


def _product_backward(saved, g):
    x, w = saved
    g = jax.lax.optimization_barrier(g)
    rows = lambda z: z.reshape(-1, z.shape[-1])
    return g @ w, rows(g).T @ rows(x)


product.defvjp(_product_forward, _product_backward)


def linear(cfg, x, w):
    """`product` of inputs that are rounded to integers as the runtime does, if the configuration says so."""
    if cfg.input_bits:
        top = 2 ** (cfg.input_bits - 1) - 1
        scale = jax.lax.stop_gradient(jnp.maximum(jnp.abs(x).max(-1, keepdims=True), 2.0 ** -100)) / top
        x = x + jax.lax.stop_gradient(jnp.round(x / scale) * scale - x)
    return product(x, w)


def shift(x, prev):
    """x one step later in time, with the carried row in front."""
    return jnp.concatenate([prev[:, None], x[:, :-1]], 1)


def wkv4(k, v, w, u, state):
    """The RWKV-4 recurrence over k, v [B, T, C], w = -exp(time_decay), in log space."""
    def step(carry, kv):
        aa, bb, pp = carry
        k, v = kv
        q = jnp.maximum(pp, u + k)
        e1, e2 = jnp.exp(pp - q), jnp.exp(u + k - q)
        y = (e1 * aa + e2 * v) / (e1 * bb + e2)
        q = jnp.maximum(pp + w, k)
        e1, e2 = jnp.exp(pp + w - q), jnp.exp(k - q)
        return (e1 * aa + e2 * v, e1 * bb + e2, q), y
    state, y = jax.lax.scan(step, state, (k.swapaxes(0, 1), v.swapaxes(0, 1)))
    return y.swapaxes(0, 1), state


def wkv7_chunked(r, logw, k, v, a, b, s):
    """The RWKV-7 recurrence S <- S diag(w) + (S a) b' + v k', y = S r, in chunks; inputs [B, T, H, N].

    With A, R = a, r times the decay since the chunk's start and B, K = b, k divided by it, U = P S' + Q where
    P = M A, Q = M tril(A K', -1) V, M = (I - tril(A B', -1))^-1. Then a chunk maps S to S F + G, and all the
    work but this product is done for every chunk at once.
    """
    batch, time, heads, n = r.shape
    split = lambda x: x.reshape(batch, time // CHUNK, CHUNK, heads, n).transpose(1, 0, 3, 2, 4)
    r, logw, k, v, a, b = map(split, (r, logw, k, v, a, b))              # [chunk, B, H, 16, N]
    t = lambda x: x.swapaxes(-1, -2)
    cat = lambda x, y, axis=-2: jnp.concatenate([x, y], axis)
    log = jnp.cumsum(logw, -2)
    a, r, grow = a * jnp.exp(log - logw), r * jnp.exp(log), jnp.exp(-log)
    bk = cat(b * grow, k * grow)
    strict, lower = (np.tril(np.ones((CHUNK, CHUNK), np.float32), i) for i in (-1, 0))
    dots = cat(a, r) @ t(bk) * np.block([[strict, strict], [lower, lower]])
    power = dots[..., :CHUNK, :CHUNK]
    inverse = np.eye(CHUNK, dtype=np.float32) + power                    # power^16 = 0: a product of four factors
    for _ in range(3):
        power = power @ power
        inverse = inverse + inverse @ power
    pq = inverse @ cat(a, dots[..., :CHUNK, CHUNK:] @ v, -1)
    x = cat(pq, cat(jnp.zeros_like(v), v, -1))                           # [[P, Q], [0, V]]
    fg = t(x) @ bk
    last = jnp.exp(log[..., -1:, :])
    f, g = (np.eye(n, dtype=np.float32) + fg[..., :n, :]) * last, fg[..., n:, :] * last
    s, starts = jax.lax.scan(lambda s, fg: (s @ fg[0] + fg[1], s), s, (f, g))
    y = dots[..., CHUNK:, :] @ x
    y = (r + y[..., :n]) @ t(starts) + y[..., n:]
    return y.transpose(1, 0, 3, 2, 4).reshape(batch, time, heads, n), s


def time_mix4(cfg, p, n, x, prev, state):
    before = shift(x, prev)
    mix = lambda c: x * p[n + "time_mix_" + c] + before * (1 - p[n + "time_mix_" + c])
    r = jax.nn.sigmoid(linear(cfg, mix("r"), p[n + "receptance.weight"]))
    k, v = linear(cfg, mix("k"), p[n + "key.weight"]), linear(cfg, mix("v"), p[n + "value.weight"])
    y, state = wkv4(k, v, -jnp.exp(p[n + "time_decay"]), p[n + "time_first"], state)
    return linear(cfg, r * y, p[n + "output.weight"]), state


def time_mix7(cfg, p, n, x, prev, s, first):
    d = shift(x, prev) - x
    xr, xw, xk, xv, xa, xg = (x + d * p[n + "x_" + c] for c in "rwkvag")
    heads = lambda z: z.reshape(z.shape[:2] + (-1, cfg.head))
    lora = lambda c, z, f=lambda z: z: linear(cfg, f(linear(cfg, z, p[n + c + "1"].T)), p[n + c + "2"].T)
    r, k, v = linear(cfg, xr, p[n + "receptance.weight"]), linear(cfg, xk, p[n + "key.weight"]), linear(cfg, xv, p[n + "value.weight"])
    logw = -0.606531 * jax.nn.sigmoid(p[n + "w0"] + lora("w", xw, jnp.tanh))
    a = jax.nn.sigmoid(p[n + "a0"] + lora("a", xa))
    g = lora("g", xg, jax.nn.sigmoid)
    kk = heads(k * p[n + "k_k"])
    kk = kk * jax.lax.rsqrt(jnp.maximum((kk * kk).sum(-1, keepdims=True), 1e-24))
    k = k * (1 + (a - 1) * p[n + "k_a"])
    if first is None:
        first = v
    else:
        v = v + (first - v) * jax.nn.sigmoid(p[n + "v0"] + lora("v", xv))
    r, logw, k, v, a = map(heads, (r, logw, k, v, a))
    y, s = (wkv7 if compiler() else wkv7_chunked)(r, logw, k, v, -kk, kk * a, s)
    y = y - y.mean(-1, keepdims=True)
    y = (y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + 64e-5)).reshape(x.shape)
    y = y * p[n + "ln_x.weight"] + p[n + "ln_x.bias"]
    y = y + ((r * k * p[n + "r_k"]).sum(-1, keepdims=True) * v).reshape(x.shape)
    return linear(cfg, y * g, p[n + "output.weight"]), s, first


def deep_table(p, n, table):
    """The matrices of all tokens that a layer's DeepEmbed reads [V, R * R]; `table` is the embedding after ln0."""
    return p[n + "s_emb.weight"] + product(table, p[n + "s_emb_x.weight"])


def channel_mix(cfg, p, n, x, prev, tokens=None, deep=None):
    """`deep`: the DeepEmbed of version 7a, see `deep_table`."""
    before = shift(x, prev)
    key = lambda k: jnp.square(jax.nn.relu(linear(cfg, k, p[n + "key.weight"])))
    value = lambda k: linear(cfg, k, p[n + "value.weight"])
    if cfg.version == 7:
        k = key(x + (before - x) * p[n + "x_k"])
        if cfg.deep:
            own = deep[tokens].reshape(*tokens.shape, cfg.deep, cfg.deep)
            z = (linear(cfg, x, p[n + "s1"].T)[..., None] * own).sum(-2)
            k = k * (linear(cfg, z, p[n + "s2"].T) + p[n + "s0"])
        return value(k)
    mix = lambda c: x * p[n + "time_mix_" + c] + before * (1 - p[n + "time_mix_" + c])
    return jax.nn.sigmoid(linear(cfg, mix("r"), p[n + "receptance.weight"])) * value(key(mix("k")))


def forward(cfg, p, tokens, state, drop=0.0, key=None):
    """Logits [B, T, V] and the new state; `drop` > 0 drops parts of every block's output (training).

    Tables that quantise.py has rounded, which an image holds with ln0 applied, stand under names of their own:
    emb.table and blocks.*.ffn.table.
    """
    def dropped(x, i):
        if drop == 0.0:
            return x
        mask = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - drop, x.shape)
        return jnp.where(mask, x / (1 - drop), 0)

    table = p["emb.table"] if "emb.table" in p else layer_norm(p["emb.weight"], p, "blocks.0.ln0")
    x = dropped(table[tokens], 0)
    out, first, deep = [], None, None
    for l in range(cfg.layers):
        name = f"blocks.{l}."
        a = layer_norm(x, p, name + "ln1")
        if cfg.version == 4:
            y, rest = time_mix4(cfg, p, name + "att.", a, state[l][0], state[l][2:])
        else:
            y, s, first = time_mix7(cfg, p, name + "att.", a, state[l][0], state[l][2], first)
            rest = (s,)
        x = x + dropped(y, 2 * l + 1)
        f = layer_norm(x, p, name + "ln2")
        if cfg.deep:
            deep = p[name + "ffn.table"] if name + "ffn.table" in p else deep_table(p, name + "ffn.", table)
        x = x + dropped(channel_mix(cfg, p, name + "ffn.", f, state[l][1], tokens, deep), 2 * l + 2)
        out.append((a[:, -1], f[:, -1]) + tuple(rest))
    return linear(cfg, layer_norm(x, p, "ln_out"), p["head.weight"]), out
