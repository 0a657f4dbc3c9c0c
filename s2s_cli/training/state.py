"""What a run keeps: its counters and history, and the checkpoints of the run folder.

A run folder holds `checkpoints/step-N/` bundles, and the names `best` and `last` for two of them. Resuming needs the
newest whole bundle that has a `training/` folder: moments of the optimizer, the position in the data, the history.
Nothing random is saved, since data order and dropout are functions of seed, epoch and update.
"""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor

from s2s_cli.checkpoint.bundle import WEIGHTS as WEIGHTS_FILE
from s2s_cli.checkpoint.bundle import (
    check_sums,
    load_tensors,
    open_bundle,
    rank,
    read_json,
    refuse_newer,
    remove_folder,
    save_bundle,
    save_tensors,
    strangers_in,
    weights_of,
)
from s2s_cli.config import ModelSettings, SearchSettings
from s2s_cli.config.section import NonNegativeInt
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import BundleError, S2SError
from s2s_cli.files import REPLACED, sync
from s2s_cli.models.base import Seq2Seq
from s2s_cli.runtime import Background, Runtime, tell
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


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run folder. `metric` names what makes one the best."""

    run: Path
    metric: str
    keep_last: int
    keep_best: int
    background: Background = field(default_factory=Background)

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.run / "checkpoints"

    def path(self, update: int) -> Path:
        """The bundle of an update."""
        return self.folder / f"step-{update:07d}"

    def updates(self) -> list[int]:
        """Updates that have a bundle, oldest first."""
        return sorted(int(p.name.removeprefix("step-")) for p in self.folder.glob("step-*") if p.name[5:].isdigit())

    def costs(self, history: list[Record]) -> list[tuple[float, float]]:
        """The value of each validation, turned so that lower is better, and its loss, which decides between equals."""
        return [rank(record, self.metric)[:2] for record in history]

    def ranked(self, history: list[Record]) -> list[int]:
        """Validated updates, best first."""
        return [record["update"] for record in sorted(history, key=lambda record: rank(record, self.metric))]

    def save(
        self,
        snapshot: dict[str, dict[str, Tensor]],
        progress: Progress,
        settings: ModelSettings,
        search: SearchSettings,
        vocabs: Vocabs,
    ) -> None:
        """Write the bundle of this moment, move `last` and `best`, then let go of bundles no longer wanted.

        A thread does the work, once the one before is done; `background` then has what went wrong.
        """
        scored = [r for r in progress.history if r["update"] == progress.update]
        origin = {"update": progress.update, "epoch": progress.position[0]}
        if scored:
            origin |= scored[0] | {"metric": self.metric}

        path, state, history = self.path(progress.update), asdict(progress), [*progress.history]
        weights = snapshot.pop(WEIGHTS_FILE)

        def write_training(folder: Path) -> None:
            for file, tensors in snapshot.items():
                save_tensors(tensors, folder / file)
            (folder / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")

        def write() -> None:
            self.rescue(path)
            save_bundle(path, weights, settings, search, vocabs, origin, write_training)
            self._settle(history, prune=bool(scored))

        self.background.run(write)

    def tidy(self) -> None:
        """Before anything is read: away with what a process left that died while writing or deleting; but what was to be
        replaced, and is not, comes back.
        """
        for leftover in self.folder.glob("step-*/.*.gone"):
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self.folder.glob(".step-*"):
            place = self.folder / leftover.stem.removeprefix(".")
            if leftover.suffix == REPLACED and not place.exists():
                leftover.rename(place)
            else:
                shutil.rmtree(leftover, ignore_errors=True)

    def resume(self, learner: Learner) -> Progress:
        """Load the newest whole checkpoint into `learner`; a fresh Progress where there is none.

        A torn or altered one is named on stderr and passed over; if it is the only one, the run begins anew. BundleError if none
        of several is whole, and for one that is whole and not understood, as that of a newer version: nothing is deleted then.
        """
        for link in (self.run / "last", self.run / "best"):
            if link.is_dir() and not link.is_symlink():
                raise S2SError(
                    f"{link} is a folder where a link to a checkpoint should be, as some copies make: move it away"
                )
        updates = self.updates()
        candidates = [u for u in reversed(updates) if (self.path(u) / "training").is_dir()]
        if updates and not candidates:
            raise BundleError(
                f"no checkpoint in {self.folder} has the training/ folder that a run goes on from: put one back, or choose "
                "another --run (and begin from these weights with --init-from)"
            )
        for update in candidates:
            try:
                check_sums(self.path(update), covers=("config.json", WEIGHTS_FILE))
                check_sums(self.path(update) / "training", covers=("state.json", MOMENTS))
            except BundleError as error:
                refuse_newer(self.path(update))
                tell(f"passing over {self.path(update).name}: {error}")
                continue
            open_bundle(self.path(update), trusted=True)
            progress = self.load(learner, update)
            self.forget_after(update, progress.history)
            return progress
        if len(updates) > 1:
            raise BundleError(f"no checkpoint in {self.folder} is whole: move {self.run} away to begin anew")
        for update in updates:
            place = _move(self.path(update), self.run / "found" / self.path(update).name)
            tell(f"there is no other to go on from: it is in {place} now, and the run begins anew")
        return Progress()

    def forget_after(self, update: int, history: list[Record]) -> None:
        """Delete the checkpoints of later updates, which the run that goes on from this one makes anew."""
        for later in self.updates():
            if later > update:
                self._remove(later)
        self._settle(history, prune=False)

    def load(self, learner: Learner, update: int) -> Progress:
        """The checkpoint of an update, which has been checked."""
        path = self.path(update) / "training" / "state.json"
        progress = Progress.read(path)
        if progress.update != update:
            raise BundleError(f"{path} is not the state of update {update}, but of {progress.update}")
        for record in progress.history:
            numbers = [record.get(name) for name in ("loss", self.metric)]
            if not (
                isinstance(record.get("update"), int) and all(isinstance(number, int | float) for number in numbers)
            ):
                raise BundleError(
                    f"{path} has a validation without its update, its loss or its {self.metric}: {record}"
                )
        learner.load(self.path(update))
        return progress

    def _remove(self, update: int) -> None:
        """Delete a checkpoint, but nothing that somebody has put into it."""
        self.rescue(self.path(update))
        remove_folder(self.path(update))

    def rescue(self, path: Path) -> None:
        """Take files that are none of ours out of a bundle that goes, or gives way to another."""
        for name in strangers_in(path) if path.is_dir() else []:
            place = _move(path / name, self.run / "found" / path.name / name)
            tell(f"{path / name} is in {place} now: the checkpoint goes")

    def _settle(self, history: list[Record], prune: bool = True) -> None:
        """Let `last` and `best` be what they should be after the newest checkpoint, and, to `prune`, the set of them all."""
        updates = self.updates()
        self.point("last", self.path(updates[-1]))
        name = self.run / "best"
        # An average that the run ended with stays the best until it has gone on, or `finish` finds another.
        if prune or not name.is_dir() or name.resolve().name.startswith("step-"):
            self.point_to_best(history)
        scored = [u for u in updates if any(record["update"] == u for record in history)]
        # Those that the run can go on from, two at least: one torn file is not its end. What was never scored was saved by a
        # signal or for the time; once there are newer ones, nobody needs it.
        newest = {*scored[-max(2, self.keep_last) :], updates[-1]}
        if len(newest) == 1:
            newest = {*updates[-2:]}
        best = [u for u in self.ranked(history) if u in updates][: self.keep_best] if prune else scored
        for update in updates:
            if update not in newest and update not in best:
                self._remove(update)
            elif update not in newest and prune and (self.path(update) / "training").exists():
                remove_folder(self.path(update) / "training")

    def point_to_best(self, history: list[Record]) -> None:
        """Let `best` stand for the best checkpoint that is there, if any was scored."""
        updates = self.updates()
        if best := [u for u in self.ranked(history) if u in updates]:
            self.point("best", self.path(best[0]))

    def point(self, name: str, bundle: Path) -> None:
        """Let `best` or `last` stand for a bundle, from one moment to the next."""
        beside = self.run / f".{name}.tmp"
        beside.unlink(missing_ok=True)
        beside.symlink_to(bundle.relative_to(self.run))
        os.replace(beside, self.run / name)
        sync(self.run)


def _move(path: Path, place: Path) -> Path:
    """Take something to a place, or to one beside it if that is taken; returns which."""
    while os.path.lexists(place):
        place = place.with_name(f"{place.name}.1")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, place)
    return place
