"""Held-out bits per byte of a .safetensors, and texts from it. The corpus goes by the first part of the file's name.

A plain numpy step, one token at a time, independent of the training code: f16 weights widened to f32. Rows of a
batch are separate texts. `python evaluate.py FILE` prints the figure; `--sample` writes a text, `--logits` what
`tests/golden` holds.
"""
import argparse
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open

import data
from vocabulary import Bytes, Vocabulary, beside


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Model:
    """An RWKV-4, RWKV-7 or RWKV-7a model read from official tensor names; dimensions come from shapes."""

    def __init__(self, path):
        with safe_open(path, "np") as f:
            self.w = {n: f.get_tensor(n).astype(np.float32) for n in f.keys()}
        for n, x in self.w.items():
            if x.shape[:2] == (1, 1):
                self.w[n] = x.reshape(-1)
        self.version = 7 if "blocks.0.att.r_k" in self.w else 4
        self.layers = 1 + max(int(n.split(".")[1]) for n in self.w if n.startswith("blocks."))
        self.width = self.w["emb.weight"].shape[1]

    def state(self, rows):
        """A fresh state for so many rows: a list of arrays per layer."""
        z = lambda: np.zeros((rows, self.width), np.float32)
        if self.version == 4:
            return [[z(), z(), z(), z(), z() - 1e30] for _ in range(self.layers)]
        heads, n = self.w["blocks.0.att.r_k"].shape
        return [[z(), z(), np.zeros((rows, heads, n, n), np.float32)] for _ in range(self.layers)]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * self.w[name + ".weight"] + self.w[name + ".bias"]

    def step(self, tokens, state):
        """Logits [rows, V] after one more token per row; the state is updated in place."""
        x, first = self.norm(self.w["emb.weight"][tokens], "blocks.0.ln0"), None
        for l, s in enumerate(state):
            name = f"blocks.{l}."
            a = self.norm(x, name + "ln1")
            if self.version == 4:
                x = x + self.att4(name + "att.", a, s)
            else:
                y, first = self.att7(name + "att.", a, s, first)
                x = x + y
            s[0] = a
            f = self.norm(x, name + "ln2")
            x = x + self.ffn(name + "ffn.", f, s[1], tokens)
            s[1] = f
        return self.norm(x, "ln_out") @ self.w["head.weight"].T

    def ffn(self, n, x, prev, tokens):
        w = self.w
        key = lambda k: np.square(np.maximum(w[n + "key.weight"] @ k.T, 0)).T
        if self.version == 7:
            k = key(x + (prev - x) * w[n + "x_k"])
            if n + "s_emb.weight" in w:
                k = k * self.deep_embed(n, x, tokens)
            return k @ w[n + "value.weight"].T
        mk, mr = w[n + "time_mix_k"], w[n + "time_mix_r"]
        k = key(x * mk + prev * (1 - mk)) @ w[n + "value.weight"].T
        return sigmoid((x * mr + prev * (1 - mr)) @ w[n + "receptance.weight"].T) * k

    def deep_embed(self, n, x, tokens):
        """Version 7a: factors of the channels, through a matrix of each token's own."""
        w, rank = self.w, self.w[n + "s1"].shape[1]
        table = w[n + "s_emb.weight"][tokens]
        table = table + self.norm(w["emb.weight"][tokens], "blocks.0.ln0") @ w[n + "s_emb_x.weight"].T
        z = np.einsum("ti,tij->tj", x @ w[n + "s1"], table.reshape(-1, rank, rank))
        return z @ w[n + "s2"] + w[n + "s0"]

    def att4(self, n, x, s):
        w = self.w
        mix = lambda c: x * w[n + "time_mix_" + c] + s[0] * (1 - w[n + "time_mix_" + c])
        r = sigmoid(mix("r") @ w[n + "receptance.weight"].T)
        k, v = mix("k") @ w[n + "key.weight"].T, mix("v") @ w[n + "value.weight"].T
        aa, bb, pp = s[2:]
        q = np.maximum(pp, w[n + "time_first"] + k)
        e1, e2 = np.exp(pp - q), np.exp(w[n + "time_first"] + k - q)
        y = (e1 * aa + e2 * v) / (e1 * bb + e2)
        pp = pp - np.exp(w[n + "time_decay"])
        q = np.maximum(pp, k)
        e1, e2 = np.exp(pp - q), np.exp(k - q)
        s[2:] = e1 * aa + e2 * v, e1 * bb + e2, q
        return (r * y) @ w[n + "output.weight"].T

    def att7(self, n, x, s, first):
        w = self.w
        mixed = {c: x + (s[0] - x) * w[n + "x_" + c] for c in "rwkvag"}
        rows, (heads, size) = len(x), w[n + "r_k"].shape
        split = lambda z: z.reshape(rows, heads, size)
        r, k, v = (mixed[c] @ w[f"{n}{m}.weight"].T for c, m in (("r", "receptance"), ("k", "key"), ("v", "value")))
        decay = np.exp(-0.606531 * sigmoid(w[n + "w0"] + np.tanh(mixed["w"] @ w[n + "w1"]) @ w[n + "w2"]))
        a = sigmoid(w[n + "a0"] + mixed["a"] @ w[n + "a1"] @ w[n + "a2"])
        g = sigmoid(mixed["g"] @ w[n + "g1"]) @ w[n + "g2"]
        kk = split(k * w[n + "k_k"])
        kk = kk / np.maximum(np.sqrt((kk * kk).sum(-1, keepdims=True)), 1e-12)
        k = k * (1 + (a - 1) * w[n + "k_a"])
        if first is None:
            first = v
        else:
            v = v + (first - v) * sigmoid(w[n + "v0"] + mixed["v"] @ w[n + "v1"] @ w[n + "v2"])
        r, k, v, a, decay = map(split, (r, k, v, a, decay))
        removed = -(s[2] @ kk[..., None])[..., 0]
        s[2] = (s[2] * decay[:, :, None] + removed[..., None] * (kk * a)[:, :, None] + v[..., None] * k[:, :, None])
        y = (s[2] @ r[..., None])[..., 0]
        y = y - y.mean(-1, keepdims=True)
        y = y / np.sqrt((y * y).mean(-1, keepdims=True) + 64e-5)
        y = y.reshape(rows, -1) * w[n + "ln_x.weight"] + w[n + "ln_x.bias"]
        y = y + ((r * k * w[n + "r_k"]).sum(-1, keepdims=True) * v).reshape(rows, -1)
        return (y * g) @ w[n + "output.weight"].T, first


