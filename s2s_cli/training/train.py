"""`s2s train`: from a dataset folder to a run folder.

It puts the parts together (dataset, model, optimizer, checkpoints), refuses to go on with a run whose settings have
changed, and hands over to the loop in `trainer.py`.
"""

import os
import shutil

import numpy as np
import torch

from s2s_cli.checkpoint.bundle import sizes
from s2s_cli.config import Config
from s2s_cli.config.duration import clock
from s2s_cli.data.dataset import Dataset
from s2s_cli.errors import ConfigError, DataError
from s2s_cli.models.build import build_model, num_parameters
from s2s_cli.runtime import Runtime, StopSignal, keep_memory, seed_for
from s2s_cli.training.board import Board
from s2s_cli.training.checkpoints import Checkpoints
from s2s_cli.training.dry_run import dry_run
from s2s_cli.training.finish import finish
from s2s_cli.training.fit import fitting
from s2s_cli.training.hold import hold, hold_to, recorded_batch_tokens, recorded_max_src_len
from s2s_cli.training.init_from import first_weights
from s2s_cli.training.log import Log
from s2s_cli.training.optim import Average, build_optimizer, freeze, shards_of
from s2s_cli.training.state import Learner, Progress
from s2s_cli.training.trainer import Trainer
from s2s_cli.training.validate import chosen_lines, chosen_pairs

_CHANCE = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
)  # drawn anew for each sentence; layers fall out of a whole batch


def train(config: Config) -> None:
    """The subcommand: begin a run or go on with one, until it is done."""
    settings = config.train
    if settings.consistency == "rdrop" and not any(getattr(config.model, name, 0.0) for name in _CHANCE):
        raise ConfigError("train.consistency is rdrop, whose two readings differ by dropout: set model.dropout above 0")
    dataset = Dataset.open(settings.data)
    # All text is read now, while it is of this dataset.
    if not (dataset.valid_src and dataset.valid_tgt and len(dataset.valid)):
        raise DataError(f"{settings.data} has no validation text: run preprocess again with some")
    if not len(chosen_pairs(dataset, settings.valid_subset)):
        raise DataError(
            f"{settings.data}: each line that train.valid_subset chooses has a blank side: let it choose more"
        )
    config = _with_source_cut(config, dataset)
    runtime = Runtime.start(config.runtime, join=True)
    keep_memory()
    try:
        with runtime.step():
            if runtime.share(dataset.digest) != dataset.digest:
                raise DataError(
                    f"{settings.data} is being replaced, or is not the same for all processes: run this again"
                )
        _check_kernels(config, runtime)
        if settings.dry_run:
            with runtime.step():
                learner = _fresh_learner(config, dataset, runtime)
                reports = first_weights(learner.model, dataset.vocabs, settings)
            dry_run(_with_batch_tokens(config, dataset, learner, runtime), dataset, learner, runtime, reports)
            return
        with StopSignal() as stop, hold(settings.run, runtime):
            with stop.at_once("stopped before the first update; the same command goes on from here"):
                trainer = _begin(config, dataset, runtime)
            _finish(trainer, stop)
    finally:
        runtime.close()


