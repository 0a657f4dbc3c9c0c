"""Steps of a search as CUDA graphs: what a step asks of the device is written down once, and then asked for by one call.

A step is some hundred small operations, which a GPU does faster than a host can ask for them one by one. What a graph reads and
writes lies in fixed places, so that a recording serves inputs of the same shapes alone: these are copied to where it reads.
This room knows values made of tensors, and a function from one to the next; no model, and nothing of what is searched.
"""

import contextlib
import threading
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

_MOST = 6  # recordings that are kept: each has the memory of a batch
_LOCK = threading.Lock()  # a process can make one at a time


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in a value of dataclasses and tuples, in order."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value):
        value = tuple(getattr(value, f.name) for f in fields(value))
    return [tensor for item in value for tensor in tensors_of(item)] if isinstance(value, tuple) else []


class Recording:
    """The steps of a search that began at `at`, where its tensors stay; `step` takes it to (where it is then, *results).

    The number of a step, from 0, is all else that `step` may depend on: no number of the batch may come to the host.
    """

    def __init__(
        self, key: Hashable, at: Any, begin: list[Tensor], step: Callable[[Any, int], tuple[Any, ...]]
    ) -> None:
        self.key, self._at, self._begin, self._step = key, at, begin, step
        self._steps: list[tuple[torch.cuda.CUDAGraph, tuple[Any, ...]]] = []
        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()  # which cannot be done while a step is recorded

    def begin(self, tensors: list[Tensor]) -> None:
        """Start again, from other tensors of the same shapes."""
        torch._foreach_copy_(self._begin, tensors)

    def __call__(self, number: int) -> tuple[Any, ...]:
        """The results of step `number`, all before it being done: tensors that hold them until this step is taken again."""
        if number == len(self._steps):
            self._steps.append(self._record(number))
        graph, found = self._steps[number]
        graph.replay()
        return found

    def _record(self, number: int) -> tuple[torch.cuda.CUDAGraph, tuple[Any, ...]]:
        graph, now, aside = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), _aside()
        aside.wait_stream(now)
        with _LOCK, torch.cuda.stream(aside):
            try:
                graph.capture_begin(self._pool, capture_error_mode="thread_local")
                self._at, *results = self._step(self._at, number)
                graph.capture_end()
            except BaseException:  # a signal may come at any time
                if torch.cuda.is_current_stream_capturing():
                    with contextlib.suppress(RuntimeError):
                        graph.capture_end()
                raise
        now.wait_stream(aside)
        return graph, tuple(results)


@cache
def _aside() -> torch.cuda.Stream:
    """Where steps are recorded: one place, since torch keeps what libraries work with for each for ever."""
    return torch.cuda.Stream()


class Recorder:
    """Recordings by the shapes that they are of, the last few. The first batch of any shapes is not worth one.

    A search takes a recording out and puts it back when all is well: no two have it at once, and one that was left in the midst
    of a step is not met again.
    """

    def __init__(self) -> None:
        self._seen: set[Hashable] = set()
        self._kept: dict[Hashable, Recording] = {}
        self._gave_up = False

    def take(
        self, start: tuple[Any, Any], step: Callable[[Any, int], tuple[Any, ...]], how: Hashable = None
    ) -> Recording | None:
        """A recording that begins with `start`: where a search is, and whatever else `step` reads. None for new shapes. What
        else steps depend on, `how` has.
        """
        tensors = tensors_of(start)
        if tensors[0].device.type != "cuda" or self._gave_up:
            return None
        key: Hashable = (how, *((tensor.shape, tensor.dtype) for tensor in tensors))
        recording = self._kept.pop(key, None)
        if recording is not None:
            recording.begin(tensors)
        elif key in self._seen:
            recording = Recording(key, start[0], tensors, step)
        self._seen.add(key)
        return recording

    def put(self, recording: Recording) -> None:
        """Keep it for the next batch of its shapes; the one that was needed longest ago may go, and its shapes are new again."""
        self._kept[recording.key] = recording
        for oldest in list(self._kept)[:-_MOST]:
            self._kept.pop(oldest, None)
            self._seen.discard(oldest)

    def give_up(self) -> bool:
        """Let go of all recordings and make no more, for want of memory; whether there was anything to let go of."""
        had, self._gave_up = not self._gave_up, True
        self._kept.clear()
        return had
