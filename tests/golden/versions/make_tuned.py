#!/usr/bin/env python3
"""The random models of `make.py` with tuned states, and the logits that another implementation
computes from there.

    VENV/bin/python tests/golden/versions/make_tuned.py [VERSION]

VENV is that of `make.py`. For each version this writes the list of the tuned states, which follow
the other tensors, and the logits after each of the first tokens of a text.

Versions 5 and 6: the package `rwkv` 0.8.32 loads `blocks.N.att.time_state` itself. In its
`model.py`, `RWKV.forward` sets `state[i*3+1]` to `w[...time_state'].transpose(1,2)`, and
`att_one_v5` and `att_one_v6_0` read that as `[head][key][value]`: `r @ (t_first * (k @ v) + s)`.

Version 7: the package has no place for it, so the state is handed to `forward`.
`RWKV_x070_TMix_one` reads it as `[head][value][key]`: `v.view(H,N,1) @ k.view(H,1,N)`, which is how
a checkpoint has it, so it is handed on as it is.
"""

import struct
import subprocess
import sys
import tempfile

import torch

import make

SHOWN = 3


def main(version):
    heads = make.HEADS[version]
    size = make.DIM // heads
    names = [f"blocks.{i}.att.time_state" for i in range(make.LAYERS)]
    tuned = [(name, [heads, size, size], make.UNIT) for name in names]
    with open(make.HERE / f"{version}.tuned.txt", "w") as file:
        for name, shape, (offset, exponent) in tuned:
            print(name, "x".join(map(str, shape)), offset, exponent, file=file)
    weights = make.checkpoint(list(make.tensors(version)) + tuned)
    state = None
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model"
        states = [weights.pop(name) for name in names] if version.startswith("7") else []
        torch.save(weights, f"{path}.pth")
        model = make.load(version, path)
    if states:
        state = model.generate_zero_state()
        for i, tuned in enumerate(states):
            assert state[i * 3 + 1].shape == tuned.shape
            state[i * 3 + 1] = tuned
    shown = []
    for word, _ in zip(make.xorshift(make.SEED), range(SHOWN)):
        logits, state = model.forward([32 + word % 95], state)
        shown.append(logits)
    shown = torch.cat(shown).tolist()
    with open(make.HERE / f"{version}.tuned.logits", "wb") as file:
        file.write(struct.pack(f"<{len(shown)}f", *shown))
    print(version, max(map(abs, shown)))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        for each in make.HEADS:
            if each != "4":
                subprocess.run([sys.executable, __file__, each], check=True)
