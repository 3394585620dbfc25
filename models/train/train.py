"""Trains one of the models of model.py on its corpus and writes its official-name .safetensors.

`python train.py tunes-v4` trains, keeps the weights with the best loss on the validation texts, and
resumes from work/NAME.ckpt after an interruption. With --vocabulary LIST it trains a model of these tokens,
whose name ends in their number: tunes-v4-512. With --quantise int4 a trained model is trained on for a
short while with its weights as an int4 image will hold them; the float weights stay as work/NAME.float.safetensors.
The result depends on the seed and the number of threads alone: the schedule counts steps, and --minutes only caps the run.
"""
import argparse
import hashlib
import json
import os
import pickle
import shutil
import time
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.shard_map import shard_map
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file
from tqdm import tqdm

import data
import quantise
from model import CHUNK, CONFIGS, forward, init_params, init_state, reset
from vocabulary import LIST, Bytes, Vocabulary, learn

MODELS = Path(__file__).parent.parent

# How each model was trained. `devices` splits the rows over threads; a model with `tokens` learns its vocabulary first.
RECIPES = {
    "tunes-16k": dict(steps=3000, rows=16, drop=0.02, devices=1),
    "tunes-v4": dict(steps=5000, rows=16, drop=0.05, devices=1),
    "tunes-v7": dict(steps=1900, rows=8, drop=0.0, devices=2),
    "tunes-m4": dict(steps=3400, rows=8, drop=0.03, devices=1, muon=0.02, cool=0.4),
    "prose-m4": dict(steps=2600, rows=8, drop=0.0, devices=1, muon=0.02, cool=0.4, tokens=512),
    "prose-nor": dict(steps=12000, rows=8, drop=0.0, devices=1, muon=0.02, cool=0.4, tokens=1024),
}


# The phase after it that allows for integer weights, and what both have unless they say otherwise.
QUANTISING = dict(steps=160, drop=0.0, rate=2e-4, muon=2e-3, cool=1.0, warmup=10, every=40)
DEFAULTS = dict(rate=3e-3, muon=0.0, cool=0.0, warmup=100, every=200)
REFRESH = 20        # steps between searches for the scales of matrices in four bits

BY_ROW, EVERYWHERE = PartitionSpec("rows"), PartitionSpec()


@cache
def devices():
    return jax.make_mesh((jax.device_count(),), ("rows",))


@dataclass(frozen=True)
class Options:
    steps: int
    rate: float
    decay: float
    drop: float
    warmup: int
    muon: float
    cool: float
    quantise: str = ""          # weights that the image will have, for training that allows for them


def loss_of(cfg, p, tokens, state, drop=0.0, key=None):
    """Mean loss in bits per token of tokens [B, T + 1], and the state and the bits of each."""
    logits, state = forward(cfg, p, tokens[:, :-1], state, drop, key)
    picked = jnp.take_along_axis(logits, tokens[:, 1:, None].astype(jnp.int32), -1)[..., 0]
    bits = (jax.nn.logsumexp(logits, -1) - picked) / jnp.log(2.0)
    return bits.mean(), (state, bits)


def orthogonal(x):
    """x with its singular values brought near 1, by five Newton-Schulz steps; of length sqrt(fewer rows or columns)."""
    flat = x.shape[0] > x.shape[1]
    x = x.T if flat else x
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(5):
        y = x @ x.T
        x = 3.4445 * x + (2.0315 * y @ y - 4.775 * y) @ x
    return x.T if flat else x


def gradient(cfg, opt, p, grids, tokens, state, keep, key):
    """The loss, the gradient and the state; each device reads its own rows."""
    def own(p, grids, tokens, state, keep, key):
        key = jax.random.fold_in(key, jax.lax.axis_index("rows"))
        state = reset(state, init_state(cfg, tokens.shape[0]), keep)
        stored = lambda p: quantise.fake(p, grids) if opt.quantise else p
        grad = jax.value_and_grad(lambda p: loss_of(cfg, stored(p), tokens, state, opt.drop, key), has_aux=True)
        (loss, (state, _)), g = grad(p)
        return *jax.lax.pmean((loss, g), "rows"), state

    return shard_map(own, devices(), (EVERYWHERE, EVERYWHERE, BY_ROW, BY_ROW, BY_ROW, EVERYWHERE),
                     (EVERYWHERE, EVERYWHERE, BY_ROW), check_rep=False)(p, grids, tokens, state, keep, key)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3, 4))
