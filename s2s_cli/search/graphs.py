"""Steps of a search as CUDA graphs: what a step asks of the device is written down once, and then asked for by one call.

A step is some hundred small operations, which a GPU does faster than a host can ask for them one by one. What a graph reads and
writes lies in fixed places, so that a recording serves inputs of the same shapes alone: these are copied to where it reads.
This room knows values made of tensors, and a function from one to the next; no model, and nothing of what is searched.
"""

from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

_MOST = 8  # recordings that are kept: each has the memory of a batch


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

    def __init__(self, at: Any, begin: list[Tensor], step: Callable[[Any, int], tuple[Any, ...]]) -> None:
        self._at, self._begin, self._step = at, begin, step
        self._steps: list[tuple[torch.cuda.CUDAGraph, tuple[Any, ...]]] = []
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def begin(self, tensors: list[Tensor]) -> None:
        """Start again, from other tensors of the same shapes."""
        torch._foreach_copy_(self._begin, tensors)

    def __call__(self, number: int) -> tuple[Any, ...]:
        """The results of step `number`, all before it being done: tensors that hold them until this step is taken again."""
        if number == len(self._steps):
            graph, now = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            self._stream.wait_stream(now)
            with torch.cuda.stream(self._stream):
                graph.capture_begin(self._pool, capture_error_mode="thread_local")
                try:
                    self._at, *results = self._step(self._at, number)
                finally:
                    graph.capture_end()
            now.wait_stream(self._stream)
            self._steps.append((graph, tuple(results)))
        graph, found = self._steps[number]
        graph.replay()
        return found


class Recorder:
    """Recordings by the shapes that they are of, the last few. The first batch of any shapes is not worth one."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, Recording | None] = {}

    def find(self, start: tuple[Any, Any], step: Callable[[Any, int], tuple[Any, ...]]) -> Recording | None:
        """A recording that begins with `start`: where a search is, and whatever else `step` reads. None for new shapes."""
        tensors = tensors_of(start)
        if tensors[0].device.type != "cuda":
            return None
        key: Hashable = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        seen, recording = key in self._seen, self._seen.pop(key, None)
        if recording is not None:
            recording.begin(tensors)
        elif seen:
            recording = Recording(start[0], tensors, step)
        self._seen[key] = recording
        for oldest in [key for key, one in self._seen.items() if one is not None][:-_MOST]:
            del self._seen[oldest]
        return recording
