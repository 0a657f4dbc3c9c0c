"""Which pairs go into which batch: a pure function of lengths, budget, seed and epoch, in numpy alone.

This room knows lengths and indices, no ids, no files and no torch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from s2s_cli.data.shards import IntArray

Indices = npt.NDArray[np.int64]

BIAS = 1 << 17  # makes a difference of lengths a positive number of 18 bits


class Repeat(NamedTuple):
    """How often an epoch holds the pairs from `start` to before `stop`."""

    start: int
    stop: int
    times: float


def repeats_of(counts: Sequence[int], weights: Sequence[float], temperature: float) -> list[float]:
    """How often an epoch holds the pairs of each corpus: its weight, raised for small corpora by a temperature above 1.

    Shares are in proportion to (count * weight) ** (1 / temperature), as Arivazhagan et al. (2019) sample languages; the
    corpus with the largest share keeps its weight, so that at temperature 1 each has just its weight.
    """
    sizes = np.array(counts, float) * np.array(weights, float)
    relative = np.where(sizes > 0, sizes / sizes.max(initial=1e-300), 1.0)
    return (np.array(weights, float) * relative ** (1 / temperature - 1)).tolist()


def epoch_rows(num_rows: int, repeats: Sequence[Repeat], rng: np.random.Generator) -> Indices:
    """The rows of an epoch: each as often as `repeats` says, and one more time by chance for what is left of it.

    The k-th time that row i stands there, from 0, it is i + k · `num_rows`.
    """
    if all(repeat.times == 1 for repeat in repeats):
        return np.arange(num_rows)
    rows = []
    for start, stop, times in repeats:
        whole, rest = int(times), times - int(times)
        extra = rng.permutation(stop - start)[: int(rest * (stop - start) + (rng.random() if rest else 0.0))] + start
        rows += [np.arange(start, stop) + k * num_rows for k in range(whole)] + [extra + whole * num_rows]
    return np.concatenate(rows)


def plan_epoch(
    src_len: IntArray, tgt_len: IntArray, batch_tokens: int, seed: int, epoch: int, repeats: Sequence[Repeat] = ()
) -> list[Indices]:
    """Batches of pair indices for one epoch: each pair in exactly one, or as often as `repeats` says (see `epoch_rows`).

    A batch of R rows padded to S source and T target positions (with eos, or bos) has R * max(S, T) <= batch_tokens;
    a pair too long for that is a batch of its own. Pairs of like lengths share a batch; among equals, and between
    batches, chance decides, by (seed, epoch).
    """
    rng = np.random.default_rng([seed, epoch])
    rows = epoch_rows(len(src_len), repeats, rng)
    src_len, tgt_len = src_len[rows % len(src_len)], tgt_len[rows % len(tgt_len)]
    order = length_order(src_len, tgt_len, rng)
    batches = pack(np.maximum(src_len, tgt_len)[order] + 1, rows[order], batch_tokens)
    return [batches[i] for i in rng.permutation(len(batches))]


def plan_in_order(src_len: IntArray, tgt_len: IntArray, batch_tokens: int) -> list[Indices]:
    """Batches for validation: by length, without chance."""
    order = length_order(src_len, tgt_len, None)
    return pack(np.maximum(src_len, tgt_len)[order] + 1, order, batch_tokens)


def length_order(src_len: IntArray, tgt_len: IntArray, rng: np.random.Generator | None) -> Indices:
    """Indices sorted by the longer side, which the budget counts; then by how much longer it is, from one side to the
    other (up and down by turns, so that neighbours are alike across the seams); then by chance.
    """
    longer = np.maximum(src_len, tgt_len).astype(np.int64)
    slant = np.clip(src_len.astype(np.int64) - tgt_len, 1 - BIAS, BIAS - 1)
    slant[longer % 2 == 1] *= -1
    key = longer << 38 | (slant + BIAS) << 20
    if rng is not None:
        key |= rng.integers(0, 1 << 20, len(key))
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
