"""What a run keeps: its counters and history, and what training changes, which is a checkpoint's content.

Nothing random is kept, since data order and dropout are functions of seed, epoch and update. Where checkpoints lie, and which
of them stay, is the matter of `checkpoints.py`.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor

from s2s_cli.checkpoint.bundle import WEIGHTS as WEIGHTS_FILE
from s2s_cli.checkpoint.bundle import load_tensors, read_json, weights_of
from s2s_cli.config.section import NonNegativeInt
from s2s_cli.errors import BundleError
from s2s_cli.models.base import Seq2Seq
from s2s_cli.runtime import Runtime
from s2s_cli.training.optim import Average, moments_of

_Amount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Record = dict[str, Any]  # one validation: update, epoch, loss, the metric's value, its signature
MOMENTS = "optimizer.safetensors"  # in training/
RAW_WEIGHTS = "weights.safetensors"  # in training/, where the bundle's own weights are the moving average


@dataclass
class Tally:
    """Sums since the last line of the log."""

    total: float = 0.0
    nll: float = 0.0
    divergence: float = 0.0
    num_tokens: int = 0
    norm: float = 0.0
    updates: int = 0

    def add(self, total: float, nll: float, divergence: float, num_tokens: int, norm: float) -> None:
        """Count one update more."""
        self.total += total
        self.nll += nll
        self.divergence += divergence
        self.num_tokens += num_tokens
        self.norm += norm
        self.updates += 1

    def means(self) -> dict[str, float]:
        """By token, what training minimizes and cross-entropy in nats, and its exponential; by update, the norm."""
        loss = self.nll / self.num_tokens
        ppl = math.exp(min(700.0, loss))
        return {
            "criterion": self.total / self.num_tokens,
            "loss": loss,
            "ppl": ppl,
            "grad_norm": self.norm / self.updates,
        }


@dataclass
class Health:
    """What tells a good update from a bad one: how many were good, the mean of their losses in nats a token, the loss above
    which the next are left out, how many in a row were, and how often the run has gone back since its last validation.
    """

    count: int = 0
    mean: float = 0.0
    limit: float | None = None
    streak: int = 0
    returns: int = 0


@dataclass
class Progress:
    """Where a run stands: updates done, target tokens and seconds spent, every validation so far, sums for the log.

    `position` is the epoch and the number of its batches that are done, those of all ranks together. `time_used` is the share
    of `max_time` that updates have had, which the learning rate of the next one depends on; `valid_seconds` what the last
    validation took; before the first, what it may take, estimated `estimates` times. `scaler` is that of fp16, `too_large` has
    for each process the positions that its memory was too small for, `threads` are those of the main process.
    """

    update: NonNegativeInt = 0
    position: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    num_tokens: NonNegativeInt = 0
    seconds: _Amount = 0.0
    time_used: _Amount = 0.0
    valid_seconds: _Amount = 0.0
    estimates: int = 0
    skipped: int = 0
    history: list[Record] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    health: Health = field(default_factory=Health)
    scaler: list[float] = field(default_factory=list)
    too_large: list[NonNegativeInt] = field(default_factory=list)
    threads: NonNegativeInt = 0

    @property
    def in_course(self) -> list[Record]:
        """The validations that come however long the run is: patience and plateau know no others."""
        return [record for record in self.history if not record.get("extra")]

    @classmethod
    def read(cls, path: Path) -> "Progress":
        """What `asdict` made, from a JSON file. Raises BundleError for anything else."""
        state = read_json(path)
        try:
            if unknown := set(state) - {part.name for part in fields(cls)}:
                raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
            progress = TypeAdapter(cls).validate_python(state)
        except (TypeError, ValueError) as error:  # pydantic's ValidationError is a ValueError
            raise BundleError(f"{path} is not the state of a run: {error}") from None
        return progress


@dataclass
class Learner:
    """What training changes: a model, its optimizer, and the moving average of the weights if there is one.

    `shards` are the parameters that the optimizer of each process has, where no process has all.
    """

    model: Seq2Seq
    optimizer: torch.optim.Optimizer
    average: Average | None = None
    shards: list[list[torch.nn.Parameter]] = field(default_factory=list)

    def exchange(self, runtime: Runtime) -> None:
        """After a step: let every process have the parameters that others have changed."""
        for owner, parameters in enumerate(self.shards):
            runtime.spread([parameter.data for parameter in parameters], owner)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Seq2Seq]:
        """The model with the weights that are validated and saved."""
        if self.average is not None:
            self.average.swap(self.model)
        try:
            yield self.model
        finally:
            if self.average is not None:
                self.average.swap(self.model)

    def weights(self) -> dict[str, Tensor]:
        """The weights that are validated and saved."""
        return weights_of(self.model) if self.average is None else self.average.weights

    def snapshot(self, runtime: Runtime) -> dict[str, dict[str, Tensor]]:
        """What this moment's checkpoint holds, by file: copies in memory, for the main process, while all go on.

        Every process calls it, since each may hold a part.
        """
        moments = moments_of(self.model, self.optimizer)
        if self.shards:
            moments = runtime.gather(moments)
        if not runtime.is_main:
            return {}
        parts = {WEIGHTS_FILE: self.weights(), MOMENTS: moments}
        if self.average is not None:
            parts[RAW_WEIGHTS] = weights_of(self.model)
        return {
            file: {
                name: t.detach().to("cpu", copy=True) if not self.shards or file != MOMENTS else t
                for name, t in tensors.items()
            }
            for file, tensors in parts.items()
        }

    def load(self, bundle: Path) -> None:
        """Fill everything from a checkpoint. Raises BundleError for tensors of other names, shapes or types."""
        load_tensors(self.weights(), bundle / WEIGHTS_FILE)
        load_tensors(moments_of(self.model, self.optimizer), bundle / "training" / MOMENTS, some=bool(self.shards))
        if self.average is not None:
            load_tensors(weights_of(self.model), bundle / "training" / RAW_WEIGHTS)
