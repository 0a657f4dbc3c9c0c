"""Which pairs stood in the corpus before, found in bounded memory.

Hashes of all pairs are dealt into files by their top bits, so that equal ones meet in one file; each file is then small
enough to sort. 64 bits make a false duplicate among a billion pairs a matter of one in forty. No text is kept here.
"""

from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

NUM_BUCKETS = 64
ENTRY = np.dtype([("hash", "<u8"), ("row", "<i8")])
BUFFERED = 1 << 16  # entries held in memory before they are dealt out


class Duplicates:
    """Add the hashes of kept pairs in order; then `mask` tells which of them came second. A context that cleans up."""

    def __init__(self, folder: Path) -> None:
        """Keep bucket files in a folder of one's own, which is made."""
        folder.mkdir()
        self._folder = folder
        self._files = [open(folder / str(i), "w+b", buffering=0) for i in range(NUM_BUCKETS)]  # noqa: SIM115 - __exit__
        self._waiting: list[npt.NDArray[np.void]] = []
        self._num_waiting = self.num_rows = 0

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """The hashes of the next rows."""
        entries = np.empty(len(hashes), ENTRY)
        entries["hash"] = hashes
        entries["row"] = np.arange(self.num_rows, self.num_rows + len(hashes))
        self.num_rows += len(hashes)
        self._waiting.append(entries)
        self._num_waiting += len(entries)
        if self._num_waiting >= BUFFERED:
            self._deal()

    def mask(self) -> npt.NDArray[np.bool_]:
        """For each row, whether an equal one stands before it; kept in a file, a byte a row."""
        self._deal()
        mask = np.memmap(self._folder / "mask", np.bool_, "w+", shape=(max(1, self.num_rows),))
        for file in self._files:
            file.seek(0)
            entries = np.fromfile(file, ENTRY)
            order = np.argsort(entries["hash"], kind="stable")  # rows of equal hash stay in order
            hashes = entries["hash"][order]
            mask[entries["row"][order[1:][hashes[1:] == hashes[:-1]]]] = True
        return mask[: self.num_rows]

    def _deal(self) -> None:
        if not self._waiting:
            return
        entries = np.concatenate(self._waiting)
        buckets = (entries["hash"] >> np.uint64(64 - NUM_BUCKETS.bit_length() + 1)).astype(np.int64)
        order = np.argsort(buckets, kind="stable")
        ends = np.cumsum(np.bincount(buckets, minlength=NUM_BUCKETS))
        for file, part in zip(self._files, np.split(entries[order], ends[:-1]), strict=True):
            part.tofile(file)
        self._waiting, self._num_waiting = [], 0

    def __enter__(self) -> "Duplicates":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()
