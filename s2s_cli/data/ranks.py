"""Preprocess on many machines: torchrun starts the ranks, each encodes its part of the blocks, the first one joins them.

Blocks are dealt in turn, so the joined order is that of the corpus and the output that of a single process. Parts go
through files beside the dataset, on a disk that all ranks see; they are numbers and JSON, as all files are.
"""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from s2s_cli.config import RuntimeSettings
from s2s_cli.data.corpus import Block
from s2s_cli.data.encoding import Encoded, Encoder, Rows, encode_blocks
from s2s_cli.data.report import Account, Found, Side

if TYPE_CHECKING:
    from s2s_cli.runtime import Runtime


class Ranks:
    """The processes that torchrun started for this command; one alone if it did not. Use as a context."""

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self._runtime: Runtime | None = None

    def __enter__(self) -> "Ranks":
        if self.world > 1:
            from s2s_cli.runtime import Runtime  # only here: a command on one machine starts without torch

            self._runtime = Runtime.start(RuntimeSettings(device="cpu", precision="fp32"), join=True)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._runtime is not None:
            self._runtime.close()

    def step(self) -> AbstractContextManager[None]:
        """See `Runtime.step`."""
        return nullcontext() if self._runtime is None else self._runtime.step()

    def each(self, value: Any) -> list[Any]:
        """The value of every rank, which JSON can hold, in the order of ranks, in all of them."""
        return [value] if self._runtime is None else [self._runtime.share(value, rank) for rank in range(self.world)]

    def encode(self, blocks: Iterator[Block], encoder: Encoder, workers: int, folder: Path) -> Iterator[Encoded]:
        """Encode blocks with all ranks. The first gets them all, in order; the others get nothing."""
        if self.world == 1:
            return encode_blocks(blocks, encoder, workers)
        with self.step():
            mine = (block for i, block in enumerate(blocks) if i % self.world == self.rank)
            with open(folder / f"part-{self.rank}", "wb") as part:
                for encoded in encode_blocks(mine, encoder, workers):
                    _write(part, encoded)
        return _join([folder / f"part-{rank}" for rank in range(self.world)]) if self.rank == 0 else iter(())


def _join(paths: list[Path]) -> Iterator[Encoded]:
    parts = [open(path, "rb") for path in paths]  # noqa: SIM115 - closed below
    try:
        for i in count():
            encoded = _read(parts[i % len(parts)])
            if encoded is None:
                return
            yield encoded
    finally:
        for part in parts:
            part.close()


def _write(part: BinaryIO, encoded: Encoded) -> None:
    account = json.dumps(asdict(encoded.account), default=np.ndarray.tolist).encode()
    src, tgt = encoded.src, encoded.tgt
    arrays = (
        src.ids,
        src.lengths,
        tgt.ids,
        tgt.lengths,
        encoded.lines,
        encoded.hashes,
        np.frombuffer(account, np.uint8),
    )
    for array in arrays:
        np.save(part, array, allow_pickle=False)


def _read(part: BinaryIO) -> Encoded | None:
    """The next block of a part; None at its end."""
    try:
        arrays: list[Any] = [np.load(part, allow_pickle=False) for _ in range(7)]
    except EOFError:
        return None
    account = json.loads(arrays[6].tobytes())
    return Encoded(Rows(*arrays[0:2]), Rows(*arrays[2:4]), arrays[4], arrays[5], _account(account))


def _account(values: dict[str, Any]) -> Account:
    found = {name: {reason: Found(**item) for reason, item in values[name].items()} for name in ("drops", "found")}
    sides = {
        name: Side(**values[name] | {"lengths": np.array(values[name]["lengths"], np.int64)}) for name in ("src", "tgt")
    }
    return Account(**values | found | sides | {"ratios": np.array(values["ratios"], np.int64)})
