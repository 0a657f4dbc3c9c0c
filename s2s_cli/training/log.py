"""What a run says while it learns: lines for people and numbers for programs, in the run folder and on the screen."""

import contextlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from s2s_cli.files import sync
from s2s_cli.runtime import has_screen, tell, write_whole


class Log:
    """Lines for people, on stderr and in `train.log`; numbers for programs, in `metrics.jsonl`; or silence."""

    def __init__(self, folder: Path, silent: bool = False) -> None:
        self._silent = silent
        self.also: Callable[..., None] | None = None  # hears of all numbers, as `metrics` does
        self._metrics = folder / "metrics.jsonl"
        if not silent:
            # Names of files may be any bytes.
            self._text: IO[str] = open(  # noqa: SIM115 - for the whole run
                folder / "train.log", "a", encoding="utf-8", errors="backslashreplace"
            )

    def say(self, message: str, screen: bool = True) -> None:
        """One line for people; without `screen`, for those who read `train.log` alone."""
        if self._silent:
            return
        if screen:
            tell(message)
        self._text.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
        self._text.flush()

    def rewind(self, update: int, validated: int) -> None:
        """Forget what a resumed run is about to write again: updates after `update`, validations after `validated`."""
        if self._silent or not self._metrics.exists():
            return
        kept = [line for line, kind, at in self._records() if at <= (validated if kind == "valid" else update)]
        write_whole(self._metrics, "".join(f"{line}\n" for line in kept))

    def has(self, kind: str, update: int) -> bool:
        """Whether the numbers of that kind at that update have been written."""
        return any((of, at) == (kind, update) for _, of, at in self._records())

    def _records(self) -> list[tuple[str, str, int]]:
        """The lines of `metrics.jsonl`, each with its kind and update, without those that were cut short or spoiled."""
        found: list[tuple[str, str, int]] = []
        text = self._metrics.read_text(encoding="utf-8", errors="replace") if self._metrics.exists() else ""
        for line in text.split("\n"):
            with contextlib.suppress(ValueError, LookupError, TypeError):
                record = json.loads(line)
                found.append((line, str(record["kind"]), int(record["update"])))
        return found

    def metrics(self, kind: str, update: int, **numbers: object) -> None:
        """One JSON object: `kind` is train, valid or average."""
        if self._silent:
            return
        with open(self._metrics, "a", encoding="utf-8") as file:
            finite = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in numbers.items()}
            file.write(json.dumps({"kind": kind, "update": update, **finite}) + "\n")
        if self.also is not None:
            self.also(kind, update, **numbers)

    def sync(self) -> None:
        """Have the numbers on disk, before a checkpoint that they lead up to."""
        if not self._silent and self._metrics.exists():
            sync(self._metrics)


def live_line(done: int, total: int, shown: bool) -> Any:
    """A progress bar of updates, below all that is told, if it is to be `shown` and there is a screen."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        initial=done,
        unit="upd",
        disable=not (shown and has_screen()),
        dynamic_ncols=True,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
    )
