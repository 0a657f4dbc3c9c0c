"""Which training pairs are left out, and under which name.

Each filter looks at a block of pairs and marks those it finds; a pair counts under the first name that finds it. What a
pair leaves behind is said in `report`; duplicates need the whole corpus and have a room of their own.
"""

import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import eq

import numpy as np
import numpy.typing as npt

from s2s_cli.config import PreprocessSettings
from s2s_cli.data.corpus import blank
from s2s_cli.data.vocab import TextRules
from s2s_cli.errors import ConfigError

Mask = npt.NDArray[np.bool_]
Lengths = npt.NDArray[np.int32]

SHORT = 5  # sides of up to so many pieces may have any length ratio


@dataclass(frozen=True)
class Limits:
    """What the filters go by. The defaults drop blank pairs only, as validation does."""

    src_truncate: int = 0
    tgt_truncate: int = 0
    max_len: int | None = None
    max_ratio: float | None = None
    max_unknown: float = 1.0
    src_script: tuple[str, ...] = ()
    tgt_script: tuple[str, ...] = ()
    drop_identical: bool = False
    drop_leaks: bool = False
    drop_duplicates: bool = False
    held_out: frozenset[str] = frozenset()  # sources of validation and test text, as the vocabulary sees them
    find: bool = False  # count identical, leaked and duplicate pairs even if they are kept

    @classmethod
    def of(cls, settings: PreprocessSettings) -> "Limits":
        """The limits of the training text. ConfigError for a script that there is not."""
        return cls(
            settings.src_truncate,
            settings.tgt_truncate,
            settings.max_len,
            settings.max_ratio,
            settings.max_unknown,
            _known_scripts(settings.src_script),
            _known_scripts(settings.tgt_script),
            settings.identical == "drop",
            settings.leaks == "drop",
            settings.duplicates == "drop",
            find=True,
        )

    def beside(self, held_out: Iterable[str], rules: TextRules) -> "Limits":
        """With the sources of held-out text, under the rules of the source's vocabulary."""
        return replace(self, held_out=frozenset(rules.apply(line).strip() for line in held_out))


@dataclass
class Encodings:
    """One side of a block of pairs: texts, also as the vocabulary sees them, and how many pieces and unknown pieces each has."""

    texts: Sequence[str]
    seen: Sequence[str]
    lengths: Lengths
    num_unknown: Lengths | None  # None: nothing is unknown


def marks(src: Encodings, tgt: Encodings, limits: Limits) -> Iterator[tuple[str, Mask, bool]]:
    """Name, mask and whether to drop, filter by filter."""
    yield "blank", _mask(map(blank, src.texts)) | _mask(map(blank, tgt.texts)), True
    if limits.find:
        yield "identical", _mask(map(eq, src.seen, tgt.seen)), limits.drop_identical
    if limits.held_out:
        yield "leak", _mask(s.strip() in limits.held_out for s in src.seen), limits.drop_leaks
    for side, scripts in ((src, limits.src_script), (tgt, limits.tgt_script)):
        if scripts:
            yield "wrong script", _mask(not mostly_of(text, scripts) for text in side.texts), True
    if limits.max_len is not None:
        src_max, tgt_max = max(limits.max_len, limits.src_truncate), max(limits.max_len, limits.tgt_truncate)
        yield "too long", (src.lengths > src_max) | (tgt.lengths > tgt_max), True
    if limits.max_ratio is not None:
        longer, shorter = np.maximum(src.lengths, tgt.lengths), np.minimum(src.lengths, tgt.lengths)
        yield "length ratio", (longer > limits.max_ratio * shorter) & (longer > SHORT), True
    for side in (src, tgt):
        if side.num_unknown is not None:
            yield "unknown pieces", side.num_unknown > limits.max_unknown * side.lengths, True


def mostly_of(text: str, scripts: Sequence[str]) -> bool:
    """Whether at least half the letters of a text are of these scripts; a text without letters is of any."""
    letters = [script(char) in scripts for char in text if char.isalpha()]
    return 2 * sum(letters) >= len(letters)


@lru_cache(1 << 16)
def script(char: str) -> str:
    """The script of a letter by the first word of its Unicode name: latin, cyrillic, arabic, han, hiragana, …"""
    name = unicodedata.name(char, "unknown").lower()
    first = name.removeprefix("halfwidth ").removeprefix("fullwidth ").partition(" ")[0]
    return {"cjk": "han", "ideographic": "han", "katakana-hiragana": "katakana"}.get(first, first)


def _known_scripts(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    known = {script(char) for char in map(chr, range(0x20000)) if char.isalpha()}
    wanted = tuple(name.lower() for name in names)
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"; did you mean {close[0]}?" if close else "; there are latin, cyrillic, greek, arabic, han, hangul, …"
            )
            raise ConfigError(f"{name} is no script that letters are named by{hint}")
    return wanted


def _mask(items: Iterable[bool]) -> Mask:
    return np.fromiter(items, np.bool_)
