"""The other side of `cargo xtask llama`: a random RWKV-7 as GGUF, and how fast llama.cpp runs it.

    peer.py make DIR                     writes f16.gguf, q8_0.gguf and q4_0.gguf
    peer.py run FILE THREADS READ WRITE  measures one of them and prints JSON
"""

import ctypes
import json
import pathlib
import resource
import sys
import time

LAYERS, DIM, HEAD, FFN, VOCAB = 12, 768, 64, 3072, 65536
RANKS = {"w": 64, "a": 64, "v": 32, "g": 128}
TRIES = 3


def llama():
    import llama_cpp

    # It says a lot about a file. Python must keep what C calls.
    llama.quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(llama.quiet, None)
    return llama_cpp


def make(folder):
    import gguf
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "f16.gguf"
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "rwkv7")
    writer.add_name("random")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(1 << 20)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(0)
    writer.add_layer_norm_eps(1e-5)
    writer.add_wkv_head_size(HEAD)
    writer.add_decay_lora_rank(RANKS["w"])
    writer.add_iclr_lora_rank(RANKS["a"])
    writer.add_value_residual_mix_lora_rank(RANKS["v"])
    writer.add_gate_lora_rank(RANKS["g"])
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list([f"t{i}" for i in range(VOCAB)])
    writer.add_token_types([1] * VOCAB)

    def vector(name, offset, spread, size=DIM):
        values = offset + spread * random.standard_normal(size)
        writer.add_tensor(name, values.astype(np.float32))

    def matrix(name, rows, cols):
        values = random.standard_normal((rows, cols)) / np.sqrt(cols)
        writer.add_tensor(name, values.astype(np.float16))

    def norm(name):
        vector(f"{name}.weight", 1, 0.05)
        vector(f"{name}.bias", 0, 0.05)

    matrix("token_embd.weight", VOCAB, DIM)
    norm("token_embd_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        norm(block + "attn_norm")
        norm(block + "attn_norm_2")
        mix = block + "time_mix_"
        vector(mix + "lerp_fused.weight", 0.5, 0.1, (6, 1, 1, DIM))
        for name, rank in RANKS.items():
            # llama.cpp wants the residual value of layer 0 as well, where it is that of `a`.
            rank = RANKS["a"] if name == "v" and layer == 0 else rank
            if name != "g":
                vector(f"{mix}{name}0.weight", -1, 0.5)
            matrix(f"{mix}{name}1.weight", rank, DIM)
            matrix(f"{mix}{name}2.weight", DIM, rank)
        for name, offset in [("k_k", 1), ("k_a", 1), ("r_k", 0)]:
            vector(f"{mix}{name}.weight", offset, 0.1)
        for name in ["receptance", "key", "value", "output"]:
            matrix(f"{mix}{name}.weight", DIM, DIM)
        norm(mix + "ln")
        vector(block + "channel_mix_lerp_k.weight", 0.5, 0.1)
        matrix(block + "channel_mix_key.weight", FFN, DIM)
        matrix(block + "channel_mix_value.weight", DIM, FFN)
    norm("output_norm")
    matrix("output.weight", VOCAB, DIM)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    cpp = llama()
    kinds = [("q8_0", cpp.LLAMA_FTYPE_MOSTLY_Q8_0), ("q4_0", cpp.LLAMA_FTYPE_MOSTLY_Q4_0)]
    for name, kind in kinds:
        params = cpp.llama_model_quantize_default_params()
        params.ftype = kind
        out = str(folder / f"{name}.gguf").encode()
        if cpp.llama_model_quantize(str(path).encode(), out, ctypes.byref(params)):
            sys.exit(f"llama.cpp cannot quantise to {name}")


def run(path, threads, read, write):
    cpp = llama()
    cpp.llama_backend_init()
    model = cpp.llama_model_load_from_file(path.encode(), cpp.llama_model_default_params())
    best = [float("inf")] * 2
    for _ in range(TRIES):
        params = cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = max(512, read)
        params.n_threads = params.n_threads_batch = threads
        context = cpp.llama_init_from_model(model, params)

        def decode(tokens):
            array = (cpp.llama_token * len(tokens))(*tokens)
            if cpp.llama_decode(context, cpp.llama_batch_get_one(array, len(tokens))):
                sys.exit("llama.cpp cannot decode")
            if not cpp.llama_get_logits_ith(context, -1):
                sys.exit("llama.cpp has no logits")

        start = time.perf_counter()
        decode([i * 2654435761 % VOCAB for i in range(1, read + 1)])
        times = [time.perf_counter() - start]
        start = time.perf_counter()
        for i in range(write):
            decode([i * 40503 % VOCAB])
        times.append(time.perf_counter() - start)
        best = [min(pair) for pair in zip(best, times)]
        cpp.llama_free(context)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"read": read / best[0], "write": write / best[1], "peak_bytes": peak}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder]:
            make(pathlib.Path(folder))
        case ["run", path, *numbers] if len(numbers) == 3:
            run(path, *map(int, numbers))
        case _:
            sys.exit(__doc__)
