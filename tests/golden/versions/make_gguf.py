#!/usr/bin/env python3
"""What llama.cpp makes of the random models of versions 6 and 7.

    apt-get install --no-install-recommends python3-torch cmake g++
    pip download --no-deps --no-binary :all: llama-cpp-python && tar xf llama_cpp_python-*.tar.gz
    cmake -S llama_cpp_python-*/vendor/llama.cpp -B BUILD -DGGML_NATIVE=OFF -DGGML_AVX=OFF \
        -DGGML_AVX2=OFF -DGGML_FMA=OFF -DGGML_F16C=OFF -DGGML_SSE42=OFF -DGGML_BMI2=OFF
    cmake --build BUILD --target llama
    python3 -m venv --system-site-packages VENV && VENV/bin/pip install gguf transformers diskcache
    VENV/bin/python tests/golden/versions/make_gguf.py llama_cpp_python-* BUILD

For both versions this has llama.cpp's converter write a GGUF file of the checkpoint of `make.py`
under the names of Hugging Face, and lists its tensors with a CRC-32 of the values of each: the
tests write the same files. Then llama.cpp computes the logits of the last tokens, and how far they
are from the listed ones is printed, and must be small. Vector units are off since its kernels for them need heads of
whole vectors.
"""

import ctypes
import json
import re
import runpy
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import torch
from make import DIM, FFN, HEADS, HERE, LAYERS, RANK_DECAY, RANK_SHIFT, RANKS, SEED, SHOWN, TOKENS, VOCAB
from make import checkpoint, tensors, xorshift

CONFIG = {"hidden_size": DIM, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "vocab_size": VOCAB}
CONFIGS = {
    # Rescaled after every layer, so that the second one shows it.
    "6": {"architectures": ["Rwkv6ForCausalLM"], "layer_norm_epsilon": 1e-5, "rescale_every": 1},
    "7": {
        "architectures": ["Rwkv7ForCausalLM"],
        "layer_norm_epsilon": 1e-5,
        "lora_rank_decay": RANKS["w"],
        "lora_rank_iclr": RANKS["a"],
        "lora_rank_value_residual_mix": RANKS["v"],
        "lora_rank_gate": RANKS["g"],
    },
}


def renamed(version, name):
    """The name that the converter knows a tensor by."""
    root = {"6": "rwkv.", "7": "model."}[version]
    name = re.sub(r"^emb\.", "embeddings.", name)
    name = re.sub(r"^blocks\.0\.ln0\.", {"6": "blocks.0.pre_ln.", "7": "pre_ln."}[version], name)
    name = name.replace(".att.", ".attention.").replace(".ffn.", ".feed_forward.")
    if version == "7":
        name = name.replace("blocks.", "layers.")
    return name if name.startswith("head.") else root + name


def convert(version, source, folder):
    """Has the converter write a GGUF file."""
    weights = checkpoint(list(tensors(version)))
    torch.save({renamed(version, name): x for name, x in weights.items()}, folder / "pytorch_model.bin")
    config = CONFIG | CONFIGS[version] | {"head_size": DIM // HEADS[version], "model_type": "rwkv"}
    (folder / "config.json").write_text(json.dumps(config))
    words = [f"{i} {bytes([i])!r} 1\n" for i in range(1, VOCAB)]
    (folder / "rwkv_vocab_v20230424.txt").write_text("".join(words))
    # Debian's torch is older than these types and this argument.
    for name in ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "uint16", "uint32", "uint64"]:
        if not hasattr(torch, name):
            setattr(torch, name, name)
    whole = torch.load
    torch.load = lambda file, map_location=None, **_: whole(file, map_location=map_location)
    path = folder / "model.gguf"
    script = source / "vendor/llama.cpp/convert_hf_to_gguf.py"
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), str(folder), "--outfile", str(path), "--outtype", "f32"]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as exit:
        assert not exit.code
    if version == "6":
        # The converter takes the ranks of released models for granted.
        from gguf import GGUFReader

        fields = GGUFReader(path, "r+").fields
        for name, rank in {"mix": RANK_SHIFT, "decay": RANK_DECAY}.items():
            fields[f"rwkv6.time_{name}_extra_dim"].parts[-1][0] = rank
    return path


def listed(path):
    """Name, shape as in PyTorch, and CRC-32 of every tensor."""
    from gguf import GGUFReader

    for tensor in GGUFReader(path).tensors:
        shape = "x".join(str(n) for n in reversed(tensor.shape.tolist()))
        yield f"{tensor.name} {shape} {zlib.crc32(tensor.data.tobytes()):08x}"


def logits(path, source, build):
    """What llama.cpp computes after the last tokens of the text."""
    sys.path.insert(0, str(source))
    import os

    os.environ["LLAMA_CPP_LIB_PATH"] = str(build / "bin")
    import llama_cpp as llama

    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 128
    context = llama.llama_init_from_model(model, params)
    shown = []
    for word, _ in zip(xorshift(SEED), range(TOKENS)):
        token = (ctypes.c_int32 * 1)(32 + word % 95)
        assert llama.llama_decode(context, llama.llama_batch_get_one(token, 1)) == 0
        shown.append(llama.llama_get_logits(context)[:VOCAB])
    return [x for row in shown[-SHOWN:] for x in row]


def main(version, source, build):
    with tempfile.TemporaryDirectory() as folder:
        path = convert(version, source, Path(folder))
        (HERE / f"{version}.gguf.txt").write_text("".join(f"{line}\n" for line in listed(path)))
        found = logits(path, source, build)
    bytes = (HERE / f"{version}.logits").read_bytes()
    expected = struct.unpack(f"<{len(bytes) // 4}f", bytes)
    difference = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    part = difference / max(map(abs, expected))
    print(f"{version}: {part:.1e} of the largest logit")
    assert part < 1e-4


if __name__ == "__main__":
    if len(sys.argv) == 4:
        main(sys.argv[1], *map(Path, sys.argv[2:]))
    else:
        import subprocess

        for each in CONFIGS:
            subprocess.run([sys.executable, __file__, each, *sys.argv[1:]], check=True)