def train_step(cfg, opt, p, m, v, grids, state, tokens, keep, step, key):
    """One step of AdamW, and of Muon for the blocks' matrices: linear warm-up, decay on matrices, clipped gradient.

    `grids`: see quantise.py.
    """
    loss, g, state = gradient(cfg, opt, p, grids, tokens, state, keep, key)
    norm = jnp.sqrt(sum(jnp.sum(x * x) for x in g.values()))
    clip = jnp.minimum(1.0, 1.0 / (norm + 1e-6))
    done = jnp.minimum(step / opt.steps, 1.0)
    fall = (1 - done) / opt.cool if opt.cool else 0.05 + 0.95 * 0.5 * (1 + jnp.cos(jnp.pi * done))
    shape = jnp.minimum(1.0, (step + 1) / opt.warmup) * jnp.minimum(1.0, fall)
    for n in p:
        x, rate = g[n] * clip, opt.rate
        matrix = p[n].ndim == 2 and not n.endswith(("r_k", "emb.weight"))
        if opt.muon and matrix and n.startswith("blocks.") and n.endswith(".weight"):
            rate = opt.muon
            m[n] = 0.95 * m[n] + x
            update = orthogonal(x + 0.95 * m[n]) * max(1, p[n].shape[0] / p[n].shape[1]) ** 0.5
        else:
            m[n] = 0.9 * m[n] + 0.1 * x
            v[n] = 0.99 * v[n] + 0.01 * x * x
            update = m[n] / (1 - 0.9 ** (step + 1)) / (jnp.sqrt(v[n] / (1 - 0.99 ** (step + 1))) + 1e-8)
        if matrix:
            update = update + opt.decay * p[n]
        p[n] = p[n] - shape * rate * update
    return p, m, v, state, loss


class Valid:
    """Bits per byte of the validation texts' first bytes, each text from an empty state, padded to rows of equal length."""

    def __init__(self, cfg, texts, vocabulary=Bytes(), length=512):
        rows = [data.to_tokens(t[:length + 1], vocabulary) for t in texts]
        length = max(map(len, rows)) - 1
        length += -length % CHUNK
        self.tokens = np.full((len(rows), length + 1), 10, rows[0].dtype)
        self.bytes = sum(np.take(vocabulary.lengths, r[1:]).sum() for r in rows)
        self.mask = np.zeros((len(rows), length), np.float32)
        for i, r in enumerate(rows):
            self.tokens[i, :len(r)] = r
            self.mask[i, :len(r) - 1] = 1
        self.run = jax.jit(lambda p, t: loss_of(cfg, p, t, init_state(cfg, t.shape[0]))[1][1])

    def __call__(self, p):
        half = len(self.tokens) // 2                                     # two batches: less memory
        total = sum(float((self.run(p, self.tokens[s]) * self.mask[s]).sum())
                    for s in (slice(0, half), slice(half, None)))
        return total / float(self.bytes)


def load(path):
    """The parameters of a file that `save` wrote."""
    p = {n: jnp.asarray(x, jnp.float32) for n, x in load_file(path).items()}
    return dict(sorted(p.items()))


def save(p, cfg, path, vocabulary=Bytes(), corpus=data.CORPORA["tunes"]):
    """The weights in f16 under their official names, with metadata; equal weights give equal bytes."""
    path.parent.mkdir(exist_ok=True)
    header, blob = {"__metadata__": {
        "format": "pt", "rwkv_version": f"{cfg.version}{'a' if cfg.deep else ''}", "license": "MIT OR Apache-2.0", "tokenizer": vocabulary.name,
        "dataset": corpus.source}}, b""
    for name, x in sorted(p.items()):
        raw = np.asarray(x, "<f2").tobytes()
        header[name] = {"dtype": "F16", "shape": x.shape, "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + blob)


def picture(log, path):
    """The training and validation curves."""
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "rwkv", "svg.fonttype": "none"})
    import matplotlib.pyplot as plt
    fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    step, train, valid = zip(*log)
    ax.plot(step, train, label="training", lw=1)
    ax.plot(step, valid, label="validation", lw=1.5)
    ax.set(xlabel="step", ylabel="bits per byte", ylim=(min(valid + train) - 0.1, 3))
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, metadata={"Date": None})


