"""Where outputs are written: standard output as they come, files beside their final names, which they take when whole.

A small journal beside the files says that they are ours, and for a command that can be taken up, which settings, models and
texts they were made with, how many lines they hold and how many bytes that is. What else stands in them is cut off.
"""

import glob
import json
import os
import re
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
        self._regular = [path for path in paths if is_regular(path)]
        self._names = " and ".join(map(str, paths))
        self._rank = rank
        self._suffix = ".part" if rank is None else f".part-{rank}"
        self._identity = identity if len(self._regular) == len(self._paths) else None
        self._files: list[IO[bytes]] = []
        self._journal = _with(self._regular[0], f"{self._suffix}.json") if self._regular else None
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
        if path not in self._regular:
            return open(path, "wb")
        refusal = f"{path} is being written by another process: wait for it, or name another file"
        return held(_with(path, self._suffix), refusal)

    def _take_up(self) -> None:
        """Find what an interrupted command left, cut off what is not recorded, or begin anew."""
        found = _read(self._journal) if self._journal else {}
        for path, file in zip(self._paths, self._files, strict=True):
            if path in self._regular and os.fstat(file.fileno()).st_size and _real(path) not in found.get("files", []):
                raise _stranger(file.name)
        goes_on = self._is_same(found)
        if goes_on:
            self.lines, self.account, self._sizes = found["lines"], found["account"], found["sizes"]
            tell(f"going on after line {self.lines:,} of {self._files[0].name}, which an interrupted command left")
        else:
            self._sizes = [0] * len(self._files)
            self._sweep(found)
        for path, file, size in zip(self._paths, self._files, self._sizes, strict=True):
            if path in self._regular:
                file.truncate(size)
        if not goes_on:
            self._note()  # however this process ends, what it leaves is known for what it is
            self._recorded = 0.0

    def _is_same(self, record: dict[str, Any]) -> bool:
        """Whether a journal is one of the same work, some of which is done, and its files are there."""
        identity, sizes = record.get("identity"), record.get("sizes")
        if not (identity and record.get("lines") and isinstance(sizes, list) and "account" in record):
            return False
        if self._identity is None:
            tell(f"{self._files[0].name} was begun with other input: starting anew")
            return False
        if other := sorted(_differences(identity, self._identity)):
            tell(f"{self._files[0].name} was begun with other {', '.join(other)}: starting anew")
            return False
        there = [os.fstat(file.fileno()).st_size for file in self._files]
        names = [_real(path) for path in self._paths]
        return record["files"] == names and all(size <= found for size, found in zip(sizes, there, strict=True))

    def _sweep(self, record: dict[str, Any]) -> None:
        """Remove what interrupted commands left and this one does not take up: the other files of its own journal, and those of
        another number of processes.
        """
        mine = [_real(path) for path in self._regular]
        for name in record.get("files", []):
            if name not in mine:
                _remove(Path(name + self._suffix))
        if self._regular and not self._rank:
            for part in _leftovers(self._regular[0], r"\.part" if self._rank == 0 else r"\.part-\d+"):
                tell(f"{part} was begun by another number of processes: starting anew")

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
        """Record how far the files are whole; of work that cannot be taken up, once, whose they are."""
        if self._journal is None or (self._identity is None and self.lines):
            return
        if self._identity is not None:
            for file in self._files:
                os.fsync(file.fileno())
        names = [_real(path) for path in self._paths]
        record = {"files": names, "identity": self._identity, "lines": self.lines, "sizes": self._sizes}
        with whole_file(self._journal) as journal:
            journal.write(json.dumps(record | {"account": self.account}).encode() + b"\n")
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

    def _close(self, keep: bool) -> None:
        """Close the files that were opened; what stands in them stays if it is to be kept, an empty one never. They are this
        process's until they are closed: first goes what is to go, the journal last.
        """
        for path, _file in zip(self._paths, self._files, strict=False):
            with suppress(OSError):
                part = _with(path, self._suffix)
                if path in self._regular and not (keep and part.stat().st_size):
                    part.unlink()
        if not keep and self._journal is not None:
            with suppress(OSError):
                self._journal.unlink(missing_ok=True)
        self._let_go()

    def _end(self) -> None:
        if self._rank is not None:
            self._note()
        for path, file in reversed([*zip(self._paths, self._files, strict=True)]):  # the first is there when all are
            file.flush()
            if self._rank is None and path in self._regular:
                put(file, path)
        if self._rank is None and self._journal is not None:
            self._journal.unlink(missing_ok=True)
        self._let_go()

    def _let_go(self) -> None:
        for path, file in zip(self._paths, self._files, strict=False):
            if path != STDOUT:
                with suppress(OSError):
                    file.close()


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
    for _ in _leftovers(paths[0], r"\.part-\d+"):
        pass


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


def _read(journal: Path) -> dict[str, Any]:
    """What a journal says; empty where there is none. S2SError for a file of its name that is no journal."""
    try:
        record = json.loads(journal.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        record = None
    if not (isinstance(record, dict) and isinstance(record.get("files"), list)):
        raise _stranger(journal)
    return record


def _leftovers(path: Path, suffix: str) -> Iterator[Path]:
    """The files that interrupted commands have left, with such a suffix (a pattern), for `path` and what goes with it, each as it
    is removed; none that somebody is writing, and none that no journal knows.
    """
    for journal in sorted(path.parent.glob(f"{glob.escape(path.name)}.part*.json")):
        end = journal.name[len(path.name) :].removesuffix(".json")
        if not re.fullmatch(suffix, end):
            continue
        with suppress(S2SError):
            names = _read(journal).get("files", [])
            if _real(path) in names:
                for name in names:
                    if _remove(Path(name + end)):
                        yield Path(name + end)
                journal.unlink(missing_ok=True)


def _remove(part: Path) -> bool:
    """Remove a file, if it is there; S2SError if another process has it."""
    if not part.is_file():
        return False
    file = held(part, f"{part} is being written by another process")
    part.unlink()
    file.close()
    return True


def _stranger(name: object) -> S2SError:
    return S2SError(
        f"{name} is there already, and no interrupted command left it: move it away, or name another output"
    )


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _differences(left: Any, right: Any, name: str = "") -> Iterator[str]:
    """Dotted names of what is not the same in both."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in left.keys() | right.keys():
            yield from _differences(left.get(key), right.get(key), f"{name}.{key}" if name else key)
    elif left != right:
        yield name
