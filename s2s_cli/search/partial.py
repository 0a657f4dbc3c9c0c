"""Where outputs are written: standard output as they come, files beside their final names, which they take when whole.

A small journal beside the files says that they are ours, and for a command that can be taken up, which settings, models and
texts they were made with, how many lines they hold and how many bytes that is. What else stands in them is cut off.
"""

import glob
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import count, groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from s2s_cli.errors import S2SError
from s2s_cli.files import STDOUT, held, is_regular, put, told, whole_file
from s2s_cli.runtime import tell

_EVERY = 1.0  # seconds between two records: what a kill can lose at most, beside the window in work


class Writer:
    """Use as a context. `lines` and `account` are what an interrupted command left, 0 and None at a fresh start.

    `paths` are written together; `-` is standard output, devices and pipes are written as they are, links are taken for files
    (see `place_of`). With an `identity`, which JSON can hold, files are kept and taken up again if that is the same. A `rank`
    writes parts, for `join_ranks` to join.
    """

    def __init__(self, paths: Sequence[Path], identity: dict[str, Any] | None = None, rank: int | None = None) -> None:
        self._paths = list(paths)
        self._names = " and ".join(map(str, paths))
        self._suffix = ".part" if rank is None else f".part-{rank}"
        self._is_final = rank is None
        self._identity = identity if all(map(is_regular, self._paths)) else None
        self._files: list[IO[bytes]] = []
        regular = [path for path in self._paths if is_regular(path)]
        self._journal = _with(regular[0], f"{self._suffix}.json") if regular else None
        self._recorded = 0.0
        self._sizes: list[int] = []
        self.lines = 0
        self.account: dict[str, Any] | None = None

    def __enter__(self) -> "Writer":
        for path in self._paths:
            if path.is_dir():
                raise S2SError(f"{path} is a folder: name a file, or - for standard output")
        try:
            with told(self._names):
                for path in self._paths:
                    self._files.append(self._open(path))
                self._take_up()
        except S2SError:
            self._close(keep=True)
            raise
        return self

    def _open(self, path: Path) -> IO[bytes]:
        if path == STDOUT:
            return sys.stdout.buffer
        if not is_regular(path):
            return open(path, "wb")
        refusal = f"{path} is being written by another process: wait for it, or name another file"
        return held(_with(path, self._suffix), refusal)

    def _take_up(self) -> None:
        """Find what an interrupted command left, cut off what is not recorded, or begin anew."""
        found = self._found()
        for path, file in zip(self._paths, self._files, strict=True):
            if is_regular(path) and path.name not in found.get("files", []) and os.fstat(file.fileno()).st_size:
                raise S2SError(
                    f"{file.name} is there already, and no interrupted command left it: move it away, or name another output"
                )
        if self._is_same(found):
            self.lines, self.account, self._sizes = found["lines"], found["account"], found["sizes"]
            tell(f"going on after line {self.lines:,} of {self._files[0].name}, which an interrupted command left")
        else:
            self._sizes = [0] * len(self._files)
            self._note()  # however this process ends, what it leaves is known as its own
            self._recorded = 0.0
            self._sweep()
        for path, file, size in zip(self._paths, self._files, self._sizes, strict=True):
            if is_regular(path):
                file.truncate(size)

    def _found(self) -> dict[str, Any]:
        """The journal that is there; empty without one."""
        try:
            record = json.loads(self._journal.read_text(encoding="utf-8")) if self._journal else {}
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) and isinstance(record.get("files"), list) else {}

    def _is_same(self, record: dict[str, Any]) -> bool:
        """Whether a journal is one of the same work, some of which is done, and its files are there."""
        if not (self._identity and record.get("identity") and record.get("lines")):
            return False
        if other := sorted(_differences(record["identity"], self._identity)):
            tell(f"{self._files[0].name} was begun with other {', '.join(other)}: starting anew")
            return False
        there = [os.fstat(file.fileno()).st_size for file in self._files]
        sizes = record["sizes"]
        return len(sizes) == len(there) and all(size <= found for size, found in zip(sizes, there, strict=True))

    def _sweep(self) -> None:
        """Remove what an interrupted command of another number of processes left under the first path's name."""
        path = self._paths[0]
        if self._suffix not in (".part", ".part-0") or not is_regular(path):
            return
        others = _with(path, ".part.json"), *path.parent.glob(f"{glob.escape(path.name)}.part-*.json")
        for journal in others if self._is_final else others[:1]:
            if journal == self._journal or not journal.exists():
                continue
            part = journal.with_suffix("")
            with suppress(S2SError):  # for one that is being written
                held(part, "").close()
                tell(f"{part} was begun by another number of processes: starting anew")
                part.unlink()
                journal.unlink()

    def write(self, texts: Sequence[bytes], lines: int, account: dict[str, Any]) -> None:
        """Append to each file; these are then whole up to `lines` lines of the input, of which `account` tells."""
        with told(self._names):
            for file, text in zip(self._files, texts, strict=True):
                file.write(text)
                file.flush()
            self._sizes = [size + len(text) for size, text in zip(self._sizes, texts, strict=True)]
            self.lines, self.account = lines, account
            if time.monotonic() - self._recorded >= _EVERY:
                self._note()

    def _note(self) -> None:
        """Record how far the files are whole."""
        if self._journal is None or (self._identity is None and self.lines):
            return
        if self._identity is not None:
            for file in self._files:
                os.fsync(file.fileno())
        names = [path.name for path in self._paths]
        record = {"files": names, "identity": self._identity, "lines": self.lines, "sizes": self._sizes}
        record["account"] = self.account
        with whole_file(self._journal) as journal:
            journal.write(json.dumps(record).encode() + b"\n")
        self._recorded = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            with told(self._names):
                self._end()
            return
        keep = self._identity is not None and self.lines > 0
        with suppress(OSError, S2SError):  # a full disk: the record before holds
            if keep:
                self._note()
        self._close(keep)
        if keep:
            name = _with(self._paths[0], self._suffix)
            tell(f"{name} keeps what was done, up to line {self.lines:,}: the same command goes on from there")
        elif self._journal is not None:
            self._journal.unlink(missing_ok=True)

    def _close(self, keep: bool) -> None:
        """Close the files that were opened; what stands in them stays if it is to be kept, an empty one never."""
        for path, file in zip(self._paths, self._files, strict=False):
            if path == STDOUT:
                continue
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                part = _with(path, self._suffix)
                if is_regular(path) and not (keep and part.stat().st_size):
                    part.unlink()

    def _end(self) -> None:
        if not self._is_final:
            self._note()
        for path, file in reversed([*zip(self._paths, self._files, strict=True)]):  # the first is there when all are
            file.flush()
            if self._is_final and is_regular(path):
                put(file, path)
            if path != STDOUT:
                file.close()
        if self._is_final and self._journal is not None:
            self._journal.unlink(missing_ok=True)


