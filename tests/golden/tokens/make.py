#!/usr/bin/env python3
"""The tokens of a text in many scripts, by the tokenizer of the package `rwkv` and by `models/train/vocabulary.py`.

    pip download --no-deps --dest DIR rwkv && unzip -d DIR DIR/rwkv-*.whl
    python3 tests/golden/tokens/make.py DIR/rwkv

Writes `excerpt.txt`, some lines of the World vocabulary, and the token ids of `text.bin` by the whole
vocabulary (`world.ids`) and by the excerpt (`excerpt.ids`), little-endian, 16 bits each.

    python3 tests/golden/tokens/make.py

Writes `trained.txt`, a vocabulary that `models/train/vocabulary.py` learned from `text.bin`, and its token ids of that
text (`trained.ids`).
"""

import importlib.util
import struct
import sys
from pathlib import Path

HERE = Path(__file__).parent
# Every so many lines go into the excerpt, beside those that the text needs.
EVERY = 800
# Tokens of the vocabulary that is learned.
TRAINED = 384


def tokenizer(package, path):
    spec = importlib.util.spec_from_file_location("rwkv_tokenizer", package / "rwkv_tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TRIE_TOKENIZER(str(path))


def trained():
    sys.path.insert(0, str(HERE.parent.parent.parent / "models" / "train"))
    import vocabulary

    text = (HERE / "text.bin").read_bytes()
    learned = vocabulary.learn(vocabulary.split(text, b"\n"), TRAINED)
    learned.write(HERE / "trained.txt")
    ids = learned.encode(text)
    (HERE / "trained.ids").write_bytes(struct.pack(f"<{len(ids)}H", *ids))
    print(f"{len(text)} bytes, {len(ids)} tokens of {TRAINED}")


def main():
    if len(sys.argv) == 1:
        return trained()
    package = Path(sys.argv[1])
    vocabulary = package / "rwkv_vocab_v20230424.txt"
    text = (HERE / "text.bin").read_bytes()
    world = tokenizer(package, vocabulary)
    ids = world.encodeBytes(text)
    # Half of what the text needs: the excerpt has to make do with shorter tokens for the rest.
    wanted = set(range(257)) | set(sorted(set(ids))[::2])
    lines = vocabulary.read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\r\n") for line in lines)

    def keep(place, line):
        number = int(line.split(b" ")[0])
        invalid = line.split(b" ")[1].startswith(b"b'") and place % 10 == 0
        return number in wanted or place % EVERY == 0 or invalid

    kept = [line for place, line in enumerate(lines) if keep(place, line)]
    (HERE / "excerpt.txt").write_bytes(b"".join(kept))
    excerpt = tokenizer(package, HERE / "excerpt.txt")
    for name, found, by in [("world", ids, world), ("excerpt", excerpt.encodeBytes(text), excerpt)]:
        assert by.decodeBytes(found) == text
        (HERE / f"{name}.ids").write_bytes(struct.pack(f"<{len(found)}H", *found))
    print(f"{len(text)} bytes, {len(ids)} tokens; {len(kept)} lines in the excerpt")


if __name__ == "__main__":
    main()
