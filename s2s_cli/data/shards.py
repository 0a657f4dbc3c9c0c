"""Token ids on disk, memory-mapped: one `.bin` of all ids and one `.idx` of where each row begins.

Rows are written once, in order, and read at random without loading the file. This room knows numbers only.

`.idx` is little-endian: magic (8 bytes), version, item size (4 bytes each), rows, tokens (8 bytes each), then rows + 1
offsets (8 bytes each). `.bin` is the bare ids, uint16 where the vocabulary allows, else int32.
"""

import struct
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from s2s_cli.errors import DataError

MAGIC = b"s2s-idx\0"
VERSION = 1
HEADER = struct.Struct("<8sIIQQ")
DTYPES: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<i4")}

IntArray = npt.NDArray[np.integer]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smaller of the two id types that holds a vocabulary."""
    return DTYPES[2] if vocab_size <= 1 << 16 else DTYPES[4]


class ShardWriter:
    """Writes `<stem>.bin` and `<stem>.idx`, a block of rows at a time; call `close`, or use it as a context."""

    def __init__(self, stem: Path, vocab_size: int) -> None:
        self._dtype = token_dtype(vocab_size)
        self._bin = open(f"{stem}.bin", "wb")  # noqa: SIM115 - closed by close()
        self._idx = open(f"{stem}.idx", "wb")  # noqa: SIM115
        self.num_rows = self.num_tokens = 0
        self._idx.write(HEADER.pack(MAGIC, 0, 0, 0, 0))
        np.zeros(1, "<i8").tofile(self._idx)

    def write(self, tokens: IntArray, lengths: IntArray) -> None:
        """Append rows: their ids in one array, and how many each has."""
        np.asarray(tokens, self._dtype).tofile(self._bin)
        offsets = self.num_tokens + np.cumsum(lengths, dtype="<i8")
        offsets.tofile(self._idx)
        self.num_rows += len(lengths)
        self.num_tokens += len(tokens)

    def close(self) -> None:
        """Write the counts."""
        self._idx.seek(0)
        self._idx.write(HEADER.pack(MAGIC, VERSION, self._dtype.itemsize, self.num_rows, self.num_tokens))
        self._bin.close()
        self._idx.close()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Shard:
    """Rows of token ids that stay on disk. `lengths`, once asked for, is an int32 array in memory."""

    def __init__(self, stem: Path) -> None:
        """Open `<stem>.bin` and `<stem>.idx`; DataError if they are not whole or of another version."""
        idx, bin = Path(f"{stem}.idx"), Path(f"{stem}.bin")
        try:
            with open(idx, "rb") as file:
                header = file.read(HEADER.size)
            idx_size, bin_size = idx.stat().st_size, bin.stat().st_size
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}); run preprocess again") from None
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            raise DataError(f"{idx}: not a shard index; run preprocess again")
        _, version, item_size, num_rows, num_tokens = HEADER.unpack(header)
        if version != VERSION or item_size not in DTYPES:
            raise DataError(f"{idx}: format version {version}, this program reads {VERSION}; run preprocess again")
        if idx_size != HEADER.size + 8 * (num_rows + 1) or bin_size != item_size * num_tokens:
            raise DataError(f"{bin}: the file is torn (its size is not what {idx.name} says); run preprocess again")
        self._offsets = np.memmap(idx, "<i8", "r", HEADER.size, (num_rows + 1,))
        self._tokens: IntArray = (
            np.memmap(bin, DTYPES[item_size], "r") if num_tokens else np.zeros(0, DTYPES[item_size])
        )
        self.num_rows, self.num_tokens = int(num_rows), int(num_tokens)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int32]:
        """How many ids each row has."""
        lengths = np.empty(self.num_rows, np.int32)
        for start in range(0, self.num_rows, 1 << 20):  # offsets are twice as wide: never all of them at once
            part = self._offsets[start : start + (1 << 20) + 1]
            lengths[start : start + len(part) - 1] = np.diff(part)
        return lengths

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, row: int) -> IntArray:
        return self._tokens[self._offsets[row] : self._offsets[row + 1]]

    def slice(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """All ids of the rows from `start` to before `stop` in one array, and the length of each."""
        offsets = self._offsets[start : stop + 1]
        return self._tokens[offsets[0] : offsets[-1]], np.diff(offsets)
