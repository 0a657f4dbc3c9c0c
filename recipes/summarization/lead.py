#!/usr/bin/env python3
"""Baselines that learn nothing: the beginning of each line of standard input, by sentence, word or turn of a dialogue.

python recipes/summarization/lead.py sentences|words|turns NUM < test.src > lead.hyp
"""

import re
import sys

NEXT = {"sentences": r"(?<=[.!?])\s+", "words": r"\s+", "turns": r"\s+(?=#Person\d+#:)"}


def lead(text: str, unit: str, num: int) -> str:
    """The first `num` units of a text."""
    return " ".join(re.split(NEXT[unit], text.strip(), maxsplit=num)[:num])


def main() -> None:
    """Filter lines, which end at a line feed and nowhere else."""
    unit, num = sys.argv[1], int(sys.argv[2])
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(lead(line.decode(), unit, num).encode() + b"\n")


main()
