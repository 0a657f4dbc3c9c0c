"""The dataset folder that `preprocess` writes and `train` reads: its file names, its manifest, its parts.

Ids stay on disk; lengths and line numbers are numpy arrays. This room knows no torch and makes no batches.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from s2s_cli.data.corpus import read_lines
from s2s_cli.data.shards import IntArray, Shard
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import DataError

MANIFEST = "dataset.json"
FORMAT = "s2s-dataset"
VERSION = 1


class PairStore:
    """Pairs of token ids, without bos and eos, and the corpus line that each came from."""

    def __init__(self, stem: Path) -> None:
        """Open `<stem>.src.*`, `<stem>.tgt.*` and `<stem>.lines`."""
        self._src, self._tgt = Shard(Path(f"{stem}.src")), Shard(Path(f"{stem}.tgt"))
        lines = Path(f"{stem}.lines")
        if not len(self._src) == len(self._tgt) == lines.stat().st_size / 8:
            raise DataError(f"{stem}: source, target and line numbers differ in length; run preprocess again")
        self.lines: npt.NDArray[np.int64] = np.memmap(lines, "<i8", "r") if len(self._src) else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._src)

    @property
    def src_len(self) -> npt.NDArray[np.int32]:
        """Pieces of each source."""
        return self._src.lengths

    @property
    def tgt_len(self) -> npt.NDArray[np.int32]:
        """Pieces of each target."""
        return self._tgt.lengths

    def src(self, i: int) -> IntArray:
        """Source ids of pair i."""
        return self._src[i]

    def tgt(self, i: int) -> IntArray:
        """Target ids of pair i."""
        return self._tgt[i]

    def line(self, i: int) -> int:
        """Line number of pair i in the corpus, from 1."""
        return int(self.lines[i])


@dataclass(frozen=True)
class Dataset:
    """An opened dataset folder. `manifest` is the content of `dataset.json`."""

    folder: Path
    manifest: dict[str, Any]
    vocabs: Vocabs
    train: PairStore
    valid: PairStore

    @cached_property
    def valid_src(self) -> list[str]:
        """Raw validation sources, every line of the file."""
        return list(read_lines(self.folder / "valid.src.txt"))

    @cached_property
    def valid_tgt(self) -> list[str]:
        """Raw validation references, every line of the file."""
        return list(read_lines(self.folder / "valid.tgt.txt"))

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Open a folder; DataError says what is missing or torn, and that `s2s preprocess` makes it."""
        manifest = read_manifest(folder)
        vocabs = Vocabs.load(folder / "vocab")
        if vocabs.fingerprints != manifest["vocab"]["fingerprints"]:
            raise DataError(
                f"{folder}: the vocabulary is not the one that its text was encoded with; run preprocess again"
            )
        return cls(folder, manifest, vocabs, PairStore(folder / "train"), PairStore(folder / "valid"))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of `dataset.json`, checked for format and version."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: no dataset here; make one with: s2s preprocess -o {folder}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / MANIFEST}: not readable ({error}); run preprocess again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{folder / MANIFEST}: not a dataset's manifest; run preprocess again")
    if manifest.get("version") != VERSION:
        raise DataError(
            f"{folder}: dataset version {manifest.get('version')}, this program reads {VERSION}; run preprocess again"
        )
    return manifest
