"""Integer weights as `rwkv convert --weights int8` and `--weights int4` choose them without a text.

`integers` computes what rwkv-host computes (`rwkv-host/src/quantize`), in the same order and precision: a scale for each
row and, in four bits, a sub-scale for each group of 32 weights. `fake` is what training sees: weights that stand on the
grid, with the gradients of those that do not. docs/src/quantisation.md and docs/src/arithmetic.md say more.
"""
import re

import jax
import jax.numpy as jnp
import numpy as np

from model import deep_table, layer_norm

GROUP = 32
LOW, HIGH, TOP_SUB = -8.0, 7.0, 63.0
CLIPPING = 0.7                              # sub-scales are tried down to this part of the one that clips nothing
STARTS = (1.0, 0.93, 0.86, 1.08, 1.16)      # scales to start from, in terms of the one that clips nothing
INPUT_BITS = 15                             # what the converter chooses for matrices of these sizes
FOUR = re.compile(r"blocks\.\d+\.(att\.(receptance|key|value|output)|ffn\.(receptance|key|value))\.weight")
LOW_RANK = re.compile(r"blocks\.\d+\.(att\.[wavg]|ffn\.s)[12]")    # [inputs, outputs], other matrices the other way


def is_matrix(name):
    return name == "head.weight" or bool(FOUR.fullmatch(name) or LOW_RANK.fullmatch(name))


def across(name):
    """Whether the groups of a matrix lie across its rows: it is stored column after column."""
    return name.endswith("ffn.value.weight")


def total(x):
    """The sum over the first axis, one rounded addition after the other."""
    return np.ascontiguousarray(x).sum(0)


def search(t, scale):
    """(values, sub-scales) of weights [32, ...] with a common sub-scale each, for scales that broadcast to t's shape."""
    safe = np.where(scale > 0, scale, np.inf)
    most = np.clip(np.ceil((np.abs(t) / safe).max(0) / HIGH), 1, TOP_SUB)
    least = np.maximum(np.floor(most * CLIPPING), 1)
    best, values, subs = np.full(most.shape, np.inf), np.zeros_like(t), np.ones_like(most)
    for i in range(int((most - least).max()) + 1):
        sub = np.maximum(most - i, least)
        step = safe * sub
        value = np.clip(np.rint(t / step), LOW, HIGH)
        missed = t - np.where(scale > 0, step, 0) * value
        cost = total(missed * missed)
        better = cost < best
        best = np.where(better, cost, best)
        subs = np.where(better, sub, subs)
        values = np.where(better, value, values)
    return values, subs


def normal(scale):
    """The scales in binary32, as binary64; 0 where that is no normal number."""
    scale = scale.astype(np.float32)
    return np.where(scale >= np.finfo(np.float32).tiny, scale, 0).astype(np.float64)


