#!/usr/bin/env python3
"""Lowercases, normalizes and tokenizes text as the `lc.norm.tok` files of Multi30k were made, as a filter of lines.

Published BLEU on Multi30k is computed on such text, so detokenized output goes through here before it is compared with
`test_2016_flickr.lc.norm.tok.de`. The work is sacremoses's: lowercase first, then MosesPunctNormalizer, then
MosesTokenizer with XML escaping and without splitting at hyphens. Applied to the raw test_2016_flickr these options
give all 1,000 lines of the data set's own tokenized file, in German and in English (with hyphen splitting 939 and 963,
without escaping 993 and 977).

    python data/moses.py --lang de < detokenized.de > lc.norm.tok.de

With --split-hyphens, tokens are split at hyphens between others, as the published numbers of IWSLT14 and WMT14 have it.

As many lines come out as go in, whatever the bytes: a line ends at byte 0x0A and nowhere else.
"""

import argparse
import re
import sys
from collections.abc import Callable
from typing import BinaryIO


def moses(lang: str, split_hyphens: bool = False) -> Callable[[str], str]:
    """Return a function that tokenizes one line of `lang`, a two-letter code. ImportError without sacremoses."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalizer, tokenizer = MosesPunctNormalizer(lang=lang), MosesTokenizer(lang=lang)

    def tokenize(line: str) -> str:
        text = normalizer.normalize(line.lower())
        tokens: str = tokenizer.tokenize(text, aggressive_dash_splits=False, escape=True, return_str=True)
        return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", tokens) if split_hyphens else tokens

    return tokenize


def tokenize_lines(tokenize: Callable[[str], str], src: BinaryIO, tgt: BinaryIO) -> None:
    """Write a line for each line of `src`. Bytes that are no UTF-8 pass; a last line without its end gets one."""
    for line in src:  # a binary stream ends its lines at 0x0A only
        text = line.removesuffix(b"\n").decode("utf-8", "surrogateescape")
        tgt.write(tokenize(text).encode("utf-8", "surrogateescape") + b"\n")


def main() -> int:
    """Filter standard input to standard output; 2 when sacremoses is not there."""
    parser = argparse.ArgumentParser(description="Lowercase, normalize and Moses-tokenize standard input.")
    parser.add_argument("--lang", default="de", help="two-letter language code (default: de)")
    parser.add_argument("--split-hyphens", action="store_true", help="make three tokens of word-word")
    args = parser.parse_args()
    try:
        tokenize = moses(args.lang, args.split_hyphens)
    except ImportError:
        print("moses.py: sacremoses is not installed; run: pip install 'sacremoses>=0.1.1'", file=sys.stderr)
        return 2
    tokenize_lines(tokenize, sys.stdin.buffer, sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
