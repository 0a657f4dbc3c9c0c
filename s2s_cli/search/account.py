"""What became of lines on their way from source to output: how many were blank, cut, split, and which of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Lines:
    """How many lines something happened to, and the numbers of the first of them."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, numbers: Sequence[int], count: int | None = None) -> None:
        """More such lines: `count` of them, if `numbers` are only the first."""
        self.count += len(numbers) if count is None else count
        self.first = sorted([*self.first, *numbers[:10]])[:10]

    def __str__(self) -> str:
        return f"line {', '.join(map(str, self.first))}" + (", …" if self.count > len(self.first) else "")


@dataclass
class Seen:
    """What happened to lines on their way. JSON can hold it, so that work that was interrupted keeps its account."""

    lines: int = 0
    blank: int = 0
    cut: Lines = field(default_factory=Lines)
    split: Lines = field(default_factory=Lines)
    unscored: Lines = field(default_factory=Lines)
    unknown: Lines = field(default_factory=Lines)
    logp: float = 0.0
    pieces: int = 0

    def add(self, other: dict[str, Any]) -> None:
        """Take in another account, as `asdict` gives it."""
        for name, value in other.items():
            if isinstance(value, dict):
                getattr(self, name).add(value["first"], value["count"])
            else:
                setattr(self, name, getattr(self, name) + value)