def bits(logits, targets):
    """-log2 of the probability of each row's target."""
    top = logits.max(-1, keepdims=True)
    lse = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
    return (lse - logits[np.arange(len(targets)), targets]) / np.log(2)


def bits_per_byte(model, texts, vocabulary=Bytes(), batch=32):
    """Bits of each text's tokens after its first, over the bytes these stand for; every text from a fresh state."""
    texts, total, count = sorted(texts, key=len, reverse=True), 0.0, 0
    for part in (texts[i:i + batch] for i in range(0, len(texts), batch)):
        state = model.state(len(part))
        for t in range(len(part[0]) - 1):
            rows = sum(len(x) > t + 1 for x in part)                     # the longest ones come first
            state = [[x[:rows] for x in layer] for layer in state]
            logits = model.step(np.array([x[t] for x in part[:rows]]), state)
            targets = [x[t + 1] for x in part[:rows]]
            total += bits(logits, np.array(targets)).sum(dtype=np.float64)
            count += sum(vocabulary.lengths[x] for x in targets)
    return total / count


def sample(model, prompt, temperature, seed, vocabulary=Bytes(), limit=1200):
    """The prompt and what follows it, up to the blank line that ends a text, or an end of text."""
    rng, state, text = np.random.default_rng(seed), model.state(1), bytearray(prompt)
    for token in vocabulary.encode(prompt):
        logits = model.step(np.array([token]), state)
    while len(text) < limit and not text.endswith(b"\n\n"):
        p = np.exp((logits[0] - logits.max()).astype(np.float64) / temperature)
        token = int(rng.choice(len(p), p=p / p.sum()))
        if token in vocabulary.end:
            break
        text += vocabulary.decode([token])
        logits = model.step(np.array([token]), state)
    return text.decode("latin-1")


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("file")
    a.add_argument("--vocabulary", metavar="LIST", help="default: vocabulary.txt beside the file, or bytes")
    a.add_argument("--split", default="heldout", choices=data.SPLITS)
    a.add_argument("--stream", action="store_true", help="one text with the state carried on between tunes or chapters")
    a.add_argument("--sample", action="store_true", help="only write a text")
    a.add_argument("--logits", metavar="OUT", help="only write the logits after the prompt, as little-endian f32")
    a.add_argument("--prompt", default="X:1\n", help="text, or @FILE")
    a.add_argument("--temperature", type=float, default=0.8)
    a.add_argument("--seed", type=int, default=1)
    args = a.parse_args()
    model = Model(args.file)
    vocabulary = Vocabulary.read(args.vocabulary) if args.vocabulary else beside(args.file)
    if len(vocabulary) != len(model.w["emb.weight"]):
        raise SystemExit(f"{args.file} has {len(model.w['emb.weight'])} tokens, its vocabulary {len(vocabulary)}: "
                         "name the list that it was trained with (--vocabulary LIST)")
    prompt = open(args.prompt[1:], "rb").read() if args.prompt[0] == "@" else args.prompt.encode()
    if args.logits:
        state = model.state(1)
        for token in vocabulary.encode(prompt):
            logits = model.step(np.array([token]), state)
        open(args.logits, "wb").write(logits[0].astype("<f4").tobytes())
        return
    if args.sample:
        sys.stdout.write(sample(model, prompt, args.temperature, args.seed, vocabulary))
        return
    read = [t.encode() for t in data.corpus_of(Path(args.file).name).texts()[args.split]]
    texts = [vocabulary.encode(t) for t in read]
    if args.stream:
        texts = [[token for t in texts for token in t + vocabulary.end]]
    bpb, size = bits_per_byte(model, texts, vocabulary), sum(map(len, read))
    print(f"{args.file}: {bpb:.4f} bits per byte ({args.split}, {size} bytes, {sum(map(len, texts))} tokens)")


if __name__ == "__main__":
    main()