def goes_on(old, new, step):
    """Whether a run with the old arguments can go on after so many steps with the new ones, as if it had had them from the start.

    The number of steps makes no difference before the rate falls, where it falls in a line.
    """
    free = {"minutes"}
    if new["cool"] and step <= (1 - new["cool"]) * min(old["steps"], new["steps"]):
        free.add("steps")
    settings = lambda a: {k: v for k, v in a.items() if k not in free and v is not None}
    return settings(old) == settings(new)


def learned(corpus, texts, size):
    """The vocabulary of so many tokens for these texts: work/PREFIXvocabulary-SIZE.txt, learned where that is missing."""
    path = data.WORK / f"{corpus.prefix}vocabulary-{size}.txt"
    if not path.exists():
        print(f"learning {path}", flush=True)
        data.WORK.mkdir(exist_ok=True)
        learn([t.encode() for t in texts], size).write(path)
    return Vocabulary.read(path)


def float_weights(name, weights):
    """The weights that a model had before they were trained on for integers, which are kept."""
    kept = data.WORK / f"{name}.float.safetensors"
    if not kept.exists():
        if not weights.exists():
            raise SystemExit(f"{weights} is missing: train the model without --quantise first")
        shutil.copyfile(weights, kept)
    return load(kept)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("name", choices=CONFIGS)
    a.add_argument("--vocabulary", type=Path, metavar="LIST", help="tokens of this list, not bytes; see vocabulary.py")
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--minutes", type=float, default=60, help="stop after so much time (resume to go on)")
    a.add_argument("--quantise", choices=("int8", "int4"), help="train the trained model on for images of such weights")
    a.add_argument("--steps", type=int, help="default: that of the recipe, as for all that follows without a default")
    a.add_argument("--rows", type=int)
    a.add_argument("--drop", type=float)
    a.add_argument("--length", type=int, default=256)
    a.add_argument("--rate", type=float)
    a.add_argument("--muon", type=float, help="rate of Muon for the matrices of the blocks; 0: AdamW for all")
    a.add_argument("--cool", type=float, help="part of the steps in which the rate falls in a line; 0: a cosine over all")
    a.add_argument("--decay", type=float, default=0.1)
    a.add_argument("--warmup", type=int)
    a.add_argument("--every", type=int, help="steps between validations")
    a.add_argument("--patience", type=int, default=8, help="validations without progress before stopping")
    args = a.parse_args()
    for option, value in {**DEFAULTS, **RECIPES[args.name], **(QUANTISING if args.quantise else {})}.items():
        if option not in ("devices", "tokens") and getattr(args, option) is None:
            setattr(args, option, value)
    os.environ.setdefault(                                               # read at the first use of JAX, below
        "XLA_FLAGS", f"--xla_force_host_platform_device_count={RECIPES[args.name]['devices']}")
    corpus = data.corpus_of(args.name)
    texts = corpus.texts()
    vocabulary, name = Bytes(), args.name
    if "tokens" in RECIPES[args.name]:
        if args.vocabulary:
            raise SystemExit(f"{args.name} has a vocabulary of its own: leave --vocabulary out")
        vocabulary = learned(corpus, texts["train"], RECIPES[args.name]["tokens"])
    elif args.vocabulary:
        vocabulary = Vocabulary.read(args.vocabulary)
        name = f"{args.name}-{len(vocabulary)}"
        args.vocabulary = hashlib.sha256(vocabulary.text().encode()).hexdigest()
    cfg = replace(CONFIGS[args.name], vocab=len(vocabulary), input_bits=quantise.INPUT_BITS if args.quantise else 0)
    opt = Options(args.steps, args.rate, args.decay, args.drop, args.warmup, args.muon, args.cool, args.quantise or "")
    by_row = NamedSharding(devices(), BY_ROW)
    everywhere = NamedSharding(devices(), EVERYWHERE)
    data.WORK.mkdir(exist_ok=True)
    phase = f"{name}.{args.quantise}" if args.quantise else name
    checkpoint, out = data.WORK / f"{phase}.ckpt", MODELS / name
    weights = out / f"{name}.safetensors"
    started = time.time()

    batches = data.Batches(texts["train"], args.rows, args.length, args.seed, vocabulary=vocabulary, moves=corpus.moves)
    lengths = np.array(vocabulary.lengths)
    if not isinstance(vocabulary, Bytes):
        out.mkdir(exist_ok=True)
        vocabulary.write(out / LIST)
    valid = Valid(cfg, texts["valid"], vocabulary, corpus.valid_bytes)
    p = float_weights(name, weights) if args.quantise else init_params(cfg, args.seed)
    stored = (lambda p: quantise.image(p, args.quantise)) if args.quantise else (lambda p: p)
    run = dict(p=p, m=jax.tree.map(jnp.zeros_like, p), v=jax.tree.map(jnp.zeros_like, p), step=0, spent=0.0,
               state=init_state(cfg, args.rows), best=9.0, best_step=0, log=[], args=vars(args))
    if checkpoint.exists():
        run = pickle.loads(checkpoint.read_bytes())
        batches.__dict__.update(run.pop("reader"))
        if not goes_on(run["args"], vars(args), run["step"]):
            raise SystemExit(f"{checkpoint} belongs to other settings {run['args']}: remove it or use them")
        run["args"] = vars(args)
    run["state"] = jax.device_put(run["state"], by_row)
    run.update(jax.device_put({n: run[n] for n in "pmv"}, everywhere))
    before = run["spent"]
    print(f"{phase}: {sum(x.size for x in run['p'].values())} parameters, from step {run['step']}", flush=True)

    if args.quantise and run["step"] == 0:
        run["best"] = valid(stored(run["p"]))
        print(f"{run['best']:.4f} bits per validation byte before, {valid(run['p']):.4f} with float weights", flush=True)
    key, losses, grids = jax.random.key(args.seed), [], {}
    bar = tqdm(total=args.steps, initial=run["step"], mininterval=5, smoothing=0.05, ascii=True)
    while run["step"] < args.steps and time.time() - started < 60 * args.minutes:
        tokens, keep = batches.draw()
        if args.quantise and (not grids or run["step"] % REFRESH == 0 or run["step"] % args.every == 0):
            grids = jax.device_put(quantise.grids(run["p"], args.quantise), everywhere)
        run["p"], run["m"], run["v"], run["state"], loss = train_step(
            cfg, opt, run["p"], run["m"], run["v"], grids, run["state"],
            jax.device_put(tokens, by_row), jax.device_put(keep, by_row), run["step"],
            jax.random.fold_in(key, run["step"]))
        losses.append(loss * (tokens[:, 1:].size / lengths[tokens[:, 1:]].sum()))
        run["step"] += 1
        bar.update()
        if run["step"] % args.every and run["step"] != args.steps:
            continue
        score = valid(stored(run["p"]))
        run["log"].append((run["step"], float(np.mean(losses)), score))
        run["spent"] = before + time.time() - started
        losses = []
        if score < run["best"]:
            run["best"], run["best_step"] = score, run["step"]
            save(run["p"], cfg, weights, vocabulary, corpus)
        bar.set_postfix_str(f"train {run['log'][-1][1]:.3f} valid {score:.3f} best {run['best']:.3f}")
        host = jax.tree.map(lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, run)
        temporary = checkpoint.with_suffix(".tmp")
        temporary.write_bytes(pickle.dumps({**host, "reader": batches.position()}))
        temporary.replace(checkpoint)
        if run["step"] - run["best_step"] >= args.patience * args.every:
            break
    bar.close()
    if not run["log"]:
        return
    if not args.quantise:
        picture(run["log"], out / "loss.svg")
    summary = {k: run[k] for k in ("step", "spent", "best", "best_step", "args")}
    summary["nice"] = os.nice(0)
    (data.WORK / f"{phase}.json").write_text(json.dumps(summary, indent=1))
    print(f"best {run['best']:.4f} bits per validation byte at step {run['best_step']}, {run['spent'] / 60:.1f} minutes")


if __name__ == "__main__":
    main()
