#!/usr/bin/env python3
"""Puts the German-English text of IWSLT14 into a folder: TED talks, 160,000 pairs to train on.

    python data/iwslt14.py OUT_DIR

writes {train,val,test}.{de,en}, cased and untokenized. As everybody does since Ranzato et al. 2016, each 23rd training pair is
validation text, and five older test sets (dev2010, dev2012, tst2010 to tst2012) are joined to one of 6,750 lines. The archive
is downloaded and stays in OUT_DIR/origin; one that was got by other means can be put there, or lie in the folder that --from or
S2S_DATA names.

Cettolo et al. 2014, "Report on the 11th IWSLT Evaluation Campaign"; the talks are TED's, CC BY-NC-ND.
"""

import html
import re
import sys
from pathlib import Path

from fetch import FetchError, archive_of, command, find_local, note_origin, parser, unpack, write_whole

URL = "https://dl.fbaipublicfiles.com/fairseq/data/iwslt14"  # the campaign's own archive, whose first address is gone
FOLDER = "iwslt14-de-en"  # what a local copy is called inside the folder that S2S_DATA names
TESTS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
EACH = 23

_OTHER = re.compile(r"<(?:url|talkid|keywords|speaker|reviewer|translator|doc|/doc)")
_SEGMENT = re.compile(r"<seg[^>]*>(.*?)</seg>", re.DOTALL)


def training_lines(text: str) -> list[str]:
    """The lines of a training file, titles and descriptions among them; both languages have the same ones."""
    kept = (line for line in text.split("\n")[:-1] if not _OTHER.match(line.strip()))
    return [" ".join(re.sub(r"</?(?:title|description)>", " ", line).split()) for line in kept]


def segments(text: str) -> list[str]:
    """The lines of a test set in XML."""
    return [" ".join(html.unescape(segment).split()) for segment in _SEGMENT.findall(text)]


def main() -> int:
    """Fetch what is missing; 2 and one message when that fails."""
    args = parser("Put the German-English text of IWSLT14 into a folder.", FOLDER, URL).parse_args()

    def work() -> str:
        origin = args.out_dir / "origin"
        origin.mkdir(parents=True, exist_ok=True)
        local = find_local(args.local, FOLDER, "de-en.tgz")
        archive = archive_of(f"{args.url.rstrip('/')}/de-en.tgz", origin / "de-en.tgz", local)
        names = {
            lang: [f"train.tags.de-en.{lang}", *(f"IWSLT14.{t}.de-en.{lang}.xml" for t in TESTS)]
            for lang in ("de", "en")
        }
        unpack(archive, {f"de-en/{name}": origin / name for each in names.values() for name in each})

        def read(name: str) -> str:
            return Path(origin / name).read_text(encoding="utf-8")

        trained = {lang: training_lines(read(each[0])) for lang, each in names.items()}
        tested = {lang: [line for name in each[1:] for line in segments(read(name))] for lang, each in names.items()}
        for sides in (trained, tested):
            if len(sides["de"]) != len(sides["en"]):
                raise FetchError(
                    f"{archive}: {len(sides['de'])} German lines, {len(sides['en'])} English ones: remove it"
                )
        for lang, lines in trained.items():
            parts = {
                "train": [line for k, line in enumerate(lines, 1) if k % EACH],
                "val": lines[EACH - 1 :: EACH],
                "test": tested[lang],
            }
            for part, chosen in parts.items():
                write_whole(args.out_dir / f"{part}.{lang}", "".join(line + "\n" for line in chosen).encode())
        note_origin(args.out_dir, local)
        return (
            f"{len(trained['de']):,} pairs for training and validation, {len(tested['de']):,} to test in {args.out_dir}"
        )

    return command("iwslt14", work)


if __name__ == "__main__":
    sys.exit(main())
