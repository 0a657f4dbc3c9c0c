"""A search whose steps are replayed finds what one that computes them finds: by a stand-in on a CPU, and on CUDA.

What a graph does is what its step did with the tensors of the first batch, once those of another batch stand in their places.
"""

import contextlib
import copy
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from grid import BOS, EOS, GRID, PAD, VOCAB, Case, pad, sentences
from pretended_cuda import pretended_cuda

from s2s_cli.config import SearchSettings
from s2s_cli.models.base import Seq2Seq
from s2s_cli.models.pack import pack
from s2s_cli.search.graphs import Recorder, tensors_of
from s2s_cli.search.hypotheses import Hypothesis
from s2s_cli.search.logprobs import Ensemble
from s2s_cli.search.strategies import Limits, Specials, beam_search

EACH = pytest.mark.parametrize("case", GRID, ids=lambda case: case.name)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
OPTIONS = [
    {"beam": 1},
    {"beam": 3},
    {"beam": 9},
    {"beam": 3, "min_len": 2, "no_repeat_ngram": 2, "repetition_penalty": 1.2},
    {"beam": 3, "coverage_penalty": 0.2, "min_len_ratio": 0.4},
]
BATCHES = [  # of one shape: sources, and the limits of their outputs
    (sentences(4, seed=seed), Limits([0, 0, fewest, 1], [4, most, 6, 1]))
    for seed, fewest, most in ((1, 0, 5), (2, 2, 2), (3, 3, 7))
]


class StandIn(Recorder):
    """Calls the step of the first search again, on its tensors, which hold the numbers of another one."""

    def __init__(self) -> None:
        self.first: tuple[Any, list[torch.Tensor], Callable] | None = None

    def take(self, start: tuple[Any, Any], step: Callable[[Any, int], tuple[Any, ...]], how: Any = None) -> Any:
        if self.first is None:
            self.first = start[0], tensors_of(start), step
        at, begin, step = self.first
        for mine, other in zip(begin, tensors_of(start), strict=True):
            mine.copy_(other)

        def replay(number: int) -> tuple[Any, ...]:
            nonlocal at
            at, *results = step(at, number)
            return tuple(results)

        return replay

    def put(self, recording: Any) -> None:
        pass


def width() -> int:
    """The longest source of all batches and its end: shapes are alike."""
    return max(len(ids) for batch, _ in BATCHES for ids in batch)


