"""The end of a run with a time limit: the average of its best checkpoints, validated like any of them.

What it does is a function of the history and of the checkpoints that are there, so that a run whose end was interrupted ends
the same way when the command is given again.
"""

import math
from contextlib import suppress

from s2s_cli.checkpoint.average import mean_weights
from s2s_cli.checkpoint.bundle import open_bundle, save_bundle, weights_of
from s2s_cli.errors import BundleError, Interrupted
from s2s_cli.runtime import StopSignal
from s2s_cli.training.state import Record
from s2s_cli.training.trainer import Trainer

AVERAGED = "averaged"  # its bundle, among those of the updates


def finish(trainer: Trainer, stop: StopSignal) -> str:
    """Average the best checkpoints that a run has kept, and let `best` be the average if it scores better than they.

    The main process does the work, with the model, which no longer learns; says what became of it. All raise Interrupted after
    a signal.
    """
    said: str | None = ""
    with trainer.runtime.step():
        try:
            if trainer.runtime.is_main:
                said = _choose(trainer, _averaged(trainer, stop))
        except Interrupted:
            said = None
    said = trainer.runtime.share(said)
    if said is None:
        raise Interrupted(stop.signum or 15, "stopped while the average was scored; the same command goes on from here")
    return said


def _choose(trainer: Trainer, record: Record | None) -> str:
    """Let `best` be the average or the best checkpoint; what became of it, for people."""
    if record is None or not _is_better(trainer, record):
        trainer.checkpoints.point_to_best(trainer.progress.history)
        if record is None:
            return "; there is no average: that takes two validated checkpoints, and keep_best of at least 2"
        return f"; the average of {len(record['averaged'])} checkpoints is not better"
    trainer.checkpoints.point("best", trainer.checkpoints.folder / AVERAGED)
    return f"; better still, and best now: the average of {len(record['averaged'])} checkpoints"


def _averaged(trainer: Trainer, stop: StopSignal) -> Record | None:
    """Where the average comes from and its scores. It is made unless it is there; None where there are no two checkpoints."""
    checkpoints, progress, config = trainer.checkpoints, trainer.progress, trainer.config
    best = [checkpoints.path(update) for update in checkpoints.ranked(progress.history)]
    bundles = []
    for path in [path for path in best if path.is_dir()][: checkpoints.keep_best]:
        try:
            bundles.append(open_bundle(path))
        except BundleError as error:
            trainer.log.say(f"not averaged: {error}")
    path = checkpoints.folder / AVERAGED
    with suppress(BundleError):  # it is not there yet, or torn, and made anew
        there = open_bundle(path).origin
        made_of = [part["bundle"] for part in there.get("averaged", [])]
        is_same = len(bundles) < 2 or made_of == [bundle.path.name for bundle in bundles]
        if is_same and there.get("update") == progress.update and checkpoints.metric in there:
            if not trainer.log.has("average", progress.update):  # the process was killed in between
                _note(trainer, there)
            return there
    if len(bundles) < 2:
        return None
    trainer.log.say("averaging the best checkpoints, and scoring that")
    weights = mean_weights(bundles, [1.0] * len(bundles))
    model = trainer.learner.model
    for name, tensor in weights_of(model).items():
        tensor.copy_(weights[name])
    found = trainer.measure(model, stop)
    where = {"update": progress.update, "epoch": progress.position[0]}
    origin: Record = where | found.record(checkpoints.metric) | {"metric": checkpoints.metric}
    origin["averaged"] = [{"bundle": bundle.path.name, "weight": 1.0, **bundle.origin} for bundle in bundles]
    checkpoints.rescue(path)
    save_bundle(path, weights, config.model, config.search, trainer.dataset.vocabs, origin)
    _note(trainer, origin)
    trainer.log.say(f"average of {', '.join(bundle.path.name for bundle in bundles)}: {found}")
    return origin


def _note(trainer: Trainer, origin: Record) -> None:
    numbers = {name: value for name, value in origin.items() if name not in ("metric", "averaged")}
    trainer.log.metrics("average", **numbers, ppl=math.exp(min(700.0, origin["loss"])))


def _is_better(trainer: Trainer, record: Record) -> bool:
    """Whether it ranks before every validation of the run; of equals, the one that is no average comes first."""
    last = trainer.progress.update + 1
    return trainer.checkpoints.ranked([*trainer.progress.history, record | {"update": last}])[0] == last
