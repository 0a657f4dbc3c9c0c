"""The training loop: batches in, updates, validations and checkpoints out.

Everything it does at an update is a function of (settings, dataset, update number), so that a run that was stopped and
goes on ends with the same bits. It knows no model family and no command line.
"""

import contextlib
import math
import time
from functools import partial
from typing import Any

import torch

from s2s_cli.config import Config
from s2s_cli.config.duration import clock
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import TrainStream
from s2s_cli.data.noise import Noise
from s2s_cli.errors import Interrupted, S2SError
from s2s_cli.models.base import Seq2Seq
from s2s_cli.runtime import Runtime, StopSignal, tell
from s2s_cli.training.board import Board
from s2s_cli.training.checkpoints import Checkpoints
from s2s_cli.training.health import IN_A_ROW, MAX_RETURNS, READ_EVERY, Reader, judge
from s2s_cli.training.log import Log, live_line
from s2s_cli.training.optim import learning_rate, plateau_drops
from s2s_cli.training.state import Learner, Progress, Record, Tally
from s2s_cli.training.update import Updater
from s2s_cli.training.validate import Validation, chosen_lines, samples, validate

_ESTIMATED = (0.1, 0.3)  # shares of `max_time` after which it is estimated how long a validation takes
_ESTIMATE_COSTS = 0.0025  # share of it that the last step of that takes at least
_MOST_RESERVED = 0.6  # share of it that updates never get back from validations


