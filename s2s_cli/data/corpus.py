"""Text from files and pipes, line by line: what a line is, and what is said when a file breaks the rules.

A line ends at byte 0x0A and nowhere else; one CR before it is removed; everything else is content, U+2028, NUL and
NBSP included. Compression is recognised by content, not by name. Nothing here reads a file whole, and this room knows
neither vocabularies nor torch.
"""

import bz2
import gzip
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol, cast

from s2s_cli.errors import DataError

LINE_RULE = "a line ends at LF; one CR before it is removed"  # recorded with every dataset
STDIN = "<stdin>"  # also the name of a file that standard input was copied to
BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # its byte order marks
GZIP = b"\x1f\x8b\x08"
BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
XZ = b"\xfd7zXZ\x00"
ZSTD = re.compile(rb"(\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)")  # some begin with a frame to skip
BLOCK_BYTES = 1 << 22  # a block that has so many is full, however few its lines
AT_ONCE = 64  # lines read between two looks at that


class Reader(Protocol):
    """Takes both sides out of one line of a file that holds both. DataError names file and line."""

    def __call__(self, line: str, name: str, number: int) -> tuple[str, str]:
        """Source and target text of a line."""
        ...


@dataclass(frozen=True)
class Source:
    """Where pairs are read from: two files line by line, or one file and a reader that takes a line apart.

    One file without a reader is both sides.
    """

    files: tuple[Path, ...]
    reader: Reader | None = None

    @property
    def name(self) -> str:
        """The first file's name, for messages and reports."""
        return file_name(self.files[0])


class Block(NamedTuple):
    """Consecutive lines of a source as raw bytes, to be decoded somewhere else."""

    source: int  # which of the sources
    offset: int  # lines of the sources before it
    first: int  # number of the block's first line in its file, from 1
    size: int  # number of lines
    names: tuple[str, ...]  # of its files
    raw: tuple[bytes, ...]  # the lines of each file
    reader: Reader | None

    @property
    def lines(self) -> range:
        """Line numbers in all sources together."""
        return range(self.offset + self.first, self.offset + self.first + self.size)

    def texts(self) -> tuple[list[str], list[str]]:
        """Both sides, line by line; DataError names the file and line of the first one that cannot be read."""
        columns = [self._decode(name, raw) for name, raw in zip(self.names, self.raw, strict=True)]
        if self.reader is None:
            return columns[0], columns[-1]
        reader, name = self.reader, self.names[0]
        pairs = [reader(line, name, number) for number, line in enumerate(columns[0], self.first)]
        return [src for src, _ in pairs], [tgt for _, tgt in pairs]

    def _decode(self, name: str, raw: bytes) -> list[str]:
        """All lines at once, or one by one if that fails, to say which of them is at fault."""
        raw = raw.replace(b"\r\n", b"\n").removesuffix(b"\n")
        with suppress(UnicodeDecodeError):
            if self.first > 1 or not raw.startswith(BOM):
                return raw.decode().split("\n")
        lines = raw.split(b"\n")
        return [decode_line(line, name, number) for number, line in enumerate(lines, self.first)]


def blank(line: str) -> bool:
    """Whether a line holds nothing but whitespace (a zero-width space or a NUL is content)."""
    return not line or line.isspace()


def read_lines(
    path: Path | str, invalid: Literal["error", "replace"] = "error", replaced: list[int] | None = None
) -> Iterator[str]:
    """The lines of a text file, plain or compressed; `-` is standard input.

    Bytes that are not UTF-8, and a byte order mark, raise DataError; with `invalid="replace"` each bad sequence becomes
    U+FFFD, the mark is taken away, and `replaced` collects the numbers of such lines.
    """
    name = file_name(path)
    for number, raw in enumerate(raw_lines(path), 1):
        yield decode_line(raw, name, number, invalid, replaced)


def paired(src_files: Sequence[Path], tgt_files: Sequence[Path]) -> list[Source]:
    """Sources of two files each; DataError if there are more of one side."""
    if len(src_files) != len(tgt_files):
        raise DataError(
            f"{len(src_files)} source and {len(tgt_files)} target files: name as many of one as of the other"
        )
    return [Source(files) for files in zip(src_files, tgt_files, strict=True)]


def read_blocks(sources: Sequence[Source], size: int = 4096) -> Iterator[Block]:
    """The lines of all sources in blocks of up to `size`, fewer where lines are long; a block never spans two sources.

    DataError if the two sides of a source differ in their number of lines.
    """
    offset = 0
    for index, source in enumerate(sources):
        names = tuple(map(file_name, source.files))
        with ExitStack() as stack:
            files = [_Lines(file, stack.enter_context(open_bytes(file))) for file in source.files]
            while rows := _take(files, size):
                raw = tuple(b"".join(side) for side in rows)
                num_lines = files[0].num_taken
                yield Block(index, offset, num_lines - len(rows[0]) + 1, len(rows[0]), names, raw, source.reader)
        offset += files[0].num_taken


