"""A search whose steps are replayed finds what one that computes them finds: by a stand-in on a CPU, and on CUDA.

What a graph does is what its step did with the tensors of the first batch, once those of another batch stand in their places.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from grid import BOS, EOS, GRID, PAD, Case, pad, sentences

from s2s_cli.config import SearchSettings
from s2s_cli.models.base import Seq2Seq
from s2s_cli.search.graphs import Recorder, tensors_of
from s2s_cli.search.hypotheses import Hypothesis
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

    def find(self, start: tuple[Any, Any], step: Callable[[Any, int], tuple[Any, ...]]) -> Any:
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


def width() -> int:
    """The longest source of all batches and its end: shapes are alike."""
    return max(len(ids) for batch, _ in BATCHES for ids in batch)


@torch.no_grad()
def found(
    model: Seq2Seq, number: int, device: str, recorder: Recorder | None, options: dict[str, Any], attention: bool
) -> list[list[Hypothesis]]:
    batch, limits = BATCHES[number]
    src, src_len = pad(batch, width() - max(map(len, batch)))
    memory = model.encode(src.to(device), src_len)
    if not options.keys() & {"min_len", "min_len_ratio"}:
        limits = Limits([0] * len(batch), limits.max_len)
    settings, specials = SearchSettings(**options), Specials(BOS, EOS, banned=(PAD, BOS), may_repeat=(5,))
    rest = (limits, specials, settings, 1, attention)
    return beam_search(model.step, memory, model.start(memory), *rest, recorder=recorder)


def held(model: Seq2Seq, device: str, recorder: Recorder, options: dict[str, Any], attention: bool) -> None:
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
            assert any(recording is not None for recording in recorder._seen.values())


@CUDA
def test_few_recordings_are_kept() -> None:
    model, recorder = copy.deepcopy(GRID[0].build()).cuda(), Recorder()
    for extra in (*range(12), *range(12)):
        batch, limits = BATCHES[0]
        src, src_len = pad(batch, extra)
        with torch.no_grad():
            memory = model.encode(src.cuda(), src_len)
            rest = (limits, Specials(BOS, EOS, banned=(PAD, BOS)), SearchSettings(beam=1))
            beam_search(model.step, memory, model.start(memory), *rest, recorder=recorder)
    assert sum(recording is not None for recording in recorder._seen.values()) <= 8
