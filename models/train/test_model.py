"""Checks of the sequence forms against one-token recurrences, of integer weights, and of tunes as bytes and tokens.

`python test_model.py`. One check needs the tool: see tool.py.
"""
import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

import data
import evaluate
import quantise
import tool
import train
from model import Config, forward, init_params, init_state, reset, wkv7, wkv7_chunked
from train import save
from vocabulary import Bytes, learn

TINY = {"4": Config(4, 32, 3, 64), "7": Config(7, 64, 3, 96, head=32, ranks=(8, 8, 8, 16))}
TINY["7a"] = replace(TINY["7"], deep=8)


def perturbed(cfg):
    """Weights away from the zeros of the initialisation, rounded to f16 as in a file."""
    rng = np.random.default_rng(5)
    return {n: jnp.asarray(np.float16(x + rng.normal(size=x.shape) * 0.15), jnp.float32)
            for n, x in init_params(cfg, 3).items()}


def wkv7_inputs(rows, time, heads, size):
    """Random r, logw, k, v, a, b and a state."""
    rng, shape = np.random.default_rng(1), (rows, time, heads, size)
    r, k, v, kk = (rng.normal(size=shape) for _ in range(4))
    kk /= np.linalg.norm(kk, axis=-1, keepdims=True)
    b = kk / (1 + np.exp(-rng.normal(size=shape)))
    logw = -0.606531 / (1 + np.exp(-2 * rng.normal(size=shape)))
    return r, logw, k, v, -kk, b, rng.normal(size=(rows, heads, size, size))


def test_wkv7_is_recurrent():
    """Both forms against the recurrence in f64."""
    for size in (16, 32, 64):
        r, logw, k, v, a, b, s = wkv7_inputs(3, 64, 2, size)
        single = [jnp.asarray(x, jnp.float32) for x in (r, logw, k, v, a, b, s)]
        both = [form(*single) for form in (wkv7, wkv7_chunked)]
        for t in range(r.shape[1]):
            sa = np.einsum("bhij,bhj->bhi", s, a[:, t])
            s = s * np.exp(logw[:, t])[:, :, None] + sa[..., None] * b[:, t, :, None] + v[:, t, ..., None] * k[:, t, :, None]
            for y, _ in both:
                np.testing.assert_allclose(y[:, t], np.einsum("bhij,bhj->bhi", s, r[:, t]), atol=4e-4)
        for _, end in both:
            np.testing.assert_allclose(end, s, atol=4e-4)


def test_wkv7_gradients_agree():
    """Of the form in C and of the chunks, which JAX derives, for all inputs."""
    for size in (16, 32):
        inputs = [jnp.asarray(x, jnp.float32) for x in wkv7_inputs(2, 48, 3, size)]
        wanted = [np.random.default_rng(2).normal(size=x.shape) for x in (inputs[0], inputs[-1])]
        value = lambda form: lambda *x: sum((y * g).sum() for y, g in zip(form(*x), wanted))
        one, two = (jax.grad(value(form), range(7))(*inputs) for form in (wkv7, wkv7_chunked))
        for x, y in zip(one, two):
            np.testing.assert_allclose(x, y, atol=2e-5 * float(jnp.abs(y).max()))


def test_sequence_is_recurrent():
    """Logits of forward(), state carried over two pieces, against evaluate.py reading the saved file."""
    tokens = np.random.default_rng(2).integers(0, 256, (4, 64)).astype(np.uint8)
    for cfg in TINY.values():
        p = perturbed(cfg)
        one, state = forward(cfg, p, tokens[:, :32], init_state(cfg, 4))
        two, _ = forward(cfg, p, tokens[:, 32:], state)
        logits = np.concatenate([one, two], 1)
        with tempfile.TemporaryDirectory() as folder:
            save(p, cfg, Path(folder) / "tiny.safetensors")
            model = evaluate.Model(Path(folder) / "tiny.safetensors")
        assert model.version == cfg.version
        s = model.state(4)
        for t in range(64):
            np.testing.assert_allclose(logits[:, t], model.step(tokens[:, t], s), atol=2e-3)


