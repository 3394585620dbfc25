"""What a model of tunes writes: a thousand tunes by its image, read by music21 and held against the training tunes.

`python samples.py tunes-m4` converts the model to int4 and generates with `rwkv generate` at temperature 0.8, a seed for
each tune, from nothing but `X:1`; once freely, and once within the grammar of `--grammar abc`. It prints a table and keeps
it as ../NAME/samples.json, which card.py puts into the card.
"""
import argparse
import json
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import music21
from tqdm import tqdm

import data
import tool

PROMPT = "X:1\n"
LONGEST = 1500          # tokens of a tune
RUN = 4                 # bars that count as copied where they follow one another in a training tune


def write(image, seed, grammar):
    """A tune, with the blank line that ends it if it ends."""
    return tool.rwkv("generate", image, "--prompt", PROMPT, "-n", LONGEST, "--temperature", 0.8, "--seed", seed,
                     *(("--grammar", "abc") if grammar else ()))


def first_tune(text):
    return text.split("\n\n")[0] + "\n"


def measures(tune):
    """Of each bar: its length and the metre's in quarter notes, and whether a section ends with it. Raises what music21 raises."""
    score = music21.converter.parse(tune, format="abc")
    bars = []
    for measure in score.recurse().getElementsByClass("Measure"):
        if measure.notesAndRests:
            metre = measure.timeSignature or measure.getContextByClass("TimeSignature")
            right = measure.rightBarline
            bars.append((measure.highestTime, metre and metre.barDuration.quarterLength, right is not None and right.type != "regular"))
    if not bars:
        raise ValueError("no bars")
    return bars


def whole(bars):
    """How many bars have their length: the metre's, or less at the start of a section and, together with that, at its end."""
    count, first, pickup = 0, True, 0
    for length, metre, ends in bars:
        short = metre and length < metre
        count += not metre or length == metre or (first and short) or (short and ends and abs(length + pickup - metre) < 1e-6)
        if first:
            pickup = length if short else 0
        first = ends
    return count


def body(tune):
    return tune[tune.index("K:"):].partition("\n")[2] if "K:" in tune else ""


def runs(tune):
    """The runs of bars of a tune, without blanks."""
    bars = [b for b in re.split(r"[|:\]]+", re.sub(r"\s", "", body(tune))) if b]
    return {"|".join(bars[i:i + RUN]) for i in range(len(bars) - RUN + 1)}


def overlap(text, train):
    """The longest part of a text that stands in the training text."""
    best, at = 0, 0
    for i in range(len(text)):
        while text[i:i + best + 1] in train and i + best < len(text):
            best, at = best + 1, i
    return text[at:at + best]


def measure(image, grammar, count, known, train):
    with ThreadPoolExecutor(2) as pool:
        tunes = pool.map(lambda seed: write(image, seed, grammar), range(1, count + 1))
        written = list(tqdm(tunes, total=count, desc="written, in the grammar" if grammar else "written freely", disable=None))
    parsed = bars = right = copied = ended = 0
    longest = ""
    for text in tqdm(written, desc="read", disable=None):
        tune = first_tune(text)
        ended += "\n\n" in text
        copied += not runs(tune).isdisjoint(known)
        longest = max(longest, overlap(body(tune), train), key=len)
        try:
            found = measures(tune)
        except Exception:                      # music21 raises errors of many kinds
            continue
        parsed += 1
        bars += len(found)
        right += whole(found)
    return dict(tunes=count, ended=ended, parsed=parsed, bars=bars, whole=right, copied=copied, overlap=longest)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    if not tool.find():
        raise SystemExit(f"samples.py: {tool.MISSING}")
    folder = Path(__file__).parent.parent / args.name
    tunes = data.tunes()["train"]
    known, train = set().union(*map(runs, tunes)), "".join(map(body, tunes))
    out = {}
    with tempfile.TemporaryDirectory() as work:
        image = Path(work) / "model.rwkv"
        tool.rwkv("convert", folder / f"{args.name}.safetensors", "-o", image, "--weights", "int4")
        for key, grammar in (("free", False), ("grammar", True)):
            out[key] = measure(image, grammar, args.count, known, train)
    (folder / "samples.json").write_text(json.dumps(out, indent=1) + "\n")
    print(table(out))


def table(out):
    """What a card says of the samples."""
    share = lambda a, b: f"{100 * a / b:.1f} %"
    rows = [("end within 1,500 tokens", lambda x: share(x["ended"], x["tunes"])),
            ("parse in music21", lambda x: share(x["parsed"], x["tunes"])),
            ("bars of the metre's length, as music21 reads them", lambda x: share(x["whole"], x["bars"])),
            (f"tunes with {RUN} bars in a row that stand so in a training tune", lambda x: share(x["copied"], x["tunes"])),
            ("longest part that stands in the training text", lambda x: f"{len(x['overlap'])} bytes")]
    lines = [f"| {what} | {of(out['free'])} | {of(out['grammar'])} |" for what, of in rows]
    return "\n".join([f"| {out['free']['tunes']:,} tunes | free | in the grammar |", "|---|---|---|", *lines])


if __name__ == "__main__":
    main()
