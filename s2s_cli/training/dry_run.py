"""`s2s train --dry-run`: what a run will take, said before it is begun. It writes nothing."""

import time

from s2s_cli.config import Config
from s2s_cli.config.duration import clock
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import TrainStream
from s2s_cli.data.noise import Noise
from s2s_cli.models.build import num_parameters
from s2s_cli.runtime import Runtime, is_out_of_memory
from s2s_cli.training.fit import hardest, kept
from s2s_cli.training.optim import moments_of
from s2s_cli.training.state import Learner
from s2s_cli.training.update import Updater

_SAMPLE = 8  # batches that speed is measured over, after one that warms up


def dry_run(config: Config, dataset: Dataset, learner: Learner, runtime: Runtime, reports: list[str]) -> None:
    """Print sizes, `reports` of first weights, memory, updates an epoch, and the time of an epoch and of the run, measured on a
    few batches.
    """
    settings, model = config.train, learner.model
    noise = Noise.of(config.noise, dataset.vocabs, settings.seed)
    stream = TrainStream(
        dataset.train, dataset.vocabs, settings.positions, settings.seed, runtime.rank, runtime.world, noise=noise
    )
    num_batches = -(-stream.num_batches(0) // runtime.world)
    model.train()
    updater = Updater(learner, settings, runtime)
    num_tokens, num_sampled, begun = 0, min(_SAMPLE, num_batches), 0.0
    for i in range(num_sampled + 1):
        batch = stream.next()
        if i == 1:
            begun = time.monotonic()
        float(updater.gradients([batch], batch.num_tokens, settings.sampling_ramp)[0])  # waits for the device
        num_tokens += batch.num_tokens if i else 0
    seconds = (time.monotonic() - begun) / num_sampled * num_batches
    stream.close()
    try:
        activations = f"about {_mib(kept(learner, hardest(dataset, settings.positions), settings, runtime))}"
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        activations = "more than there is"
    if not runtime.is_main:
        return
    updates = num_batches / settings.accumulate
    total = settings.max_updates / updates
    epochs = min(total, settings.max_epochs) if settings.max_epochs else total
    weights = num_parameters(model) * 4
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad) * 4
    state = sum(t.numel() * t.element_size() for t in moments_of(model, learner.optimizer).values())
    average = weights if learner.average is not None else 0
    per_update = num_tokens / num_sampled * settings.accumulate * runtime.world
    print(f"model       {config.model.family}, {num_parameters(model):,} parameters; {runtime}")
    if runtime.advice:
        print(f"            {runtime.advice}")
    for report in reports:
        print(f"begins with {report}")
    print(f"data        {len(dataset.train):,} training pairs, {len(dataset.valid):,} for validation")
    print(
        f"memory      weights {_mib(weights)}, gradients {_mib(learning)}, optimizer {_mib(state)}"
        f"{', moving average ' + _mib(average) if average else ''},"
        f"\n            activations of the hardest batch {activations}"
    )
    if updater.too_large:
        print(f"            batches of {updater.too_large:,} positions are too large for it, and are split")
    print(f"batch       {settings.positions:,} positions")
    print(f"update      about {per_update:,.0f} target tokens")
    print(f"epoch       {updates:,.0f} updates, about {clock(seconds)} without validation")
    if settings.max_time is not None:
        epochs = min(epochs, settings.max_time / seconds)
    print(f"run         {epochs:,.1f} epochs, at most about {clock(seconds * epochs)}")


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
