"""The run folder of one command: locked while it works, and held to the settings and the dataset it was begun with."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from s2s_cli.config import Config
from s2s_cli.config.duration import Duration
from s2s_cli.data.dataset import Dataset
from s2s_cli.errors import ConfigError, S2SError
from s2s_cli.runtime import Runtime, lock, tell, write_whole

# What may change between two commands on one run folder: nothing of it changes a weight at any update.
_FREE = {
    *("max_updates", "max_epochs", "patience", "save_every", "keep_last", "keep_best"),
    *("log_every", "tensorboard", "run", "data", "preset", "dry_run", "shard_optimizer"),
}
_PATHS = ("init_from", "src_embeddings", "tgt_embeddings")
_FREE_OF_SEARCH = {"search_tokens"}  # which no output depends on
_SCORED = ("tokenize", "lowercase", "smooth", "chrf_", "ter_", "rouge_")  # options that change a validation score
_FILE = "config.yaml"
# What the text of a dataset was called, which does not matter where its files are the same.
_NAME = re.compile(r"corpora\.\d+\.(name|files)|preprocess\.(corpus|(train|valid|test)(_src|_tgt)?|(src|tgt)_vocab)")


@contextlib.contextmanager
def hold(run: Path, runtime: Runtime) -> Iterator[None]:
    """The run folder, made if need be, and no other process's; the main process sees to that."""
    with contextlib.ExitStack() as held:
        with runtime.step():
            if runtime.is_main:
                try:
                    run.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise S2SError(
                        f"{run} cannot be made a run folder: {error.strerror}; choose another with --run"
                    ) from None
                held.enter_context(lock(run))
        yield


def hold_to(run: Path, config: Config, dataset: Dataset, runtime: Runtime, say: Callable[[str], object] = tell) -> None:
    """Write a new run's settings, or compare an old one's, and write those that may change. Raises ConfigError that names
    each difference.

    A run without a checkpoint is a new one still: a mistake that ended it, such as a misspelt path, can be put right. A setting
    that the run's file does not have is newer than the run, which was made with what is now its default. A change that is
    free, but not without effect, is told.
    """
    settings = _fixed(config, dataset, runtime.world)
    # So that the file goes on with the run, or begins such a one: all settings of training, as they were given last.
    kernels = config.runtime.model_dump(include={"compile", "deterministic"})
    here = {"processes": runtime.world, "device": runtime.device.type}
    given = {"train": config.train.model_dump(mode="json"), "data": settings["data"] | here}
    given["runtime"] = settings["runtime"] | kernels
    text = yaml.safe_dump(settings | given, sort_keys=False)
    before = _recorded(run)
    if before is None:
        write_whole(run / _FILE, text)
        return
    data = settings.pop("data")
    idle = config.train.idle() | config.noise.idle()  # which runs of before may have set, to no effect
    changes = [
        f"  {section}.{key}{_of_all(key)}: the run has {old!r}, now {new!r}"
        for section, values in settings.items()
        for key, new in values.items()
        if key not in idle
        and not _is_same(key, old := (before.get(section) or {}).get(key, _default(section, key, settings)), new)
    ]
    changes += _other_data(before.get("data") or {}, data)
    if changes:
        raise ConfigError(
            f"{run} holds a run with other settings:\n" + "\n".join(changes) + "\n"
            "Give it its own settings back, or choose another folder with --run (and begin from these weights with --init-from). "
            f"Free to change: {', '.join(sorted(_free(config) - {'data'} | _FREE_OF_SEARCH))}; where the data lie (data); and "
            "device, threads, compile, deterministic and, for as many batches an update, the number of processes, with which "
            "sums may be rounded otherwise."
        )
    if (run / _FILE).read_text(encoding="utf-8") != text:
        write_whole(run / _FILE, text)
    for name in ("keep_last", "keep_best"):
        old, new = before.get("train", {}).get(name, 0), getattr(config.train, name)
        least = 2 if name == "keep_last" else 1  # that stay anyhow
        if isinstance(old, int) and max(old, least) > max(new, least):
            say(f"{name} was {old} and is {new}: with the next validation, the checkpoints beyond go")
    for name, new in {**kernels, **here}.items():
        old = before.get("runtime", {}).get(name)
        if old not in (None, new):
            drawn = ", and dropout draws otherwise," if name == "processes" else ""
            say(f"{name} was {old} and is {new}: sums are rounded otherwise{drawn} from here on")


def recorded_batch_tokens(run: Path) -> int | None:
    """What `batch_tokens: auto` came to when the run was begun; None for a new run."""
    before = _recorded(run)
    if before is None:
        return None
    size = before.get("train", {}).get("batch_tokens")
    if not isinstance(size, int):
        raise ConfigError(f"{run / _FILE} cannot be read as the settings of a run: its batch_tokens is {size!r}")
    return size