def names_for(path: Path, world: int) -> list[Path]:
    """What an output needs for itself while `world` processes write it: its final name and those beside it."""
    suffixes = [".part"] if world == 1 else [f".part-{rank}" for rank in range(world)]
    return [path, *(_with(path, suffix + end) for suffix in suffixes for end in ("", ".json"))]


def join_ranks(paths: Sequence[Path], world: int, several_rows: bool) -> None:
    """Join the parts that `world` ranks have written, to whom lines were dealt in turn, and remove them.

    With `several_rows` the first path has any number of rows a line, each beginning with the line's number and a tab.
    """
    for path in reversed(paths):  # the first is there when all are
        with whole_file(path) as whole, ExitStack() as stack:
            parts = [stack.enter_context(open(_with(path, f".part-{rank}"), "rb")) for rank in range(world)]
            whole.writelines(_in_turn(parts, several_rows and path == paths[0]))
    for path in paths:
        for left in path.parent.glob(f"{glob.escape(path.name)}.part-*"):
            left.unlink(missing_ok=True)


def _in_turn(parts: Sequence[IO[bytes]], several_rows: bool) -> Iterator[bytes]:
    """The rows of a line of each part, again and again."""
    lines = [map(itemgetter(1), groupby(part, _number)) if several_rows else zip(part) for part in parts]
    for turn in count():
        rows = next(lines[turn % len(lines)], None)
        if rows is None:
            return
        yield from rows


def _number(row: bytes) -> bytes:
    return row.partition(b"\t")[0]


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _differences(left: Any, right: Any, name: str = "") -> Iterator[str]:
    """Dotted names of what is not the same in both."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in left.keys() | right.keys():
            yield from _differences(left.get(key), right.get(key), f"{name}.{key}" if name else key)
    elif left != right:
        yield name
