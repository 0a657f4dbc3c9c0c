"""What a process that was forked to help another one does first: it leaves signals to that one, and ends with it."""

import gc
import multiprocessing
import os
import signal
import threading


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