class _Lines:
    """A file being read, and how many of its lines have been taken."""

    def __init__(self, path: Path | str, stream: BinaryIO) -> None:
        self.path, self._stream, self.num_taken = path, stream, 0

    def take(self, size: int) -> list[bytes]:
        """Up to `size` more lines."""
        rows: list[bytes] = []
        with _read_errors(self.path, lambda: self.num_taken + len(rows)):
            rows.extend(islice(self._stream, size))
        self.num_taken += len(rows)
        return rows


def _take(files: Sequence[_Lines], size: int) -> list[list[bytes]]:
    """Up to `size` lines of each file, in steps until they have BLOCK_BYTES; nothing at the end."""
    rows: list[list[bytes]] = [[] for _ in files]
    num_bytes = 0
    while len(rows[0]) < size and num_bytes < BLOCK_BYTES:
        more = [file.take(min(AT_ONCE, size - len(rows[0]))) for file in files]
        if len({len(side) for side in more}) > 1:
            raise _uneven(files)
        if not more[0]:
            break
        for side, lines in zip(rows, more, strict=True):
            side += lines
            num_bytes += sum(map(len, lines))
    return rows if rows[0] else []


def _uneven(files: Sequence[_Lines]) -> DataError:
    for file in files:
        while file.take(4096):
            pass
    (src, src_lines), (tgt, tgt_lines) = ((file_name(file.path), file.num_taken) for file in files)
    return DataError(
        f"{src} has {src_lines:,} lines but {tgt} has {tgt_lines:,}: line N of one side must belong to line N of the other"
    )


def decode_line(
    raw: bytes,
    name: str,
    number: int,
    invalid: Literal["error", "replace"] = "error",
    replaced: list[int] | None = None,
) -> str:
    """One raw line without its line end as text; see `read_lines`."""
    if number == 1 and raw.startswith(BOM):
        if invalid == "error":
            raise DataError(f"{name}:1: the file begins with a byte order mark; remove it: tail -c +4 '{name}' > FIXED")
        raw = raw[len(BOM) :]
        if replaced is not None:
            replaced.append(1)
    if number == 1 and raw.startswith(UTF16):  # of which no line would be left in repair
        raise DataError(f"{name}: looks like UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if invalid == "error":
            raise DataError(
                f"{name}:{number}: byte 0x{raw[error.start]:02X} at byte {error.start + 1} of the line is not UTF-8; convert "
                "the file (iconv -f LATIN1 -t UTF-8, or whatever it is in) or repair the line"
            ) from None
        if replaced is not None and number not in replaced[-1:]:
            replaced.append(number)
        return raw.decode("utf-8", "replace")


def raw_lines(path: Path | str) -> Iterator[bytes]:
    """The lines of a file as bytes, without 0x0A and without one CR before it."""
    num_read = 0
    with open_bytes(path) as stream, _read_errors(path, lambda: num_read):
        for line in stream:
            num_read += 1
            if line.endswith(b"\r\n"):
                yield line[:-2]
            else:
                yield line.removesuffix(b"\n")


@contextmanager
def open_bytes(path: Path | str) -> Iterator[BinaryIO]:
    """A file or standard input (`-`) for reading, decompressed if its first bytes say that it is compressed."""
    with _read_errors(path):
        if str(path) == "-":
            yield _decompressed(sys.stdin.buffer, STDIN)
            return
        if Path(path).is_dir():
            raise DataError(f"{path}: a directory, where a text file is expected")
        with open(path, "rb") as file, _decompressed(file, str(path)) as stream:
            yield stream


def _decompressed(file: BinaryIO, name: str) -> BinaryIO:
    head = cast(io.BufferedReader, file).peek(16)
    if head.startswith(GZIP):
        return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 18))
    if BZIP2.match(head):
        return cast(BinaryIO, io.BufferedReader(bz2.BZ2File(file), 1 << 18))
    if head.startswith(XZ):
        return cast(BinaryIO, io.BufferedReader(lzma.LZMAFile(file), 1 << 18))
    if ZSTD.match(head):
        return cast(BinaryIO, io.BufferedReader(_zstd(name).ZstdFile(file), 1 << 18))
    return file


def _zstd(file: str) -> Any:
    """Python's own module, from 3.14 on, or the package that brings it to older ones."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return import_module(name)
    raise DataError(f"{file}: compressed with zstd, which needs a package: pip install backports.zstd")


@contextmanager
def _read_errors(path: Path | str, num_read: Callable[[], int] | None = None) -> Iterator[None]:
    """Turn what can go wrong with a file into one message about it; `num_read` tells how many lines were whole."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except _corrupt() as error:
        what = "ends too early" if isinstance(error, EOFError) else f"is corrupt ({error})"
        where = f", after line {num_read():,}" if num_read and num_read() else ""
        raise DataError(f"{file_name(path)}: the compressed file {what}{where}; copy or download it again") from None
    except OSError as error:
        raise DataError(f"{file_name(path)}: cannot be read ({error.strerror or error})") from None


def _corrupt() -> tuple[type[Exception], ...]:
    """What decompressors raise for damaged files, EOFError for cut ones; that of zstd only if it was used."""
    modules = (sys.modules.get(name) for name in ("compression.zstd", "backports.zstd"))
    return EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, *(module.ZstdError for module in modules if module)


def file_name(path: Path | str) -> str:
    """What messages call a file."""
    return STDIN if str(path) == "-" or Path(path).name == STDIN else str(path)