def _begin(config: Config, dataset: Dataset, runtime: Runtime) -> Trainer:
    """All that a run is made of, where its last command left it."""
    settings = config.train
    with runtime.step():
        log = Log(settings.run, silent=not runtime.is_main)
        checkpoints = Checkpoints(settings.run, settings.valid_metric, settings.keep_last, settings.keep_best, log.say)
        if runtime.is_main:
            checkpoints.tidy()
    with runtime.step():
        learner = _fresh_learner(config, dataset, runtime)
    is_auto = settings.batch_tokens == "auto"
    config = _with_batch_tokens(config, dataset, learner, runtime)
    settings = config.train
    with runtime.step():
        if runtime.is_main:
            hold_to(settings.run, config, dataset, runtime, log.say)
    progress = _resume(checkpoints, learner, runtime)
    with runtime.step():
        log.rewind(progress.update, progress.history[-1]["update"] if progress.history else 0)
        if settings.tensorboard and runtime.is_main:
            log.also = Board(settings.run, progress.seconds).write
    frozen = sum(p.numel() for p in learner.model.parameters() if not p.requires_grad)
    log.say(
        f"preset {settings.preset}: {config.model.family}, {num_parameters(learner.model):,} parameters"
        f"{f', {frozen:,} of them frozen' if frozen else ''}; {len(dataset.train):,} training pairs, "
        f"{len(chosen_lines(len(dataset.valid_src), settings.valid_subset)):,} for validation; {runtime}"
        + (f"; batches of {settings.positions:,} positions" if is_auto else "")
    )
    if runtime.advice and not progress.update:
        log.say(runtime.advice)
    longest = np.maximum(dataset.train.src_len, dataset.train.tgt_len) + 1
    if not progress.update and (num_large := int((longest > settings.positions).sum())):
        log.say(
            f"{num_large:,} training pairs are longer than train.batch_tokens ({settings.positions:,}): a batch each"
        )
    src_len, most = dataset.valid.src_len[chosen_pairs(dataset, settings.valid_subset)], config.search.max_src_len
    if not progress.update and (num_cut := int((src_len > most).sum())):
        log.say(
            f"{num_cut:,} sources of the validation text are cut to {most:,} pieces (--max-src-len), as `translate` does"
        )
    if not progress.update and _scores_miss_case(config, dataset):
        log.say(
            f"the model writes lower case and the validation text has upper case, which {settings.valid_metric} tells apart: "
            "`score: {lowercase: true}` in s2s.yaml has it leave case alone"
        )
    if progress.update:
        _tell_of_going_on(log, progress, runtime)
    else:
        with runtime.step():
            reports = first_weights(learner.model, dataset.vocabs, settings)
        for report in reports:
            log.say(report)
        if runtime.world > 1:  # what each has read may have been replaced in between
            runtime.spread([p.detach() for p in learner.model.parameters()], 0)
        if reports and learner.average is not None:
            learner.average = Average(learner.model, settings.ema)
    trainer = Trainer(config, dataset, learner, checkpoints, progress, runtime, log)
    if not progress.update and settings.warmup >= trainer.num_updates > 1:
        log.say(
            f"warmup ({settings.warmup}) is as long as the run, or longer ({trainer.num_updates} updates): its learning rate "
            "never falls, and may stay small; lower --warmup, or train longer"
        )
    return trainer


def _tell_of_going_on(log: Log, progress: Progress, runtime: Runtime) -> None:
    """Where a run goes on, and what of this machine may round otherwise than that of before."""
    log.say(f"going on after update {progress.update}, epoch {progress.position[0]}")
    before = progress.history[-1].get("precision") if progress.history else None
    if before and before != runtime.precision:  # auto, and another machine
        log.say(f"{runtime.precision} from here on, where it was {before}: this machine is no faster in that")
    threads = torch.get_num_threads()
    if runtime.device.type == "cpu" and progress.threads not in (0, threads):
        log.say(f"{threads} threads from here on, where it was {progress.threads}: sums are rounded otherwise")
    if size := min(filter(None, progress.too_large), default=0):
        log.say(f"batches of {size:,} positions were too large for the memory: such are split, as before")


def _scores_miss_case(config: Config, dataset: Dataset) -> bool:
    """Whether no output can score what its reference would, for want of upper case. ROUGE knows none, TER only if told to."""
    blind = config.score.lowercase or config.train.valid_metric.startswith(("loss", "rouge", "ter"))
    return dataset.vocabs.tgt.rules.lowercase and not blind and any(line != line.lower() for line in dataset.valid_tgt)


