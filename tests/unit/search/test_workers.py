"""Processes that search beside each other: what becomes of them when the work is given up, and of signals meanwhile."""

import multiprocessing
import signal
import sys
import threading
import time

import pytest

from s2s_cli.search.workers import Workers
from s2s_cli.worker import signals_wait

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they are forked on Linux alone")


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_work_that_is_given_up_is_waited_for_by_nobody() -> None:
    """The second job would take an hour."""
    results = Workers(sleep, 2).each([(0.0,), (3600.0,)])
    assert next(results) == (0, 0.0)
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert not multiprocessing.active_children()


def test_a_signal_waits_for_the_end_of_a_fork() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, _frame: heard.append(signum))
    try:
        with signals_wait():
            signal.raise_signal(signal.SIGTERM)
            assert not heard
        assert heard == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert len(heard) == 2
        thread = threading.Thread(target=lambda: [heard.append(0) for _ in [signals_wait().__enter__()]])
        thread.start()
        thread.join()
        assert heard[2:] == [0], "other threads have no handlers, and may fork too"
    finally:
        signal.signal(signal.SIGTERM, before)
