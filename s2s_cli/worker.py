"""Processes that help another one: how they start, and what each does first, to leave signals to that one and to end with it."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from types import FrameType
from typing import Any

from s2s_cli.errors import Interrupted


def cores() -> int:
    """Cores that this process may use: its share of them, where torchrun has started several on this machine."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, found // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def threads(asked: int) -> int:
    """How many threads to compute with; 0 leaves it to torch, whose choice is right but where torchrun, unless told, gives each
    of several processes a single one.
    """
    several = os.environ.get("LOCAL_WORLD_SIZE", "1") != "1"
    return asked or (cores() if several and os.environ.get("OMP_NUM_THREADS") == "1" else 0)


@contextlib.contextmanager
def tidy_end() -> Iterator[None]:
    """Within, SIGTERM raises Interrupted, so that what was begun is tidied up; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return

    def end(signum: int, _frame: FrameType | None) -> None:
        signal.signal(signum, before)
        raise Interrupted(signum, "terminated")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Within, for forking, Ctrl-C and SIGTERM are noted only, and heard afterwards.

    An exception out of their handlers would be lost on the way through Python's own part of a fork, or end a new process that
    still has them with a traceback.
    """
    if threading.current_thread() is not threading.main_thread():  # where no handler runs
        yield
        return
    came: list[int] = []
    before = {s: signal.signal(s, lambda signum, _frame: came.append(signum)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        for number in came:
            signal.raise_signal(number)


def start_pool(
    work: Callable[..., Any], num: int, method: str = "fork", first: Callable[[], None] | None = None
) -> ProcessPoolExecutor:
    """`num` processes that have `work`, for `call` to do it, and that each call `first` before all else."""
    pool = ProcessPoolExecutor(num, multiprocessing.get_context(method), _start, (work, first))
    try:
        with signals_wait():
            pool.submit(bool)  # the first job starts them all
    except BaseException:
        for process in list(
            (pool._processes or {}).values()
        ):  # of a start that failed half-way, which nobody else would end
            process.kill()
        pool.shutdown(cancel_futures=True)
        raise
    return pool


def call(*args: Any) -> Any:
    """In one of the processes of a pool: what its work makes of the arguments."""
    return _work(*args)


_work: Callable[..., Any]  # in such a process, set once when it starts


def _start(work: Callable[..., Any], first: Callable[[], None] | None) -> None:
    global _work
    _work = work
    _become_worker()
    if first is not None:
        first()


def _become_worker() -> None:
    gc.freeze()  # what is there stays there: looking through it again and again would take a twentieth of the time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the first process ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A first process that was killed could not end its workers, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
