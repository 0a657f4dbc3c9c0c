"""How a process is forked to help another one: what it does first, to leave signals to that one and to end with it."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator


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


def _end_with_parent() -> None:
    """A first process that was killed could not end its workers, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
