#!/usr/bin/env python3
"""Makes a small text in the place of a corpus, with its files and its format, of sentences of `grammar.py`.

    python data/standin.py CORPUS OUT_DIR [--task translation|summaries]

For smoke runs of recipes: it takes a second and no network, and nothing is to be learned of it. CORPUS is the name of a script
of this folder; the flags of that script may be given, of which `--task` alone says something here.
"""

import argparse
import re
import sys
from pathlib import Path

from fetch import note_origin, write_whole
from g2p import LANGUAGES, letters
from grammar import Pair, pairs

Fields = dict[str, str]  # what stands after the dot of a file's name -> what fills it, by its name in `texts`
SPLITS = ("train", "val", "test")
SUMMARIES = {"src": "story", "tgt": "summary", "ids": "ids"}
CORPORA: dict[str, tuple[tuple[str, ...], Fields]] = {
    "cnn_dailymail": (SPLITS, {"src": "story", "tgt": "highlights"}),
    "debian": (SPLITS, {"en": "en", "de": "de", "ids": "ids"}),
    "dialogsum": (SPLITS, {"src": "dialogue", "tgt": "summary", "ref1": "summary", "ref2": "en", "ref3": "summary"}),
    "g2p": (
        SPLITS,
        {f"{lang}.{side}": field for lang in LANGUAGES for side, field in (("src", "letters"), ("tgt", "phones"))},
    ),
    "iwslt14": (SPLITS, {"de": "de", "en": "en"}),
    "multi30k": (("train", "val", "test_2016_flickr"), {"en": "en", "de": "de", "lc.norm.tok.de": "tokenized"}),
    "sgd": (SPLITS, {"src": "turns", "tgt": "en"}),
    "wmt14": (("europarl", "commoncrawl", "news", "val", "test"), {"en": "en", "de": "de"}),
}
AT_ONCE = 4  # sentences that a line is made of, or of the first of them
HELD_OUT = 10  # lines of validation and of test


def texts(group: list[Pair]) -> dict[str, str]:
    """All that a line of a corpus may be."""
    en, de = group[0]
    said = [pair[0] for pair in group]
    word = max(de.split(), key=len).strip(".,?")
    speakers = ("user", "system", "user")
    return {
        "en": en,
        "de": de,
        "tokenized": re.sub(r"([.,?])", r" \1", de.lower()),
        "ids": word,
        "letters": letters(word),
        "phones": letters(word.lower()),
        "story": " ".join(said),
        "summary": f"{said[0]} {said[2]}",
        "highlights": f"{said[0]} <q> {said[2]}",
        "dialogue": " ".join(f"#Person{k % 2 + 1}#: {text}" for k, text in enumerate(said)),
        "turns": " ".join(f"{who}: {text}" for who, text in zip(speakers, said[1:], strict=True)),
    }


def main() -> int:
    """Make the files and say so."""
    parser = argparse.ArgumentParser(description="Make a small text in the place of a corpus.")
    parser.add_argument("corpus", choices=sorted(CORPORA))
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--task", choices=("translation", "summaries"), default="translation")
    parser.add_argument(
        "--train", type=int, default=500, metavar="N", help="lines of training text (default: %(default)s)"
    )
    args, _ = parser.parse_known_args()
    parts, fields = CORPORA[args.corpus]
    if args.task == "summaries":
        fields = SUMMARIES
    sizes = [HELD_OUT if part.startswith(("val", "test")) else args.train for part in parts]
    made = pairs(AT_ONCE * sum(sizes), seed=1)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    note_origin(args.out_dir, None, "made up by data/standin.py")
    for part, size in zip(parts, sizes, strict=True):
        lines = [texts([made.pop() for _ in range(AT_ONCE)]) for _ in range(size)]
        for end, field in fields.items():
            write_whole(args.out_dir / f"{part}.{end}", "".join(line[field] + "\n" for line in lines).encode())
    print(f"standin: text made up in the place of {args.corpus}, {args.train} lines to train on", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
