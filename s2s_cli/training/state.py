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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2s_cli.checkpoint.bundle import WEIGHTS as WEIGHTS_FILE
from s2s_cli.checkpoint.bundle import (
    check_sums,
    load_tensors,
    read_json,
    remove_folder,
    save_bundle,
    save_tensors,
    weights_of,
)
from s2s_cli.config import ModelSettings, SearchSettings
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import BundleError
from s2s_cli.models.base import Seq2Seq
from s2s_cli.runtime import tell
from s2s_cli.training.optim import Average, moments_of

Record = dict[str, Any]  # one validation: update, epoch, loss, the metric's value, its signature
RAW_WEIGHTS = "weights.safetensors"  # in training/, where the bundle's own weights are the moving average


@dataclass
class Tally:
    """Sums since the last line of the log."""

    total: float = 0.0
    nll: float = 0.0
    num_tokens: int = 0
    norm: float = 0.0
    updates: int = 0


@dataclass
class Progress:
    """Where a run stands: updates done, target tokens and seconds spent, every validation so far, sums for the log.

    `position` is the epoch and the number of its batches that are done, those of all ranks together.
    """

    update: int = 0
    position: tuple[int, int] = (0, 0)
    num_tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    history: list[Record] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    @classmethod
    def read(cls, path: Path) -> "Progress":
        """What `asdict` made, from a JSON file. Raises BundleError for anything else."""
        state = read_json(path)
        try:
            epoch, batch = state["position"]
            return cls(**{**state, "position": (int(epoch), int(batch)), "tally": Tally(**state.get("tally", {}))})
        except (TypeError, ValueError, KeyError) as error:
            raise BundleError(f"{path} is not the state of a run: {error!r}") from None


@dataclass
class Learner:
    """What training changes: a model, its optimizer, and the moving average of the weights if there is one."""

    model: Seq2Seq
    optimizer: torch.optim.Optimizer
    average: Average | None = None

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

    def save(self, folder: Path) -> None:
        """Write into `training/` what going on needs beyond `weights`."""
        save_tensors(moments_of(self.model, self.optimizer), folder / "optimizer.safetensors")
        if self.average is not None:
            save_tensors(weights_of(self.model), folder / RAW_WEIGHTS)

    def load(self, bundle: Path) -> None:
        """Fill everything from a checkpoint. Raises BundleError for tensors of other names, shapes or types."""
        load_tensors(self.weights(), bundle / WEIGHTS_FILE)
        load_tensors(moments_of(self.model, self.optimizer), bundle / "training" / "optimizer.safetensors")
        if self.average is not None:
            load_tensors(weights_of(self.model), bundle / "training" / RAW_WEIGHTS)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run folder. `metric` names what is best, `higher_is_better` which way."""

    run: Path
    metric: str
    higher_is_better: bool
    keep_last: int
    keep_best: int

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

    def costs(self, history: list[Record]) -> list[float]:
        """The value of each validation, turned so that lower is better; that of no number is the worst."""
        values = [-r[self.metric] if self.higher_is_better else r[self.metric] for r in history]
        return [math.inf if math.isnan(value) else value for value in values]

    def ranked(self, history: list[Record]) -> list[int]:
        """Validated updates, best first; of equals (a BLEU of 0, say) the one of lower loss, then the earlier."""
        keys = [(cost, r["loss"], r["update"]) for cost, r in zip(self.costs(history), history, strict=True)]
        return [update for _, _, update in sorted(keys)]

    def save(
        self, learner: Learner, progress: Progress, settings: ModelSettings, search: SearchSettings, vocabs: Vocabs
    ) -> None:
        """Write the bundle of this moment, move `last` and `best`, then let go of bundles no longer wanted."""
        scored = [r for r in progress.history if r["update"] == progress.update]
        origin = {"update": progress.update, "epoch": progress.position[0]}
        if scored:
            origin |= scored[0] | {"metric": self.metric, "higher_is_better": self.higher_is_better}

        def write_training(folder: Path) -> None:
            learner.save(folder)
            (folder / "state.json").write_text(json.dumps(asdict(progress), indent=1) + "\n", encoding="utf-8")

        save_bundle(self.path(progress.update), learner.weights(), settings, search, vocabs, origin, write_training)
        self._settle(progress.history)

    def resume(self, learner: Learner) -> Progress:
        """Load the newest whole checkpoint into `learner`; a fresh Progress where there is none.

        A torn or altered one is named on stderr and passed over; BundleError if none of several is whole.
        """
        for leftover in self.folder.glob(".step-*"):  # of a process that died while writing or deleting
            shutil.rmtree(leftover, ignore_errors=True)
        candidates = [u for u in reversed(self.updates()) if (self.path(u) / "training").is_dir()]
        for update in candidates:
            try:
                check_sums(self.path(update), covers=("config.json", WEIGHTS_FILE))
                check_sums(self.path(update) / "training", covers=("state.json", "optimizer.safetensors"))
                progress = self.load(learner, update)
            except BundleError as error:
                tell(f"passing over {self.path(update).name}: {error}")
                continue
            for later in self.updates():  # made anew by the run that goes on from here
                if later > update:
                    remove_folder(self.path(later))
            self._settle(progress.history)
            return progress
        if candidates:
            raise BundleError(f"no checkpoint in {self.folder} is whole: move {self.run} away to begin anew")
        return Progress()

    def load(self, learner: Learner, update: int) -> Progress:
        """The checkpoint of an update, which has been checked."""
        progress = Progress.read(self.path(update) / "training" / "state.json")
        learner.load(self.path(update))
        return progress

    def _settle(self, history: list[Record]) -> None:
        """Let `last`, `best` and the set of checkpoints be what they should be after the newest one."""
        updates = self.updates()
        self._point("last", updates[-1])
        if best := [u for u in self.ranked(history) if u in updates]:
            self._point("best", best[0])
        scored = {r["update"] for r in history}
        # A checkpoint that was never scored was saved by a signal: once a newer one is safe, nobody needs it.
        keep_last = [u for u in updates if u in scored or u == updates[-1]][-self.keep_last :]
        for update in updates:
            if update not in keep_last and update not in best[: self.keep_best]:
                remove_folder(self.path(update))
            elif update not in keep_last and (self.path(update) / "training").exists():
                remove_folder(self.path(update) / "training")

    def _point(self, name: str, update: int) -> None:
        beside = self.run / f".{name}.tmp"
        beside.unlink(missing_ok=True)
        beside.symlink_to(self.path(update).relative_to(self.run))
        os.replace(beside, self.run / name)
