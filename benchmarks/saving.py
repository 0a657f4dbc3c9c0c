#!/usr/bin/env python3
"""How long saving a checkpoint holds training up, and how long it takes to be written.

    python benchmarks/saving.py [--shapes tiny base] [--saves 8] [--out benchmarks/results/saving.json]

`train` on the text of train.py, batches of 4,096 tokens, a checkpoint as often as it looks whether one is due, at every tenth
update. Of each save, *held up* is how long no update was made: copying weights and moments, syncing the log, and waiting for the
disk if the save before was not done. *Written* is how long the thread took that writes, syncs and clears away, beside which
updates go on; what those cost more then is told by the medians of updates with and without it. *Plain* are the seconds in which
the disk takes as much in one file, written and synced by itself.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

from conditions import ROOT, conditions
from decode import SHAPES
from peers.environments import default_folder
from peers.text import prepare

from s2s_cli.config import Config
from s2s_cli.runtime import Background
from s2s_cli.training.health import READ_EVERY
from s2s_cli.training.train import train
from s2s_cli.training.trainer import Trainer


class Watch:
    """Notes how long each save and each update took, and each job of the thread that writes."""

    def __init__(self) -> None:
        self.saves: list[float] = []
        self.updates: dict[bool, list[float]] = {True: [], False: []}  # whether something was written meanwhile
        self.written: list[float] = []
        self.writes = 0  # jobs that are not done

    def save(self, inner: Any, trainer: Trainer) -> None:
        """`Trainer._save`."""
        begun = time.perf_counter()
        inner(trainer)
        self.saves.append(time.perf_counter() - begun)

    def update(self, inner: Any, trainer: Trainer, stop: Any) -> bool:
        """`Trainer._update`."""
        before, begun = self.writes, time.perf_counter()
        done = inner(trainer, stop)
        self.updates[bool(before)].append(time.perf_counter() - begun)
        return done

    def run(self, inner: Any, background: Background, job: Any) -> None:
        """`Background.run`."""

        def timed() -> None:
            begun = time.perf_counter()
            try:
                job()
            finally:
                self.written.append(time.perf_counter() - begun)
                self.writes -= 1

        self.writes += 1
        inner(background, timed)


def _noted(self: Any, note: Any, inner: Any, *arguments: Any) -> Any:
    return note(inner, self, *arguments)


def watched(config: Config) -> Watch:
    """What there was to note of a training run."""
    watch = Watch()
    parts = ((Trainer, "_save", watch.save), (Trainer, "_update", watch.update), (Background, "run", watch.run))
    patches = [
        patch.object(owner, name, partialmethod(_noted, note, getattr(owner, name))) for owner, name, note in parts
    ]
    for one in patches:
        one.start()
    try:
        train(config)
    finally:
        for one in patches:
            one.stop()
    return watch


def plain(folder: Path, num_bytes: int) -> float:
    """Seconds to write a file of this size, and sync it."""
    block = os.urandom(2**24)
    begun = time.perf_counter()
    with open(folder / "plain", "wb") as file:
        for begin in range(0, num_bytes, len(block)):
            file.write(block[: num_bytes - begin])
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - begun


def spread(values: list[float]) -> dict[str, float]:
    """Median and range, of seconds."""
    return {name: round(of(values), 3) for name, of in (("median", statistics.median), ("min", min), ("max", max))}


def main() -> None:
    """Measure each shape, print and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--saves", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where the text of train.py lies")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "saving.json")
    options = parser.parse_args()
    about = {"benchmark": "saving"} | conditions(["s2s-cli", "torch"])
    text = prepare(options.folder)
    rows = []
    for shape in options.shapes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            settings = {
                "data": text / "data-bin",
                "run": Path(folder) / "run",
                "batch_tokens": 4096,
                "max_updates": READ_EVERY * options.saves + READ_EVERY // 2,
                "valid_every": 10**6,
                "valid_subset": 1,
                "save_every": "1s",
            }
            watch = watched(
                Config.model_validate({"model": {"family": "transformer"} | SHAPES[shape], "train": settings})
            )
            newest = Path(folder) / "run" / "last"
            num_bytes = sum(path.stat().st_size for path in newest.resolve().rglob("*") if path.is_file())
            watch.saves.pop()  # after the last update nothing is held up
            row: dict[str, Any] = {"shape": shape, "megabytes": round(num_bytes / 1e6), "saves": len(watch.saves)}
            row |= {"held up": spread(watch.saves), "written": spread(watch.written)}
            row |= {"update, while writing": spread(watch.updates[True]), "update": spread(watch.updates[False][2:])}
            row["plain"] = spread([plain(Path(folder), num_bytes) for _ in range(3)])
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
    options.out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
