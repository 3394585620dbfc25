"""Checks of prose.py with the standard library alone and without its packages. `python test_prose.py`."""
import struct
import zlib

from prose import STRING, STRINGS, chapter, objects, of_lines, plain, strings


def serialized(values):
    """A vector of strings as R writes it; None is a missing one."""
    out = struct.pack(">2s4i", b"X\n", 3, 4 << 16, 3 << 16, 5) + b"UTF-8" + struct.pack(">2i", STRINGS, len(values))
    for value in values:
        raw = b"" if value is None else value.encode()
        out += struct.pack(">2i", 4 << 16 | STRING, -1 if value is None else len(raw)) + raw
    return out


def refuses(call, *args):
    try:
        call(*args)
    except ValueError:
        return True
    return False


def test_strings_come_back():
    values = ["EMMA", "", "caf\u00e9", "x" * 5000]
    assert strings(serialized(values)) == values
    assert strings(serialized(["a", None, "b"])) == ["a", "b"]
    assert refuses(strings, serialized(values).replace(b"X\n", b"A\n", 1))


def test_objects_follow_each_other():
    contents = [serialized(["one"]), serialized(["two"] * 1000)]
    database = b"".join(struct.pack(">I", len(c)) + zlib.compress(c) for c in contents)
    assert list(objects(database)) == contents
    assert refuses(list, objects(database[:-5]))
    assert refuses(list, objects(b"\0" + database[:3] + database[4:]))


def test_text_is_plain():
    assert plain(" \u201cIt\u2019s _so_,\u201d\u2014said\n  Mme. d\u2019\u00c9tang\u00e9 ") == "\"It's so,\"--said Mme. d'Etange"
    assert chapter(["One.", "  ", "Two\nlines."]) == "One.\nTwo lines.\n\n"


def test_chapters_begin_at_their_headings():
    lines = ["EMMA", "", "VOLUME I", "", "CHAPTER I", "", "", "Emma was", "clever.", "", "The next day", "came.", "", "VOLUME II", "",
             "Chapter 2.", "", "So Chapter 3 was a mistake.", "", "FINIS"]
    assert list(of_lines(lines)) == ["Emma was clever.\nThe next day came.\n\n", "So Chapter 3 was a mistake.\n\n"]


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(name, "ok")
