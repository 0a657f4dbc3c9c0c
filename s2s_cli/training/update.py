"""One update: from micro-batches to a step of the optimizer.

It knows no order of data, no schedule, no files and no log. What is minimized stands in `objective.py`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from s2s_cli.config import TrainSettings
from s2s_cli.data.loader import Batch
from s2s_cli.runtime import Runtime, seed_for
from s2s_cli.training.objective import batch_loss
from s2s_cli.training.optim import set_rate
from s2s_cli.training.state import Learner


class Outcome(NamedTuple):
    """What an update did: losses of these batches, summed; target tokens of all processes; the norm before clipping."""

    total: float
    nll: float
    num_tokens: int
    norm: float

    @property
    def is_finite(self) -> bool:
        """Whether the weights were changed."""
        return math.isfinite(self.norm)


class Updater:
    """Changes a learner by one step at a time."""

    def __init__(self, learner: Learner, settings: TrainSettings, runtime: Runtime) -> None:
        self.learner, self.settings, self.runtime = learner, settings, runtime

    def update(self, batches: Sequence[Batch], number: int, rate: float) -> Outcome:
        """Update `number`, with the mean gradient over all target tokens of `batches` of all processes.

        The weights stay as they are if that gradient is not finite.
        """
        settings, model, rank = self.settings, self.learner.model, self.runtime.rank
        seed_for(settings.seed, number, *([rank] if rank else []))
        set_rate(self.learner.optimizer, rate)
        num_tokens = int(self.runtime.all_sum(sum(batch.num_tokens for batch in batches)))
        total, nll = self.gradients(batches, num_tokens, number)
        self.runtime.sum_gradients(model.parameters())
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip or math.inf, foreach=True))
        if math.isfinite(norm):
            self.learner.optimizer.step()
        self.learner.optimizer.zero_grad(set_to_none=True)
        if self.learner.average is not None:
            self.learner.average.update(model, number)
        return Outcome(total, nll, num_tokens, norm)

    def gradients(self, batches: Sequence[Batch], num_tokens: int, number: int) -> tuple[float, float]:
        """Add up gradients of the loss over `num_tokens`, which all processes share; returns the losses of `batches`, summed."""
        total, nll = 0.0, 0.0
        for batch in batches:
            with self.runtime.autocast():
                loss = batch_loss(self.learner.model, batch.to(self.runtime.device), self.settings, number)
            (loss.total / num_tokens).backward()
            total += float(loss.total.detach())
            nll += float(loss.nll)
        return total, nll
