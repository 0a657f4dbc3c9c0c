"""One update: from micro-batches to a step of the optimizer.

Nothing here waits for a CUDA device: losses and norms stay tensors, and whether the step is taken is decided where they are.
This file knows no order of data, no schedule, no files and no log. What is minimized stands in `objective.py`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from s2s_cli.config import TrainSettings
from s2s_cli.data.loader import Batch
from s2s_cli.errors import S2SError
from s2s_cli.runtime import Runtime, is_out_of_memory, seed_for
from s2s_cli.training.objective import batch_loss
from s2s_cli.training.optim import set_rate
from s2s_cli.training.state import Learner

_FIRST_SCALE, _GROW_AFTER = 2.0**16, 2000  # of losses in fp16, as torch's own scaler has them
LEAST_SCALE = 1.0  # below which no gradient of a mean loss need go to stay finite
Within = Callable[[], AbstractContextManager[object]]


class Outcome(NamedTuple):
    """What update `number` did: sums over the batches of all processes, which `read` fetches from the device.

    `sums` [7], fp64: criterion, cross-entropy and divergence in nats; target tokens; the gradient's norm before clipping;
    1 if the weights were changed, else 0; the scale of the loss. `lines` are the corpus lines of this process's batches.
    """

    number: int
    sums: Tensor
    lines: np.ndarray


class Updater:
    """Changes a learner by one step at a time.

    With `precision` fp16, losses are multiplied by a scale before the backward pass, so that small gradients do not vanish;
    the gradient is divided by it before its norm is taken and clipped (Micikevicius et al. 2018). `scaler` is that scale, and
    the number of updates since it last changed: a gradient that overflows halves it down to 1, and 2000 that do not double it.
    """

    def __init__(
        self,
        learner: Learner,
        settings: TrainSettings,
        runtime: Runtime,
        scaler: Sequence[float] = (),
        too_large: Sequence[int] = (),
    ) -> None:
        self.learner, self.settings, self.runtime = learner, settings, runtime
        self.parameters = [p for p in learner.model.parameters() if p.requires_grad]
        self.scaler: Tensor | None = None
        self.scale_as(scaler)
        # Positions, rows times the longer side, of the smallest batch that this process's memory was too small for.
        same = len(too_large) == runtime.world  # or else it is not known whose is whose
        self.too_large = too_large[runtime.rank] if same else min(filter(None, too_large), default=0)
        self.split = 0  # that number, until somebody has told of it

    def scale_as(self, scaler: Sequence[float]) -> None:
        """Go on with the scale that losses in fp16 had, or the first one if there is none yet."""
        if self.runtime.dtype == torch.float16:
            self.scaler = torch.tensor(list(scaler) or [_FIRST_SCALE, 0.0], device=self.runtime.device)

    def update(
        self,
        batches: Sequence[Batch],
        number: int,
        rate: float,
        limit: float | None = None,
        within: Within = nullcontext,
    ) -> Outcome:
        """Update `number`, with the mean gradient over all target tokens of `batches` of all processes.

        The weights stay as they are if that gradient is not finite, or the loss is above `limit`, in nats a token. The gradient
        of each batch is made `within` such a context, which may raise to give the update up.
        """
        set_rate(self.learner.optimizer, rate)
        num_tokens = sum(batch.num_tokens for batch in batches)
        with self.runtime.step():
            sums = self.gradients(batches, num_tokens, number, within)
        sums = self.runtime.mean_gradients(self.parameters, num_tokens, sums)
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if self.scaler is not None:
            torch._foreach_mul_(grads, 1.0 / self.scaler[0])
        norm = torch.nn.utils.get_total_norm(grads, foreach=True)
        applied = torch.isfinite(norm) & torch.isfinite(sums[0])
        scale = torch.ones_like(sums[0])
        if self.scaler is not None:
            scale = self.scaler[0].double()
            self._rescale(applied)
        if limit is not None:
            applied &= sums[0] <= limit * sums[3]
        if self.settings.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings.clip, norm, foreach=True)
        self._step(applied)
        self.learner.model.zero_grad(set_to_none=True)
        if self.learner.average is not None:
            self.learner.average.update(self.learner.model, number)
        lines = np.concatenate([batch.lines for batch in batches])
        return Outcome(number, torch.cat([sums, torch.stack([norm.double(), applied.double(), scale])]), lines)

    def gradients(self, batches: Sequence[Batch], num_tokens: int, number: int, within: Within = nullcontext) -> Tensor:
        """Gradients of the loss over `num_tokens`; returns the first four sums of an `Outcome`, of these batches.

        Where memory is too small for a batch, it is split, as are later ones that are as large, and the work begins anew: all
        terms of the loss are sums over pairs, so that the gradient is the same but for dropout. Raises S2SError where a single
        pair does not fit.
        """
        while True:
            batches = [part for batch in batches for part in self._parts(batch)]
            try:
                return self._gradients(batches, num_tokens, number, within)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Here the error, and with it all tensors of the frames it came through, are gone.
            self.learner.model.zero_grad(set_to_none=True)
            if self.runtime.device.type == "cuda":
                torch.cuda.empty_cache()
            if len(self._at.lines) == 1:
                raise S2SError(
                    f"one pair of {positions(self._at)} positions is too much for the memory: run preprocess with a smaller "
                    "--max-len, or take a smaller model"
                )
            self.too_large = self.split = positions(self._at)

    def _parts(self, batch: Batch) -> list[Batch]:
        """A batch, or those parts of it that are smaller than what memory was too small for."""
        if not self.too_large or positions(batch) < self.too_large or len(batch.lines) == 1:
            return [batch]
        return [part for half in halves(batch) for part in self._parts(half)]

    def _gradients(self, batches: Sequence[Batch], num_tokens: int, number: int, within: Within) -> Tensor:
        rank, device = self.runtime.rank, self.runtime.device
        seed_for(self.settings.seed, number, *([rank] if rank else []))
        sums = torch.zeros(4, dtype=torch.float64, device=device)
        for batch in batches:
            self._at = batch
            with within():
                with self.runtime.autocast():
                    loss = batch_loss(self.learner.model, batch.to(device), self.settings, number)
                mean = loss.total / num_tokens
                if mean.requires_grad:  # all that learns may be frozen, or left out by layer_drop
                    (mean if self.scaler is None else mean * self.scaler[0]).backward()
            divergence = torch.zeros_like(loss.nll) if loss.divergence is None else loss.divergence
            sums[:3] += torch.stack([loss.total.detach(), loss.nll.detach(), divergence.detach()])
            sums[3] += batch.num_tokens
        return sums

    def _step(self, applied: Tensor) -> None:
        """A step of the optimizer if `applied` is true."""
        self.learner.optimizer.found_inf = 1.0 - applied.float()  # type: ignore[attr-defined] # fused ones read it too
        self.learner.optimizer.step()
        self.learner.exchange(self.runtime)

    def _rescale(self, finite: Tensor) -> None:
        assert self.scaler is not None
        scale, since = self.scaler[0], self.scaler[1] + 1
        grown = since >= _GROW_AFTER
        self.scaler = torch.stack(
            [
                torch.where(finite, torch.where(grown, scale * 2, scale), (scale / 2).clamp(min=LEAST_SCALE)),
                torch.where(finite & ~grown, since, torch.zeros_like(since)),
            ]
        )


def positions(batch: Batch) -> int:
    """What a batch's budget counts: its rows times its longer side, padding included."""
    return len(batch.lines) * max(batch.src.shape[1], batch.tgt_in.shape[1])


def halves(batch: Batch) -> list[Batch]:
    """The pairs of a batch as two, each padded to its own longest; a batch of one pair stays whole."""
    num = len(batch.lines)
    if num == 1:
        return [batch]
    parts = []
    for rows in (slice(0, num // 2), slice(num // 2, num)):
        num_src, num_tgt = int(batch.src_len[rows].max()), int(batch.tgt_len[rows].max())
        part = replace(
            batch,
            src=batch.src[rows, :num_src],
            src_len=batch.src_len[rows],
            tgt_in=batch.tgt_in[rows, :num_tgt],
            tgt_out=batch.tgt_out[rows, :num_tgt],
            tgt_len=batch.tgt_len[rows],
            lines=batch.lines[rows],
            num_tokens=int(batch.tgt_len[rows].sum()),
        )
        parts.append(part)
    return parts
