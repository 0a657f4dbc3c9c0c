#!/usr/bin/env python3
"""Baselines that learn nothing: the beginning of each line of standard input, by sentence, word or turn of a dialogue.

python recipes/summarization/lead.py sentences|words|turns NUM [MARK] < test.src > lead.hyp

MARK comes between the units of what is written, such as <q> where the sentences of a summary are told apart by it.
"""

import re
import sys

# What ends in a full stop and is no sentence: titles, months, initials as in U.S. or J. Smith.
_TITLES = (
    "Mr",
    "Mrs",
    "Ms",
    "Dr",
    "Prof",
    "Sen",
    "Rep",
    "Gov",
    "Gen",
    "Lt",
    "Col",
    "Sgt",
    "St",
    "Jr",
    "Sr",
    "vs",
    "etc",
)
_MONTHS = ("Jan", "Feb", "Aug", "Sept", "Oct", "Nov", "Dec")
NEXT = {
    "sentences": r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)]))"
    + "".join(rf"(?<!\b{word}\.)" for word in (*_TITLES, *_MONTHS, r"\w"))
    + r"\s+",
    "words": r"\s+",
    "turns": r"\s+(?=#Person\d+#:)",
}


def lead(text: str, unit: str, num: int, mark: str = "") -> str:
    """The first `num` units of a text, with `mark` between them."""
    return (f" {mark} " if mark else " ").join(re.split(NEXT[unit], text.strip(), maxsplit=num)[:num])


def main() -> None:
    """Filter lines, which end at a line feed and nowhere else."""
    unit, num, *mark = sys.argv[1:]
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(lead(line.removesuffix(b"\n").decode(), unit, int(num), *mark).encode() + b"\n")


if __name__ == "__main__":
    main()