def four_bits(w, columns):
    """(values, sub-scales of each weight, scales of the rows) of w [rows, inputs]; see `across` for `columns`."""
    rows, inputs = w.shape
    w = w.astype(np.float64)
    if columns:                             # [32 rows, runs of rows, inputs]: groups are the last two axes
        padded = np.pad(w, ((0, -rows % GROUP), (0, 0)))
        t = padded.reshape(-1, GROUP, inputs).transpose(1, 0, 2)
        rms = np.sqrt(total(padded.T * padded.T) / inputs).reshape(-1, GROUP, 1).transpose(1, 0, 2)
        peak = (np.abs(t).max(2, keepdims=True) / np.where(rms > 0, rms, np.inf)).max(0, keepdims=True)
        unit = rms * (peak / (HIGH * TOP_SUB))
        ordered = lambda x: x.transpose(2, 0, 1)                        # a row's weights first, in their order
        per_row = lambda x: x[..., None]
    else:                                   # [32 of a group, rows, groups]
        padded = np.pad(w, ((0, 0), (0, -inputs % GROUP)))
        t = padded.reshape(rows, -1, GROUP).transpose(2, 0, 1)
        unit = (np.abs(w).max(1) / (HIGH * TOP_SUB))[None, :, None]
        ordered = lambda x: x.transpose(2, 0, 1).reshape(-1, rows)
        per_row = lambda x: x[None, :, None]

    def fitted(values, subs, scale):
        units = ordered(values * subs)
        above, below = total(ordered(t) * units), total(units * units)
        better = normal(above / np.where(below > 0, below, np.inf))
        return np.where(per_row(better) > 0, per_row(better), scale)

    best = None
    for start in STARTS:
        scale = normal(unit * start)
        scale = fitted(*search(t, scale), scale)
        values, subs = search(t, scale)
        scale = fitted(values, subs, scale)
        errors = ordered(t - scale * (values * subs))
        cost = total(errors * errors)                                 # [rows], or [32, runs]
        if columns:
            cost = total(cost)
        cost = np.broadcast_to(cost[None, :, None], scale.shape if columns else (1, rows, 1))
        found = [cost, values, np.broadcast_to(subs, t.shape), scale]
        if best is None:
            best = found
        else:
            better = cost < best[0]
            best = [np.where(better, new, old) for new, old in zip(found, best)]
    _, values, subs, scale = best
    if columns:
        back = lambda x: x.transpose(1, 0, 2).reshape(-1, inputs)[:rows]
        return back(values), back(subs), scale.transpose(1, 0, 2).reshape(-1)[:rows].astype(np.float32)
    back = lambda x: x.transpose(1, 2, 0).reshape(rows, -1)[:, :inputs]
    return back(values), back(subs), scale.reshape(rows).astype(np.float32)


def steps(name, w):
    """What a unit of each weight of a matrix stands for in four bits, f32 [rows, inputs]."""
    _, subs, scale = four_bits(np.asarray(w), across(name))
    return scale[:, None] * subs.astype(np.float32)


def integers(name, w):
    """The weights of a matrix [rows, inputs] that four-bit integers stand for, as the runtime reads them."""
    values, subs, scale = four_bits(np.asarray(w), across(name))
    values, subs, scale = values.astype(np.float32), subs.astype(np.float32), scale[:, None]
    return values * subs * scale if across(name) else values * (scale * subs)


def eight_bits(w):
    """The same in eight bits, with a scale for each row."""
    scale = jnp.abs(w).max(-1, keepdims=True) / 127
    return jnp.clip(jnp.round(w / jnp.where(scale > 0, scale, 1)), -127, 127) * scale


def straight(w, rounded):
    """The rounded weights, with the gradient of the weights themselves."""
    return w + jax.lax.stop_gradient(rounded - w)


def fake(p, grids):
    """Parameters as an image holds them. `grids` has the steps of matrices in four bits; all others have eight."""
    out = dict(p)
    for name, w in p.items():
        if name in grids:
            step = jnp.where(grids[name] > 0, grids[name], 1)
            out[name] = straight(w, jnp.clip(jnp.round(w / step), LOW, HIGH) * grids[name])
        elif LOW_RANK.fullmatch(name):
            out[name] = straight(w, eight_bits(w.T).T)
        elif is_matrix(name):
            out[name] = straight(w, eight_bits(w))
    table = layer_norm(p["emb.weight"], p, "blocks.0.ln0")
    out["emb.table"] = straight(table, eight_bits(table))
    for name in p:
        if name.endswith("ffn.s_emb.weight"):
            deep = deep_table(p, name.removesuffix("s_emb.weight"), table)
            out[name.replace("s_emb.weight", "table")] = straight(deep, eight_bits(deep))
    return out


def grids(p, weights):
    """The steps of the matrices that `--weights` stores in four bits."""
    return {n: steps(n, w) for n, w in p.items() if FOUR.fullmatch(n)} if weights == "int4" else {}


def image(p, weights):
    """Parameters as the image of these weights holds them, exactly."""
    out = fake(p, {})
    for name, w in p.items():
        if FOUR.fullmatch(name) and weights == "int4":
            out[name] = jnp.asarray(integers(name, w))
    return out
