"""TensorBoard: the numbers of `metrics.jsonl` as event files beside it.

The files are made anew from `metrics.jsonl` whenever a command begins, so that they hold each number once however often the
run was interrupted, and all of them where TensorBoard was asked for late.
"""

import atexit
import json
import time
from pathlib import Path

from s2s_cli.errors import ConfigError


class Board:
    """Writes event files into a run folder."""

    def __init__(self, run: Path, seconds: float) -> None:
        """Replace what event files are there; the run, so far, has taken `seconds`. ConfigError without the extra."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            raise ConfigError(
                "train.tensorboard needs a package that is not there: pip install 's2s-cli[tensorboard]'"
            ) from None
        self._begun = time.time() - seconds
        for old in run.glob("events.out.tfevents.*"):
            old.unlink()
        # A TensorBoard that looks on while a run goes on again forgets what it has seen of it.
        self._writer = SummaryWriter(str(run), purge_step=0, flush_secs=10)
        atexit.register(self._writer.close)  # which writes what is left
        metrics = run / "metrics.jsonl"
        if metrics.exists():
            for line in metrics.read_text(encoding="utf-8").split("\n")[:-1]:
                self.write(**json.loads(line))

    def write(self, kind: str, update: int, **numbers: object) -> None:
        """The numbers of one line of `metrics.jsonl`, such as `valid/bleu`; what is no number stays there."""
        elapsed = numbers.pop("elapsed", None)
        when = self._begun + elapsed if isinstance(elapsed, float) else time.time()
        for name, value in numbers.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{kind}/{name}", value, update, walltime=when)
