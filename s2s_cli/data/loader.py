"""From pairs on disk to tensors: padded batches, and the endless stream of them that training reads.

The order of a stream is a function of (seed, epoch) alone; a background thread loads ahead and never changes it. The
position is two integers, so that a resumed stream goes on where it stopped. This room knows nothing of models.
"""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s2s_cli.data.batching import plan_epoch, plan_in_order
from s2s_cli.data.dataset import PairStore
from s2s_cli.data.noise import Noise
from s2s_cli.data.shards import IntArray
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import DataError


@dataclass(frozen=True)
class Batch:
    """Padded pairs. Lengths count eos (or bos); `num_tokens` is the number of real target positions.

    Lengths stay in the host's memory, where they are read without waiting for a device.
    """

    src: Tensor  # [B, S] ids + eos, padded on the right
    src_len: Tensor  # [B]
    tgt_in: Tensor  # [B, T] bos + ids
    tgt_out: Tensor  # [B, T] ids + eos
    tgt_len: Tensor  # [B]
    lines: npt.NDArray[np.int64]  # [B] corpus line numbers
    num_tokens: int

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device; nothing waits for that."""
        there = torch.device(device)
        src, tgt_in, tgt_out = (copied(tensor, there) for tensor in (self.src, self.tgt_in, self.tgt_out))
        return replace(self, src=src, tgt_in=tgt_in, tgt_out=tgt_out)

    def real(self) -> Tensor:
        """[num_tokens] where the real target positions are, among those of all rows one after the other; on the device."""
        real = real_positions(self.tgt_len, self.tgt_out.shape[1])
        return copied(real.flatten().nonzero().squeeze(1), self.tgt_out.device)


def real_positions(lengths: Tensor, size: int) -> Tensor:
    """lengths [B] -> [B, size], True at the first `length` positions of each row; where the lengths are."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def copied(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy to a CUDA device out of pageable memory would wait for all work before it: page-locked memory comes between."""
    pageable = tensor.device.type == "cpu" and device.type == "cuda"
    return (tensor.pin_memory() if pageable else tensor).to(device, non_blocking=True)


def collate(
    store: PairStore,
    indices: npt.NDArray[np.integer],
    vocabs: Vocabs,
    noise: Noise | None = None,
    epoch: int = 0,
    max_src_len: int | None = None,
) -> Batch:
    """The pairs at `indices` as one batch, with the noise of an epoch if there is any, and sources cut if they are to be.

    Index i + k · N of a store of N pairs is the pair i, which the epoch holds k times before.
    """
    copies, indices = np.divmod(indices, len(store))
    lines = np.asarray(store.lines[indices])
    srcs: list[IntArray] = [store.src(i)[:max_src_len] for i in indices]
    tgts: list[IntArray] = [store.tgt(i) for i in indices]
    reads = tgts
    if noise is not None:
        noisy = (
            noise(src.tolist(), tgt.tolist(), epoch, int(n), int(k))
            for src, tgt, n, k in zip(srcs, tgts, lines, copies, strict=True)
        )
        srcs, reads, tgts = map(list, zip(*noisy, strict=True))
    src_len, tgt_len = (np.fromiter(map(len, rows), np.int64, len(rows)) + 1 for rows in (srcs, tgts))
    src = np.full((len(srcs), src_len.max()), vocabs.src.pad, np.int64)
    tgt_out = np.full((len(tgts), tgt_len.max()), vocabs.tgt.pad, np.int64)
    tgt_in = tgt_out.copy()
    tgt_in[:, 0] = vocabs.tgt.bos
    for row in range(len(indices)):
        num_src, num_tgt = src_len[row] - 1, tgt_len[row] - 1
        src[row, :num_src] = srcs[row]
        src[row, num_src] = vocabs.src.eos
        tgt_in[row, 1 : num_tgt + 1] = reads[row]
        tgt_out[row, :num_tgt] = tgts[row]
        tgt_out[row, num_tgt] = vocabs.tgt.eos
    return Batch(
        torch.from_numpy(src),
        torch.from_numpy(src_len),
        torch.from_numpy(tgt_in),
        torch.from_numpy(tgt_out),
        torch.from_numpy(tgt_len),
        lines,
        int(tgt_len.sum()),
    )


