"""Writes the model cards ../NAME/README.md and the table ../README.md.

`python card.py NAME...` measures all that these cards state: held-out bits per byte by evaluate.py, of images by the tool `rwkv`, the xz
baseline, sizes, samples. What the training wrote (work/NAME.json) and what was measured is kept as ../NAME/card.json; the table's other rows
come from there. Without names all models are measured again that have work/NAME.json or a card.json.
"""
import argparse
import json
import tempfile
from pathlib import Path

import data
import evaluate
import tool
from model import CONFIGS
from vocabulary import LIST, Bytes, beside

MODELS = Path(__file__).parent.parent
PROMPTS = {"tunes-16k": "X:1\nT:The Thimble\nM:2/4\nL:1/8\nK:D\n",
           "tunes-v4": "X:1\nT:The Morning Fair\nM:6/8\nL:1/8\nK:G\n",
           "tunes-v7": "X:1\nT:The Miller's Lamp\nM:C|\nL:1/8\nK:D\n",
           "tunes-m4": "X:1\nT:The Lantern At The Bridge\nM:6/8\nL:1/8\nK:Em\n"}

CARD = """# {name}

{kind} RWKV-{version} that writes fiddle tunes in ABC notation: {parameters:,} parameters, {size:,} bytes in f16.
It was trained from scratch by the scripts in [`../train`](../train) and is small enough for the flash of a
microcontroller.

| | |
|---|---|
| architecture | RWKV-{version}, {layers} layers, width {width}, feed-forward width {ffn}{extra} |
| vocabulary | {vocabulary} |
| state | {state:,} bytes in f32, whatever the length of the text |
| file | `{name}.safetensors`, official tensor names, f16 |
| int8 size | about {int8:,} bytes of weights at one byte each |
| held-out text | **{bpb:.3f} bits per byte**; `xz -9e` needs {xz:.3f} |

## Use

The text starts with `X:1`, ends with a blank line (`"\\n\\n"`), and starts from an empty state. [`prompt.txt`](prompt.txt)
holds a header to go on from; the title may be anything, and metre (`M:`), unit (`L:`) and key (`K:`) steer the tune.
Temperature 0.8 works well.

## Figures

| figure | value | printed by (in `models/train`) |
|---|---|---|
| held-out, each tune from an empty state | {bpb:.4f} bits per byte | `python evaluate.py ../{name}/{name}.safetensors` |
| validation tunes, used to choose the step | {valid:.4f} bits per byte | `python evaluate.py ../{name}/{name}.safetensors --split valid` |
| `xz -9e` of training and held-out text, less training text alone | {xz:.4f} bits per byte | `python data.py` |

{images}`evaluate.py` runs a plain one-token numpy recurrence on the f16 weights, widened to f32; it shares no code with the
training. The held-out tunes took no part in training, nor in choosing the step.

## Training

```
python train.py {command} --seed {seed}{phase}
```

{done} steps of {rows} x {length} {unit} ({epochs:.1f} times the training text) in {minutes:.1f} minutes on two cores of a busy machine
(`nice -n {nice}`); the weights are those of step {best}, the best on the validation tunes. {optimiser}, dropout {drop}; 60 % of the tunes are transposed to another key each time they are read.
{quantising}
![loss](loss.svg)

## Data

Three collections of tunes that the PyPI package `music21` 10.5.1 ships in its folder `corpus`, in ABC notation:

* `oneills1850`: F. O'Neill, *Music of Ireland* (1903), by many transcribers named in the files, among them
  H. Norbeck, B. Safranek, T. O'Neil, J. Chambers, D. G. Petersen, M. Hogan, S. Foy and J. B. Walsh;
* `ryansMammoth`: *Ryan's Mammoth Collection* (1883), by R. Davies, J. Chambers and others named in the files;
* `airdsAirs`: J. Aird, *A Selection of Scotch, English, Irish and Foreign Airs* (1778-1801), by J. Campin.

{counts} Comments and all fields but `X: T: M: L: K:`, fingering and bowing marks are removed. The split
goes by a hash of the title, so versions of one tune stay together; a tune printed under two titles may be in two splits.

The music is out of copyright. On the encodings, `music21/corpus/license.txt` says: "*The BSD licensed music21 software
is distributed with a corpus of encoded compositions which are distributed with the permission of the encoders (and,
where needed, the composers or arrangers) and where permitted under United States copyright law. Some encodings included
in the corpus may not be used for commercial uses or have other restrictions: please see the licenses embedded in
individual compositions or directories for more details.*" The files of these three collections embed no such
restriction. The corpus is not part of this repository. The weights are offered under the licence of the project
(MIT OR Apache-2.0), as far as the project's rights in them go.

## Two samples

Temperature 0.8, neither picked nor edited:
`python evaluate.py ../{name}/{name}.safetensors --sample --prompt @../{name}/prompt.txt --seed 1` and `--seed 2`.

```
{sample1}
```

```
{sample2}
```

## Limits

Jigs, reels, hornpipes and airs are all it knows. Bars do not always add up, a part may lack its repeat sign, melodies
drift from one part to the next, and titles are only spelt like titles. It may reproduce phrases of tunes it was trained
on, since such tunes share many phrases. It understands no language and is no use for anything but this notation.
"""

