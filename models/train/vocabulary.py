"""Vocabularies: lists of tokens, one learned from a text, and the longest match that encodes with them.

`python vocabulary.py --tokens 512` learns one from the training tunes and writes work/vocabulary-512.txt. The list has
a line `id literal length` for each token, as `rwkv convert --tokenizer LIST` reads it: id 0 stands for no text and ends
one, 1 to 256 are the bytes, the others are learned. Only the standard library is used.
"""
import argparse
import ast
from collections import Counter
from pathlib import Path

WORK = Path(__file__).parent / "work"
LIST = "vocabulary.txt"         # the list beside a model's weights
SINGLES = [bytes([b]) for b in range(256)]
FIRST = 1 + len(SINGLES)        # the first learned id
MOST = 4096                     # tokens of a learned vocabulary
LONGEST = 32                    # bytes of a learned token; 255 is the limit of the list
EXCHANGES = 4                   # rounds that exchange tokens once the vocabulary is full
ROUNDS = 100                    # at most: 4,096 tokens are reached in about 30


class Bytes:
    """The vocabulary of the bytes themselves: 256 tokens, none of which ends a text."""
    name, end = "bytes", []
    lengths = [1] * 256

    def __len__(self):
        return 256

    def encode(self, text):
        return list(text)

    def decode(self, ids):
        return bytes(ids)


class Vocabulary:
    """Tokens by id, b"" where an id stands for no text. Every single byte is a token, so any bytes encode."""
    name, end = "vocabulary", [0]

    def __init__(self, tokens):
        self.tokens = list(tokens)
        self.lengths = [len(t) for t in self.tokens]
        self.ids = {t: i for i, t in enumerate(self.tokens) if t}
        if len(self.ids) != sum(map(bool, self.tokens)) or self.tokens[0] or max(self.lengths) > 255:
            raise ValueError("tokens have 1 to 255 bytes, each once, and id 0 stands for no text")
        if missing := [s for s in SINGLES if s not in self.ids]:
            raise ValueError(f"no token is the single byte {missing[0]!r}")
        starts = {}
        for t in self.ids:
            starts.setdefault(t[:2], set()).add(len(t))
        # The lengths, the greatest first, of the tokens that begin with two given bytes.
        self.starts = {two: sorted(n, reverse=True) for two, n in starts.items() if len(two) == 2}

    def __len__(self):
        return len(self.tokens)

    @classmethod
    def read(cls, path):
        """The vocabulary of a list; lines end in LF or CRLF, ids that are left out stand for no text."""
        tokens = {0: b""}
        for number, line in enumerate(Path(path).read_text("utf-8").split("\n"), 1):
            if not line.strip():
                continue
            try:
                head, rest = line.strip().split(" ", 1)
                literal, length = rest.rsplit(" ", 1)
                token = ast.literal_eval(literal.strip())
                token = token.encode() if isinstance(token, str) else token
                if not isinstance(token, bytes) or len(token) != int(length) or not token:
                    raise ValueError
                if tokens.get(int(head)) or not 0 <= int(head) < 65536:
                    raise ValueError
            except (ValueError, SyntaxError, TypeError):
                raise ValueError(f"{path}: line {number} is not `id literal length`, with an id of its own") from None
            tokens[int(head)] = token
        try:
            return cls([tokens.get(i, b"") for i in range(max(tokens) + 1)])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def text(self):
        """The list: strings where a token is UTF-8, bytes where it is not."""
        lines = []
        for i, token in enumerate(self.tokens):
            try:
                literal = repr(token.decode())
            except UnicodeDecodeError:
                literal = repr(token)
            if token:
                lines.append(f"{i} {literal} {len(token)}\n")
        return "".join(lines)

    def write(self, path):
        temporary = Path(path).with_suffix(".tmp")
        temporary.write_bytes(self.text().encode())
        temporary.replace(path)

    def encode(self, text):
        """The longest token that the rest of the text begins with, again and again."""
        ids, starts, out, at = self.ids, self.starts, [], 0
        while at < len(text):
            for n in starts.get(text[at:at + 2], ()):
                token = ids.get(text[at:at + n])
                if token is not None:
                    at += n
                    break
            else:
                token = ids[text[at:at + 1]]
                at += 1
            out.append(token)
        return out

    def decode(self, ids):
        return b"".join(self.tokens[i] for i in ids)


