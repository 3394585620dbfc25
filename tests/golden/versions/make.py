#!/usr/bin/env python3
"""Random models of several versions, and the logits that another implementation computes of them.

    apt-get install --no-install-recommends python3-torch
    python3 -m venv --system-site-packages VENV && VENV/bin/pip install --no-deps rwkv tokenizers
    VENV/bin/python tests/golden/versions/make.py [VERSION]
    VENV/bin/python tests/golden/versions/make.py --exported target/release/rwkv

For each version this writes a list of tensors, from which the tests make the same checkpoint, and
the logits after the last tokens of a text, by the package `rwkv` on the CPU in f32. With
`--exported` it writes nothing, and compares with those of the same models after `rwkv export`
(which takes the package `safetensors` besides).
"""

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
TOKENS, SEED, SHOWN = 64, 7, 64
LAYERS, DIM, FFN, VOCAB = 2, 48, 100, 256
HEADS = {"4": 1, "5.0": 4, "5.1": 3, "5.2": 4, "6": 3, "7": 4, "7a": 3}
# Version 6's ranks of token shift and decay, version 7's of decay, learning rate, value and gate;
# the package fixes that of version 7a's DeepEmbed.
RANK_SHIFT, RANK_DECAY = 6, 10
RANKS = {"w": 10, "a": 6, "v": 5, "g": 20}
RANK_DEEP = 32

# Values lie around an offset, within 2^15 times 2^-exponent of it: an f32 holds them exactly.
WEIGHT, BIAS, MIX, DECAY, UNIT, WIDE = (0, 17), (0, 18), (0.5, 16), (-2, 13), (0, 15), (0, 16)
NORM, LOW = (1, 17), (-1, 15)


