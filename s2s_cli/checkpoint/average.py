"""`s2s average`: the mean of the weights of checkpoints of one model, as a bundle like any other.

Tensors are read one at a time, so that the peak of memory is about one model, however many are averaged.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2s_cli.checkpoint.bundle import (
    WEIGHTS,
    Bundle,
    common_precision,
    differences,
    find_bundle,
    open_bundle,
    open_tensors,
    rank,
    save_bundle,
)
from s2s_cli.config import AverageSettings
from s2s_cli.errors import BundleError, ConfigError
from s2s_cli.runtime import tell


def average(settings: AverageSettings) -> None:
    """The subcommand: choose bundles, check that they belong together, write their average."""
    paths = _choose(settings)
    bundles = [open_bundle(path) for path in paths]
    output = settings.output.resolve()
    in_a_run = output.parent.name == "checkpoints" and (output.parent.parent / "config.yaml").is_file()
    if output in [path.resolve() for path in paths] or in_a_run or (output / "training").is_dir():
        raise ConfigError(
            f"-o would write over {settings.output}, which is averaged or a run's checkpoint: choose another name"
        )
    first = bundles[0]
    for other in bundles[1:]:
        _check_alike(first, other)
    weights = settings.weight or [1.0] * len(bundles)
    if len(weights) != len(bundles):
        raise ConfigError(f"{len(bundles)} checkpoints are averaged, and --weight is given {len(weights)} times")
    made_of = zip(weights, bundles, strict=True)
    origin: dict[str, Any] = {
        "averaged": [{"bundle": b.path.name, "weight": weight, **b.origin} for weight, b in made_of]
    }
    if precision := common_precision(bundles):
        origin["precision"] = precision
    save_bundle(settings.output, mean_weights(bundles, weights), first.model, first.search, first.vocabs, origin)
    tell(f"averaged {len(bundles)} checkpoints into {settings.output}: {', '.join(path.name for path in paths)}")


def _choose(settings: AverageSettings) -> list[Path]:
    """The bundles to average: those named, or of a run the last N, the best N, or all."""
    run = settings.bundle[0]
    if len(settings.bundle) > 1 or (run / "config.json").is_file():
        if settings.last or settings.best:
            raise ConfigError("--last and --best choose among the checkpoints of one run folder: name one run with -m")
        return [find_bundle(path) for path in settings.bundle]
    kept = sorted(path for path in (run / "checkpoints").glob("step-*") if path.name[5:].isdigit())
    if not kept:
        raise BundleError(
            f"{run} is no run folder with checkpoints: name one with -m, or several bundles, each with -m"
        )
    origins = [(path, open_bundle(path, trusted=True).origin) for path in kept]
    scored = [(path, origin) for path, origin in origins if "loss" in origin]  # one saved by a signal has no score
    if settings.best:
        scored.sort(key=lambda item: _rank(item[1], settings.metric, item[0]))
    else:
        scored.sort(key=lambda item: -item[1]["update"])
    chosen = [path for path, _ in scored]
    wanted = settings.last or settings.best or len(chosen)
    if wanted > len(chosen) or not chosen:
        raise ConfigError(
            f"{run} keeps {len(chosen)} validated checkpoints, {wanted} are wanted: "
            "train with larger --keep-last and --keep-best"
        )
    return chosen[:wanted]


def _rank(origin: dict[str, Any], metric: str | None, path: Path) -> tuple[float, float, int]:
    """The order of `best`: by `metric`, or the run's own."""
    name = metric or origin["metric"]
    if name not in origin:
        raise ConfigError(f"{path} has no {name}: train with --valid-also {name} to have it recorded")
    return rank(origin, name)


def _check_alike(first: Bundle, other: Bundle) -> None:
    if other.vocabs.fingerprints != first.vocabs.fingerprints:
        raise BundleError(f"{other.path} and {first.path} have different vocabularies: their average means nothing")
    if different := differences(first.model, other.model):
        raise BundleError(
            f"{first.path} and {other.path} are models of different shapes: {'; '.join(different.values())}"
        )


def mean_weights(bundles: list[Bundle], weights: list[float]) -> dict[str, Tensor]:
    """The weighted mean of each tensor, summed in fp64 so that a bundle averaged with itself is itself.

    Each file is open for one tensor at a time only: what was read of an open file counts as memory in use.
    """
    for bundle in bundles:
        bundle.check_weights()
    names = _names(bundles[0])
    for bundle in bundles[1:]:
        if different := names ^ _names(bundle):
            raise BundleError(f"{bundle.path} and {bundles[0].path} hold different tensors: {min(different)}")
    weights = [weight / max(weights) for weight in weights]  # whose sum is a number
    mean = {}
    for name in sorted(names):
        total = _read(bundles[0], name).double() * weights[0]
        for bundle, weight in zip(bundles[1:], weights[1:], strict=True):
            tensor = _read(bundle, name)
            if tensor.shape != total.shape:
                raise BundleError(f"{bundle.path}: {name} is {tuple(tensor.shape)}, not {tuple(total.shape)}")
            total += tensor.double() * weight
        mean[name] = (total / sum(weights)).to(torch.float32)
    return mean


def _names(bundle: Bundle) -> set[str]:
    with open_tensors(bundle.path / WEIGHTS) as file:
        return set(file.keys())


def _read(bundle: Bundle, name: str) -> Tensor:
    with open_tensors(bundle.path / WEIGHTS) as file:
        return file.get_tensor(name)
