"""The machine under a command: device, arithmetic, seeds, signals, what is told to the user and to `metrics.jsonl`.

It knows no model, no data and no settings of either.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from s2s_cli.config import RuntimeSettings
from s2s_cli.errors import ConfigError, Interrupted, S2SError
from s2s_cli.files import held, whole_file
from s2s_cli.worker import threads

_PATIENCE = timedelta(days=30)  # those that are done wait for the slowest; torchrun sees to those that have died
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}


@dataclass(frozen=True)
class Runtime:
    """Where and how to compute. `dtype` is that of matrix products; weights, sums and softmax stay in fp32. With bf16 on
    CUDA, a Transformer in training has what goes from layer to layer in bf16 too.

    Under `torchrun`, `rank` is the number of this process and `world` how many there are.
    """

    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    world: int = 1

    @classmethod
    def start(cls, settings: RuntimeSettings, join: bool = False, validated_in: str = "") -> "Runtime":
        """Pick device and arithmetic, set the number of threads. Raises ConfigError for a device that is not there.

        `join` makes one of the processes that `torchrun` started, if it did. Precision auto is that which a model was
        `validated_in`, if any, unless the device is slow at it.
        """
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("runtime.device is cuda, but torch sees no CUDA device: set it to auto or cpu")
        # A matrix product on a CPU in bf16 keeps a compiled kernel for each shape, 1024 of them, and oneDNN as many beside: in
        # training few are used twice, and they took a third of its memory; in search those of a batch are.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
        os.environ.setdefault("LRU_CACHE_CAPACITY", "32" if join else "128")
        name = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
        local = int(os.environ.get("LOCAL_RANK", 0))  # this process's number on its machine, by torchrun
        if name == "cuda" and local:
            if local >= (num := torch.cuda.device_count()):
                raise ConfigError(
                    f"process {local} finds {num} CUDA devices: start no more processes, or set runtime.device to cpu"
                )
            torch.cuda.set_device(local)
        if settings.deterministic and join:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
            # Nothing here reads what it has not written.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if num_threads := threads(settings.threads):
            torch.set_num_threads(num_threads)
        precision: str = settings.precision
        if precision == "auto":
            as_before = validated_in == "fp32" or (validated_in == "fp16" and name == "cuda")
            precision = validated_in if as_before else "bf16" if is_bf16_fast(name) else "fp32"
        dtype = _DTYPES[precision]
        if dtype == torch.int8 and (join or name == "cuda"):
            raise ConfigError("runtime.precision is int8, which is for translating on CPU: set it to auto or bf16")
        if not join or int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return cls(torch.device(name), dtype)
        # What the host alone needs to know goes by gloo on a GPU too: nobody waits for a device to hear of it.
        dist.init_process_group("cpu:gloo,cuda:nccl" if name == "cuda" else "gloo", timeout=_PATIENCE)
        device = torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)
        return cls(device, dtype, dist.get_rank(), dist.get_world_size())

    @property
    def precision(self) -> str:
        """The name that `dtype` has in settings."""
        return next(name for name, dtype in _DTYPES.items() if dtype == self.dtype)

    @property
    def advice(self) -> str:
        """What to choose where this device is slow at this arithmetic; nothing otherwise."""
        slow = self.dtype == torch.float16 and self.device.type == "cpu"
        return "fp16 is for GPUs, and slow on a CPU: set runtime.precision to auto, bf16 or fp32" if slow else ""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, validates and talks."""
        return self.rank == 0

    def close(self) -> None:
        """Leave the group of processes."""
        if self.world > 1:
            # gloo's threads must have let go of the last tensors: else it may hang, or the end of Python abort the process.
            time.sleep(0.3)
            dist.destroy_process_group()

    def all_sum(self, number: float) -> float:
        """The sum of every process's number, in fp64; it passes no device."""
        if self.world == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64)
        _together(dist.all_reduce, total)
        return float(total)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A part of the work that all processes leave together: the mistake that ends it in one ends it in all.

        Of the processes that found it the first one tells of it; the others exit with the same code.
        """
        error: S2SError | OSError | None = None
        try:
            yield
        except (S2SError, OSError) as found:
            error = found
        first = torch.tensor(self.rank if error is not None else self.world)
        if self.world > 1:
            _together(dist.all_reduce, first, dist.ReduceOp.MIN)
        if error is not None and int(first) == self.rank:
            raise error
        if int(first) < self.world:
            raise SystemExit(2)

    def mean_gradients(self, parameters: Sequence[torch.nn.Parameter], weight: int, sums: Tensor) -> Tensor:
        """Put the mean of all processes' gradients, by their weights, into each; returns `sums` [N] of all, added up. A parameter
        that has none, as of a layer that was left out, has a gradient of 0, with one process as with several.

        Once an update, in one message, and without waiting for the device.
        """
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.world == 1:
            return sums
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        sizes = [grad.numel() for grad in grads]
        flat = torch.cat(
            [*(grad.flatten() for grad in grads), sums.to(grads[0].dtype), grads[0].new_full((1,), weight)]
        )
        flat[: sum(sizes)] *= weight
        _together(dist.all_reduce, flat)
        *means, sums, weights = flat.split([*sizes, len(sums), 1])
        for grad, part in zip(grads, means, strict=True):
            grad.copy_(part.view_as(grad) / weights)
        return sums.double()

    def share(self, value: Any, source: int = 0) -> Any:
        """The main process's value, which JSON can hold, in all of them; or that of another one. It passes no device."""
        if self.world == 1:
            return value
        data = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
        size = torch.tensor(len(data))
        _together(dist.broadcast, size, source)
        data = data if self.rank == source else torch.empty(int(size), dtype=torch.uint8)
        _together(dist.broadcast, data, source)
        return json.loads(bytes(data.tolist()))

    def spread(self, tensors: Sequence[Tensor], source: int) -> None:
        """Fill tensors, of one type, with those of the process `source`, in one message."""
        if not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        _together(dist.broadcast, flat, source)
        if self.rank != source:
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copies, in the main process's memory, of the tensors of all processes, whose names differ; the others get none."""
        found: dict[str, Tensor] = {}
        for source in range(self.world):
            shapes = self.share({name: [*t.shape] for name, t in tensors.items()}, source)
            types = self.share({name: str(t.dtype).removeprefix("torch.") for name, t in tensors.items()}, source)
            for name, shape in shapes.items():
                mine = self.rank == source
                there = tensors[name].detach() if mine else torch.empty(shape, dtype=getattr(torch, types[name]))
                there = there.to(self.device).contiguous()
                if self.world > 1:
                    _together(dist.broadcast, there, source)
                if self.is_main:
                    found[name] = there.to("cpu", copy=True)
        return found

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Matrix products inside compute in `dtype`."""
        if self.dtype in (torch.float32, torch.int8):
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        name = f"{self.world} × {name}" if self.world > 1 else name
        return f"{name}, {str(self.dtype).removeprefix('torch.')}"


def _together(collective: Callable[..., object], *arguments: Any) -> None:
    """What all processes do at once. Raises S2SError where one of them is no longer there, such as one that was killed."""
    try:
        collective(*arguments)
    except RuntimeError as error:
        if is_out_of_memory(error) or "CUDA error" in str(error):  # of this process
            raise
        raise S2SError(
            "another process has ended, and this one cannot go on without it: look for what it said, or what killed it, and give "
            f"the same command again ({str(error).partition(chr(10))[0][:200]})"
        ) from None


def available_memory(device: torch.device) -> int:
    """Bytes that are free on a device; on a CPU, each of the processes of this machine has its part of what is available."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # Linux knows what is free or could be, and what limits a container
        lines = Path("/proc/meminfo").read_text(encoding="ascii").split("\n")
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        for line in (group / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):  # text that was read, and is forgotten where room is needed
                used -= int(line.split()[1])
        free = min(free, int((group / "memory.max").read_text()) - used)
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """torch has a class for it on accelerators, and messages on CPU, of cuBLAS and of CUDA itself."""
    return isinstance(error, torch.OutOfMemoryError) or any(name in str(error) for name in _OUT_OF_MEMORY)


