"""`s2s train`: from a dataset folder to a run folder.

It puts the parts together (dataset, model, optimizer, checkpoints), refuses to go on with a run whose settings have
changed, and hands over to the loop in `trainer.py`.
"""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from s2s_cli.checkpoint.bundle import sizes
from s2s_cli.config import Config
from s2s_cli.data.dataset import MANIFEST, Dataset
from s2s_cli.errors import ConfigError
from s2s_cli.models.build import build_model, num_parameters
from s2s_cli.runtime import Log, Runtime, lock, seed_for
from s2s_cli.training.optim import build_optimizer
from s2s_cli.training.state import Checkpoints
from s2s_cli.training.trainer import Trainer, clock

# What may change between two commands on one run folder: nothing of it changes a weight at any update.
_FREE = {"max_updates", "max_epochs", "patience", "keep_last", "keep_best", "log_every", "run", "data", "preset"}
_LOWER_IS_BETTER = {"loss", "ter"}


def train(config: Config) -> None:
    """The subcommand: begin a run or go on with one, until it is done."""
    settings = config.train
    dataset = Dataset.open(settings.data)
    settings.run.mkdir(parents=True, exist_ok=True)
    with lock(settings.run):
        runtime = Runtime.start(config.runtime)
        _hold_to(settings.run / "config.yaml", _fixed(config, dataset.folder))
        seed_for(settings.seed)
        model = build_model(config.model, sizes(dataset.vocabs)).to(runtime.device)
        optimizer = build_optimizer(model, settings)
        checkpoints = Checkpoints(
            settings.run,
            settings.valid_metric,
            settings.valid_metric not in _LOWER_IS_BETTER,
            settings.keep_last,
            settings.keep_best,
        )
        progress = checkpoints.resume(model, optimizer)
        log = Log(settings.run)
        log.rewind(progress.update)
        log.say(
            f"{config.model.family}, {num_parameters(model):,} parameters; {len(dataset.train):,} training pairs, "
            f"{len(dataset.valid_src):,} for validation; {runtime}"
        )
        if progress.update:
            log.say(f"going on after update {progress.update}, epoch {progress.position[0]}")
        trainer = Trainer(config, dataset, model, optimizer, checkpoints, progress, runtime, log)
        already = trainer.reason_to_stop()
        reason = already or trainer.run()
        if already:
            log.say(f"nothing left to do: {reason}; raise that limit to train further")
            return
        best = next(r for r in progress.history if r["update"] == checkpoints.ranked(progress.history)[0])
        log.say(
            f"done in {clock(progress.seconds)}: {reason}; best {settings.valid_metric} "
            f"{best[settings.valid_metric]:.2f} at update {best['update']}: {settings.run / 'best'}"
        )


def _fixed(config: Config, data: Path) -> dict[str, Any]:
    """The settings that make the weights, as plain values."""
    train = {k: v for k, v in config.train.model_dump(mode="json").items() if k not in _FREE}
    manifest = hashlib.sha256((data / MANIFEST).read_bytes()).hexdigest()
    return {
        "model": config.model.model_dump(mode="json"),
        "train": train,
        "search": config.search.model_dump(mode="json"),
        "data": {"sha256": manifest},
    }


def _hold_to(path: Path, settings: dict[str, Any]) -> None:
    """Write a new run's settings, or compare an old one's. Raises ConfigError that names each difference."""
    if not path.exists():
        beside = path.with_suffix(".tmp")
        beside.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        beside.replace(path)
        return
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    changes = [
        f"  {section}.{key}: the run has {old!r}, now {new!r}"
        for section, values in settings.items()
        for key, new in values.items()
        if (old := (before.get(section) or {}).get(key)) != new
    ]
    if changes:
        raise ConfigError(
            f"{path.parent} holds a run with other settings:\n" + "\n".join(changes) + "\n"
            "Give it its own settings back, or choose another folder with --run. "
            f"Free to change: {', '.join(sorted(_FREE))}."
        )
