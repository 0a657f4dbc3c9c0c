"""Word error rate and exact match: for transcripts, phonemes, commands, and whatever else is right or wrong.

Both compare a line with its references token by token, as the text stands: tokens are what spaces separate. Scores of
translation and summarization are in `metrics.py`. This file must not know files or tables.
"""

from collections.abc import Sequence

import numpy as np

from s2s_cli import __version__
from s2s_cli.config import ScoreSettings


def edit_distance(hyp: Sequence[str], ref: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions that make `hyp` of `ref` (Levenshtein 1966)."""
    ids: dict[str, int] = {}
    refs = np.array([ids.setdefault(token, len(ids)) for token in ref], dtype=np.int64)
    steps = np.arange(len(ref) + 1)
    row = steps  # row[j]: distance of the hypothesis so far to the first j tokens of the reference
    for token in hyp:
        substituted = row[:-1] + (refs != ids.get(token, -1))
        row = np.concatenate((row[:1] + 1, np.minimum(substituted, row[1:] + 1)))
        row = np.minimum.accumulate(row - steps) + steps  # and deletions, each one token to the right
    return int(row[-1])


class WordErrors:
    """Edits over reference tokens, in percent (see `metrics.Metric`); of several references the one with the fewest edits."""

    name = "WER"
    higher_is_better = False

    def __init__(self, refs: list[list[str]], options: ScoreSettings) -> None:
        self._lowercase = options.lowercase
        self._refs = [[self._tokens(line) for line in ref] for ref in refs]

    def _tokens(self, line: str) -> list[str]:
        return (line.lower() if self._lowercase else line).split()

    def statistics(self, hyps: Sequence[str]) -> np.ndarray:
        """Edits and reference tokens of each line: (lines, 2)."""
        rows = [self._line(self._tokens(hyp), refs) for hyp, *refs in zip(hyps, *self._refs, strict=True)]
        return np.array(rows, dtype=np.float64)

    @staticmethod
    def _line(hyp: list[str], refs: list[list[str]]) -> tuple[int, int]:
        # of references with equally many edits the longest, in whose favour the rate is lower
        edits, length = min((edit_distance(hyp, ref), -len(ref)) for ref in refs)
        return edits, -length

    def value(self, sums: Sequence[float]) -> float:
        """Percent, above 100 where the output is longer than the reference; 100 for output without any reference."""
        edits, length = sums
        return float(100.0 * edits / length) if length else 100.0 * bool(edits)

    def detail(self, sums: Sequence[float]) -> str:
        """What was counted."""
        return f"({sums[0]:.0f} edits / {sums[1]:.0f} tokens)"

    def signature(self, resampling: dict[str, int]) -> str:
        """In sacrebleu's form."""
        return _signature(len(self._refs), self._lowercase, resampling, tok="space")


class ExactMatch:
    """Share of the lines that are, spaces apart, one of their references, in percent (see `metrics.Metric`)."""

    name = "Exact"
    higher_is_better = True

    def __init__(self, refs: list[list[str]], options: ScoreSettings) -> None:
        self._lowercase = options.lowercase
        self._refs = [[self._text(line) for line in ref] for ref in refs]

    def _text(self, line: str) -> str:
        return " ".join((line.lower() if self._lowercase else line).split())

    def statistics(self, hyps: Sequence[str]) -> np.ndarray:
        """1 for a line that is right, and the number 1: (lines, 2)."""
        rows = [(self._text(hyp) in refs, 1) for hyp, *refs in zip(hyps, *self._refs, strict=True)]
        return np.array(rows, dtype=np.float64)

    def value(self, sums: Sequence[float]) -> float:
        """Percent."""
        return float(100.0 * sums[0] / sums[1])

    def detail(self, sums: Sequence[float]) -> str:
        """What was counted."""
        return f"({sums[0]:.0f} of {sums[1]:.0f} lines)"

    def signature(self, resampling: dict[str, int]) -> str:
        """In sacrebleu's form."""
        return _signature(len(self._refs), self._lowercase, resampling)


def _signature(num_refs: int, lowercase: bool, resampling: dict[str, int], **facts: str) -> str:
    case = {"case": "lc" if lowercase else "mixed"}
    every = {"nrefs": num_refs, **resampling, **case, **facts, "version": f"s2s-{__version__}"}
    return "|".join(f"{key}:{value}" for key, value in every.items())
