"""Lines that are too long for the model: where to split them, and how their parts are joined again.

The rules know no language: sentences end where their punctuation says so, in any script, and words at whitespace. What is
translated is text between two places in a line; this room knows neither models nor pieces, only how many pieces a text has.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import regex  # type: ignore[import-untyped]

from s2s_cli.data.scripts import SENTENCE_END, UNSPACED

Count = Callable[[Sequence[str]], list[int]]  # how many pieces each of these texts has

_WORD_END = regex.compile(r"\S(?=\s)")
_UNSPACED = regex.compile(rf"[{UNSPACED}\u3000-\u303f\uff00-\uffef]")


class Span(NamedTuple):
    """A part of a line: `line[start:end]`, without whitespace at either end."""

    start: int
    end: int


def split(line: str, size: int, count: Count) -> list[Span]:
    """Parts of at most `size` pieces each, with all of the line but whitespace in them.

    They end where sentences do; a sentence that is longer than a part is split between words, and a word that is longer,
    by halves. As many sentences (or words) go into a part as fit, so that the model sees what belongs together.
    """
    parts: list[Span] = []
    for sentences in _packed(line, _cut(line, Span(0, len(line)), SENTENCE_END), size, count):
        if _fits(line, sentences, size, count):
            parts.append(sentences)
            continue
        for words in _packed(line, _cut(line, sentences, _WORD_END), size, count):
            parts += _halves(line, words, size, count)
    return parts


def separator(left: str, right: str) -> str:
    """What stands between two parts of an output: a space, or nothing in scripts that write none."""
    return "" if _UNSPACED.match(left[-1:]) and _UNSPACED.match(right[:1]) else " "


def _cut(line: str, span: Span, end: regex.Pattern[str]) -> list[Span]:
    """The span in pieces that each end where `end` matches."""
    places = [match.end() for match in end.finditer(line, span.start, span.end)]
    edges = [span.start, *(place for place in places if place < span.end), span.end]
    spans = [_strip(line, start, stop) for start, stop in pairwise(edges)]
    return [part for part in spans if part.start < part.end]


def _strip(line: str, start: int, end: int) -> Span:
    text = line[start:end]
    return Span(end - len(text.lstrip()), start + len(text.rstrip())) if text.strip() else Span(start, start)


def _packed(line: str, spans: list[Span], size: int, count: Count) -> list[Span]:
    """Neighbours joined for as long as their pieces are no more than `size`."""
    packed: list[Span] = []
    filled = 0
    for span, pieces in zip(spans, count([line[s.start : s.end] for s in spans]), strict=True):
        if packed and filled + pieces <= size:
            packed[-1] = Span(packed[-1].start, span.end)
            filled += pieces
        else:
            packed.append(span)
            filled = pieces
    return packed


def _fits(line: str, span: Span, size: int, count: Count) -> bool:
    return count([line[span.start : span.end]])[0] <= size


def _halves(line: str, span: Span, size: int, count: Count) -> list[Span]:
    """What is still too long, as few words put together may be or a single one, in halves of halves; a character stays whole."""
    if span.end - span.start <= 1 or _fits(line, span, size, count):
        return [span]
    middle = (span.start + span.end) // 2
    halves = [_strip(line, span.start, middle), _strip(line, middle, span.end)]
    return [part for half in halves if half.start < half.end for part in _halves(line, half, size, count)]
