"""Reading what updates did, a few at a time, so that the device is never waited for; and what to do when they go wrong.

An update whose gradient is not finite, or whose loss is far above the mean, is left out. After several such in a row the
run goes back to its last validated checkpoint, and on with the data that follow (Chowdhery et al. 2022 do so by hand). All
decisions fall at updates whose number is a multiple of `READ_EVERY`: an interrupted run makes the same ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from s2s_cli.data.dataset import Dataset
from s2s_cli.runtime import Log
from s2s_cli.training.state import Progress
from s2s_cli.training.update import Outcome

READ_EVERY = 10
IN_A_ROW = 10  # updates left out, after which a run goes back
MAX_RETURNS = 3  # to one checkpoint
_MEMORY = 100  # updates that the mean of the loss is taken over, and before which nothing is above it


@dataclass
class Reader:
    """Holds outcomes until they are read into the counters of a run."""

    dataset: Dataset
    log: Log
    scaled: bool = False  # fp16: a gradient that overflows is no news as long as the loss is a number

    def __post_init__(self) -> None:
        self._unread: list[Outcome] = []

    def put(self, outcome: Outcome) -> None:
        """Take note of an update, without reading what it did."""
        self._unread.append(outcome)

    def read(self, progress: Progress) -> None:
        """Wait for all updates so far; count them, and name the corpus lines of those that were left out."""
        if not self._unread:
            return
        outcomes, self._unread = self._unread, []
        for outcome, sums in zip(outcomes, torch.stack([o.sums for o in outcomes]).tolist(), strict=True):
            self._count(progress, outcome, sums)

    def _count(self, progress: Progress, outcome: Outcome, sums: Sequence[float]) -> None:
        total, nll, divergence, num_tokens, norm, applied = sums
        progress.num_tokens += int(num_tokens)
        tally, health = progress.tally, progress.health
        if applied:
            tally.add(total, nll, divergence, int(num_tokens), norm)
            health.count += 1
            keep = min(1.0 - 1.0 / _MEMORY, (health.count - 1) / health.count)
            health.mean = keep * health.mean + (1.0 - keep) * total / num_tokens
            health.streak = 0
            return
        progress.skipped += 1
        if self.scaled and total - total == 0.0 and norm - norm != 0.0:
            return
        health.streak += 1
        what = "the gradient is not finite" if norm - norm != 0.0 else f"a loss of {total / num_tokens:.2f} a token"
        lines = ", ".join(self.dataset.where(int(n)) for n in outcome.lines[:5])
        self.log.say(f"update {outcome.number}: {what}, skipped; training lines {lines}, …")


def judge(progress: Progress, spike: float) -> bool:
    """After all has been read: set the limit for the updates to come; whether the run should go back."""
    health = progress.health
    health.limit = health.mean + spike if spike and health.count >= _MEMORY else None
    return health.streak >= IN_A_ROW
