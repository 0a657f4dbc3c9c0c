"""The dataset folder that `preprocess` writes and `train` reads: its file names, its manifest, its parts.

The manifest, `dataset.json`, has the sha256 of every other file that training reads; those that are small, or that were
changed after the manifest was written, are compared when a folder is opened, and large ones by their size alone, since
reading a huge corpus at each start is too dear. A manifest of before there were checksums is taken as it is.

Ids stay on disk; lengths and line numbers are numpy arrays. This room knows no torch and makes no batches.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from s2s_cli.data.batching import Repeat
from s2s_cli.data.corpus import raw_lines
from s2s_cli.data.shards import IntArray, Shard, ShardWriter
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import DataError
from s2s_cli.files import sha256

MANIFEST = "dataset.json"
REPORT = "report.json"
VALID_SRC, VALID_TGT = "valid.src.txt", "valid.tgt.txt"
FORMAT = "s2s-dataset"
VERSION = 1
_KINDS = ("lines", *(f"{side}.{kind}" for side in ("src", "tgt") for kind in ("bin", "idx")))
NAMES = (MANIFEST, REPORT, VALID_SRC, VALID_TGT, *(f"{stem}.{kind}" for stem in ("train", "valid") for kind in _KINDS))
_SMALL = 64 << 20  # bytes, which are read in a tenth of a second


class PairWriter:
    """Writes `<stem>.src.*`, `<stem>.tgt.*` and `<stem>.lines`, block by block; a context that closes them."""

    def __init__(self, stem: Path, vocabs: Vocabs) -> None:
        self._src = ShardWriter(Path(f"{stem}.src"), len(vocabs.src))
        self._tgt = ShardWriter(Path(f"{stem}.tgt"), len(vocabs.tgt))
        self._lines = open(f"{stem}.lines", "wb")  # noqa: SIM115 - closed by __exit__

    def write(self, src: tuple[IntArray, IntArray], tgt: tuple[IntArray, IntArray], lines: IntArray) -> None:
        """Append pairs: ids of all rows and the length of each, for both sides, and corpus line numbers."""
        self._src.write(*src)
        self._tgt.write(*tgt)
        np.asarray(lines, "<i8").tofile(self._lines)

    def __enter__(self) -> "PairWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._src.close()
        self._tgt.close()
        self._lines.close()


class PairStore:
    """Pairs of token ids, without bos and eos, and the corpus line that each came from.

    `repeats` says how often an epoch holds the pairs of each range of rows: (first row, row after the last, times).
    """

    def __init__(self, stem: Path, repeats: Sequence[Repeat] = ()) -> None:
        """Open `<stem>.src.*`, `<stem>.tgt.*` and `<stem>.lines`; DataError if they do not fit together."""
        self._src, self._tgt = Shard(Path(f"{stem}.src")), Shard(Path(f"{stem}.tgt"))
        self.repeats = tuple(repeats)
        lines = Path(f"{stem}.lines")
        try:
            num_lines = lines.stat().st_size / 8
        except OSError as error:
            raise DataError(f"{lines}: cannot be read ({error.strerror}); run preprocess again") from None
        if not len(self._src) == len(self._tgt) == num_lines:
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

    def slice(self, start: int, stop: int) -> tuple[tuple[IntArray, IntArray], tuple[IntArray, IntArray], IntArray]:
        """The pairs from `start` to before `stop`, as `PairWriter.write` takes them."""
        return self._src.slice(start, stop), self._tgt.slice(start, stop), self.lines[start:stop]

    def line(self, i: int) -> int:
        """Line number of pair i in the corpus, from 1."""
        return int(self.lines[i])


@dataclass(frozen=True)
class Dataset:
    """An opened dataset folder. `manifest` is the content of `dataset.json`, `digest` its sha256."""

    folder: Path
    manifest: dict[str, Any]
    digest: str
    vocabs: Vocabs
    train: PairStore
    valid: PairStore

    @cached_property
    def valid_src(self) -> list[str]:
        """Raw validation sources, every line of the files; tags stand at their beginning."""
        return read_text(self.folder / VALID_SRC)

    @cached_property
    def valid_tgt(self) -> list[str]:
        """Raw validation references, every line of the files."""
        return read_text(self.folder / VALID_TGT)

    def where(self, line: int) -> str:
        """File and line of a line number of the training text."""
        for corpus in reversed(self.manifest.get("corpora", [])):
            if line >= corpus["first_line"]:
                return f"{corpus['files'][0]}:{line - corpus['first_line'] + 1}"
        return str(line)

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Open a folder; DataError says what is missing or torn, and that `s2s preprocess` makes it."""
        manifest, digest = _read_manifest(folder)
        _check_files(folder, manifest)
        vocabs = Vocabs.load(folder / "vocab")
        if vocabs.fingerprints != manifest["vocab"]["fingerprints"]:
            raise DataError(
                f"{folder}: the vocabulary is not the one that its text was encoded with; run preprocess again"
            )
        repeats = [
            Repeat(c["first_row"], c["first_row"] + c["kept"], c["repeats"]) for c in manifest.get("corpora", [])
        ]
        return cls(folder, manifest, digest, vocabs, PairStore(folder / "train", repeats), PairStore(folder / "valid"))


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of each file of pairs and of validation text, by name."""
    return {file.name: sha256(file) for file in sorted([*folder.glob("train.*"), *folder.glob("valid.*")])}


def _check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare the files that are small, or newer than the manifest, with their checksums; DataError names one that differs."""
    written = (folder / MANIFEST).stat().st_mtime_ns
    for name, digest in manifest.get("files", {}).items():
        try:
            there = (folder / name).stat()
            if (there.st_size <= _SMALL or there.st_mtime_ns > written) and sha256(folder / name) != digest:
                raise DataError(
                    f"{folder / name}: torn or altered (its checksum is not the one in {MANIFEST}); run preprocess again"
                )
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read ({error.strerror}); run preprocess again") from None


def write_text(path: Path, lines: Iterable[str]) -> None:
    """Lines of text that `read_text`, and every other reader of lines, gives back as they are."""
    with open(path, "wb") as file:
        for line in lines:
            file.write(line.encode() + (b"\r\n" if line.endswith("\r") else b"\n"))  # readers take one CR away


def read_text(path: Path) -> list[str]:
    """The lines that `write_text` wrote."""
    return [raw.decode() for raw in raw_lines(path)]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of `dataset.json`, checked for format and version."""
    return _read_manifest(folder)[0]


def _read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """`read_manifest`, and the sha256 of what was read."""
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest = json.loads(text)
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
    return manifest, hashlib.sha256(text).hexdigest()