class Trainer:
    """One run, from where `progress` stands to its end.

    Every process of a run has one. They see different batches, add up their gradients, and decide alike when to
    validate and to stop; the main one alone validates, saves and logs.
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
        self.updater = Updater(learner, self.settings, runtime, progress.scaler, progress.too_large)
        self.reader = Reader(dataset, log, runtime)
        self.stream = TrainStream(
            dataset.train,
            dataset.vocabs,
            self.settings.positions,
            self.settings.seed,
            runtime.rank,
            runtime.world,
            progress.position,
            Noise.of(config.noise, dataset.vocabs, self.settings.seed),
        )
        self.num_updates = self._num_updates()
        self._saved = progress.update
        self._start_clocks()

    def run(self, stop: StopSignal) -> str:
        """Train until a limit, patience or a signal ends it; returns the reason. Raises Interrupted after a signal."""
        bar = live_line(self.progress.update, self.num_updates, self.runtime.is_main)
        self.learner.model.train()
        self._start_clocks()
        with bar:
            try:
                while not self.is_done():
                    self._step(bar, stop)
                    with self.runtime.step():
                        self.checkpoints.background.check()
                    if self.runtime.all_sum(stop.signum) and not self.is_done():
                        update = self.progress.update
                        if update > self._saved:
                            self._save()
                        with self.runtime.step():
                            self.checkpoints.background.wait()
                        said = f"stopped at update {update}; the same command goes on from here"
                        raise Interrupted(stop.signum or 15, said)
                with self.runtime.step():
                    self.checkpoints.background.wait()
            finally:
                self.stream.close()
                self.checkpoints.background.join()
        return self.reason_to_stop()

    def _start_clocks(self) -> None:
        progress, now = self.progress, time.monotonic()
        self._saved_at = now
        self._mark = (now, progress.num_tokens)  # since when, and from what count, speed is measured
        self._started = now - progress.seconds  # as if the run had never been interrupted
        self._begun = (now, progress.update)

    def _step(self, bar: Any, stop: StopSignal) -> None:
        """A validation if one is due, else an update."""
        if self._is_validation_due():
            if self._validate(stop):
                self._save()
            return
        if not self._update(stop):
            return
        bar.update()
        update = self.progress.update
        if update % READ_EVERY == 0:
            self.reader.read(self.progress)
            if judge(self.progress, self.settings.spike):
                self._go_back(bar)
                return
        if update % self.settings.log_every == 0:
            self.reader.read(self.progress)  # which all do together
            with self.runtime.step():
                self._report(bar)
        is_due = self.runtime.is_main and time.monotonic() - self._saved_at >= self.settings.save_every
        if update % READ_EVERY == 0 and self.runtime.all_sum(is_due):
            self._save()

    def is_done(self) -> bool:
        """Whether nothing is left to do, a last validation included."""
        return bool(self.reason_to_stop()) and not self._is_validation_due()

    def reason_to_stop(self) -> str:
        """Why the run is over, or nothing: a pure function of settings, counters and history."""
        settings, progress = self.settings, self.progress
        if progress.time_used >= 1.0:
            return f"{settings.max_time} are used up (max_time)"
        if progress.update >= settings.max_updates:
            return f"{progress.update} updates done (max_updates)"
        if settings.max_epochs and progress.position[0] >= settings.max_epochs:
            return f"{progress.position[0]} epochs done (max_epochs)"
        if settings.patience and (history := progress.in_course):
            best = self.checkpoints.ranked(history)[0]
            since = sum(record["update"] > best for record in history)
            if since >= settings.patience:
                return f"{since} validations without a better {settings.valid_metric} (patience)"
        return ""

    def _is_validation_due(self) -> bool:
        """Whether this update, the last one or one that `valid_every` names, has not been validated: as pure a function."""
        update, history = self.progress.update, self.progress.history
        if not update or (history and history[-1]["update"] == update):
            return False
        return self._is_in_course() or bool(self.reason_to_stop())

    def _is_in_course(self) -> bool:
        """Whether this update is validated however long the run is."""
        settings, (epoch, batch) = self.settings, self.progress.position
        if settings.valid_every:
            return self.progress.update % settings.valid_every == 0
        return epoch > 0 and batch < settings.accumulate * self.runtime.world  # an epoch ended in this update

    def _num_updates(self) -> int:
        """Updates of the whole run, as far as its limits tell."""
        settings = self.settings
        if not settings.max_epochs:
            return settings.max_updates
        batches = settings.max_epochs * self.stream.num_batches(0)
        return min(settings.max_updates, math.ceil(batches / (settings.accumulate * self.runtime.world)))

    def _update(self, stop: StopSignal) -> bool:
        """One update; False if a signal came while its gradient was made, and then nothing has happened."""
        progress, number, before = self.progress, self.progress.update + 1, self.stream.position
        try:
            with self.runtime.step():
                batches = [self.stream.next() for _ in range(self.settings.accumulate)]
            on_cpu = self.runtime.device.type == "cpu"  # where a batch may take long
            at_once = partial(stop.at_once, "interrupted", inside=on_cpu)
            within = at_once if self.runtime.world == 1 else contextlib.nullcontext  # several processes end together
            outcome = self.updater.update(batches, number, self._rate(number), progress.health.limit, within)
        except Interrupted:
            self.learner.model.zero_grad(set_to_none=True)
            self.stream.position = before
            return False
        if size := self.updater.split:
            say = self.log.say if self.runtime.is_main else tell
            say(f"update {number}: a batch of {size:,} positions is too large for the memory, such are split")
            self.updater.split = 0
        self.reader.put(outcome)
        progress.update = number
        progress.position = self.stream.position
        self._estimate_validation(stop)
        self._note_time()
        return True

    def _go_back(self, bar: Any) -> None:
        """To the last validated checkpoint, but not in the data. Raises S2SError if there is none, or it did not help."""
        progress = self.progress
        advice = "lower train.lr, raise train.warmup, or look at the training lines named above and in train.log"
        if self.updater.scaler is not None:
            advice = f"set runtime.precision to bf16 or fp32, {advice}"
        advice += ", in another --run" if self._saved else ""
        if not progress.history:
            raise S2SError(f"{IN_A_ROW} updates in a row went wrong, up to {progress.update}: {advice}")
        if progress.health.returns == MAX_RETURNS:
            raise S2SError(
                f"after update {progress.history[-1]['update']} it went wrong {MAX_RETURNS + 1} times: {advice}"
            )
        update = 0
        with self.runtime.step():  # after which the main process has written what the others now read
            self.checkpoints.background.wait()
            validated = [record["update"] for record in progress.history]
            if self.runtime.is_main and not (update := self.checkpoints.newest_whole(validated)):
                raise S2SError(
                    f"{IN_A_ROW} updates in a row went wrong, and no validated checkpoint is whole: {advice}"
                )
        update = self.runtime.share(update)
        self.progress = self.checkpoints.load(self.learner, update)
        if self.runtime.is_main:  # a signal may have saved what is given up here
            self.checkpoints.forget_after(update, self.progress.history)
        self.progress.position, self.progress.num_tokens = progress.position, progress.num_tokens
        self.progress.skipped, self.progress.health.returns = progress.skipped, progress.health.returns + 1
        self.progress.time_used, self.progress.health.streak = progress.time_used, 0
        self.updater.scale_as(self.progress.scaler)
        now = time.monotonic()
        self._saved, self._mark, self._begun = update, (now, progress.num_tokens), (now, update)
        self._note_time()
        self.log.rewind(update, update)
        if self.log.also is not None:
            self.log.also = Board(self.settings.run, self.progress.seconds).write
        self.log.say(
            f"{IN_A_ROW} updates in a row went wrong: back to update {update}, and on with the data that follow"
        )
        bar.n = update
        bar.refresh()

    def _rate(self, number: int) -> float:
        """The learning rate of an update."""
        risen = [record for record in self.progress.in_course if record["update"] >= self.settings.warmup]
        drops = plateau_drops(self.checkpoints.costs(risen), self.settings.plateau_patience)
        used = self.progress.time_used
        return learning_rate(number, self.config.model.dim, self.settings, self.num_updates, drops, used)

    def _estimate_validation(self, stop: StopSignal) -> None:
        """Under `max_time`, before there was a validation: how long one will take, measured on ever more lines of it.

        A model that has learned little writes too much, so that it is done twice: early on, and when it has learned more.
        """
        progress, limit = self.progress, self.settings.max_time
        if limit is None or progress.history or progress.estimates == len(_ESTIMATED) or not self.runtime.is_main:
            return
        if time.monotonic() - self._started < limit * _ESTIMATED[progress.estimates]:
            return
        num_lines = len(chosen_lines(len(self.dataset.valid_src), self.settings.valid_subset))
        num, seconds, progress.estimates = 4, 0.0, progress.estimates + 1
        while seconds < limit * _ESTIMATE_COSTS and num < num_lines:
            num, begun = min(2 * num, num_lines), time.monotonic()
            try:
                self._measure_averaged(stop, num)
            except (Interrupted, S2SError) as ended:  # of a mistake the validation itself will tell, to all processes
                progress.estimates -= isinstance(ended, Interrupted)
                return
            seconds = time.monotonic() - begun
            self._mark = (self._mark[0] + seconds, self._mark[1])
        progress.valid_seconds = seconds * num_lines / num
        if progress.valid_seconds > limit / 5:
            self.log.say(
                f"a validation may take about {clock(progress.valid_seconds)} of the {limit} there are (max_time): "
                "choose a --valid-subset in another run"
            )

    def _note_time(self) -> None:
        """Note how long the run has been going on, and how much of its time is used; all processes hear the main one's."""
        progress, limit = self.progress, self.settings.max_time
        progress.seconds = time.monotonic() - self._started
        if limit is not None:
            # What comes after the last update: its validation, that of the average unless there was none before, and as
            # much again as a half of one.
            validations = 2.5 if progress.history else 1.5
            share = validations * progress.valid_seconds / limit
            reserve = min(_MOST_RESERVED, share) if progress.valid_seconds else 0.1
            used = progress.seconds / (limit * (1.0 - reserve))
            used = self.runtime.all_sum(used if self.runtime.is_main else 0.0)
            progress.time_used = min(1.0, max(progress.time_used, used))  # a rate that has fallen does not rise again

    def _epochs(self) -> float:
        """Passes over the data, with the part of the present one."""
        epoch, batch = self.progress.position
        return round(epoch + batch / self.stream.num_batches(epoch), 4)

    def _report(self, bar: Any) -> None:
        progress, tally, now = self.progress, self.progress.tally, time.monotonic()
        if not tally.updates:
            return  # all have been left out: there is no loss to tell of
        seconds, num_tokens = now - self._mark[0], progress.num_tokens - self._mark[1]
        numbers = {
            "epoch": self._epochs(),
            "elapsed": progress.seconds,
            **tally.means(),
            "lr": self.learner.optimizer.param_groups[0]["lr"],
            "tokens_per_second": num_tokens / seconds,
        }
        apart = ""
        if self.settings.consistency != "none":
            numbers["consistency"] = tally.divergence / tally.num_tokens
            apart = f" apart {numbers['consistency']:.3f}"
        self.log.metrics("train", progress.update, **numbers)
        line = (
            f"loss {numbers['loss']:.3f}{apart} ppl {numbers['ppl']:.2f} lr {numbers['lr']:.2e} "
            f"norm {numbers['grad_norm']:.2f} {numbers['tokens_per_second']:.0f} tok/s"
        )
        here = progress.update - self._begun[1]  # before an interruption the machine may have been another one
        rate = (now - self._begun[0]) / here if here > 0 else progress.seconds / progress.update
        left = max(0, self.num_updates - progress.update) * rate
        if self.settings.max_time is not None:
            left = min(left, max(0.0, self.settings.max_time - progress.seconds))
        line += f" ETA {clock(left)}"
        self.log.say(
            f"update {progress.update}/{self.num_updates} epoch {progress.position[0]} {line}", screen=bar.disable
        )
        if not bar.disable:
            bar.set_description(f"epoch {progress.position[0]}", refresh=False)
            bar.set_postfix_str(line)
        progress.tally = Tally()
        self._mark = (now, progress.num_tokens)

    def _validate(self, stop: StopSignal) -> bool:
        """Add a record to the history; False if a signal came first, and then the work is left for the next time."""
        progress, begun = self.progress, time.monotonic()
        record = None
        with self.runtime.step(), contextlib.suppress(Interrupted):
            if self.runtime.is_main:
                record = self._record(stop, begun)
        record = self.runtime.share(record)
        self._mark = (self._mark[0] + time.monotonic() - begun, self._mark[1])
        if record is not None:
            progress.valid_seconds = time.monotonic() - begun
            progress.history.append(record)
            progress.health.returns = 0
        self._note_time()
        return record is not None

    def has_time(self) -> bool:
        """Whether one more validation fits into the time there is."""
        progress, limit = self.progress, self.settings.max_time
        return limit is None or time.monotonic() - self._started + progress.valid_seconds < limit

    def _measure_averaged(self, stop: StopSignal, subset: int | None = None) -> Validation:
        with self.learner.averaged() as model:
            try:
                return self.measure(model, stop, subset)
            finally:
                model.train()

    def measure(self, model: Seq2Seq, stop: StopSignal, subset: int | None = None) -> Validation:
        """Measure a model as the settings say, or on fewer lines. Raises Interrupted after a signal."""
        settings = self.settings
        with stop.at_once("interrupted"):
            return validate(
                model,
                self.dataset,
                [settings.valid_metric, *settings.valid_also],
                self.config.search,
                self.config.score,
                self.runtime,
                settings.positions,
                stop.check,
                settings.valid_subset if subset is None else subset,
            )

    def _record(self, stop: StopSignal, begun: float) -> Record:
        progress = self.progress
        found = self._measure_averaged(stop)
        metric = self.settings.valid_metric
        record: Record = {"update": progress.update, "epoch": progress.position[0], **found.record(metric)}
        now = {"epoch": self._epochs(), "elapsed": time.monotonic() - self._started}
        self.log.metrics("valid", **record | now, ppl=found.perplexity, seconds=time.monotonic() - begun)
        best = self.checkpoints.ranked([*progress.history, record])[0] == progress.update
        self.log.say(
            f"update {progress.update} epoch {progress.position[0]} {found}{' (best)' if best else ''}, "
            f"after {clock(time.monotonic() - self._started)}, decoded in {time.monotonic() - begun:.0f} s"
        )
        with self.learner.averaged() as model:
            for src, out in samples(found, model, self.dataset.vocabs, self.config.search, self.runtime):
                self.log.say(f"    {src[:100]}  →  {out[:100]}")
        return record if self._is_in_course() else record | {"extra": True}

    def _save(self) -> None:
        self.reader.read(self.progress)
        if self.updater.scaler is not None:
            self.progress.scaler = self.updater.scaler.tolist()
        too_large = [self.runtime.share(self.updater.too_large, rank) for rank in range(self.runtime.world)]
        self.progress.too_large = too_large if any(too_large) else []
        self.progress.threads = torch.get_num_threads()
        with self.runtime.step():
            self.log.sync()
            self.checkpoints.background.wait()  # so that memory never holds two snapshots
        snapshot = self.learner.snapshot(self.runtime)
        if self.runtime.is_main:
            self.checkpoints.save(snapshot, self.progress, self.config.model, self.config.search, self.dataset.vocabs)
        self._saved, self._saved_at = self.progress.update, time.monotonic()
