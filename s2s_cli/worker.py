"""How a process is forked to help another one: what it does first, to leave signals to that one and to end with it."""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them


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


def become_worker() -> None:
    """Call it in the new process, before all work."""
    gc.freeze()  # what is there stays there: looking through it again and again would take a twentieth of the time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the first process ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def keep_memory() -> None:
    """Let this process keep the memory that it frees, where its C library is glibc.

    Else each large tensor is a new mapping, whose pages the system fills with zeros first: a tenth of the time of a search.
    """
    with contextlib.suppress(AttributeError, OSError):  # another library has no mallopt, or no such numbers for it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**30)


def _end_with_parent() -> None:
    """A first process that was killed could not end its workers, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
