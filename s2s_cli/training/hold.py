"""The run folder of one command: locked while it works, and held to the settings and the dataset it was begun with."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from s2s_cli.config import Config
from s2s_cli.data.dataset import MANIFEST, Dataset
from s2s_cli.errors import ConfigError, S2SError
from s2s_cli.runtime import Runtime, lock

# What may change between two commands on one run folder: nothing of it changes a weight at any update.
_FREE = {
    *("max_updates", "max_epochs", "patience", "keep_last", "keep_best"),
    *("log_every", "tensorboard", "run", "data", "preset", "dry_run", "shard_optimizer"),
}
_SCORED = ("tokenize", "lowercase", "smooth", "chrf_", "ter_", "rouge_")  # options that change a validation score
_FILE = "config.yaml"


@contextlib.contextmanager
def hold(run: Path, runtime: Runtime) -> Iterator[None]:
    """The run folder, made if need be, and no other process's; the main process sees to that."""
    if not runtime.is_main:
        yield
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise S2SError(f"{run} cannot be made a run folder: {error.strerror}; choose another with --run") from None
    with lock(run):
        yield


def hold_to(run: Path, config: Config, dataset: Dataset, world: int) -> None:
    """Write a new run's settings, or compare an old one's. Raises ConfigError that names each difference.

    A run without a checkpoint is a new one still: a mistake that ended it, such as a misspelt path, can be put right.
    A setting that the run's file does not have is newer than the run, which was made with what is now its default.
    """
    settings = _fixed(config, dataset, world)
    before = _recorded(run)
    if before is None:
        beside = (run / _FILE).with_suffix(".tmp")
        beside.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        beside.replace(run / _FILE)
        return
    data, old_data = settings.pop("data"), before.get("data") or {}
    changes = [
        f"  {section}.{key}: the run has {old!r}, now {new!r}"
        for section, values in settings.items()
        for key, new in values.items()
        if (old := (before.get(section) or {}).get(key, _default(section, key, settings))) != new
    ]
    if old_data.get("sha256") != data["sha256"]:
        changes += [
            f"  data.{key}: the run has {old_data[key]!r}, now {new!r}"
            for key, new in data.items()
            if key in old_data and old_data[key] != new
        ]
    if changes:
        raise ConfigError(
            f"{run} holds a run with other settings:\n" + "\n".join(changes) + "\n"
            "Give it its own settings back, or choose another folder with --run. "
            f"Free to change: {', '.join(sorted(_FREE))}."
        )


def recorded_batch_tokens(run: Path) -> int | None:
    """What `batch_tokens: auto` came to when the run was begun; None for a new run."""
    before = _recorded(run)
    if before is None:
        return None
    size = before.get("train", {}).get("batch_tokens")
    if not isinstance(size, int):
        raise ConfigError(f"{run / _FILE} cannot be read as the settings of a run: its batch_tokens is {size!r}")
    return size


def _recorded(run: Path) -> dict[str, Any] | None:
    """The settings of a run that has a checkpoint."""
    path = run / _FILE
    if not path.exists() or not any((run / "checkpoints").glob("step-*")):
        return None
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as the settings of a run: {error}") from None
    if not isinstance(before, dict) or not all(isinstance(section, dict) for section in before.values()):
        raise ConfigError(f"{path} cannot be read as the settings of a run: it has no sections")
    return before


def _fixed(config: Config, dataset: Dataset, world: int) -> dict[str, Any]:
    """The settings that make the weights, as plain values. What counts of accumulation is the batches of all processes."""
    free = _FREE - ({"max_updates", "max_epochs"} if config.train.schedule in ("cosine", "linear") else set())
    train = {k: v for k, v in config.train.model_dump(mode="json").items() if k not in free}
    return {
        "model": config.model.model_dump(mode="json"),
        "train": train | {"accumulate": config.train.accumulate * world},
        "noise": config.noise.model_dump(mode="json"),
        "search": config.search.model_dump(mode="json"),
        "score": {k: v for k, v in config.score.model_dump(mode="json").items() if k.startswith(_SCORED)},
        "runtime": {"precision": config.runtime.precision},
        "data": _data(dataset),
    }


def _data(dataset: Dataset) -> dict[str, Any]:
    """What a dataset is recognised by, and what it is told apart by if it is another."""
    manifest = dataset.manifest
    found: dict[str, Any] = {"sha256": hashlib.sha256((dataset.folder / MANIFEST).read_bytes()).hexdigest()}
    for part in ("train", "valid"):
        counts = manifest[part]
        found |= {f"{part}_pairs": counts["kept"]}
        found |= {f"{part}_{side}_tokens": counts[f"{side}_tokens"] for side in ("src", "tgt")}
    for side, digest in manifest["vocab"]["fingerprints"].items():
        found[f"{side}_vocabulary"] = f"{manifest['vocab'][f'{side}_size']} pieces, {digest[:12]}"
    return found | {f"preprocess.{key}": value for key, value in manifest["settings"].items()}


def _default(section: str, key: str, settings: dict[str, Any]) -> Any:
    given = {"model": {"family": settings["model"]["family"]}} if section == "model" else {}
    return getattr(Config.model_validate(given), section).model_dump(mode="json")[key]
