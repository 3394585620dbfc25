#!/usr/bin/env python3
"""Blocks of the quantised types of ggml, and the values that the package `gguf` reads from them.

    python3 -m venv VENV && VENV/bin/pip install gguf
    VENV/bin/python rwkv-host/tests/golden/blocks.py

For each type this writes three blocks, then their 96 values in f32.
"""

from pathlib import Path

import numpy
from gguf import GGMLQuantizationType as Type, quants

BLOCKS, FLOATS = 3, {Type.Q4_0: 1, Type.Q4_1: 2, Type.Q5_0: 1, Type.Q5_1: 2, Type.Q8_0: 1}
SIZES = {Type.Q4_0: 18, Type.Q4_1: 20, Type.Q5_0: 22, Type.Q5_1: 24, Type.Q8_0: 34}

random = numpy.random.default_rng(1)
with open(Path(__file__).with_suffix(".bin"), "wb") as file:
    for kind, floats in FLOATS.items():
        blocks = random.integers(0, 256, (BLOCKS, SIZES[kind]), dtype=numpy.uint8)
        scales = random.normal(0, 0.1, (BLOCKS, floats)).astype(numpy.float16)
        blocks[:, : 2 * floats] = scales.view(numpy.uint8)
        file.write(blocks.tobytes())
        file.write(quants.dequantize(blocks.reshape(-1), kind).astype(numpy.float32).tobytes())