def _finish(trainer: Trainer, stop: StopSignal) -> None:
    """Train until the run is over, and say what came of it."""
    settings, log, checkpoints = trainer.settings, trainer.log, trainer.checkpoints
    if trainer.is_done():
        progress = trainer.progress
        reason = trainer.reason_to_stop()
        # Where a schedule has come to its end, the rate is lowest, and the limit that says where that is may not change.
        at_its_end = settings.schedule in ("cosine", "linear") and "(patience)" not in reason
        over = progress.time_used >= 1.0 or at_its_end
        hint = "begin another run with --init-from" if over else "raise that limit"
        average = finish(trainer, stop) if settings.max_time is not None else ""
        log.say(f"nothing left to do: {reason}; {hint} to train further{average}")
        return
    reason = trainer.run(stop)
    average = ""
    if trainer.runtime.share(not trainer.has_time()) and min(settings.keep_best, len(trainer.progress.history)) > 1:
        average = "; no time was left to score an average of the best, the same command makes one"
    elif settings.max_time is not None:
        average = finish(trainer, stop)
    progress = trainer.progress
    best = next(r for r in progress.history if r["update"] == checkpoints.ranked(progress.history)[0])
    log.say(
        f"done in {clock(progress.seconds)}: {reason}; best {settings.valid_metric} "
        f"{best[settings.valid_metric]:.2f} at update {best['update']}{average}: {settings.run / 'best'}"
    )


def _fresh_learner(config: Config, dataset: Dataset, runtime: Runtime) -> Learner:
    seed_for(config.train.seed)
    model = build_model(config.model, sizes(dataset.vocabs)).to(runtime.device)
    if config.runtime.compile:
        model.compile_layers()
    freeze(model, config.train.freeze)
    average = Average(model, config.train.ema) if config.train.ema else None
    shards = shards_of(model, runtime.world) if config.train.shard_optimizer and runtime.world > 1 else []
    if not all(shards):
        raise ConfigError(
            f"train.shard_optimizer: fewer tensors learn than there are processes ({runtime.world}): leave it out"
        )
    optimizer = build_optimizer(model, config.train, shards[runtime.rank] if shards else None)
    return Learner(model, optimizer, average, shards)


def _check_kernels(config: Config, runtime: Runtime) -> None:
    """Raise ConfigError for what torch would refuse in the midst of an update."""
    model, settings, on_cuda = config.model, config.runtime, runtime.device.type == "cuda"
    sums = model.coverage or getattr(model, "autoregression", "") == "aan"
    if settings.deterministic and on_cuda and sums:
        raise ConfigError("runtime.deterministic: coverage and average attention have no deterministic kernels on CUDA")
    if not settings.compile:
        return
    if not on_cuda:
        raise ConfigError(
            "runtime.compile is for CUDA devices, and this is a CPU, where it gains nothing: leave it out"
        )
    if settings.deterministic:
        raise ConfigError("runtime.compile may choose other kernels each time: leave out it or runtime.deterministic")
    if not os.environ.get("CC") and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        raise ConfigError(
            "runtime.compile needs a C compiler, and there is none: install gcc or clang, or leave it out"
        )


def _with_source_cut(config: Config, dataset: Dataset) -> Config:
    """With sources cut in search where those of training were, and no sooner, unless the user has said where."""
    if "max_src_len" in config.search.model_fields_set:
        return config
    settings, most = dataset.manifest["settings"], config.search.max_src_len
    of_training = settings.get("src_truncate") or max(most, settings.get("max_len", 0))
    cut = recorded_max_src_len(config.train.run) or of_training  # a run that has begun goes on as it is
    return config.model_copy(update={"search": config.search.model_copy(update={"max_src_len": cut})})


def _with_batch_tokens(config: Config, dataset: Dataset, learner: Learner, runtime: Runtime) -> Config:
    """With a number where `batch_tokens` is auto: that of the run, if it goes on, else the largest that fits."""
    settings = config.train
    if settings.batch_tokens != "auto":
        return config
    with runtime.step():
        size = recorded_batch_tokens(settings.run) if runtime.is_main and not settings.dry_run else None
    size = runtime.share(size)
    if size is None:
        size = fitting(config, dataset, learner, runtime)
        seed_for(settings.seed)
    return config.model_copy(update={"train": settings.model_copy(update={"batch_tokens": size})})


def _resume(checkpoints: Checkpoints, learner: Learner, runtime: Runtime) -> Progress:
    """The main process chooses the checkpoint and cleans up; the others then load the same one."""
    progress = Progress()
    with runtime.step():
        if runtime.is_main:
            progress = checkpoints.resume(learner)
    update = runtime.share(progress.update)
    with runtime.step():
        if update and not runtime.is_main:
            progress = checkpoints.load(learner, update)
    return progress
