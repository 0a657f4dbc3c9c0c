"""Which pairs go into which batch: a pure function of lengths, budget, seed and epoch, in numpy alone.

This room knows lengths and indices, no ids, no files and no torch.
"""

import numpy as np
import numpy.typing as npt

from s2s_cli.data.shards import IntArray

Indices = npt.NDArray[np.int64]


def plan_epoch(src_len: IntArray, tgt_len: IntArray, batch_tokens: int, seed: int, epoch: int) -> list[Indices]:
    """Batches of pair indices for one epoch, each pair in exactly one.

    A batch of R rows padded to S source and T target positions (with eos, or bos) has R * max(S, T) <= batch_tokens;
    a pair too long for that is a batch of its own. Pairs of like lengths share a batch; among equals, and between
    batches, chance decides, by (seed, epoch).
    """
    rng = np.random.default_rng([seed, epoch])
    order = length_order(src_len, tgt_len, rng)
    batches = pack(np.maximum(src_len, tgt_len)[order] + 1, order, batch_tokens)
    return [batches[i] for i in rng.permutation(len(batches))]


def plan_in_order(src_len: IntArray, tgt_len: IntArray, batch_tokens: int) -> list[Indices]:
    """Batches for validation: by length, without chance."""
    order = length_order(src_len, tgt_len, None)
    return pack(np.maximum(src_len, tgt_len)[order] + 1, order, batch_tokens)


def length_order(src_len: IntArray, tgt_len: IntArray, rng: np.random.Generator | None) -> Indices:
    """Indices sorted by target length, then source length (up and down by turns), then chance."""
    tgt = tgt_len.astype(np.int64)
    src = np.where(tgt % 2 == 0, src_len, (1 << 20) - 1 - np.minimum(src_len, (1 << 20) - 1)).astype(np.int64)
    key = tgt << 41 | src << 21
    key |= rng.integers(0, 1 << 21, len(key)) if rng is not None else 0
    return np.argsort(key, kind="stable")


def pack(cost: IntArray, order: Indices, batch_tokens: int) -> list[Indices]:
    """Cut `order` into the longest runs whose rows times greatest cost stay within the budget."""
    batches, start = [], 0
    while start < len(order):
        window = cost[start : start + max(1, batch_tokens // int(cost[start]))]
        padded = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        rows = max(1, int(np.searchsorted(padded, batch_tokens, side="right")))
        batches.append(order[start : start + rows])
        start += rows
    return batches
