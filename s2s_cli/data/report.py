"""What happened to every line: pairs dropped and why, lengths, rates; for people, and as JSON.

Accounts of blocks add up to the account of a corpus, in any number of processes. This room decides nothing: which pairs
are dropped is the business of `filters`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

FIRST_LINES = 10  # line numbers kept for each reason
EXAMPLES = 3
EXAMPLE_CHARS = 100
LONGEST = 1 << 14  # lengths above it share a bin
LIMITS = {"too long": "max-len", "length ratio": "max-ratio", "unknown pieces": "max-unknown"}
RATIO_BINS_PER_OCTAVE, RATIO_OCTAVES = 32, 8


@dataclass
class Found:
    """Pairs that one filter found: how many, the first line numbers, and examples."""

    count: int = 0
    lines: list[int] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        """Add those of a later block."""
        self.count += other.count
        self.lines = [*self.lines, *other.lines][:FIRST_LINES]
        self.examples = [*self.examples, *other.examples][:EXAMPLES]

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.lines) else ""
        first = f"; the first is {self.examples[0]['where']}" if self.examples else ""
        return f"{self.count:,} (lines {', '.join(map(str, self.lines))}{more}{first})"


def example(where: str, src: str, tgt: str) -> dict[str, Any]:
    """The beginning of a pair, and its file and line."""
    return {"where": where, "src": src[:EXAMPLE_CHARS], "tgt": tgt[:EXAMPLE_CHARS]}


@dataclass
class Side:
    """One side of the kept pairs, before duplicates are dropped: what was unknown or cut, how many have each length.

    `pieces` counts what is left of a cut; `pieces_uncut` belongs to `words`.
    """

    pieces: int = 0
    pieces_uncut: int = 0
    words: int = 0
    unknown: int = 0
    bytes: int = 0
    cut: int = 0
    lengths: Counts = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, other: "Side") -> None:
        """Add those of another block."""
        self.pieces += other.pieces
        self.pieces_uncut += other.pieces_uncut
        self.words += other.words
        self.unknown += other.unknown
        self.bytes += other.bytes
        self.cut += other.cut
        self.lengths = _plus(self.lengths, other.lengths)

    @property
    def unknown_rate(self) -> float:
        """Share of unknown pieces."""
        return _share(self.unknown, self.pieces)

    @property
    def pieces_per_word(self) -> float:
        """How finely the vocabulary splits."""
        return _share(self.pieces_uncut, self.words)

    def as_dict(self) -> dict[str, Any]:
        """For `report.json`."""
        return {
            "pieces": self.pieces,
            "words": self.words,
            "pieces_per_word": self.pieces_per_word,
            "unknown_rate": self.unknown_rate,
            "byte_rate": _share(self.bytes, self.pieces),
            "cut": self.cut,
            "length": {
                "mean": _share(self.pieces, int(self.lengths.sum())),
                **{f"p{p}": quantile(self.lengths, p / 100) for p in (50, 90, 99, 100)},
            },
            "histogram": [
                {"from": low, "to": high, "pairs": int(self.lengths[low : high + 1].sum())}
                for low, high in _octaves(len(self.lengths))
            ],
        }


@dataclass
class Account:
    """All that is known of the pairs that went through the filters."""

    pairs: int = 0
    kept: int = 0
    src_tokens: int = 0
    tgt_tokens: int = 0
    drops: dict[str, Found] = field(default_factory=dict)
    found: dict[str, Found] = field(default_factory=dict)  # and kept, since the settings say so
    src: Side = field(default_factory=Side)
    tgt: Side = field(default_factory=Side)
    ratios: Counts = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, other: "Account") -> None:
        """Add the account of a later block."""
        self.pairs += other.pairs
        self.kept += other.kept
        self.src_tokens += other.src_tokens
        self.tgt_tokens += other.tgt_tokens
        for mine, theirs in ((self.drops, other.drops), (self.found, other.found)):
            for reason, items in theirs.items():
                mine.setdefault(reason, Found()).add(items)
        self.src.add(other.src)
        self.tgt.add(other.tgt)
        self.ratios = _plus(self.ratios, other.ratios)

    @property
    def dropped(self) -> int:
        """Pairs left out."""
        return self.pairs - self.kept

    @property
    def unknown_rate(self) -> float:
        """Share of unknown pieces on the side that has more of them."""
        return max(self.src.unknown_rate, self.tgt.unknown_rate)

    def counts(self) -> dict[str, Any]:
        """What `dataset.json` says of it."""
        return {
            "pairs": self.pairs,
            "kept": self.kept,
            "src_tokens": self.src_tokens,
            "tgt_tokens": self.tgt_tokens,
            "drops": {reason: {"count": drop.count, "lines": drop.lines} for reason, drop in self.drops.items()},
        }

    def as_dict(self) -> dict[str, Any]:
        """For `report.json`. What it says of a side is of pairs before duplicates are dropped."""
        return {
            **self.counts(),
            "drops": {reason: vars(drop) for reason, drop in self.drops.items()},
            "kept_although": {reason: vars(found) for reason, found in self.found.items()},
            "src": self.src.as_dict(),
            "tgt": self.tgt.as_dict(),
            "length_ratio": self.length_ratio(),
        }

    def length_ratio(self) -> dict[str, float]:
        """Target over source pieces: the mean over the text, and what 99 % and 99.9 % of the pairs stay under."""
        return {
            "mean": _share(self.tgt.pieces, self.src.pieces),
            "p99": _ratio(quantile(self.ratios, 0.99)),
            "p99.9": _ratio(quantile(self.ratios, 0.999)),
        }

    def lines(self) -> Iterator[str]:
        """For a reader."""
        yield f"{self.kept:,} of {self.pairs:,} pairs kept"
        for reason, drop in self.drops.items():
            yield f"  dropped, {_with_flag(reason)}: {drop}"
        for reason, found in self.found.items():
            yield f"  kept although {reason}: {found}"
        for name, side in (("source", self.src), ("target", self.tgt)):
            lengths = ", ".join(f"{quantile(side.lengths, p / 100)} at {p} %" for p in (50, 90, 99, 100))
            cut = f", {side.cut:,} cut" if side.cut else ""
            yield (
                f"  {name}: {side.pieces:,} pieces, {side.pieces_per_word:.2f} a word, "
                f"{side.unknown_rate:.2%} unknown, {_share(side.bytes, side.pieces):.2%} bytes, "
                f"lengths up to {lengths}{cut}"
            )
        ratio = self.length_ratio()
        yield f"  target over source pieces: {ratio['mean']:.2f}, for 99 % of the pairs under {ratio['p99']:.2f}"


def count_lengths(lengths: npt.NDArray[np.integer]) -> Counts:
    """How many rows have each length from 0 on."""
    return np.bincount(np.minimum(lengths, LONGEST)).astype(np.int64)


def count_ratios(src_len: npt.NDArray[np.integer], tgt_len: npt.NDArray[np.integer]) -> Counts:
    """How many pairs have each ratio of lengths, on a logarithmic scale."""
    octaves = np.log2(np.maximum(tgt_len, 1) / np.maximum(src_len, 1))
    bins = np.floor((np.clip(octaves, -RATIO_OCTAVES, RATIO_OCTAVES) + RATIO_OCTAVES) * RATIO_BINS_PER_OCTAVE)
    return np.bincount(bins.astype(np.int64)).astype(np.int64)


def quantile(counts: Counts, share: float) -> int:
    """The least bin at or under which there is such a share of all."""
    total = int(counts.sum())
    return int(np.searchsorted(np.cumsum(counts), share * total)) if total else 0


def _ratio(bin: int) -> float:
    """The upper edge of a bin of `count_ratios`."""
    return round(float(2 ** ((bin + 1) / RATIO_BINS_PER_OCTAVE - RATIO_OCTAVES)), 3)


def _octaves(stop: int) -> Iterator[tuple[int, int]]:
    """0, 1, 2-3, 4-7, 8-15, … up to `stop`."""
    low, high = 0, 0
    while low < stop:
        yield low, high
        low, high = high + 1, max(1, 2 * high + 1)


def _plus(a: Counts, b: Counts) -> Counts:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def reasons(found: dict[str, Found]) -> str:
    """Reasons and counts in one line."""
    return "; ".join(f"{_with_flag(reason)} {items}" for reason, items in found.items())


def _with_flag(reason: str) -> str:
    """A reason, and the flag of its limit."""
    return f"{reason} (--{LIMITS[reason]})" if reason in LIMITS else reason
