"""What every toolkit is measured by, inside its own process: the task it is given, and one clock for all.

Needs Python alone, since it runs in the environments of all of them.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

RESULT = "RESULT "  # begins the line that a process ends with
LABEL_SMOOTHING = 0.1
PEAK_RATE, WARM_UP = 1e-3, 100  # a line up, and constant from there
PIECES = 16  # of every output, where a model knows nothing
SENTENCES = 64  # of a batch that is translated
SPECIALS = 4  # <pad> <unk> <s> </s> head our vocabulary; the others have their own, and take the pieces after them


@dataclass(frozen=True)
class Shape:
    """A model: its size, and how many updates are needed to time it, after some to warm up."""

    family: str
    layers: int
    dim: int
    heads: int
    ffn_dim: int
    warm_up: int
    updates: int
    dropout: float = 0.3


SHAPES = {
    "tiny": Shape("transformer", 4, 128, 4, 256, warm_up=4, updates=16),
    "base": Shape("transformer", 6, 512, 8, 2048, warm_up=1, updates=8),
    "lstm": Shape("lstm", 2, 512, 0, 0, warm_up=2, updates=8),
}


@dataclass(frozen=True)
class Task:
    """What a process is to do: train this shape on the pieces in `text`, leaving whatever it writes in `work`.

    With `loss_after`, it trains so many updates and then measures the loss of the validation text, in place of the time. It
    begins with the weights and reads the batches that ours left in `start`: what differs then is the toolkit.

    With `beam`, it translates the test text by the model that a process with `begin` has left in `work`, or the run of ours that
    `model` names: one that knows nothing and is made to write `PIECES` pieces a line, or, if not `fixed`, as many as it likes.
    """

    peer: str
    shape: str
    text: str
    work: str
    batch_tokens: int = 4096
    threads: int = 2
    precision: str = "fp32"
    seed: int = 1
    loss_after: int = 0
    dropout: bool = True
    begin: bool = False
    beam: int = 0
    model: str = ""
    fixed: bool = True

    @property
    def size(self) -> Shape:
        """The model."""
        shape = SHAPES[self.shape]
        return shape if self.dropout else replace(shape, dropout=0.0)

    def start(self, name: str) -> Path:
        """A file of ours for all that train as long as this: weights.safetensors, or batches.jsonl (line numbers from 1)."""
        folder = Path(self.text) / "start" / f"{self.shape}-{self.loss_after}-{self.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    @property
    def warm_up(self) -> int:
        """Updates over which the rate rises, where losses are compared."""
        return min(WARM_UP, self.loss_after)

    def rate(self, number: int) -> float:
        """The learning rate of an update, where losses are compared."""
        return PEAK_RATE * min(1.0, number / self.warm_up)

    def file(self, name: str, content: str = "") -> Path:
        """A file in the work folder, with this content if any is given."""
        path = Path(self.work) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content:
            path.write_text(content, encoding="utf-8")
        return path

    def pieces(self, name: str) -> Path:
        """Text in pieces with spaces between: train.en, valid.de, …"""
        return Path(self.text) / "pieces" / name

    def sources(self) -> Path:
        """The test text in pieces, longest lines first, for toolkits that take lines as they come."""
        text = sorted(lines(self.pieces("test.en")), key=lambda line: -len(line.split()))
        return self.file("test.en", "".join(f"{line}\n" for line in text))

    def vocabulary(self) -> list[str]:
        """The pieces themselves, without special ones."""
        return lines(Path(self.text) / "vocabulary.txt")[SPECIALS:]

    def dump(self) -> str:
        """As an argument of a command."""
        return json.dumps(asdict(self))

    @classmethod
    def given(cls) -> "Task":
        """The one that this process was started with; its threads are set."""
        task = cls(**json.loads(sys.argv[1]))
        Path(task.work).mkdir(parents=True, exist_ok=True)
        return task


def act(train: Callable[[Task], None], begin: Callable[[Task], None], translate: Callable[[Task], None]) -> None:
    """Do what this process was started for."""
    task = Task.given()
    if task.begin:
        try:
            begin(task)
        except SystemExit as end:
            if end.code:
                raise
        finish()
    elif task.beam:
        translate(task)
    else:
        train(task)


def lines(path: Path) -> list[str]:
    """The lines of a text."""
    return path.read_text(encoding="utf-8").split("\n")[:-1]


class Clock:
    """Called when an update begins: the time of one runs to the beginning of the next, loading and logging included.

    Tokens are real ones, without padding; those of the target count the end of the sentence.
    """

    def __init__(self, task: Task) -> None:
        self.size = task.size
        self.ticks: list[tuple[float, float, int, int]] = []

    def tick(self, num_src: int, num_tgt: int) -> None:
        """An update of so many tokens begins. Once there are enough, the process ends with a result."""
        self.ticks.append((time.perf_counter(), time.process_time(), int(num_src), int(num_tgt)))
        if len(self.ticks) > self.size.warm_up + self.size.updates:
            finish(**self.summary())

    def summary(self) -> dict[str, float]:
        """Speed over the updates after those to warm up."""
        ticks = self.ticks[self.size.warm_up :]
        seconds, cpu = (ticks[-1][i] - ticks[0][i] for i in (0, 1))
        num_src, num_tgt = (sum(tick[i] for tick in ticks[:-1]) for i in (2, 3))
        return rates(len(ticks) - 1, seconds, num_src, num_tgt) | {"cores_used": round(cpu / seconds, 2)}


class Spent:
    """Time that passes in the function that searches, which is called for each batch: loading and writing are left out."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, search: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            found = search(*args, **options)
            self.seconds += time.perf_counter() - begun
            return found

        return timed

    def finish(self, outputs: Sequence[Sequence[str]]) -> NoReturn:
        """With what came out, in pieces."""
        finish(sentences=len(outputs), pieces=sum(map(len, outputs)), seconds=round(self.seconds, 4))


def rates(updates: int, seconds: float, num_src: int, num_tgt: int) -> dict[str, float]:
    """What a result says of so many updates."""
    return {
        "updates": updates,
        "seconds_per_update": round(seconds / updates, 4),
        "src_tokens_per_update": round(num_src / updates, 1),
        "tgt_tokens_per_update": round(num_tgt / updates, 1),
        "tgt_tokens_per_second": round(num_tgt / seconds, 1),
    }


def finish(**found: Any) -> NoReturn:
    """Print a result as the last line, and end the process at once: no validation, no checkpoint."""
    print("\n" + RESULT + json.dumps(found), flush=True)
    sys.stderr.flush()
    os._exit(0)
