"""What `preprocess` reads: which files hold the training, validation and test text, with which tags, and samples of it.

Files are looked at before the long work begins. Standard input, which can be read but once, is copied first. This room
knows neither vocabularies nor what becomes of the text.
"""

import os
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from s2s_cli.config import PreprocessSettings
from s2s_cli.data.corpus import STDIN, Block, Reader, Source, open_bytes, paired, read_blocks
from s2s_cli.data.formats import Columns, Fields
from s2s_cli.errors import ConfigError
from s2s_cli.files import told


@dataclass(frozen=True)
class Inputs:
    """The text, with one tag for each source: what its source texts begin with, empty where there is none."""

    train: list[Source]
    valid: list[Source]
    test: list[Source]
    tags: list[str]
    valid_tags: list[str]

    @classmethod
    def of(cls, settings: PreprocessSettings, scratch: Path) -> "Inputs":
        """What the settings name, standard input copied to `scratch`. DataError or ConfigError if it cannot be read."""
        for path in chain(*_files(settings)):
            _check(path)
        if sum(str(path) == "-" for path in chain(*_files(settings))) > 1:
            raise ConfigError("standard input (-) is named twice, and can be read once")
        train_src, train_tgt, valid_src, valid_tgt, test, test_src = (
            [_copy_stdin(scratch) if str(path) == "-" else path for path in paths] for paths in _files(settings)
        )
        reader: Reader | None = None
        if settings.tsv or settings.jsonl:
            reader = Columns(settings.src_column, settings.tgt_column)
            if settings.jsonl:
                reader = Fields(settings.src_field, settings.tgt_field)
            train, valid = ([Source((path,), reader) for path in paths] for paths in (train_src, valid_src))
        else:
            train, valid = paired(train_src, train_tgt), paired(valid_src, valid_tgt)
        held_out = [Source((path,), reader) for path in test] + [Source((path,)) for path in test_src]
        return cls(train, valid, held_out, *_tags(settings, len(train), len(valid)))

    @property
    def tag_pieces(self) -> list[str]:
        """Each tag once; a source may begin with several."""
        return sorted({piece for tag in self.tags + self.valid_tags for piece in tag.split()})

    def held_out(self) -> Iterator[str]:
        """The sources of validation and test text, without tags."""
        for block in read_blocks([*self.valid, *self.test]):
            yield from block.texts()[0]

    def where(self, line: int, num_lines: list[int]) -> str:
        """File and line of a line number of the training text, whose sources have so many lines."""
        for source, num in zip(self.train, num_lines, strict=True):
            if line <= num:
                return f"{source.name}:{line}"
            line -= num
        raise IndexError(line)


def reads_stdin(settings: PreprocessSettings) -> bool:
    """Whether standard input is among the files."""
    return "-" in map(str, chain(*_files(settings)))


def lines_of(sources: list[Source], side: Literal["src", "tgt", "both"]) -> Iterator[str]:
    """The text of a side, or of both by turns."""
    for block in progress(read_blocks(sources), "vocabulary"):
        src, tgt = block.texts()
        if side != "tgt":
            yield from src
        if side != "src":
            yield from tgt


def sample(lines: Iterable[str], size: int, seed: int) -> list[str]:
    """A uniform sample of at most `size` lines, the same for the same seed (reservoir sampling, Vitter 1985)."""
    rng = random.Random(seed)
    chosen: list[str] = []
    for seen, line in enumerate(lines):
        if seen < size:
            chosen.append(line)
        elif (slot := int(rng.random() * (seen + 1))) < size:
            chosen[slot] = line
    return chosen


def progress(blocks: Iterator[Block], what: str) -> Iterator[Block]:
    """A progress bar over lines, on a terminal only."""
    shown = sys.stderr.isatty() and os.environ.get("RANK", "0") == "0"
    with tqdm(desc=what, unit=" lines", unit_scale=True, disable=not shown) as bar:
        for block in blocks:
            yield block
            bar.update(block.size)


def _files(settings: PreprocessSettings) -> tuple[list[Path], ...]:
    """Training and validation files, source and target side; test files with both sides, and test sources."""
    if settings.tsv or settings.jsonl:
        return settings.train, [], settings.valid, [], settings.test, settings.test_src
    return settings.train_src, settings.train_tgt, settings.valid_src, settings.valid_tgt, [], settings.test_src


def _check(path: Path) -> None:
    """Refuse at once what could not be read later, or not twice."""
    if str(path) == "-":
        return
    if path.is_fifo():
        raise ConfigError(f"{path}: a pipe, which can be read once: name a file, or - for standard input")
    with open_bytes(path):
        pass


def _copy_stdin(scratch: Path) -> Path:
    path = scratch / STDIN
    with open_bytes("-") as stream, open(path, "wb") as copy:
        while block := stream.read(1 << 20):
            with told(path):  # and not as a mistake in reading
                copy.write(block)
                copy.flush()
    return path


def _tags(settings: PreprocessSettings, num_train: int, num_valid: int) -> tuple[list[str], list[str]]:
    """The tag of each training and of each validation source."""
    tags = [" ".join(tag.split()) for tag in settings.tag] or [""] * num_train
    if settings.valid_tag:
        return tags, [" ".join(tag.split()) for tag in settings.valid_tag]
    if len(set(tags)) > 1:
        raise ConfigError("the training files have different tags: name valid_tag for each validation file too")
    return tags, tags[:1] * num_valid
