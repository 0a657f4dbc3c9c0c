"""What it could gain at most if sentences that wait entered a batch as others end."""

import argparse
import statistics
import time
from itertools import pairwise
from typing import Any, ClassVar
from unittest.mock import patch

import decode
from torch import Tensor

from prototypes.turns import case, cases
from s2s_cli.search import strategies


class Watch(strategies._Alive):
    """Notes at each step of a batch when it was, how many sentences were there, and how many of them were not done."""

    batches: ClassVar[list[list[tuple[float, int, int]]]] = []  # of all that there have been

    def __init__(self, num: int) -> None:
        super().__init__(num)
        self.steps: list[tuple[float, int, int]] = []
        self.batches.append(self.steps)

    def leaving(self, improves: Tensor, together: bool = False) -> Tensor | None:
        """See `_Alive`."""
        self.steps.append((time.perf_counter(), len(improves), int(improves.sum())))
        return super().leaving(improves, together)


def waiting(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What it could gain at most, in each case."""
    rows = []
    for _, beam, precision in cases(options):
        model, sources, *rest = decode.sentences(here := case(options, "model", beam, precision))
        search = decode.ours(model, here, *rest)
        search(sources)
        bounds = []
        for _ in range(options.turns):
            Watch.batches.clear()
            with patch.object(strategies, "_Alive", Watch):
                begun = time.perf_counter()
                search(sources)
                whole = time.perf_counter() - begun
            bounds.append(whole / (whole - sum(map(saved, Watch.batches))))
        row = {"lever": "waiting", "beam": beam, "precision": precision, "sentences": len(sources)}
        median, low, high = (round(of(bounds), 3) for of in (statistics.median, min, max))
        rows.append(row | {"at most": median, "min": low, "max": high})
        print(rows[-1], flush=True)
    return rows


def saved(steps: list[tuple[float, int, int]]) -> float:
    """Seconds of a batch that would be spared if every step were as fast by sentence as the median of those with all sentences
    of the batch, which came first, when there was less to attend to, and if only sentences that are not done cost anything.
    """
    spent = [
        (later[0] - before[0], later[1], before[2]) for before, later in pairwise(steps)
    ]  # seconds, there, not done
    full = [seconds / num for seconds, num, _ in spent if num == steps[0][1]]
    best = statistics.median(full) if full else 0.0
    return sum(seconds - needed * min(best, seconds / num) for seconds, num, needed in spent)
