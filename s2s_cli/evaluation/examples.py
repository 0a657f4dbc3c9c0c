"""Lines worth reading: the worst ones, those where two systems differ most, with the differences marked word by word.

This file must not know how marks are shown.
"""

from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from typing import NamedTuple

import numpy as np
import regex  # type: ignore[import-untyped]

from s2s_cli.evaluation.compare import Systems
from s2s_cli.evaluation.rouge import UNICODE_WORD

NUM_EXAMPLES = 20
_PIECE = regex.compile(rf"{UNICODE_WORD}|\s+|.", regex.V1 | regex.DOTALL)


class Piece(NamedTuple):
    """A word, a space or a mark.

    `off`: in an output, what the reference lacks; in a reference, what an output lacks. `own`: in one of two outputs,
    what the other lacks.
    """

    text: str
    off: bool
    own: bool


@dataclass(frozen=True)
class Difference:
    """A line with its outputs, marked. `chrf` holds each output's sentence chrF; `line` counts from 1."""

    line: int
    src: str | None
    refs: list[list[Piece]]
    outputs: dict[str, list[Piece]]
    chrf: dict[str, float]
    reason: str = ""


@dataclass(frozen=True)
class Examples:
    """Picks lines and marks their outputs."""

    systems: Systems
    refs: list[list[str]]
    src: list[str] | None
    chrf: dict[str, np.ndarray]

    def worst(self) -> list[Difference]:
        """The lines of the only system with the lowest chrF, those that equal a reference left out."""
        [(name, hyps)] = self.systems.items()
        order = np.argsort(self.chrf[name], kind="stable").tolist()
        wrong = (i for i in order if all(hyps[i] != ref[i] for ref in self.refs))
        return [self.at(i, [name]) for i in islice(wrong, NUM_EXAMPLES)]

    def furthest(self) -> list[Difference]:
        """For each system but the first, the lines where it is furthest from the first by chrF; largest distance first."""
        baseline, *others = self.systems
        found = []
        for name in others:
            distance = np.abs(self.chrf[name] - self.chrf[baseline])
            order = np.argsort(-distance, kind="stable")[:NUM_EXAMPLES]
            found += [(float(distance[i]), self.at(int(i), [baseline, name])) for i in order if distance[i] > 0]
        return [difference for _, difference in sorted(found, key=lambda pair: -pair[0])]

    def at(self, i: int, names: list[str], reason: str = "") -> Difference:
        """Line i of these systems, marked against the references and, where there are two, each other."""
        pieces = {name: _PIECE.findall(self.systems[name][i]) for name in names}
        refs = [_PIECE.findall(ref[i]) for ref in self.refs]
        outputs = {}
        for k, name in enumerate(names):
            off = min((_unmatched(pieces[name], ref) for ref in refs), key=sum)
            other = pieces[names[1 - k]] if len(names) == 2 else pieces[name]
            own = _unmatched(pieces[name], other)
            outputs[name] = [Piece(*fields) for fields in zip(pieces[name], off, own, strict=True)]
        missed = [
            [any(lacks) for lacks in zip(*(_unmatched(ref, pieces[name]) for name in names), strict=True)]
            for ref in refs
        ]
        return Difference(
            line=i + 1,
            src=self.src[i] if self.src is not None else None,
            refs=[
                [Piece(p, off, False) for p, off in zip(ref, m, strict=True)]
                for ref, m in zip(refs, missed, strict=True)
            ],
            outputs=outputs,
            chrf={name: float(self.chrf[name][i]) for name in names},
            reason=reason,
        )


def _unmatched(pieces: list[str], other: list[str]) -> list[bool]:
    """Which pieces find no partner in the other text, in order; a space never counts."""
    words = [(k, piece) for k, piece in enumerate(pieces) if not piece.isspace()]
    partners = [piece for piece in other if not piece.isspace()]
    unmatched = [not piece.isspace() for piece in pieces]
    matcher = SequenceMatcher(None, [piece for _, piece in words], partners, autojunk=False)
    for block in matcher.get_matching_blocks():
        for k, _ in words[block.a : block.a + block.size]:
            unmatched[k] = False
    return unmatched
