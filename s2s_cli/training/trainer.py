"""The training loop: batches in, updates, validations and checkpoints out.

Everything it does at an update is a function of (settings, dataset, update number), so that a run that was stopped and
goes on ends with the same bits. It knows no model family and no command line.
"""

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch

from s2s_cli.config import Config
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import Batch, TrainStream
from s2s_cli.errors import Interrupted
from s2s_cli.models.base import Seq2Seq
from s2s_cli.runtime import Log, Runtime, StopSignal, seed_for
from s2s_cli.training.optim import learning_rate
from s2s_cli.training.state import Checkpoints, Progress, Record
from s2s_cli.training.validate import validate


@dataclass
class Tally:
    """Sums since the last line of the log."""

    total: float = 0.0
    nll: float = 0.0
    num_tokens: int = 0
    norm: float = 0.0
    updates: int = 0
    since: float = 0.0


class Trainer:
    """One run, from where `progress` stands to its end."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        model: Seq2Seq,
        optimizer: torch.optim.Optimizer,
        checkpoints: Checkpoints,
        progress: Progress,
        runtime: Runtime,
        log: Log,
    ) -> None:
        self.config, self.settings, self.dataset, self.runtime, self.log = config, config.train, dataset, runtime, log
        self.model, self.optimizer, self.checkpoints, self.progress = model, optimizer, checkpoints, progress
        self.stream = TrainStream(
            dataset.train,
            dataset.vocabs,
            self.settings.batch_tokens,
            self.settings.seed,
            position=progress.position,
        )
        self.num_updates = self._num_updates()

    def run(self) -> str:
        """Train until a limit, patience or a signal ends it; returns the reason. Raises Interrupted after a signal."""
        from tqdm import tqdm

        progress, tally = self.progress, Tally(since=time.monotonic())
        bar = tqdm(
            total=self.num_updates,
            initial=progress.update,
            unit="upd",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.05,
        )
        self.model.train()
        with StopSignal() as stop, bar:
            started = time.monotonic() - progress.seconds
            while not (reason := self.reason_to_stop()):
                epoch = progress.position[0]
                self._update(tally)
                progress.seconds = time.monotonic() - started
                bar.update()
                if progress.update % self.settings.log_every == 0:
                    self._report(tally, bar)
                if self._validates_now(epoch):
                    self._validate()
                    tally = Tally(since=time.monotonic())
                    progress.seconds = time.monotonic() - started
                    self._save()
                if stop.signum:
                    self._save()
                    self.stream.close()
                    raise Interrupted(
                        stop.signum, f"stopped at update {progress.update}; the same command goes on from here"
                    )
        self.stream.close()
        return reason

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

    def _num_updates(self) -> int:
        """Updates of the whole run, as far as its limits tell."""
        settings = self.settings
        if not settings.max_epochs:
            return settings.max_updates
        batches = settings.max_epochs * self.stream.num_batches(self.progress.position[0])
        return min(settings.max_updates, math.ceil(batches / settings.accumulate))

    def _update(self, tally: Tally) -> None:
        settings, progress = self.settings, self.progress
        batches = [self.stream.next() for _ in range(settings.accumulate)]
        number = progress.update + 1
        seed_for(settings.seed, number)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.config.model.dim, settings)
        total, nll = self._backward(batches)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip or math.inf, foreach=True))
        if math.isfinite(norm):
            self.optimizer.step()
        else:
            progress.skipped += 1
            lines = ", ".join(str(n) for batch in batches for n in batch.lines[:5])
            self.log.say(f"update {number}: the gradient is not finite, skipped; training lines {lines}, …")
        self.optimizer.zero_grad(set_to_none=True)
        progress.update = number
        progress.position = self.stream.position
        num_tokens = sum(batch.num_tokens for batch in batches)
        progress.num_tokens += num_tokens
        tally.total += total
        tally.nll += nll
        tally.num_tokens += num_tokens
        tally.norm += norm
        tally.updates += 1

    def _backward(self, batches: list[Batch]) -> tuple[float, float]:
        """Gradients of the loss a token over all batches of an update; returns the summed losses."""
        num_tokens = sum(batch.num_tokens for batch in batches)
        total, nll = 0.0, 0.0
        for batch in batches:
            with self.runtime.autocast():
                loss = self.model(batch.to(self.runtime.device), self.settings.label_smoothing)
            (loss.total / num_tokens).backward()
            total += float(loss.total.detach())
            nll += float(loss.nll)
        return total, nll

    def _report(self, tally: Tally, bar: Any) -> None:
        progress, seconds = self.progress, time.monotonic() - tally.since
        numbers = {
            "epoch": progress.position[0],
            "loss": tally.total / tally.num_tokens,
            "ppl": math.exp(min(700.0, tally.nll / tally.num_tokens)),
            "lr": self.optimizer.param_groups[0]["lr"],
            "grad_norm": tally.norm / tally.updates,
            "tokens_per_second": tally.num_tokens / seconds,
        }
        self.log.metrics("train", progress.update, **numbers)
        line = (
            f"loss {numbers['loss']:.3f} ppl {numbers['ppl']:.2f} lr {numbers['lr']:.2e} "
            f"norm {numbers['grad_norm']:.2f} {numbers['tokens_per_second']:.0f} tok/s"
        )
        if bar.disable:
            left = (self.num_updates - progress.update) * seconds / tally.updates
            self.log.say(
                f"update {progress.update}/{self.num_updates} epoch {progress.position[0]} {line} ETA {clock(left)}"
            )
        else:
            bar.set_description(f"epoch {progress.position[0]}", refresh=False)
            bar.set_postfix_str(line)
        tally.__init__(since=time.monotonic())  # type: ignore[misc]

    def _validates_now(self, epoch_before: int) -> bool:
        settings, progress = self.settings, self.progress
        if settings.valid_every:
            due = progress.update % settings.valid_every == 0
        else:
            due = progress.position[0] > epoch_before
        return due or bool(self.reason_to_stop())

    def _validate(self) -> None:
        settings, progress = self.settings, self.progress
        begun = time.monotonic()
        found = validate(
            self.model, self.dataset, settings.valid_metric, self.config.search, self.runtime, settings.batch_tokens
        )
        record: Record = {"update": progress.update, "epoch": progress.position[0], "loss": found.loss}
        line = f"valid loss {found.loss:.4f} ppl {found.perplexity:.2f}"
        if found.score is not None:
            record |= {settings.valid_metric: found.score, "signature": found.signature}
            line += f" {settings.valid_metric} {found.score:.2f}"
        progress.history.append(record)
        self.log.metrics("valid", **record, seconds=time.monotonic() - begun)
        best = self.checkpoints.ranked(progress.history)[0] == progress.update
        self.log.say(
            f"update {progress.update} epoch {progress.position[0]} {line}{' (best)' if best else ''}, "
            f"after {clock(progress.seconds)}, decoded in {time.monotonic() - begun:.0f} s"
        )
        for src, out in list(zip(self.dataset.valid_src, found.output, strict=False))[:2]:
            self.log.say(f"    {src[:100]}  →  {out[:100]}")

    def _save(self) -> None:
        self.checkpoints.save(
            self.model, self.optimizer, self.progress, self.config.model, self.config.search, self.dataset.vocabs
        )


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