def is_bf16_fast(device: str) -> bool:
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


def keep_memory() -> None:
    """Let this process keep the memory that it frees, where its C library is glibc.

    Else each large tensor is a new mapping, whose pages the system fills with zeros first: up to a tenth of the time that a
    search takes, or a step of training.
    """
    with contextlib.suppress(AttributeError, OSError):  # another library has no mallopt, or no such numbers for it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 2**30) or mallopt(_MMAP_THRESHOLD, 2**25)  # the most that older ones take
        mallopt(_TRIM_THRESHOLD, 2**30)


class StopSignal:
    """Turns Ctrl-C, SIGTERM and the end of the terminal (SIGHUP, unless `nohup` has it ignored) into a flag that a loop reads
    between two steps; a second Ctrl-C ends at once.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._at_once = ""

    def __enter__(self) -> "StopSignal":
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        self._before = {s: signal.signal(s, self._note) for s in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        sys.unraisablehook = self._hook

    def _swallowed(self, what: Any) -> None:
        """Say nothing of an Interrupted that came where Python can raise nothing, as in a finalizer: the flag is there."""
        if not issubclass(what.exc_type, Interrupted):
            self._hook(what)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
        message, self._at_once = self._at_once, ""  # once: what it ends may need to clear away
        if message:
            raise Interrupted(signum, message)

    @contextlib.contextmanager
    def at_once(self, message: str, inside: bool = True) -> Iterator[None]:
        """A signal of before raises Interrupted, and `inside` one that comes, wherever the work stands: for work that is given
        up, such as a validation.
        """
        if self.signum:
            raise Interrupted(self.signum, message)
        self._at_once = message if inside else ""
        try:
            yield
        finally:
            self._at_once = ""

    def check(self, _done: int = 0) -> None:
        """Raise Interrupted if a signal has come: for work that is given up, such as a validation."""
        if self.signum:
            raise Interrupted(self.signum, "interrupted")


class Background:
    """A thread that does one job at a time; what goes wrong in it is raised where the next thing is asked of it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "s2s-writer")
        self._job: Future[None] | None = None

    def run(self, job: Callable[[], None]) -> None:
        """Begin a job, once the one before is done."""
        self.wait()
        self._job = self._pool.submit(job)

    def join(self) -> None:
        """Wait for the end of the job."""
        if self._job is not None:
            self._job.exception()

    def wait(self) -> None:
        """Wait for the end of the job, and raise what went wrong in it."""
        if (job := self._job) is not None:
            try:
                job.result()
            finally:
                self._job = None if job.done() else job  # a second Ctrl-C may end the waiting alone

    def check(self) -> None:
        """Raise what has gone wrong, without waiting."""
        if self._job is not None and self._job.done():
            self.wait()


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process alone; raises S2SError if another process has it. A dead process holds nothing."""
    refusal = f"{folder} is in use by another process: wait for it, stop it, or choose another folder"
    with held(folder / ".lock", refusal):
        yield


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is never there in part, wherever the process or the machine dies."""
    with whole_file(path) as file:
        file.write(text.encode())


def has_screen() -> bool:
    """Whether stderr is a terminal that has room for a progress bar."""
    return sys.stderr is not None and sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


def tell(message: str) -> None:
    """One line on stderr, above a progress bar if one is on the screen; the work goes on where nobody reads it any more."""
    with contextlib.suppress(OSError):
        if has_screen():
            from tqdm import tqdm

            tqdm.write(message, file=sys.stderr)
        elif sys.stderr is not None:
            print(message, file=sys.stderr, flush=True)
