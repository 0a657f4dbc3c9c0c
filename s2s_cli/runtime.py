"""The machine under a command: device, arithmetic, seeds, signals, what is told to the user and to `metrics.jsonl`.

It knows no model, no data and no settings of either.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import torch
import torch.distributed as dist

from s2s_cli.config import RuntimeSettings
from s2s_cli.errors import ConfigError, Interrupted, S2SError


@dataclass(frozen=True)
class Runtime:
    """Where and how to compute. `dtype` is that of matrix products; weights, sums and softmax stay in fp32.

    Under `torchrun`, `rank` is the number of this process and `world` how many there are.
    """

    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    world: int = 1

    @classmethod
    def start(cls, settings: RuntimeSettings, join: bool = False) -> "Runtime":
        """Pick device and arithmetic, set the number of threads. Raises ConfigError for a device that is not there.

        `join` makes one of the processes that `torchrun` started, if it did.
        """
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("runtime.device is cuda, but torch sees no CUDA device: set it to auto or cpu")
        name = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
        if settings.threads:
            torch.set_num_threads(settings.threads)
        bf16 = settings.precision == "bf16" or (settings.precision == "auto" and _is_bf16_fast(name))
        dtype = torch.bfloat16 if bf16 else torch.float32
        if not join or int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return cls(torch.device(name), dtype)
        if name == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if name == "cuda" else "gloo")
        device = torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)
        return cls(device, dtype, dist.get_rank(), dist.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, validates and talks."""
        return self.rank == 0

    def close(self) -> None:
        """Leave the group of processes."""
        if self.world > 1:
            dist.destroy_process_group()

    def all_sum(self, number: float) -> float:
        """The sum of every process's number, in fp64."""
        if self.world == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes, in one message; the same sums then stand in each."""
        if self.world == 1:
            return
        grads = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            grads.append(parameter.grad)
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def share(self, value: Any) -> Any:
        """The main process's value, which JSON can hold, in all of them."""
        if self.world == 1:
            return value
        data = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=self.device)
        size = torch.tensor(len(data), device=self.device)
        dist.broadcast(size, 0)
        data = data if self.is_main else torch.empty(int(size), dtype=torch.uint8, device=self.device)
        dist.broadcast(data, 0)
        return json.loads(bytes(data.tolist()))

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Matrix products inside compute in `dtype`."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        name = f"{self.world} × {name}" if self.world > 1 else name
        return f"{name}, {str(self.dtype).removeprefix('torch.')}"


def _is_bf16_fast(device: str) -> bool:
    """Whether the processor multiplies bf16 in hardware; elsewhere it is emulated, and slower than fp32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public name for these yet
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def seed_for(*numbers: int) -> None:
    """Seed torch's generators as a function of `numbers` (seed, update, …): nothing of them needs saving to resume."""
    mixed = 0
    for number in numbers:  # splitmix64, so that neighbouring updates draw unrelated numbers
        mixed = (mixed + number + 0x9E3779B97F4A7C15) % 2**64
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        mixed ^= mixed >> 31
    torch.manual_seed(mixed % 2**63)


class StopSignal:
    """Turns Ctrl-C and SIGTERM into a flag that a loop reads between two steps; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signum = 0

    def __enter__(self) -> "StopSignal":
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum

    def check(self, _done: int = 0) -> None:
        """Raise Interrupted if a signal has come: for work that is given up, such as a validation."""
        if self.signum:
            raise Interrupted(self.signum, "interrupted")


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process alone; raises S2SError if another process has it. A dead process holds nothing."""
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise S2SError(
                f"{folder} is in use by another process: wait for it, stop it, or choose another folder"
            ) from None
        yield


class Log:
    """Lines for people, on stderr and in `train.log`; numbers for programs, in `metrics.jsonl`; or silence."""

    def __init__(self, folder: Path, silent: bool = False) -> None:
        self._silent = silent
        self._metrics = folder / "metrics.jsonl"
        if not silent:
            self._text: IO[str] = open(folder / "train.log", "a", encoding="utf-8")  # noqa: SIM115 - for the whole run

    def say(self, message: str) -> None:
        """One line for people."""
        if self._silent:
            return
        tell(message)
        self._text.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
        self._text.flush()

    def rewind(self, update: int, validated: int) -> None:
        """Forget what a resumed run is about to write again: updates after `update`, validations after `validated`."""
        if self._silent or not self._metrics.exists():
            return
        kept = []
        for line in self._metrics.read_text(encoding="utf-8").split("\n"):
            with contextlib.suppress(json.JSONDecodeError):  # a line cut short by a kill
                numbers = json.loads(line)
                if numbers["update"] <= (validated if numbers["kind"] == "valid" else update):
                    kept.append(line + "\n")
        beside = self._metrics.with_suffix(".tmp")
        beside.write_text("".join(kept), encoding="utf-8")
        os.replace(beside, self._metrics)

    def metrics(self, kind: str, update: int, **numbers: object) -> None:
        """One JSON object: `kind` is train or valid."""
        if self._silent:
            return
        with open(self._metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "update": update, **numbers}) + "\n")


def tell(message: str) -> None:
    """One line on stderr, above a progress bar if one is on the screen."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)
    else:
        print(message, file=sys.stderr, flush=True)