def tensors(version):
    """Name, shape, offset and exponent of every tensor."""
    heads = HEADS[version]
    per_channel, vector = [heads, DIM // heads], [1, 1, DIM]

    def norm(name):
        yield f"{name}.weight", [DIM], NORM
        yield f"{name}.bias", [DIM], BIAS

    def goose(i, att, ffn):
        for letter in "rwkvag":
            yield f"{att}.x_{letter}", vector, MIX
        for letter, rank in RANKS.items():
            if letter == "v" and i == 0:
                continue
            if letter != "g":
                yield f"{att}.{letter}0", vector, LOW
            yield f"{att}.{letter}1", [DIM, rank], WEIGHT
            yield f"{att}.{letter}2", [rank, DIM], WEIGHT
        yield f"{att}.k_k", vector, NORM
        yield f"{att}.k_a", vector, NORM
        yield f"{att}.r_k", per_channel, WEIGHT
        for name in ["receptance", "key", "value", "output"]:
            yield f"{att}.{name}.weight", [DIM, DIM], WEIGHT
        yield from norm(f"{att}.ln_x")
        yield f"{ffn}.x_k", vector, MIX
        yield f"{ffn}.key.weight", [FFN, DIM], WEIGHT
        yield f"{ffn}.value.weight", [DIM, FFN], WEIGHT
        if version == "7a":
            yield f"{ffn}.s_emb.weight", [VOCAB, RANK_DEEP**2], UNIT
            yield f"{ffn}.s_emb_x.weight", [RANK_DEEP**2, DIM], WEIGHT
            yield f"{ffn}.s1", [DIM, RANK_DEEP], WEIGHT
            yield f"{ffn}.s2", [RANK_DEEP, FFN], BIAS
            yield f"{ffn}.s0", vector[:2] + [FFN], NORM

    def layer(i):
        att, ffn = f"blocks.{i}.att", f"blocks.{i}.ffn"
        if i == 0:
            yield from norm("blocks.0.ln0")
        yield from norm(f"blocks.{i}.ln1")
        yield from norm(f"blocks.{i}.ln2")
        if version.startswith("7"):
            yield from goose(i, att, ffn)
            return
        if version == "6":
            for letter in "xwkvrg":
                yield f"{att}.time_maa_{letter}", vector, MIX
            yield f"{att}.time_maa_w1", [DIM, 5 * RANK_SHIFT], WEIGHT
            yield f"{att}.time_maa_w2", [5, RANK_SHIFT, DIM], WEIGHT
            yield f"{att}.time_decay", vector, DECAY
            yield f"{att}.time_decay_w1", [DIM, RANK_DECAY], WEIGHT
            yield f"{att}.time_decay_w2", [RANK_DECAY, DIM], WIDE
            yield f"{att}.time_faaaa", per_channel, UNIT
        else:
            for letter in "kvr" if version in ["4", "5.0"] else "kvrg":
                yield f"{att}.time_mix_{letter}", vector, MIX
            decay = {"4": [DIM], "5.2": per_channel}.get(version, [heads])
            yield f"{att}.time_decay", decay, DECAY
            if version == "4":
                yield f"{att}.time_first", [DIM], UNIT
            elif version == "5.0":
                yield f"{att}.time_first", [heads], LOW
            else:
                yield f"{att}.time_faaaa", per_channel if version == "5.2" else [heads], UNIT
        matrices = ["receptance", "key", "value", "output"]
        for name in matrices + ([] if version in ["4", "5.0"] else ["gate"]):
            yield f"{att}.{name}.weight", [DIM, DIM], WEIGHT
        if version != "4":
            yield from norm(f"{att}.ln_x")
        for letter in "kr":
            yield f"{ffn}.time_{'maa' if version == '6' else 'mix'}_{letter}", vector, MIX
        yield f"{ffn}.key.weight", [FFN, DIM], WEIGHT
        yield f"{ffn}.receptance.weight", [DIM, DIM], WEIGHT
        yield f"{ffn}.value.weight", [DIM, FFN], WEIGHT

    yield "emb.weight", [VOCAB, DIM], UNIT
    for i in range(LAYERS):
        yield from layer(i)
    yield from norm("ln_out")
    yield "head.weight", [VOCAB, DIM], WIDE


def xorshift(seed):
    """32 bits at a time, as in `tests/src/lib.rs`."""
    x = seed | 1
    while True:
        x = (x ^ x << 13) & 0xFFFFFFFF
        x ^= x >> 17
        x = (x ^ x << 5) & 0xFFFFFFFF
        yield x


def checkpoint(lines):
    """The values, tensor after tensor from one generator: the upper half of a word, signed."""
    words = xorshift(1)
    weights = {}
    for name, shape, (offset, exponent) in lines:
        count = torch.Size(shape).numel()
        upper = [next(words) >> 16 for _ in range(count)]
        values = [offset + (n - 65536 if n >= 32768 else n) * 2.0**-exponent for n in upper]
        weights[name] = torch.tensor(values, dtype=torch.float32).reshape(shape)
    return weights


def load(version, path):
    """The package decides when it is imported what it can read."""
    os.environ |= {"RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}
    if version.startswith("7"):
        os.environ |= {"RWKV_V7_ON": "1", "RWKV_DE_VERSION": str(int(version == "7a"))}
    from rwkv.model import RWKV

    # Debian's torch is older than the argument `mmap`.
    whole = torch.load
    torch.load = lambda file, map_location=None, **_: whole(file, map_location=map_location)
    return RWKV(model=path, strategy="cpu fp32")


def logits(model):
    """After the last tokens of the text, one after the other."""
    state, shown = None, []
    for word, _ in zip(xorshift(SEED), range(TOKENS)):
        row, state = model.forward([32 + word % 95], state)
        shown.append(row)
    return torch.cat(shown[-SHOWN:]).tolist()


def main(version):
    lines = list(tensors(version))
    with open(HERE / f"{version}.txt", "w") as file:
        for name, shape, (offset, exponent) in lines:
            print(name, "x".join(map(str, shape)), offset, exponent, file=file)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model"
        torch.save(checkpoint(lines), f"{path}.pth")
        shown = logits(load(version, path))
    with open(HERE / f"{version}.logits", "wb") as file:
        file.write(struct.pack(f"<{len(shown)}f", *shown))
    print(version, max(map(abs, shown)))


def check(version, rwkv):
    """What the package computes of a model that was converted and exported by the program."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model"
        torch.save(checkpoint(list(tensors(version))), f"{path}.pth")
        convert = ["convert", f"{path}.pth", "-o", f"{path}.rwkv", "--weights", "f32"]
        export = ["export", f"{path}.rwkv", "-o", f"{path}.safetensors"]
        for args in [convert, export]:
            subprocess.run([rwkv, *args], check=True, stdout=subprocess.DEVNULL)
        torch.save(load_file(f"{path}.safetensors"), f"{path}.pth")
        shown = logits(load(version, path))
    wanted = struct.unpack(f"<{len(shown)}f", (HERE / f"{version}.logits").read_bytes())
    largest = max(map(abs, wanted))
    error = max(abs(a - b) for a, b in zip(shown, wanted)) / largest
    print(f"{version}: exported, {error:.1e} of the largest logit")
    assert error < 1e-4


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--exported", rwkv]:
            for each in HEADS:
                command = [sys.executable, __file__, "--exported", rwkv, each]
                subprocess.run(command, check=True)
        case ["--exported", rwkv, version]:
            check(version, rwkv)
        case [version]:
            main(version)
        case _:
            for each in HEADS:
                subprocess.run([sys.executable, __file__, each], check=True)