def beside(weights):
    """The vocabulary of a model: the list beside its weights, or bytes."""
    path = Path(weights).parent / LIST
    return Vocabulary.read(path) if path.exists() else Bytes()


def of_learned(tokens):
    """The vocabulary of the bytes and of these tokens, ids by length, then bytes."""
    return Vocabulary([b"", *SINGLES, *sorted(tokens, key=lambda t: (len(t), t))])


def count(vocabulary, texts):
    """How often each token is used, and each pair of neighbours, when the texts are encoded one by one."""
    uses, pairs = Counter(), Counter()
    for text in texts:
        ids = vocabulary.encode(text)
        uses.update(ids)
        pairs.update(zip(ids, ids[1:]))
    return uses, pairs


def learn(texts, size):
    """A vocabulary of so many tokens that encodes the texts in few. Equal texts give equal vocabularies.

    Each round encodes the texts by the longest match and lets pairs of neighbours, the most frequent first, compete with
    the tokens there are: a token is worth its uses, a pair the tokens that it would save. Tokens whose uses went over to
    longer ones drop out. No token reaches from one text into the next.
    """
    if not FIRST < size <= MOST:
        raise ValueError(f"a vocabulary of {size} tokens: {FIRST + 1} to {MOST} can be learned")
    rank = lambda item: (-item[1], len(item[0]), item[0])
    learned, best, left = set(), None, EXCHANGES
    for _ in range(ROUNDS):
        v = of_learned(learned)
        uses, pairs = count(v, texts)
        full = len(v) == size
        if full and (best is None or uses.total() < best[0]):
            best = uses.total(), v
        value = {v.tokens[i]: n for i, n in uses.items() if i >= FIRST}
        found = Counter()
        for (a, b), n in pairs.items():
            token = v.tokens[a] + v.tokens[b]
            if len(token) <= LONGEST and token not in v.ids:
                found[token] += n // 2 if a == b else n                  # such pairs overlap
        added = max(16, len(v) // (32 if full else 8))
        value.update(sorted(found.items(), key=rank)[:added])
        before, learned = learned, {t for t, n in sorted(value.items(), key=rank)[:size - FIRST] if n > 1}
        left -= full
        if left == 0 or learned == before:
            break
    if best is None:
        raise ValueError(f"the text gives {len(v)} tokens, not {size}: ask for fewer, or give more text")
    return best[1]


def split(text, separator):
    """The texts that end in the separator, and what is left at the end."""
    texts = [t + separator for t in text.split(separator)]
    texts[-1] = texts[-1][:-len(separator)]
    return [t for t in texts if t]


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--tokens", type=int, default=512, help=f"{FIRST + 1} to {MOST}, bytes and end of text included")
    a.add_argument("--text", type=Path, default=WORK / "train.txt", help="what to learn from: no held-out text")
    a.add_argument("--separator", default="\\n\\n", help="what ends each text of the file; with escapes")
    a.add_argument("--measure", type=Path, metavar="TEXT", help="also print the tokens per byte of this text")
    a.add_argument("-o", "--out", type=Path, help="default: work/vocabulary-TOKENS.txt")
    args = a.parse_args()
    separator = args.separator.encode().decode("unicode_escape").encode("latin-1")
    out = args.out or WORK / f"vocabulary-{args.tokens}.txt"
    try:
        if not separator:
            raise ValueError("the separator is empty: give what ends each text, such as '\\n'")
        v = learn(split(args.text.read_bytes(), separator), args.tokens)
        v.write(out)
        print(f"{out}: {len(v)} tokens of up to {max(v.lengths)} bytes")
        for path in filter(None, (args.text, args.measure)):
            texts = split(path.read_bytes(), separator)
            tokens, size = sum(len(v.encode(t)) for t in texts), sum(map(len, texts))
            print(f"{path}: {size} bytes, {tokens / size:.3f} tokens per byte, {size / tokens:.2f} bytes per token")
    except (OSError, ValueError) as error:
        raise SystemExit(f"vocabulary.py: {error}") from None


if __name__ == "__main__":
    main()
