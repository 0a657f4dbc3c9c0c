"""Processes that search beside each other: the same results, nothing left behind, mistakes told here."""

import multiprocessing
import os
import signal
import sys
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import random_model, sentences

from s2s_cli.config import SearchSettings, TranslateSettings
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import ConfigError, S2SError
from s2s_cli.runtime import Runtime
from s2s_cli.search.translator import Translator
from s2s_cli.search.workers import Workers, batched, in_few_shapes
from s2s_cli.worker import signals_wait

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def fail(number: int) -> int:
    if number == 3:
        raise ConfigError("three is no number for us")
    return number


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_jobs_are_done_by_others_and_one_alone_here() -> None:
    for num in (2, 3):
        workers = Workers(square, num)
        found = dict(workers.each([(n,) for n in range(20)]))
        assert {number: value for number, (value, _) in found.items()} == {n: n * n for n in range(20)}
        assert os.getpid() not in {pid for _, pid in found.values()}
        assert dict(workers.each([(5,)])) == {0: (25, os.getpid())}
        assert dict(workers.each([])) == {}
        workers.close()
    assert {pid for _, (_, pid) in Workers(square, 1).each([(n,) for n in range(3)])} == {os.getpid()}


def test_what_goes_wrong_is_told_here_and_work_can_go_on() -> None:
    workers = Workers(fail, 2)
    with pytest.raises(ConfigError, match="three is no number"):
        list(workers.each([(n,) for n in range(6)]))
    assert dict(workers.each([(7,), (8,)])) == {0: 7, 1: 8}
    workers.close()
    workers = Workers(die, 2)
    for _ in range(2):
        with pytest.raises(S2SError, match="was killed"):
            list(workers.each([(n,) for n in range(6)]))
    assert dict(workers.each([(7,), (8,)])) == {0: 7, 1: 8}
    workers.close()


def test_processes_end_with_what_they_were_made_for() -> None:
    workers = Workers(square, 2)
    list(workers.each([(n,) for n in range(4)]))
    children = multiprocessing.active_children()
    assert len(children) >= 2
    del workers  # which waits for them: a pool that is half shut down troubles the interpreter's own end
    assert not any(child.is_alive() for child in children)


@pytest.mark.parametrize(
    "settings", [{}, {"nbest": 2}, {"samples": 3}, {"samples": 4, "mbr": "chrf"}, {"align": "words"}]
)
def test_output_does_not_depend_on_their_number(
    vocabs: Vocabs, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [src for src, _ in sentences(60, seed=3)] + ["", "  "]
    search = SearchSettings(beam=3, max_len=12, search_tokens=100)
    found = []
    for num in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda num=num: num)
        tool = Translator.of([random_model(vocabs, 1)], vocabs, search, Runtime(torch.device("cpu"), torch.float32))
        assert tool.workers.num == num
        outputs = tool.search(lines, TranslateSettings(**settings, flush_every=40))
        found.append([[(one.text, one.score, one.alignment) for one in ones] for ones in outputs])
        tool.workers.close()
    assert found[0] == found[1]


def test_batches_hold_what_they_may_and_everything_once() -> None:
    lengths = sorted([3, 9, 14, 15, 40, 1, 1, 200, 7, 7, 7] * 100, reverse=True)
    for workers in (1, 2, 8):
        for rows in (1, 5):
            batches = batched(range(len(lengths)), lengths.__getitem__, 4096, rows, workers)
            assert [i for batch in batches for i in batch] == list(range(len(lengths)))
            assert all(len(b) == 1 or len(b) * lengths[b[0]] * rows <= 4096 for b in batches)
            assert len(batches) >= workers
            sizes = [len(b) * lengths[b[0]] * rows for b in batches]
            assert min(sizes[:-1]) > 0.85 * max(sizes)
            if workers > 1:
                one = batched(range(len(lengths)), lengths.__getitem__, 4096, rows, 1)
                assert len(batches) < len(one) + workers or len(batches) == 2 * workers


def short(*_: object) -> None:
    raise torch.OutOfMemoryError


@pytest.mark.parametrize("num", [1, 2])
def test_too_little_memory_is_a_mistake_with_a_remedy(num: int) -> None:
    with pytest.raises(S2SError, match="lower --search-tokens"):
        list(Workers(short, num).each([(1,), (2,)]))


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


@given(st.lists(st.integers(1, 60), max_size=300), st.sampled_from([1, 2, 5]), st.sampled_from([64, 700, 4096]))
def test_batches_of_few_shapes(lengths: list[int], rows: int, budget: int) -> None:
    """Each place once, in order, within the budget; but for the last, as many for each length of the first."""
    lengths.sort(reverse=True)
    batches = in_few_shapes(range(len(lengths)), lengths.__getitem__, budget, rows)
    assert [i for batch in batches for i in batch] == list(range(len(lengths)))
    sizes: dict[int, int] = {}
    for batch in batches[:-1]:
        longest = lengths[batch[0]]
        assert len(batch) * longest * rows <= budget or len(batch) == 1
        assert len(batch) * 2 * longest * rows > budget
        assert sizes.setdefault(longest, len(batch)) == len(batch)
        assert len(batch) in {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256}
    if batches:
        longest = lengths[batches[-1][0]]
        assert len(batches[-1]) == 1 or len(batches[-1]) * longest * rows <= budget
