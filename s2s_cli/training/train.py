"""`s2s train`: from a dataset folder to a run folder.

It puts the parts together (dataset, model, optimizer, checkpoints), refuses to go on with a run whose settings have
changed, and hands over to the loop in `trainer.py`.
"""

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import yaml

from s2s_cli.checkpoint.bundle import sizes
from s2s_cli.config import LOWER_IS_BETTER, Config
from s2s_cli.data.dataset import MANIFEST, Dataset
from s2s_cli.errors import ConfigError, DataError, S2SError
from s2s_cli.models.build import build_model, num_parameters
from s2s_cli.runtime import Log, Runtime, StopSignal, lock, seed_for
from s2s_cli.training.dry_run import dry_run
from s2s_cli.training.init_from import first_weights
from s2s_cli.training.optim import Average, build_optimizer, freeze
from s2s_cli.training.state import Checkpoints, Learner, Progress
from s2s_cli.training.trainer import Trainer, clock

# What may change between two commands on one run folder: nothing of it changes a weight at any update.
_FREE = {
    *("max_updates", "max_epochs", "patience", "keep_last", "keep_best"),
    *("log_every", "run", "data", "preset", "dry_run"),
}
_SCORED = ("tokenize", "lowercase", "smooth", "chrf_", "ter_", "rouge_")  # options that change a validation score


def train(config: Config) -> None:
    """The subcommand: begin a run or go on with one, until it is done."""
    settings = config.train
    dataset = Dataset.open(settings.data)
    if not dataset.valid_src or not len(dataset.valid):
        raise DataError(f"{settings.data} has no validation text: run preprocess again with some")
    runtime = Runtime.start(config.runtime, join=True)
    try:
        if settings.dry_run:
            dry_run(config, dataset, _fresh_learner(config, dataset, runtime), runtime)
            return
        with StopSignal() as stop, _hold(settings.run, _fixed(config, dataset.folder, runtime.world), runtime):
            _run(config, dataset, runtime, stop)
    finally:
        runtime.close()


def _run(config: Config, dataset: Dataset, runtime: Runtime, stop: StopSignal) -> None:
    settings = config.train
    learner = _fresh_learner(config, dataset, runtime)
    checkpoints = Checkpoints(
        settings.run,
        settings.valid_metric,
        settings.valid_metric not in LOWER_IS_BETTER,
        settings.keep_last,
        settings.keep_best,
    )
    progress = _resume(checkpoints, learner, runtime)
    log = Log(settings.run, silent=not runtime.is_main)
    log.rewind(progress.update, progress.history[-1]["update"] if progress.history else 0)
    frozen = sum(p.numel() for p in learner.model.parameters() if not p.requires_grad)
    log.say(
        f"{config.model.family}, {num_parameters(learner.model):,} parameters"
        f"{f', {frozen:,} of them frozen' if frozen else ''}; {len(dataset.train):,} training pairs, "
        f"{len(dataset.valid_src):,} for validation; {runtime}"
    )
    if progress.update:
        log.say(f"going on after update {progress.update}, epoch {progress.position[0]}")
    elif reports := first_weights(learner.model, dataset.vocabs, settings):
        for report in reports:
            log.say(report)
        if learner.average is not None:
            learner.average = Average(learner.model, settings.ema)
    trainer = Trainer(config, dataset, learner, checkpoints, progress, runtime, log)
    if trainer.is_done():
        log.say(f"nothing left to do: {trainer.reason_to_stop()}; raise that limit to train further")
        return
    reason = trainer.run(stop)
    best = next(r for r in progress.history if r["update"] == checkpoints.ranked(progress.history)[0])
    log.say(
        f"done in {clock(progress.seconds)}: {reason}; best {settings.valid_metric} "
        f"{best[settings.valid_metric]:.2f} at update {best['update']}: {settings.run / 'best'}"
    )


def _fresh_learner(config: Config, dataset: Dataset, runtime: Runtime) -> Learner:
    seed_for(config.train.seed)
    model = build_model(config.model, sizes(dataset.vocabs)).to(runtime.device)
    freeze(model, config.train.freeze)
    average = Average(model, config.train.ema) if config.train.ema else None
    return Learner(model, build_optimizer(model, config.train), average)


def _resume(checkpoints: Checkpoints, learner: Learner, runtime: Runtime) -> Progress:
    """The main process chooses the checkpoint and cleans up; the others then load the same one."""
    progress = checkpoints.resume(learner) if runtime.is_main else Progress()
    update = runtime.share(progress.update)
    return progress if runtime.is_main or not update else checkpoints.load(learner, update)


@contextlib.contextmanager
def _hold(run: Path, settings: dict[str, Any], runtime: Runtime) -> Any:
    """The run folder, made if need be and locked, with settings that are its own; the main process sees to that."""
    if not runtime.is_main:
        yield
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise S2SError(f"{run} cannot be made a run folder: {error.strerror}; choose another with --run") from None
    with lock(run):
        _hold_to(run / "config.yaml", settings)
        yield


def _fixed(config: Config, data: Path, world: int) -> dict[str, Any]:
    """The settings that make the weights, as plain values. What counts of accumulation is the batches of all processes."""
    free = _FREE - ({"max_updates", "max_epochs"} if config.train.schedule in ("cosine", "linear") else set())
    train = {k: v for k, v in config.train.model_dump(mode="json").items() if k not in free}
    manifest = hashlib.sha256((data / MANIFEST).read_bytes()).hexdigest()
    return {
        "model": config.model.model_dump(mode="json"),
        "train": train | {"accumulate": config.train.accumulate * world},
        "noise": config.noise.model_dump(mode="json"),
        "search": config.search.model_dump(mode="json"),
        "score": {k: v for k, v in config.score.model_dump(mode="json").items() if k.startswith(_SCORED)},
        "runtime": {"precision": config.runtime.precision},
        "data": {"sha256": manifest},
    }


def _hold_to(path: Path, settings: dict[str, Any]) -> None:
    """Write a new run's settings, or compare an old one's. Raises ConfigError that names each difference.

    A run without a checkpoint is a new one still: a mistake that ended it, such as a misspelt path, can be put right.
    A setting that the run's file does not have is newer than the run, which was made with what is now its default.
    """
    if not path.exists() or not any((path.parent / "checkpoints").glob("step-*")):
        beside = path.with_suffix(".tmp")
        beside.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        beside.replace(path)
        return
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        changes = [
            f"  {section}.{key}: the run has {old!r}, now {new!r}"
            for section, values in settings.items()
            for key, new in values.items()
            if (old := (before.get(section) or {}).get(key, _default(section, key, settings))) != new
        ]
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as the settings of a run: {error}") from None
    if changes:
        raise ConfigError(
            f"{path.parent} holds a run with other settings:\n" + "\n".join(changes) + "\n"
            "Give it its own settings back, or choose another folder with --run. "
            f"Free to change: {', '.join(sorted(_FREE))}."
        )


def _default(section: str, key: str, settings: dict[str, Any]) -> Any:
    if section == "data":
        return None
    given = {"model": {"family": settings["model"]["family"]}} if section == "model" else {}
    return getattr(Config.model_validate(given), section).model_dump(mode="json")[key]
