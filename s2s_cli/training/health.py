"""Reading what updates did, a few at a time, so that the device is never waited for; and what to do when they go wrong.

An update whose gradient is not finite, or whose loss is far above the mean, is left out. In fp16 a gradient that overflows
is no news, as its scale is then halved, until the scale cannot be less. After several such in a row the
run goes back to its last validated checkpoint, and on with the data that follow (Chowdhery et al. 2022 do so by hand). All
decisions fall at updates whose number is a multiple of `READ_EVERY`: an interrupted run makes the same ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from s2s_cli.data.dataset import Dataset
from s2s_cli.runtime import Runtime
from s2s_cli.training.log import Log
from s2s_cli.training.state import Progress
from s2s_cli.training.update import LEAST_SCALE, Outcome

READ_EVERY = 10
IN_A_ROW = 10  # updates left out, after which a run goes back
MAX_RETURNS = 3  # to one checkpoint
_SHOWN = 5  # corpus lines that the screen shows of an update
_MEMORY = 100  # updates that the mean of the loss is taken over, and before which nothing is above it


@dataclass
class Reader:
    """Holds outcomes until they are read into the counters of a run, by all processes at the same updates."""

    dataset: Dataset
    log: Log
    runtime: Runtime

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
        total, nll, divergence, num_tokens, norm, applied, scale = sums
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
        if scale > LEAST_SCALE and math.isfinite(total) and not math.isfinite(norm):
            return
        health.streak += 1
        what = f"a loss of {total / num_tokens:.2f} a token" if math.isfinite(norm) else "the gradient is not finite"
        self._name_lines(f"update {outcome.number}: {what}, skipped; training lines", outcome)

    def _name_lines(self, message: str, outcome: Outcome) -> None:
        """Tell of an update's corpus lines, those of all processes: the first few on the screen, all in the log."""
        lines = []
        for rank in range(self.runtime.world):
            lines += self.runtime.share(outcome.lines.tolist(), rank)
        first = ", ".join(map(self.dataset.where, lines[:_SHOWN]))
        self.log.say(f"{message} {first}" + (f", … ({len(lines)})" if len(lines) > _SHOWN else ""))
        files: dict[str, list[str]] = {}
        for line in sorted(lines):
            file, colon, number = self.dataset.where(line).rpartition(":")
            files.setdefault(file + colon, []).append(number)
        if len(lines) > _SHOWN:
            everything = "; ".join(f"{file}{','.join(numbers)}" for file, numbers in files.items())
            self.log.say(f"update {outcome.number} read {everything}", screen=False)


def judge(progress: Progress, spike: float) -> bool:
    """After all has been read: set the limit for the updates to come; whether the run should go back."""
    health = progress.health
    health.limit = health.mean + spike if spike and health.count >= _MEMORY else None
    return health.streak >= IN_A_ROW
