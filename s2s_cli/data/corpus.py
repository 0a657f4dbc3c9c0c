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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast

from s2s_cli.errors import DataError

BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b\x08"
BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
XZ = b"\xfd7zXZ\x00"
ZSTD = b"\x28\xb5\x2f\xfd"


class Pair(NamedTuple):
    """One training example: its line number in the whole corpus (from 1) and both sides."""

    line: int
    src: str
    tgt: str


class Block(NamedTuple):
    """Consecutive lines of a pair of files as raw bytes, to be decoded and encoded somewhere else."""

    offset: int  # lines of the corpus before this pair of files
    first: int  # number of the block's first line in its files, from 1
    src_name: str
    tgt_name: str
    src: list[bytes]
    tgt: list[bytes]

    def pairs(self) -> Iterator[Pair]:
        """Decode the block; DataError names the file and line of the first invalid byte."""
        for number, (src, tgt) in enumerate(zip(self.src, self.tgt, strict=True), self.first):
            yield Pair(
                self.offset + number,
                decode_line(src, self.src_name, number),
                decode_line(tgt, self.tgt_name, number),
            )


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
    name = _name(path)
    for number, raw in enumerate(raw_lines(path), 1):
        yield decode_line(raw, name, number, invalid, replaced)


def read_pairs(src_files: Sequence[Path], tgt_files: Sequence[Path]) -> Iterator[Pair]:
    """The pairs of several files joined in order; DataError if the two sides of one differ in their number of lines."""
    for block in read_blocks(src_files, tgt_files):
        yield from block.pairs()


def read_blocks(src_files: Sequence[Path], tgt_files: Sequence[Path], size: int = 4096) -> Iterator[Block]:
    """The pairs of several files in blocks of up to `size` raw lines; a block never spans two files."""
    if len(src_files) != len(tgt_files):
        raise DataError(
            f"{len(src_files)} source files and {len(tgt_files)} target files: name as many of one as of the other"
        )
    offset = 0
    for src_file, tgt_file in zip(src_files, tgt_files, strict=True):
        src_lines, tgt_lines = raw_lines(src_file), raw_lines(tgt_file)
        num_src = num_tgt = 0
        while True:
            src, tgt = list(islice(src_lines, size)), list(islice(tgt_lines, size))
            first = num_src + 1
            num_src, num_tgt = num_src + len(src), num_tgt + len(tgt)
            if len(src) != len(tgt):
                num_src, num_tgt = num_src + sum(1 for _ in src_lines), num_tgt + sum(1 for _ in tgt_lines)
                raise DataError(
                    f"{_name(src_file)} has {num_src:,} lines but {_name(tgt_file)} has {num_tgt:,}: "
                    "line N of one side must translate line N of the other"
                )
            if not src:
                break
            yield Block(offset, first, _name(src_file), _name(tgt_file), src, tgt)
        offset += num_src


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
            raise DataError(
                f"{name}:1: the file begins with a byte order mark; remove it: sed -i '1s/^\\xEF\\xBB\\xBF//'"
            )
        raw = raw[len(BOM) :]
        if replaced is not None:
            replaced.append(1)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if invalid == "error":
            raise DataError(_invalid_message(raw, name, number, error)) from None
        if replaced is not None and number not in replaced[-1:]:
            replaced.append(number)
        return raw.decode("utf-8", "replace")


def raw_lines(path: Path | str) -> Iterator[bytes]:
    """The lines of a file as bytes, without 0x0A and without one CR before it."""
    with open_bytes(path) as stream, _read_errors(path):
        for line in stream:
            if line.endswith(b"\r\n"):
                yield line[:-2]
            else:
                yield line.removesuffix(b"\n")


@contextmanager
def open_bytes(path: Path | str) -> Iterator[BinaryIO]:
    """A file or standard input (`-`) for reading, decompressed if its first bytes say that it is compressed."""
    with _read_errors(path):
        if str(path) == "-":
            yield _decompressed(sys.stdin.buffer)
            return
        if Path(path).is_dir():
            raise DataError(f"{path}: a directory, where a text file is expected")
        with open(path, "rb") as file, _decompressed(file) as stream:
            yield stream


def _decompressed(file: BinaryIO) -> BinaryIO:
    head = cast(io.BufferedReader, file).peek(16)
    if head.startswith(GZIP):
        return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 18))
    if BZIP2.match(head):
        return cast(BinaryIO, io.BufferedReader(bz2.BZ2File(file), 1 << 18))
    if head.startswith(XZ):
        return cast(BinaryIO, io.BufferedReader(lzma.LZMAFile(file), 1 << 18))
    return file


@contextmanager
def _read_errors(path: Path | str) -> Iterator[None]:
    """Turn what can go wrong with a file into one message about it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except EOFError:
        raise DataError(f"{_name(path)}: the compressed file ends too early; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{_name(path)}: the compressed file is corrupt ({error}); copy or download it again") from None
    except OSError as error:
        raise DataError(f"{_name(path)}: cannot be read ({error.strerror or error})") from None


def _invalid_message(raw: bytes, name: str, number: int, error: UnicodeDecodeError) -> str:
    if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return f"{name}: looks like UTF-16; convert it: iconv -f UTF-16 -t UTF-8"
    return (
        f"{name}:{number}: byte 0x{raw[error.start]:02X} at byte {error.start + 1} of the line is not UTF-8; "
        "convert the file (iconv -f LATIN1 -t UTF-8, or whatever it is in) or repair the line"
    )


def _name(path: Path | str) -> str:
    return "<stdin>" if str(path) == "-" else str(path)
