"""Checks of vocabulary.py, with the standard library alone. `python test_vocabulary.py`.

One check needs the tool: see tool.py.
"""
import json
import random
import struct
import tempfile
from pathlib import Path

import tool
import vocabulary
from vocabulary import FIRST, LONGEST, SINGLES, Bytes, Vocabulary, learn, of_learned, split

GOLDEN = tool.ROOT / "tests" / "golden" / "tokens"
TEXT = tool.ROOT / "models" / "text" / "tunes-valid.abc"


def tunes(most=60):
    return split(TEXT.read_bytes(), b"\n\n")[:most]


def naive(v, text):
    """The longest token, found the slow way."""
    ids = []
    while text:
        ids.append(max((i for i, t in enumerate(v.tokens) if t and text.startswith(t)), key=lambda i: len(v.tokens[i])))
        text = text[len(v.tokens[ids[-1]]):]
    return ids


def refused(make):
    try:
        make()
    except ValueError as error:
        return str(error)
    raise AssertionError("it was accepted")


def test_longest_match_is_naive_and_is_undone():
    rng = random.Random(3)
    letters = [b"\0", b"a", b"b", b"c", b"\xc3", b"\xa9", b"\xff"]
    for _ in range(40):
        some = lambda most: b"".join(rng.choices(letters, k=rng.randrange(2, most)))
        v = of_learned({some(7) for _ in range(rng.randrange(60))})
        for text in (some(200), rng.randbytes(200), b""):
            ids = v.encode(text)
            assert ids == naive(v, text) and v.decode(ids) == text
    text = rng.randbytes(500)
    assert Bytes().decode(Bytes().encode(text)) == text


def test_learning_repeats_itself_and_saves_tokens():
    texts = tunes()
    v = learn(texts, 512)
    assert len(v) == 512 and v.tokens[:FIRST] == [b"", *SINGLES] and max(v.lengths) <= LONGEST
    assert learn(texts, 512).tokens == v.tokens
    fresh = split(TEXT.read_bytes(), b"\n\n")[60:]
    counts = [sum(len(w.encode(t)) for t in fresh) for w in (of_learned([]), learn(texts, 320), v)]
    assert counts[0] == sum(map(len, fresh)) and counts[1] < 0.75 * counts[0] and counts[2] < 0.65 * counts[0], counts
    for t in v.tokens[FIRST:]:
        assert v.encode(t) == [v.ids[t]]
        assert b"\n\n" not in t[:-2]                                     # none reaches into the next tune


def test_limits():
    assert "4096" in refused(lambda: learn(tunes(), 4097)) and "258" in refused(lambda: learn(tunes(), 257))
    assert "ask for fewer" in refused(lambda: learn([b"abcabc"], 512))
    assert "ask for fewer" in refused(lambda: learn([], 512))
    assert len(learn([b"abab" * 8], 258)) == 258
    refused(lambda: of_learned([b"x" * 256]))
    refused(lambda: Vocabulary([b"", *SINGLES[1:]]))
    refused(lambda: Vocabulary([b"", *SINGLES, b"a"]))


def test_a_list_is_read_as_written():
    odd = [b"'", b"\"'", b"it's", b"a\nb", b"\r\n", "\u00a0\u2028".encode(), "é世😀".encode(), b"\xc3(", b"\\x", b"  ", b"b'"]
    v = of_learned({t for t in odd if len(t) > 1})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.txt"
        v.write(path)
        raw = path.read_bytes()
        assert b"\r" not in raw and raw.endswith(b"\n") and raw.count(b"\n") == len(v) - 1
        assert Vocabulary.read(path).tokens == v.tokens
        path.write_bytes(raw.replace(b"\n", b"\r\n"))
        assert Vocabulary.read(path).tokens == v.tokens
        for line in ("300 'x y' 4", "300 7 7", "65 'x y' 3", "300", "-1 'x y' 3", "300 'x y 3", "70000 'x y' 3", "300 '' 0"):
            path.write_bytes(raw + line.encode() + b"\n")
            assert f"line {len(v)} is not" in refused(lambda: Vocabulary.read(path)), line
        path.write_bytes(raw.split(b"\n", 1)[1])
        assert refused(lambda: Vocabulary.read(path)) == f"{path}: no token is the single byte b'\\x00'"


def test_the_golden_lists_agree():
    """What the tests of `rwkv-host` read too: the list of the package `rwkv`, and one of this script."""
    text = (GOLDEN / "text.bin").read_bytes()
    for name in ("excerpt", "trained"):
        v, ids = Vocabulary.read(GOLDEN / f"{name}.txt"), (GOLDEN / f"{name}.ids").read_bytes()
        assert v.encode(text) == list(struct.unpack(f"<{len(ids) // 2}H", ids))
    assert v.text().encode() == (GOLDEN / "trained.txt").read_bytes()


def checkpoint(size, width=32):
    """A random RWKV-4 of one layer as .safetensors."""
    rng, square = random.Random(1), [width, width]
    shapes = {"emb.weight": [size, width], "head.weight": [size, width]}
    shapes |= {f"{n}.{p}": [width] for n in ("ln_out", "blocks.0.ln0", "blocks.0.ln1", "blocks.0.ln2") for p in ("weight", "bias")}
    shapes |= {f"blocks.0.att.{n}.weight": square for n in ("key", "value", "receptance", "output")}
    shapes |= {f"blocks.0.ffn.{n}.weight": square for n in ("key", "value", "receptance")}
    shapes |= {f"blocks.0.att.{n}": [width] for n in ("time_decay", "time_first")}
    shapes |= {f"blocks.0.{n}": [1, 1, width] for n in
               ("att.time_mix_k", "att.time_mix_v", "att.time_mix_r", "ffn.time_mix_k", "ffn.time_mix_r")}
    header, blob = {}, b""
    for name, shape in shapes.items():
        count = shape[-1] * (shape[0] if len(shape) == 2 else 1)
        raw = struct.pack(f"<{count}f", *(rng.uniform(-0.5, 0.5) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + blob


def test_the_tool_gives_the_same_tokens():
    if not tool.find():
        print("skipped:", tool.MISSING)
        return
    texts = tunes()
    v = learn(texts, 512)
    text = b"".join(texts) + (GOLDEN / "text.bin").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: Path(folder) / name
        v.write(path("list.txt"))
        path("tiny.safetensors").write_bytes(checkpoint(len(v)))
        path("text").write_bytes(text)
        tool.rwkv("convert", path("tiny.safetensors"), "-o", path("tiny.rwkv"), "--weights", "f32", "--tokenizer", path("list.txt"))
        shown = json.loads(tool.rwkv("tokens", path("tiny.rwkv"), "--prompt-file", path("text"), "--json"))
        assert [t["id"] for t in shown] == v.encode(text)


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(name, "ok")