def test_reset_gives_a_fresh_start():
    cfg = TINY["7"]
    p, tokens = perturbed(cfg), np.arange(64, dtype=np.uint8).reshape(2, 32)
    fresh, state = forward(cfg, p, tokens, init_state(cfg, 2))
    again, _ = forward(cfg, p, tokens, reset(state, init_state(cfg, 2), jnp.array([1.0, 0.0])))
    assert not np.allclose(again[0], fresh[0], atol=1e-3)
    np.testing.assert_array_equal(again[1], fresh[1])


def test_transposition_is_undone():
    tune = "X:1\nT:A\nM:2/4\nL:1/8\nK:Gmix\nG,A,Bc ^f=f'e_B|[Gb]z g''2|\n\n"
    assert "K:Dmix\n" in data.transpose(tune, 1)
    for move in (-2, -1, 1, 2, 3):
        there = data.transpose(tune, move)
        assert there and there != tune and data.transpose(there, -move) == tune
    assert data.transpose("K:D\nAFDF\n", 1) == "K:A\nECA,C\n"
    assert data.transpose("K:D\nF=F^G\n", -2) == "K:C\nE_E^F\n"


def test_batches_go_on_from_a_position():
    tunes = data.tunes()["valid"][:20]
    one = data.Batches(tunes, 3, 64, 7)
    for _ in range(5):
        one.draw()
    two = data.Batches(tunes, 3, 64, 8)
    two.__dict__.update(copy.deepcopy(one.position()))
    for a, b in zip(one.draw(), two.draw()):
        np.testing.assert_array_equal(a, b)


def test_batches_of_tokens_are_whole_tunes():
    tunes = data.tunes()["valid"][:40]
    v = learn([t.encode() for t in tunes], 384)
    batches = data.Batches(tunes, 2, 512, 7, keep_key=1, jump=0, vocabulary=v)
    windows = [batches.draw()[0] for _ in range(6)]
    for row in range(2):
        ids = np.concatenate([w[row, :-1] for w in windows])
        read = [v.decode(part).decode() for part in np.split(ids, np.flatnonzero(ids == 0) + 1)]
        assert len(read) > 5 and set(read[:-1]) <= set(tunes) and any(t.startswith(read[-1]) for t in tunes)


def test_bits_per_byte_count_bytes():
    """Of a model that knows nothing, and of one that knows something by both ways to measure it."""
    tunes = [t[:513] for t in data.tunes()["valid"][:20]]
    v = learn([t.encode() for t in tunes], 384)
    uniform = mock.Mock(step=lambda tokens, state: np.zeros((len(tokens), 384)), state=lambda rows: [])
    texts = [v.encode(t.encode()) for t in tunes]
    tokens, size = sum(len(t) - 1 for t in texts), sum(len(v.decode(t[1:])) for t in texts)
    assert size < sum(map(len, tunes))
    np.testing.assert_allclose(evaluate.bits_per_byte(uniform, texts, v), np.log2(384) * tokens / size)
    for vocabulary in (v, Bytes()):
        cfg = replace(TINY["7"], vocab=len(vocabulary))
        p = perturbed(cfg)
        with tempfile.TemporaryDirectory() as folder:
            save(p, cfg, Path(folder) / "tiny.safetensors", vocabulary)
            model = evaluate.Model(Path(folder) / "tiny.safetensors")
        texts = [vocabulary.encode(t.encode()) for t in tunes]
        np.testing.assert_allclose(
            train.Valid(cfg, tunes, vocabulary)(p), evaluate.bits_per_byte(model, texts, vocabulary), rtol=1e-4)


def test_no_tune_is_in_two_splits():
    parts = [set(p) for p in data.tunes().values()]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert all(t.endswith("\n\n") and t.count("\n\n") == 1 and t.startswith("X:1\nT:") for p in parts for t in p)