@torch.no_grad()
def found(
    model: Seq2Seq | Ensemble,
    number: int,
    device: str,
    recorder: Recorder | None,
    options: dict[str, Any],
    attention: bool,
) -> list[list[Hypothesis]]:
    batch, limits = BATCHES[number]
    src, src_len = pad(batch, width() - max(map(len, batch)))
    memory = model.encode(src.to(device), src_len)
    if not options.keys() & {"min_len", "min_len_ratio"}:
        limits = Limits([0] * len(batch), limits.max_len)
    settings, specials = (
        SearchSettings(**options),
        Specials(BOS, EOS, banned=(PAD, BOS), may_repeat=tuple(range(5, VOCAB, 2))),
    )
    rest = (limits, specials, settings, settings.beam // 2 or 1, attention)
    return beam_search(model.step, memory, model.start(memory), *rest, recorder=recorder)


def held(model: Seq2Seq | Ensemble, device: str, recorder: Recorder, options: dict[str, Any], attention: bool) -> None:
    """Three batches twice over, replayed and computed."""
    for number in (0, 1, 2, 0, 1, 2):
        ours = found(model, number, device, recorder, options, attention)
        for mine, theirs in zip(ours, found(model, number, device, None, options, attention), strict=True):
            assert [h.ids for h in mine] == [h.ids for h in theirs]
            for one, other in zip(mine, theirs, strict=True):
                torch.testing.assert_close(torch.tensor(one.logps), torch.tensor(other.logps), atol=1e-4, rtol=1e-3)
                if attention:
                    torch.testing.assert_close(one.attention, other.attention, atol=1e-4, rtol=1e-3)


def looks(case: Case) -> bool:
    return getattr(case.settings, "attention", "") != "none"


@EACH
def test_a_replayed_search_finds_the_same(case: Case) -> None:
    for options in OPTIONS:
        if looks(case) or "coverage_penalty" not in options:
            held(case.build(), "cpu", StandIn(), options, looks(case))


@CUDA
@EACH
def test_a_search_of_graphs_finds_the_same(case: Case) -> None:
    there = copy.deepcopy(case.build()).cuda()
    for options in OPTIONS:
        if looks(case) or "coverage_penalty" not in options:
            recorder = Recorder()
            held(there, "cuda", recorder, options, looks(case))
            assert recorder._kept


@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
def test_a_replayed_ensemble_finds_the_same(options: dict[str, Any]) -> None:
    members = [
        next(case.build() for case in GRID if case.shared and case.name.startswith(name)) for name in ("tra", "rnn")
    ]
    held(Ensemble(members), "cpu", StandIn(), options, attention=False)


@CUDA
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@EACH
def test_a_packed_model_of_graphs_finds_the_same(case: Case, dtype: torch.dtype) -> None:
    there = pack(copy.deepcopy(case.build()).cuda(), dtype)
    for options in OPTIONS[:2]:
        with torch.inference_mode():
            held(there, "cuda", Recorder(), options, attention=False)


class Graph:
    """What a recording wants of CUDA, where there is none; what is recorded is computed once, and left so."""

    capturing = False

    def capture_begin(self, *_: object, **__: object) -> None:
        Graph.capturing = True

    def capture_end(self) -> None:
        Graph.capturing = False

    def replay(self) -> None:
        assert not Graph.capturing


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    for name in ("graph_pool_handle", "Stream", "current_stream", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: Graph.capturing)


def taken(recorder: Recorder, size: int, step: Callable = lambda at, number: (at, number)) -> Any:
    """As a search on CUDA takes one out: `There` only says that it lies there."""
    with pretended_cuda():
        return recorder.take((torch.zeros(size).to("cuda"), ()), step)


@pytest.mark.usefixtures("graphs")
@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="a build of torch with CUDA asks its driver")
def test_a_recording_is_made_of_what_comes_again_and_is_had_by_one() -> None:
    recorder = Recorder()
    assert taken(recorder, 3) is None
    first = taken(recorder, 3)
    assert [first(number) for number in range(3)] == [(0,), (1,), (2,)]
    assert taken(recorder, 3) not in (None, first)  # one that is being used is nobody else's
    recorder.put(first)
    assert taken(recorder, 3) is first
    for size in (*range(1, 20), *range(1, 20), *range(1, 20)):
        if (recording := taken(recorder, size)) is not None:
            recorder.put(recording)
    assert 3 <= len(recorder._kept) <= 6


@pytest.mark.usefixtures("graphs")
@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="a build of torch with CUDA asks its driver")
@pytest.mark.parametrize("num_shapes", [6, 8, 12])
def test_more_shapes_than_are_kept_are_still_replayed(num_shapes: int) -> None:
    """As windows of a file have them, from long to short, again and again."""
    recorder, keep = Recorder(), list[Any]()
    made, replayed = set[int](), 0
    for size in 20 * list(range(num_shapes, 0, -1)):
        if (recording := taken(recorder, size)) is not None:
            replayed += id(recording) in made
            made.add(id(recording))
            keep.append(recording)
            recorder.put(recording)
    assert replayed >= 20 * num_shapes * 0.3


@pytest.mark.usefixtures("graphs")
@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="a build of torch with CUDA asks its driver")
def test_one_that_gave_up_records_no_more() -> None:
    recorder = Recorder()
    taken(recorder, 3)
    recorder.put(taken(recorder, 3))
    assert recorder.give_up()
    assert not recorder._kept
    assert taken(recorder, 3) is None
    assert not recorder.give_up()


@pytest.mark.usefixtures("graphs")
@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="a build of torch with CUDA asks its driver")
def test_a_step_that_fails_leaves_no_capture_and_no_recording() -> None:
    def step(at: torch.Tensor, number: int) -> tuple[torch.Tensor, int]:
        if number == 1:
            raise KeyboardInterrupt
        return at, number

    recorder = Recorder()
    taken(recorder, 3)
    recording = taken(recorder, 3, step)
    recording(0)
    with pytest.raises(KeyboardInterrupt):
        recording(1)
    assert not Graph.capturing
    assert not recorder._kept