TABLE = """# Models

Default models trained by this project, with everything needed to train them again in [`train`](train).

| model | architecture | parameters | f16 file | state (f32) | held-out bits per byte | training | text read |
|---|---|---|---|---|---|---|---|
{rows}
| `xz -9e`, for comparison | | | | | {xz:.3f} | | |

"Text read" is how often the training went through the training text. tunes-v7 was trained by a slower script and has seen little of it; tunes-m4 is its successor
in the same state, trained with Muon and then for four-bit weights.

The texts in [`text`](text/README.md), held-out tunes among them, are what images are evaluated on and quantised with.

All write fiddle tunes in ABC notation, byte by byte where the folder holds no `vocabulary.txt`. Each folder holds the
weights under the official tensor names (`.safetensors`, f16), a model card, a prompt and the loss curves. `python card.py` in `train` rewrites this table and the cards, measuring every figure again.
"""


def tokens_of(base, vocabulary, texts, tunes):
    """What a card says of a model's tokens; texts are the tunes as tokens."""
    if isinstance(vocabulary, Bytes):
        return dict(kind="A byte-level", vocabulary="256: the bytes themselves; no tokenizer", command=base, unit="bytes")
    size, each = len(vocabulary), sum(map(len, texts)) / sum(map(len, tunes))
    return dict(
        kind="An", unit="tokens", command=f"{base} --vocabulary work/vocabulary-{size}.txt",
        vocabulary=f"{size}, in [`{LIST}`]({LIST}): the bytes, an end of text and tokens learned from the training text; "
                   f"{each:.3f} tokens per held-out byte")


IMAGES = """As images, on the same tunes read as one text of {bytes:,} bytes (`rwkv eval IMAGE --text models/text/tunes-heldout.abc`), converted without a text to
calibrate on:

| image | bytes | bits per byte | beside the float weights |
|---|---|---|---|
{rows}

"""


def bits_of_image(path, weights):
    """(bytes, bits per held-out byte) of the image of a file; the tunes are one text."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "model.rwkv"
        tool.rwkv("convert", path, "-o", image, "--weights", weights)
        report = json.loads(tool.rwkv("eval", image, "--text", MODELS / "text" / "tunes-heldout.abc", "--json"))
        return image.stat().st_size, report["bits_per_byte"]


def images(path, before):
    """What a card says of a model's images; `before`: the file with the weights before the phase for integers, or None."""
    if not tool.find():
        raise SystemExit(f"card.py: {tool.MISSING}")
    rows, reference = [], None
    for title, file, weights in (("float weights, before the phase for four bits", before, "f32"), ("f32", path, "f32"),
                                 ("int8", path, "int8"), ("int4", path, "int4")):
        if file:
            size, bits = bits_of_image(file, weights)
            reference = bits if reference is None else reference
            rows.append(f"| {title} | {size:,} | {bits:.4f} | {100 * (bits / reference - 1):+.2f} % |")
    return IMAGES.format(bytes=(MODELS / "text" / "tunes-heldout.abc").stat().st_size, rows="\n".join(rows))


def training_of(name):
    """The summaries of the run, and of the phase for integers after it if there was one, from work/ or the model's folder."""
    kept = MODELS / name / "card.json"
    out = json.loads(kept.read_text()) if kept.exists() else {}
    for key, path in (("run", f"{name}.json"), ("quantising", f"{name}.int4.json")):
        if (data.WORK / path).exists():
            out[key] = json.loads((data.WORK / path).read_text())
    return out


