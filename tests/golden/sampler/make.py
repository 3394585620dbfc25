#!/usr/bin/env python3
"""Probabilities that the package `rwkv` draws tokens with, in its own order of operations.

    apt-get install --no-install-recommends python3-torch
    python3 -m venv --system-site-packages VENV && VENV/bin/pip install --no-deps rwkv tokenizers
    VENV/bin/python tests/golden/sampler/make.py

Writes one case after the other: settings, logits and probabilities, a line each.
"""

import random
from pathlib import Path

import numpy
import torch
from rwkv.utils import PIPELINE

TOKENS = 40
SETTINGS = [
    # Temperature, top-p, top-k.
    (1.0, 0.85, 0),
    (0.7, 0.5, 0),
    (1.8, 0.9, 0),
    (1.0, 0.99, 7),
    (0.4, 0.95, 12),
    (2.5, 0.6, 3),
    (1.2, 0.0, 0),
]


def probabilities(logits, temperature, top_p, top_k):
    found = []
    numpy.random.choice = lambda a, p: found.append(p) or 0
    PIPELINE.sample_logits(None, torch.tensor(logits), temperature, top_p, top_k)
    return found[0].tolist()


def main():
    draw = random.Random(1)
    with open(Path(__file__).with_name("official.txt"), "w") as file:
        for ties in [False, True]:
            for settings in SETTINGS:
                if ties and settings[2] > 0:
                    # Which of equals top-k keeps is left to numpy's sort.
                    continue
                # Halves, of which some are equal, or sixteenths, of which none are.
                halves, sixteenths = draw.choices(range(16), k=TOKENS), draw.sample(range(128), TOKENS)
                logits = [n / 2 for n in halves] if ties else [n / 16 for n in sixteenths]
                print(*settings, file=file)
                print(*logits, file=file)
                print(*(f"{p:.7g}" for p in probabilities(logits, *settings)), file=file)


if __name__ == "__main__":
    main()