def test_integers_are_those_of_the_tool():
    """Every matrix of an image, read back by `rwkv export`, to the last bit."""
    if not tool.find():
        print("skipped:", tool.MISSING)
        return
    for cfg in [*TINY.values(), Config(7, 48, 2, 72, head=16, ranks=(4, 8, 12, 20))]:       # groups that are not full
        p = perturbed(cfg)
        for weights in ("int8", "int4"):
            with tempfile.TemporaryDirectory() as folder:
                path = lambda name: Path(folder) / name
                save(p, cfg, path("tiny.safetensors"))
                tool.rwkv("convert", path("tiny.safetensors"), "-o", path("tiny.rwkv"), "--weights", weights)
                tool.rwkv("export", path("tiny.rwkv"), "-o", path("back.safetensors"))
                back = load_file(path("back.safetensors"))
            image = quantise.image(p, weights)
            matrices = [n for n in p if quantise.is_matrix(n)]
            assert len(matrices) == 1 + cfg.layers * {4: 7, 7: 14}[cfg.version] - 2 * (cfg.version == 7) + 2 * cfg.layers * (cfg.deep > 0)
            for n in matrices:
                np.testing.assert_array_equal(image[n], back[n], n)


def test_training_sees_what_the_image_holds():
    """`fake` with fresh grids is the image but for weights at a limit between two integers; gradients go through."""
    for cfg in TINY.values():
        p = perturbed(cfg)
        grids = quantise.grids(p, "int4")
        fake, image = quantise.fake(p, grids), quantise.image(p, "int4")
        assert grids and fake.keys() == image.keys()
        for n in fake:
            step = grids.get(n, 0)
            far = np.abs(fake[n] - image[n]) > 1e-6
            assert far.mean() < 0.02 and (np.abs(fake[n] - image[n]) <= 1.01 * step + 1e-6).all(), n
        tokens = np.random.default_rng(2).integers(0, 256, (2, 33)).astype(np.uint8)
        cfg = replace(cfg, input_bits=quantise.INPUT_BITS)
        loss = lambda p: train.loss_of(cfg, quantise.fake(p, grids), tokens, init_state(cfg, 2))[0]
        assert all(float(jnp.abs(g).max()) > 0 for g in jax.grad(loss)(p).values())


def test_a_run_goes_on_with_its_settings():
    old = dict(steps=1000, cool=0.4, rate=1e-3, minutes=60, quantise=None)
    assert train.goes_on(old, {**old, "minutes": 5}, 900)
    assert train.goes_on(old, {**old, "steps": 500}, 300) and not train.goes_on(old, {**old, "steps": 500}, 301)
    assert train.goes_on(old, {**old, "steps": 2000}, 600) and not train.goes_on(old, {**old, "steps": 2000}, 601)
    assert not train.goes_on(old, {**old, "rate": 2e-3}, 10) and not train.goes_on(old, {**old, "quantise": "int4"}, 10)
    cosine = {**old, "cool": 0.0}
    assert not train.goes_on(cosine, {**cosine, "steps": 2000}, 10)


def test_interrupted_training_repeats_itself():
    """A run that breaks off and is resumed ends in the same file as one that does not; so does one for int4 after it."""
    parts = {s: p[:12] for s, p in data.tunes().items()}
    draw, argv = data.Batches.draw, "train.py tunes-m4 --steps 6 --rows 2 --length 32 --every 2".split()

    class Broken(Exception):
        pass

    def trained(folder, argv, breaks):
        left = [5 if breaks else 99]

        def drawn(self):
            left[0] -= 1
            if left[0] == 0:
                raise Broken
            return draw(self)

        with (mock.patch.object(data, "WORK", folder), mock.patch.object(train, "MODELS", folder),
              mock.patch.object(data.Batches, "draw", drawn), mock.patch("sys.argv", argv)):
            try:
                train.main()
            except Broken:
                train.main()
        return (folder / "tunes-m4" / "tunes-m4.safetensors").read_bytes()

    with (tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two,
          mock.patch.object(data, "tunes", lambda: parts), mock.patch.dict(train.CONFIGS, {"tunes-m4": TINY["7"]})):
        runs = [(Path(one), False), (Path(two), True)]
        float_weights, again = (trained(folder, argv, breaks) for folder, breaks in runs)
        assert float_weights == again
        integer_weights, again = (trained(folder, argv + ["--quantise", "int4"], breaks) for folder, breaks in runs)
        assert integer_weights == again != float_weights


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(name, "ok")
