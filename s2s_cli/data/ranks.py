"""Preprocess on many machines: torchrun starts the ranks, each encodes its part of the blocks, the first one joins them.

Blocks are dealt in turn, so the joined order is that of the corpus and the output that of a single process. Parts go
through files beside the dataset, on a disk that all ranks see; they are numbers and JSON, as all files are.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from s2s_cli.data.corpus import Block
from s2s_cli.data.encoding import Encoded, Encoder, Rows, available_cores, encode_blocks
from s2s_cli.data.report import Account, Found, Side
from s2s_cli.errors import S2SError


class Ranks:
    """The processes that torchrun started for this command; one alone if it did not. Use as a context."""

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

    def __enter__(self) -> "Ranks":
        if self.world > 1:
            import torch.distributed  # only here: a command on one machine starts without torch

            torch.distributed.init_process_group("gloo", timeout=timedelta(days=30))
        return self

    def __exit__(self, *exception: object) -> None:
        if self.world > 1:
            import torch.distributed

            torch.distributed.destroy_process_group()

    @contextmanager
    def step(self) -> Iterator[None]:
        """A part of the work that all ranks leave together; if the user's mistake ended it in one, it ends in all.

        Only the rank that found the mistake tells of it; the others exit with the same code.
        """
        error = None
        try:
            yield
        except S2SError as found:
            error = found
        if self.world > 1:
            import torch.distributed

            failed: list[bool] = [False] * self.world
            torch.distributed.all_gather_object(failed, error is not None)
            if any(failed) and error is None:
                raise SystemExit(2)
        if error is not None:
            raise error

    def encode(self, blocks: Iterator[Block], encoder: Encoder, workers: int, folder: Path) -> Iterator[Encoded]:
        """Encode blocks with all ranks. The first gets them all, in order; the others get nothing."""
        if self.world == 1:
            return encode_blocks(blocks, encoder, workers)
        workers = workers or max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
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
