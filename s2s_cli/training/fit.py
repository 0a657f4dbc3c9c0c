"""`batch_tokens: auto`: the largest batch that the memory holds, measured on the model and the data of the run."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2s_cli.config import Config, TrainSettings
from s2s_cli.data.batching import length_order, pack
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import Batch, collate
from s2s_cli.errors import S2SError
from s2s_cli.runtime import Runtime, available_memory, is_out_of_memory
from s2s_cli.training.objective import batch_loss
from s2s_cli.training.state import Learner

_SHARE = {"cuda": 0.85, "cpu": 0.25}  # of the memory that is free
_MORE = 2.0  # what a pass needs, at most, for each byte that it keeps for the way back
_BATCHES = 100  # an epoch has at least so many, so that a small corpus does not become a few updates
_STEP = 256  # positions that sizes differ by


def fitting(config: Config, dataset: Dataset, learner: Learner, runtime: Runtime) -> int:
    """Positions of the largest batch that fits, on every process; rounded down to a multiple of 256, but no less than the
    longest pair needs.

    The memory of a pass is measured at two sizes, on those batches that need the most; it grows in proportion to the rows.
    Where the device has memory of its own, that size is then tried, and lessened until it passes.
    """
    store, settings = dataset.train, config.train
    longest = int(max(store.src_len.max(), store.tgt_len.max())) + 1
    positions = (store.src_len + store.tgt_len) / 2 + 1
    num_positions = int(
        sum(positions[start:stop].sum() * times for start, stop, times in store.repeats or [(0, len(store), 1.0)])
    )
    most = max(longest, num_positions // (_BATCHES * settings.accumulate * runtime.world))
    small = max(4 * longest, 2 * _STEP)
    budget = available_memory(runtime.device) * _SHARE[runtime.device.type]
    budget -= sum(p.numel() * p.element_size() for p in learner.model.parameters()) * (2 if runtime.world > 1 else 1)
    with runtime.step():
        try:
            bytes_small, bytes_large = (
                kept(learner, hardest(dataset, n), settings, runtime) for n in (small, 2 * small)
            )
            slope = max(1.0, (bytes_large - bytes_small) / small) * _MORE
            fits = small + (budget - bytes_small * _MORE) / slope
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = small
        size = int(max(longest, min(most, fits)))
        while runtime.device.type == "cuda" and not _passes(learner, hardest(dataset, size), settings, runtime):
            if size == longest:
                raise S2SError(
                    "one pair is too much for the memory: run preprocess with a smaller --max-len, or take a smaller model"
                )
            size = max(longest, size * 4 // 5)
    size = -int(max(-runtime.share(size, rank) for rank in range(runtime.world)))
    return max(longest, size // _STEP * _STEP) if size >= _STEP else size


def hardest(dataset: Dataset, size: int) -> list[Batch]:
    """The batches within `size` positions that may need the most memory: the longest pairs, as many as there is room for, whose
    attention is the largest; and the batch that has the most positions on both sides together.
    """
    src_len, tgt_len = dataset.train.src_len, dataset.train.tgt_len
    order = length_order(src_len, tgt_len, None)
    longest = order[-max(1, size // (int(max(src_len.max(), tgt_len.max())) + 1)) :]
    plan = pack(np.maximum(src_len, tgt_len)[order] + 1, order, size)
    fullest = max(plan, key=lambda rows: len(rows) * (int(src_len[rows].max()) + int(tgt_len[rows].max()) + 2))
    return [collate(dataset.train, rows, dataset.vocabs) for rows in (longest, fullest)]


def kept(learner: Learner, batches: Iterable[Batch], settings: TrainSettings, runtime: Runtime) -> int:
    """Bytes that the way back needs of the way there, parameters aside: the most of any of the batches."""
    return max(_kept(learner, batch, settings, runtime) for batch in batches)


def _kept(learner: Learner, batch: Batch, settings: TrainSettings, runtime: Runtime) -> int:
    weights = {parameter.untyped_storage().data_ptr() for parameter in learner.model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), runtime.autocast():
        loss: Any = batch_loss(learner.model, batch.to(runtime.device), settings, settings.sampling_ramp)
    del loss
    return sum(sizes.values())


def _passes(learner: Learner, batches: Iterable[Batch], settings: TrainSettings, runtime: Runtime) -> bool:
    """Whether the device holds each of the batches, there and back."""
    fits = True
    try:
        for batch in batches:
            with runtime.autocast():
                loss = batch_loss(learner.model, batch.to(runtime.device), settings, settings.sampling_ramp)
            (loss.total / batch.num_tokens).backward()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    learner.model.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return fits
