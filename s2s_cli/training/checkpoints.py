"""The checkpoints of a run folder: which are kept, which is best, which is last, and which a run goes on from.

They are bundles, `checkpoints/step-N/`, with the names `best` and `last` for two of them. Resuming needs the newest whole one
that has a `training/` folder: moments of the optimizer, the position in the data, the history.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from s2s_cli.checkpoint.bundle import WEIGHTS as WEIGHTS_FILE
from s2s_cli.checkpoint.bundle import (
    check_sums,
    open_bundle,
    rank,
    refuse_newer,
    remove_folder,
    save_bundle,
    save_tensors,
    strangers_in,
)
from s2s_cli.config import ModelSettings, SearchSettings
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import BundleError, S2SError
from s2s_cli.files import REPLACED, sync
from s2s_cli.runtime import Background, tell
from s2s_cli.training.state import MOMENTS, Learner, Progress, Record


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run folder. `metric` names what makes one the best."""

    run: Path
    metric: str
    keep_last: int
    keep_best: int
    say: Callable[[str], object] = tell  # what people should hear of, of what becomes of them
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
        numbers = {p: int(p.name[5:]) for p in self.folder.glob("step-*") if p.name[5:].isdigit()}
        return sorted(number for p, number in numbers.items() if p == self.path(number))

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

        A torn or altered one is named and passed over; if it is the only one, and was never validated, the run begins anew.
        BundleError if none is whole, and for one that is whole and not understood, as that of a newer version: nothing is deleted
        then.
        """
        for link in (self.run / "last", self.run / "best"):
            if link.is_dir() and not link.is_symlink():
                raise S2SError(
                    f"{link} is a folder where a link to a checkpoint should be, as some copies make: move it away"
                )
        updates = self.updates()
        if updates and not self.resumable(updates):
            raise BundleError(
                f"no checkpoint in {self.folder} has the training/ folder that a run goes on from: put one back, or choose "
                "another --run (and begin from these weights with --init-from)"
            )
        if update := self.newest_whole(updates):
            progress = self.load(learner, update)
            self.forget_after(update, progress.history)
            return progress
        if len(updates) > 1 or (self.run / "best").is_symlink():
            raise BundleError(
                f"no checkpoint in {self.folder} is whole: move {self.run} away to begin anew (or begin from weights that are, "
                "with --init-from, in another --run)"
            )
        for update in updates:
            place = _move(self.path(update), self.run / "found" / self.path(update).name)
            self.say(f"there is no other to go on from: it is in {place} now, and the run begins anew")
        return Progress()

    def resumable(self, updates: Iterable[int]) -> list[int]:
        """Those of them whose checkpoint has what a run goes on from, newest first."""
        return sorted((u for u in updates if (self.path(u) / "training").is_dir()), reverse=True)

    def newest_whole(self, updates: Iterable[int]) -> int:
        """The newest of these updates whose checkpoint can be gone on from, 0 if none can; what is torn or altered is named."""
        for update in self.resumable(updates):
            try:
                check_sums(self.path(update), covers=("config.json", WEIGHTS_FILE))
                check_sums(self.path(update) / "training", covers=("state.json", MOMENTS))
            except BundleError as error:
                refuse_newer(self.path(update))
                self.say(f"passing over {self.path(update).name}: {error}")
                continue
            open_bundle(self.path(update), trusted=True)
            return update
        return 0

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
            self.say(f"{path / name} is in {place} now: the checkpoint goes")

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