def optimiser_of(args):
    fall = f"which falls in a line over the last {args['cool']:.0%} of the steps" if args.get("cool") else "on a cosine schedule"
    adam = f"AdamW (weight decay {args['decay']} on matrices) at a rate of {args['rate']}"
    muon = f"Muon at a rate of {args['muon']} for the matrices of the blocks, " if args.get("muon") else ""
    return f"{muon}{adam}, {fall}"


def describe(name, tunes, xz):
    """Writes the card of a model and what was measured."""
    folder = MODELS / name
    path = folder / f"{name}.safetensors"
    known = training_of(name)
    run, phase = known["run"], known.get("quantising")
    args = run["args"]
    base = args["name"]
    cfg, prompt, vocabulary = CONFIGS[base], PROMPTS[base], beside(path)
    model = evaluate.Model(path)
    parameters = sum(x.size for x in model.w.values())
    state = sum(x.size for layer in model.state(1) for x in layer) * 4
    texts = {s: [vocabulary.encode(t.encode()) for t in tunes[s]] for s in data.SPLITS}
    bpb, valid = (evaluate.bits_per_byte(model, texts[s], vocabulary) for s in ("heldout", "valid"))
    (folder / "prompt.txt").write_text(prompt)
    samples = [evaluate.sample(model, prompt.encode(), 0.8, seed, vocabulary).rstrip("\n") for seed in (1, 2)]
    extra = "" if cfg.version == 4 else (
        f", heads of {cfg.head}, low-rank sizes {', '.join(f'{n} {r}' for n, r in zip('wavg', cfg.ranks))}")
    counts = ", ".join(f"{len(tunes[s])} tunes ({sum(map(len, tunes[s])):,} bytes) {what}" for s, what in
                       (("train", "to train on"), ("valid", "for validation"), ("heldout", "held out"))) + "."
    words = tokens_of(base, vocabulary, texts["heldout"], tunes["heldout"])
    epochs = run["step"] * args["rows"] * args["length"] / sum(len(t + vocabulary.end) for t in texts["train"])
    before = data.WORK / f"{name}.float.safetensors"
    quantising = "" if not phase else (
        f"Then {phase['step']} steps with weights as an int4 image holds them, at a tenth of these rates or less "
        f"({phase['spent'] / 60:.1f} minutes); the best of them on the validation tunes, as an int4 image, is step {phase['best_step']}.\n")
    (folder / "README.md").write_text(CARD.format(
        name=name, **words, version=cfg.version, parameters=parameters, size=path.stat().st_size, layers=cfg.layers,
        width=cfg.width, ffn=cfg.ffn, extra=extra, state=state, int8=round(parameters, -3), bpb=bpb, xz=xz, valid=valid,
        images=images(path, before if phase and before.exists() else None), nice=run.get("nice", 5),
        phase=f"\npython train.py {words['command']} --seed {args['seed']} --quantise int4" if phase else "",
        seed=args["seed"], done=run["step"], rows=args["rows"], length=args["length"], optimiser=optimiser_of(args),
        quantising=quantising, minutes=run["spent"] / 60, best=run["best_step"], epochs=epochs, drop=args["drop"],
        counts=counts, sample1=samples[0], sample2=samples[1]))
    minutes = (run["spent"] + (phase["spent"] if phase else 0)) / 60
    row = (f"| [{name}]({name}/README.md) | RWKV-{cfg.version}, {cfg.layers} layers, width {cfg.width} | {parameters:,} "
           f"| {path.stat().st_size:,} B | {state:,} B | {bpb:.3f} | {minutes:.0f} min on 2 cores | {epochs:.1f} times |")
    (folder / "card.json").write_text(json.dumps({**known, "row": row}, indent=1) + "\n")
    print(f"{name}: {bpb:.4f} held-out, {valid:.4f} validation bits per byte", flush=True)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("names", nargs="*", metavar="NAME")
    tunes = data.tunes()
    train, heldout = ("".join(tunes[s]).encode() for s in ("train", "heldout"))
    xz = data.xz_bits_per_byte(train, heldout)
    order = lambda name: (next((i for i, base in enumerate(CONFIGS) if name == base or name.startswith(base + "-")), 99), name)
    folders = [path.name for path in MODELS.iterdir() if (path / f"{path.name}.safetensors").exists()]
    models = sorted((name for name in folders if training_of(name)), key=order)
    for name in a.parse_args().names or models:
        describe(name, tunes, xz)
    rows = [json.loads((MODELS / name / "card.json").read_text())["row"] for name in models]
    (MODELS / "README.md").write_text(TABLE.format(rows="\n".join(rows), xz=xz))


if __name__ == "__main__":
    main()