def valid_batches(
    store: PairStore,
    vocabs: Vocabs,
    batch_tokens: int,
    rows: npt.NDArray[np.integer] | None = None,
    max_src_len: int | None = None,
) -> Iterator[Batch]:
    """Every pair once, or every one of `rows`, by length, the same each time. Of sources the first `max_src_len` pieces."""
    rows = np.arange(len(store)) if rows is None else rows
    src_len = np.minimum(store.src_len[rows], max_src_len or np.inf).astype(np.int64)
    for indices in plan_in_order(src_len, store.tgt_len[rows], batch_tokens):
        yield collate(store, rows[indices], vocabs, max_src_len=max_src_len)


class Position(NamedTuple):
    """The next batch of a stream, of its first rank if there are several: its epoch, and its number in that epoch."""

    epoch: int
    batch: int


class TrainStream:
    """Training batches without end, epoch after epoch, loaded ahead by one background thread.

    With `world` ranks, rank r gets batch r of each group of `world` batches; a group that an epoch's last batches do not
    fill goes on into the next epoch. So any number of ranks reads the same batches in the same order, and `position`, that of
    the next group, means the same for all. With `noise`, which makes some pairs longer, a batch may pass its budget by as much.
    """

    def __init__(
        self,
        store: PairStore,
        vocabs: Vocabs,
        batch_tokens: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        position: tuple[int, int] = (0, 0),
        noise: Noise | None = None,
    ) -> None:
        if not len(store):
            raise DataError("the training set is empty")
        self._store, self._vocabs, self._batch_tokens, self._seed = store, vocabs, batch_tokens, seed
        self._rank, self._world, self._noise = rank, world, noise
        self._position = Position(*position)
        self._plans: dict[int, list[npt.NDArray[np.int64]]] = {}
        self._lock = threading.Lock()
        self._loader: _Loader | None = None
        if self._position.batch and self._position.batch >= self.num_batches(self._position.epoch):
            raise DataError(f"epoch {self._position.epoch} of the training data has no batch {self._position.batch}")

    @property
    def position(self) -> Position:
        """Where `next` reads; set it to go there."""
        return self._position

    @position.setter
    def position(self, value: tuple[int, int]) -> None:
        self.close()
        self._position = Position(*value)

    def num_batches(self, epoch: int) -> int:
        """Batches of an epoch, those of all ranks."""
        return len(self._batches(epoch))

    def next(self) -> Batch:
        """The batch at `position`, which then moves on by one."""
        if self._loader is None:
            self._loader = _Loader(self._load(self._position))
        self._position, batch = self._loader.next()
        return batch

    def close(self) -> None:
        """Stop the background thread; `next` starts another one."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None

    def _batches(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        with self._lock:
            if epoch not in self._plans:
                store = self._store
                plan = plan_epoch(store.src_len, store.tgt_len, self._batch_tokens, self._seed, epoch, store.repeats)
                self._plans = {e: p for e, p in self._plans.items() if abs(e - epoch) == 1} | {epoch: plan}
            return self._plans[epoch]

    def _load(self, position: Position) -> Iterator[tuple[Position, Batch]]:
        """Batches from a position on, each with the position after it."""
        while True:
            epoch, index = self._after(position, self._rank)
            batch = collate(self._store, self._batches(epoch)[index], self._vocabs, self._noise, epoch)
            position = self._after(position, self._world)
            yield position, batch

    def _after(self, position: Position, num: int) -> Position:
        """The position `num` batches further on."""
        epoch, index = position.epoch, position.batch + num
        while index >= (size := len(self._batches(epoch))):
            epoch, index = epoch + 1, index - size
        return Position(epoch, index)


class _Loader:
    """Runs an iterator in a thread, a few items ahead."""

    def __init__(self, items: Iterator[tuple[Position, Batch]], ahead: int = 4) -> None:
        self._items, self._pool = items, ThreadPoolExecutor(1, "s2s-loader")
        self._ahead = deque(self._pool.submit(next, items) for _ in range(ahead))

    def next(self) -> tuple[Position, Batch]:
        """The next item, or the error that ended the work: whoever asks again hears it again."""
        item = self._ahead[0].result()
        self._ahead.popleft()
        self._ahead.append(self._pool.submit(next, self._items))
        return item

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(cancel_futures=True)
