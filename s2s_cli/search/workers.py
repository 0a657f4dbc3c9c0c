"""Processes that search batches of sentences beside each other, each with one thread, on the cores of a CPU.

The matrices of one batch are small to be shared out among cores, and most operators between them use one. They are copies of
this process, models included, which they share in memory; what crosses over are pieces and hypotheses. This room knows neither
models nor text.
"""

import sys
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from s2s_cli.errors import S2SError
from s2s_cli.runtime import is_out_of_memory, keep_memory
from s2s_cli.search.strategies import evenly
from s2s_cli.worker import call, start_pool

Work = Callable[..., Any]
_SMALL = 2048  # positions times hypotheses, below which a batch is no faster for being smaller
_NARROW = 256  # width of a model, up to which its steps cost more for each call than for each row
_ROUNDS = 2  # batches that each of several processes gets of a window, if it is not so small


class Workers:
    """Calls `work(*args)` in `num` processes, or here, where that is 1.

    They start when they are first needed, and end with `close`, with this object, or with the process that made it.
    """

    def __init__(self, work: Work, num: int) -> None:
        self._work = work
        self._pool: ProcessPoolExecutor | None = None
        # macOS's own libraries forbid forking, and a process that is started anew would have to load the models again.
        self.num = num if sys.platform == "linux" else 1

    def each(self, jobs: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """The number of each job and its result, as they come; only one is done without other processes."""
        left, running = iter(enumerate(jobs)), dict[Future[Any], int]()
        try:
            if self.num == 1 or len(jobs) <= 1:
                for number, job in left:
                    yield number, self._work(*job)
                return
            pool = self._pool or self._start()
            while True:
                while len(running) < 2 * self.num and (next_one := next(left, None)) is not None:
                    running[pool.submit(call, *next_one[1])] = next_one[0]
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
        except BrokenProcessPool:
            self._kill()  # the next call begins with new ones
            raise S2SError(
                "a process that searches was killed, most likely for want of memory: lower --search-tokens, or take "
                "--threads 1"
            ) from None
        except (RuntimeError, MemoryError) as error:
            self._kill()
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            raise S2SError(
                "search needs more memory than there is: lower --search-tokens (or --beam, --samples)"
            ) from None
        except BaseException:  # the work is given up: let nobody wait for it
            self._kill()
            raise

    def _start(self) -> ProcessPoolExecutor:
        self._pool = start_pool(self._work, self.num, first=_first)
        # Waiting, since the interpreter's own end would meet a pool that is half shut down with a traceback.
        weakref.finalize(self, self._pool.shutdown, wait=True, cancel_futures=True)
        return self._pool

    def close(self) -> None:
        """End the processes, once they are done with what they are at."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _kill(self) -> None:
        """End the processes, whatever they are at: a batch may take minutes."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):  # `kill_workers` of Python 3.14
                process.kill()
            self.close()


def _first() -> None:
    keep_memory()
    torch.set_num_threads(1)


def at_once(device: str, is_beam: bool, dim: int, dtype: torch.dtype) -> int:
    """Source positions times beam that are searched fastest at once: on a CPU few, unless a beam of a narrow model makes steps
    whose cost hardly depends on how many there are; fewest where without a beam a wide one, in fp32, is all products.
    """
    if device == "cuda":
        return 32768
    if dim <= _NARROW:
        return 12288 if is_beam else 4096
    return 4096 if is_beam or dtype != torch.float32 else 2048


def batched(
    places: Sequence[int], length: Callable[[int], int], budget: int, rows: int, workers: int
) -> list[list[int]]:
    """`places`, from the longest to the shortest, in batches of no more than `budget` positions times `rows` hypotheses; for
    several workers as many for each, and of like size, for none to wait at the end. They hold even numbers (see `evenly`).
    """

    def cut(size: int) -> list[list[int]]:
        batches, begin = [], 0
        while begin < len(places):
            num = max(1, size // (length(places[begin]) * rows))
            num -= num % evenly(num)
            batches.append(list(places[begin : begin + num]))
            begin += num
        return batches

    if workers == 1:
        return cut(budget)
    total = rows * sum(map(length, places))
    num = max(len(cut(budget)), min(_ROUNDS * workers, -(-total // _SMALL)))
    if num > workers:
        num = -(-num // workers) * workers
    return cut(bisect_left(range(budget), True, key=lambda size: len(cut(size)) <= num))  # the smallest that is enough


def in_few_shapes(places: Sequence[int], length: Callable[[int], int], budget: int, rows: int) -> list[list[int]]:
    """`batched` for a device that replays batches of shapes which it has met: as many rows for each length, a power of two or
    half as much again. Only the last batch may have fewer.
    """
    batches, begin = [], 0
    while begin < len(places):
        most = max(1, budget // (length(places[begin]) * rows))
        power = 1 << (most.bit_length() - 1)
        size = power * 3 // 2 if most >= power * 3 // 2 else power
        batches.append(list(places[begin : begin + size]))
        begin += size
    return batches
