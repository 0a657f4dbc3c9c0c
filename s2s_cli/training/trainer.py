"""The training loop: batches in, updates, validations and checkpoints out.

Everything it does at an update is a function of (settings, dataset, update number), so that a run that was stopped and
goes on ends with the same bits. It knows no model family and no command line.
"""

import contextlib
import math
import sys
import time
from typing import Any

from s2s_cli.config import Config
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import TrainStream
from s2s_cli.data.noise import Noise
from s2s_cli.errors import Interrupted
from s2s_cli.runtime import Log, Runtime, StopSignal
from s2s_cli.training.optim import learning_rate, plateau_drops
from s2s_cli.training.state import Checkpoints, Learner, Progress, Record, Tally
from s2s_cli.training.update import Updater
from s2s_cli.training.validate import validate


class Trainer:
    """One run, from where `progress` stands to its end.

    Every process of a run has one. They see different batches, add up their gradients, and decide alike when to
    validate and to stop; the main one alone validates, saves and logs (the loss of its own batches).
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        learner: Learner,
        checkpoints: Checkpoints,
        progress: Progress,
        runtime: Runtime,
        log: Log,
    ) -> None:
        self.config, self.settings, self.dataset, self.runtime, self.log = config, config.train, dataset, runtime, log
        self.learner, self.checkpoints, self.progress = learner, checkpoints, progress
        self.updater = Updater(learner, self.settings, runtime)
        epoch, batch = progress.position
        self.stream = TrainStream(
            dataset.train,
            dataset.vocabs,
            self.settings.batch_tokens,
            self.settings.seed,
            runtime.rank,
            runtime.world,
            (epoch, batch // runtime.world),
            Noise.of(config.noise, dataset.vocabs, self.settings.seed),
        )
        self.num_updates = self._num_updates()
        self._saved = progress.update
        self._mark = (time.monotonic(), progress.num_tokens)  # since when, and from what count, speed is measured
        self._started = time.monotonic() - progress.seconds  # as if the run had never been interrupted

    def run(self, stop: StopSignal) -> str:
        """Train until a limit, patience or a signal ends it; returns the reason. Raises Interrupted after a signal."""
        from tqdm import tqdm

        progress = self.progress
        bar = tqdm(
            total=self.num_updates,
            initial=progress.update,
            unit="upd",
            disable=not (sys.stderr.isatty() and self.runtime.is_main),
            dynamic_ncols=True,
            smoothing=0.05,
        )
        self.learner.model.train()
        self._mark = (time.monotonic(), progress.num_tokens)
        self._started = time.monotonic() - progress.seconds
        with bar:
            try:
                while not self.is_done():
                    if self._is_validation_due():
                        if self._validate(stop):
                            self._save()
                    else:
                        self._update()
                        bar.update()
                        if progress.update % self.settings.log_every == 0:
                            self._report(bar)
                    if self.runtime.all_sum(stop.signum) and not self.is_done():
                        if progress.update > self._saved:
                            self._save()
                        raise Interrupted(
                            stop.signum or 15,
                            f"stopped at update {progress.update}; the same command goes on from here",
                        )
            finally:
                self.stream.close()
        return self.reason_to_stop()

    def is_done(self) -> bool:
        """Whether nothing is left to do, a last validation included."""
        return bool(self.reason_to_stop()) and not self._is_validation_due()

    def reason_to_stop(self) -> str:
        """Why the run is over, or nothing: a pure function of settings, counters and history."""
        settings, progress = self.settings, self.progress
        if progress.update >= settings.max_updates:
            return f"{progress.update} updates done (max_updates)"
        if settings.max_epochs and progress.position[0] >= settings.max_epochs:
            return f"{progress.position[0]} epochs done (max_epochs)"
        if settings.patience and progress.history:
            best = self.checkpoints.ranked(progress.history)[0]
            since = sum(record["update"] > best for record in progress.history)
            if since >= settings.patience:
                return f"{since} validations without a better {settings.valid_metric} (patience)"
        return ""

    def _is_validation_due(self) -> bool:
        """Whether this update, the last one or one that `valid_every` names, has not been validated: as pure a function."""
        settings, (epoch, batch) = self.settings, self.progress.position
        update, history = self.progress.update, self.progress.history
        if not update or (history and history[-1]["update"] == update):
            return False
        if settings.valid_every and update % settings.valid_every == 0:
            return True
        if not settings.valid_every and epoch > 0 and batch < settings.accumulate * self.runtime.world:
            return True  # an epoch ended among the batches of this update
        return bool(self.reason_to_stop())

    def _num_updates(self) -> int:
        """Updates of the whole run, as far as its limits tell."""
        settings = self.settings
        if not settings.max_epochs:
            return settings.max_updates
        batches = settings.max_epochs * self.stream.num_batches(0)
        return min(settings.max_updates, math.ceil(batches / settings.accumulate))

    def _update(self) -> None:
        progress, number = self.progress, self.progress.update + 1
        batches = [self.stream.next() for _ in range(self.settings.accumulate)]
        outcome = self.updater.update(batches, number, self._rate(number))
        if not outcome.is_finite:
            progress.skipped += 1
            lines = ", ".join(self.dataset.where(int(n)) for batch in batches for n in batch.lines[:5])
            self.log.say(f"update {number}: the gradient is not finite, skipped; training lines {lines}, …")
        progress.update = number
        epoch, batch = self.stream.position
        progress.position = epoch, batch * self.runtime.world
        progress.num_tokens += outcome.num_tokens
        progress.seconds = time.monotonic() - self._started
        tally = progress.tally
        tally.total += outcome.total
        tally.nll += outcome.nll
        tally.num_tokens += sum(batch.num_tokens for batch in batches)
        tally.norm += outcome.norm
        tally.updates += 1

    def _rate(self, number: int) -> float:
        """The learning rate of an update."""
        costs = self.checkpoints.costs(self.progress.history)
        drops = plateau_drops(costs, self.settings.plateau_patience)
        return learning_rate(number, self.config.model.dim, self.settings, self.num_updates, drops)

    def _report(self, bar: Any) -> None:
        progress, tally, now = self.progress, self.progress.tally, time.monotonic()
        seconds, num_tokens = now - self._mark[0], progress.num_tokens - self._mark[1]
        numbers = {
            "epoch": progress.position[0],
            "loss": tally.total / tally.num_tokens,
            "ppl": math.exp(min(700.0, tally.nll / tally.num_tokens)),
            "lr": self.learner.optimizer.param_groups[0]["lr"],
            "grad_norm": tally.norm / tally.updates,
            "tokens_per_second": num_tokens / seconds,
        }
        self.log.metrics("train", progress.update, **numbers)
        line = (
            f"loss {numbers['loss']:.3f} ppl {numbers['ppl']:.2f} lr {numbers['lr']:.2e} "
            f"norm {numbers['grad_norm']:.2f} {numbers['tokens_per_second']:.0f} tok/s"
        )
        if bar.disable:
            left = max(0, self.num_updates - progress.update) * progress.seconds / progress.update
            self.log.say(
                f"update {progress.update}/{self.num_updates} epoch {progress.position[0]} {line} ETA {clock(left)}"
            )
        else:
            bar.set_description(f"epoch {progress.position[0]}", refresh=False)
            bar.set_postfix_str(line)
        progress.tally = Tally()
        self._mark = (now, progress.num_tokens)

    def _validate(self, stop: StopSignal) -> bool:
        """Add a record to the history; False if a signal came first, and then the work is left for the next time."""
        progress, begun = self.progress, time.monotonic()
        record = None
        if self.runtime.is_main:
            with contextlib.suppress(Interrupted):
                record = self._measure(stop, begun)
        record = self.runtime.share(record)
        self._mark = (self._mark[0] + time.monotonic() - begun, self._mark[1])
        progress.seconds = time.monotonic() - self._started
        if record is None:
            return False
        progress.history.append(record)
        return True

    def _measure(self, stop: StopSignal, begun: float) -> Record:
        settings, progress = self.settings, self.progress
        with self.learner.averaged() as model:
            try:
                found = validate(
                    model,
                    self.dataset,
                    [settings.valid_metric, *settings.valid_also],
                    self.config.search,
                    self.config.score,
                    self.runtime,
                    settings.batch_tokens,
                    stop.check,
                )
            finally:
                model.train()
        record: Record = {"update": progress.update, "epoch": progress.position[0], "loss": found.loss}
        line = f"valid loss {found.loss:.4f} ppl {found.perplexity:.2f}"
        for name, score in found.scores.items():
            record[name] = score.value
            line += f" {name} {score.value:.2f}"
        if settings.valid_metric in found.scores:
            record["signature"] = found.scores[settings.valid_metric].signature
        self.log.metrics("valid", **record, seconds=time.monotonic() - begun)
        best = self.checkpoints.ranked([*progress.history, record])[0] == progress.update
        self.log.say(
            f"update {progress.update} epoch {progress.position[0]} {line}{' (best)' if best else ''}, "
            f"after {clock(time.monotonic() - self._started)}, decoded in {time.monotonic() - begun:.0f} s"
        )
        for src, out in list(zip(self.dataset.valid_src, found.output, strict=False))[:2]:
            self.log.say(f"    {src[:100]}  →  {out[:100]}")
        return record

    def _save(self) -> None:
        if self.runtime.is_main:
            self.checkpoints.save(
                self.learner, self.progress, self.config.model, self.config.search, self.dataset.vocabs
            )
        self._saved = self.progress.update


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
