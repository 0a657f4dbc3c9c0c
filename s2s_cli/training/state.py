"""What a run keeps: its counters and history, and the checkpoints of the run folder.

A run folder holds `checkpoints/step-N/` bundles, and the names `best` and `last` for two of them. Resuming needs the
newest whole bundle that has a `training/` folder: moments of the optimizer, the position in the data, the history.
Nothing random is saved, since data order and dropout are functions of seed, epoch and update.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2s_cli.checkpoint.bundle import WEIGHTS as WEIGHTS_FILE
from s2s_cli.checkpoint.bundle import (
    check_sums,
    load_tensors,
    load_weights,
    read_json,
    save_bundle,
    save_tensors,
    weights_of,
)
from s2s_cli.config import ModelSettings, SearchSettings
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import BundleError
from s2s_cli.models.base import Seq2Seq
from s2s_cli.runtime import tell

Record = dict[str, Any]  # one validation: update, epoch, loss, the metric's value, its signature


@dataclass
class Progress:
    """Where a run stands: updates done, the stream's position, target tokens and seconds spent, every validation so far."""

    update: int = 0
    position: tuple[int, int] = (0, 0)
    num_tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    history: list[Record] = field(default_factory=list)


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

    def ranked(self, history: list[Record]) -> list[int]:
        """Validated updates, best first; of equals the earlier."""
        sign = -1.0 if self.higher_is_better else 1.0
        return [r["update"] for r in sorted(history, key=lambda r: (sign * r[self.metric], r["update"]))]

    def save(
        self,
        model: Seq2Seq,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        settings: ModelSettings,
        search: SearchSettings,
        vocabs: Vocabs,
    ) -> None:
        """Write the bundle of this moment, move `last` and `best`, then let go of bundles no longer wanted."""
        scored = [r for r in progress.history if r["update"] == progress.update]
        origin = {"update": progress.update, "epoch": progress.position[0]}
        if scored:
            origin |= scored[0] | {"metric": self.metric, "higher_is_better": self.higher_is_better}

        def write_training(folder: Path) -> None:
            save_tensors(moments_of(model, optimizer), folder / "optimizer.safetensors")
            (folder / "state.json").write_text(json.dumps(asdict(progress), indent=1) + "\n", encoding="utf-8")

        here = self.path(progress.update)
        save_bundle(here, weights_of(model), settings, search, vocabs, origin, write_training)
        self._point("last", here)
        if ranked := self.ranked(progress.history):
            self._point("best", self.path(ranked[0]))
        self._prune(progress.history)

    def resume(self, model: Seq2Seq, optimizer: torch.optim.Optimizer) -> Progress:
        """Load the newest whole checkpoint into model and optimizer; a fresh Progress where there is none.

        A torn or altered one is named on stderr and passed over; BundleError if none of several is whole.
        """
        candidates = [u for u in reversed(self.updates()) if (self.path(u) / "training").is_dir()]
        for update in candidates:
            folder = self.path(update)
            try:
                check_sums(folder)
                check_sums(folder / "training")
                state = read_json(folder / "training" / "state.json")
                load_weights(model, folder / WEIGHTS_FILE)
                load_moments(model, optimizer, folder / "training" / "optimizer.safetensors")
                progress = Progress(**{**state, "position": tuple(state["position"])})
            except (BundleError, TypeError, KeyError) as error:
                tell(f"passing over {folder.name}: {error}")
                continue
            for later in self.updates():  # made anew by the run that goes on from here
                if later > update:
                    shutil.rmtree(self.path(later))
            return progress
        if candidates:
            raise BundleError(f"no checkpoint in {self.folder} is whole: move {self.run} away to begin anew")
        return Progress()

    def _point(self, name: str, target: Path) -> None:
        beside = self.run / f".{name}.tmp"
        beside.unlink(missing_ok=True)
        beside.symlink_to(target.relative_to(self.run))
        os.replace(beside, self.run / name)

    def _prune(self, history: list[Record]) -> None:
        updates = self.updates()
        newest = updates[-1]
        scored = {r["update"] for r in history}
        # A checkpoint that was never scored was saved by a signal: once a newer one is safe, nobody needs it.
        last = [u for u in updates if u in scored or u == newest][-self.keep_last :]
        best = [u for u in self.ranked(history) if u in updates][: self.keep_best]
        for update in updates:
            if update not in last and update not in best:
                shutil.rmtree(self.path(update))
            elif update not in last:
                shutil.rmtree(self.path(update) / "training", ignore_errors=True)


def moments_of(model: Seq2Seq, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors, named `kind:parameter`, such as `exp_avg:head.bias`."""
    return {
        f"{kind}:{name}": tensor
        for name, parameter in model.named_parameters()
        for kind, tensor in optimizer.state[parameter].items()
    }


def load_moments(model: Seq2Seq, optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Fill a fresh optimizer with what `moments_of` gave. Raises BundleError for tensors of other names or shapes."""
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    load_tensors(moments_of(model, optimizer), path)