def recorded_max_src_len(run: Path) -> int | None:
    """Where sources are cut in the validations of a run that has begun; None for a new run, and where it cannot be told."""
    with contextlib.suppress(ConfigError):
        most = ((_recorded(run) or {}).get("search") or {}).get("max_src_len")
        return most if isinstance(most, int) else None
    return None  # `hold_to` tells what is wrong


def _recorded(run: Path) -> dict[str, Any] | None:
    """The settings of a run that has a checkpoint."""
    path = run / _FILE
    if not any((run / "checkpoints").glob("step-*")):
        return None
    if not path.exists():
        raise ConfigError(f"{path} is missing, which says how the run was begun: put it back, or choose another --run")
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as the settings of a run: {error}") from None
    if not isinstance(before, dict) or not all(isinstance(section, dict) for section in before.values()):
        raise ConfigError(f"{path} cannot be read as the settings of a run: it has no sections")
    if "sha256" not in before.get("data", {}):  # which stand last
        raise ConfigError(f"{path} cannot be read as the settings of a run: it is cut short")
    processes, device = (before["data"].pop(name, default) for name, default in (("processes", 1), ("device", None)))
    before.setdefault("runtime", {}).update(processes=processes, device=device)
    accumulate = before.get("train", {}).get("accumulate", 1)
    if not (isinstance(processes, int) and isinstance(accumulate, int)):
        raise ConfigError(f"{path} cannot be read as the settings of a run: its batches cannot be counted")
    before.get("train", {})["accumulate"] = accumulate * processes  # what counts
    return before


def _free(config: Config) -> set[str]:
    """Training settings that may change; where the end of a run decides the learning rate, its limits may not."""
    return _FREE - ({"max_updates", "max_epochs"} if config.train.schedule in ("cosine", "linear") else set())


def _fixed(config: Config, dataset: Dataset, world: int) -> dict[str, Any]:
    """The settings that make the weights, as plain values. What counts of accumulation is the batches of all processes."""
    train = {k: v for k, v in config.train.model_dump(mode="json").items() if k not in _free(config)}
    return {
        "model": config.model.model_dump(mode="json"),
        "train": train | {"accumulate": config.train.accumulate * world},
        "noise": config.noise.model_dump(mode="json"),
        "search": config.search.model_dump(mode="json", exclude=_FREE_OF_SEARCH),
        "score": {k: v for k, v in config.score.model_dump(mode="json").items() if k.startswith(_SCORED)},
        "runtime": {"precision": config.runtime.precision},
        "data": _data(dataset),
    }


def _data(dataset: Dataset) -> dict[str, Any]:
    """What a dataset is recognised by, and what it is told apart by if it is another: all that its manifest says, a line each."""
    facts = {**dataset.manifest, "preprocess": dataset.manifest["settings"]}
    for name in ("settings", "made_by", "length_ratio"):  # the same files made by another version are the same data
        facts.pop(name, None)
    return {"sha256": dataset.digest, **dict(_lines("", facts))}


def _lines(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """`a.b.c`, and what stands there, for all that is neither a mapping nor a list of such."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        is_digest = isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)
        yield name, value[:16] if is_digest else value
        return
    for key, inner in value.items():
        yield from _lines(f"{name}.{key}" if name else str(key), inner)


def _other_data(before: dict[str, Any], data: dict[str, Any]) -> list[str]:
    """In what two datasets differ; nothing if they are the same one."""
    if before.get("sha256") == data["sha256"]:
        return []
    files = [{key: value for key, value in each.items() if key.startswith("files.")} for each in (before, data)]
    same_files = files[0] == files[1] != {}
    changes = [
        f"  data.{key}: the run has {old!r}, now {data[key]!r}"
        for key, old in before.items()
        if key in data and key != "sha256" and data[key] != old and not (same_files and _NAME.fullmatch(key))
    ]
    if not changes and (only := data.keys() ^ before.keys()):
        changes = [
            f"  data: dataset.json is another one; whether the data are the same cannot be told, since the run's notes or "
            f"the dataset have no {', '.join(sorted(only)[:3])}"
        ]
    return changes


def _is_same(key: str, old: Any, new: Any) -> bool:
    """Whether two plain values of a setting mean the same, however a time or a path is spelled."""
    if key in _PATHS and isinstance(old, str) and isinstance(new, str):
        return os.path.realpath(old) == os.path.realpath(new)
    if key == "max_time" and old and new:
        with contextlib.suppress(ValueError):
            return Duration(str(old)) == Duration(str(new))
    return bool(old == new)


def _of_all(key: str) -> str:
    return " (times processes)" if key == "accumulate" else ""


def _default(section: str, key: str, settings: dict[str, Any]) -> Any:
    given = {"model": {"family": settings["model"]["family"]}} if section == "model" else {}
    return getattr(Config.model_validate(given), section).model_dump(mode="json")[key]
