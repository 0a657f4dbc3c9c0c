"""Where a score comes from: by length, by word frequency, signs of trouble, and the lines where systems differ most.

Words here are lowercased runs of letters and digits in any script (`rouge.UnicodeTokenizer`). Where a line has several
references, each output is held against the one that shares most of its words. This file must not know HTML or terminals.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from s2s_cli.config import ScoreSettings
from s2s_cli.evaluation.alignment import Aligner
from s2s_cli.evaluation.compare import Comparison, Systems, sentence_values
from s2s_cli.evaluation.examples import NUM_EXAMPLES, Difference, Examples
from s2s_cli.evaluation.metrics import build_metric
from s2s_cli.evaluation.rouge import UnicodeTokenizer

Words = list[str]

_FREQUENCIES = (0, 1, 2, 5, 10, 100, 1000)
REFERENCE = ""
"""Stands for the first reference where systems stand by name; no file has this name."""
_RATIOS = (0.0, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 2.0)


@dataclass(frozen=True)
class Chart:
    """Values over buckets of the text, a series for each system; `sizes` say how much text a bucket holds."""

    title: str
    x: str
    y: str
    buckets: list[str]
    sizes: list[int]
    series: dict[str, list[float]]
    bars: bool = False


class Sign(NamedTuple):
    """A measure of health in percent (length ratio: a plain ratio) for each system and for REFERENCE."""

    name: str
    meaning: str
    values: dict[str, float]


@dataclass(frozen=True)
class Analysis:
    """Everything that the page shows. With one system, `differences` are its worst lines."""

    comparisons: list[Comparison]
    num_lines: int
    num_refs: int
    by_length: list[Chart]
    by_frequency: Chart
    length_ratio: Chart
    signs: list[Sign]
    suspects: list[Difference]
    differences: list[Difference]
    wins: dict[str, tuple[int, int, int]]
    """System to the number of lines where it is better than, equal to and worse than the baseline by chrF."""


@dataclass(frozen=True)
class _Text:
    """The words of every system, of the reference closest to each of its lines, of all references and the source."""

    systems: dict[str, list[Words]]
    closest: dict[str, list[Words]]
    refs: list[list[Words]]
    src: list[Words] | None


def analyze(
    systems: Systems,
    refs: list[list[str]],
    src: list[str] | None,
    comparisons: list[Comparison],
    train_tgt: Iterable[str] | None = None,
) -> Analysis:
    """The analysis of systems that were compared; word frequencies are those of `train_tgt`, else of the references."""
    tokenize = UnicodeTokenizer().tokenize
    ref_words = [[tokenize(line) for line in ref] for ref in refs]
    words = {name: [tokenize(line) for line in hyps] for name, hyps in systems.items()}
    closest = {
        name: [_closest(hyp, line_refs) for hyp, *line_refs in zip(hyps, *ref_words, strict=True)]
        for name, hyps in words.items()
    }
    text = _Text(words, closest, ref_words, [tokenize(line) for line in src] if src is not None else None)
    counted = map(tokenize, train_tgt) if train_tgt is not None else (line for ref in ref_words for line in ref)
    frequency = Counter(word for line in counted for word in line)
    chrf = dict(zip(systems, sentence_values(systems, build_metric("chrf", refs, ScoreSettings(), True)), strict=True))
    lost = _unaligned(text)
    examples = Examples(systems, refs, src, chrf)
    return Analysis(
        comparisons=comparisons,
        num_lines=len(refs[0]),
        num_refs=len(refs),
        by_length=_by_length(comparisons, ref_words),
        by_frequency=_by_frequency(text, frequency, "training text" if train_tgt is not None else "references"),
        length_ratio=_length_ratio(text),
        signs=_signs(systems, refs, src, text, lost),
        suspects=_suspects(examples, text, lost),
        differences=examples.worst() if len(systems) == 1 else examples.furthest(),
        wins=_wins(chrf),
    )


def _closest(hyp: Words, refs: list[Words]) -> Words:
    return max(refs, key=lambda ref: _shared(hyp, ref))


def _shared(a: Words, b: Words) -> int:
    return sum((Counter(a) & Counter(b)).values())


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else 0.0


def _by_length(comparisons: list[Comparison], ref_words: list[list[Words]]) -> list[Chart]:
    lengths = np.array([len(line) for line in ref_words[0]])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, 9)).astype(int))
    bucket = np.searchsorted(edges[1:], lengths)  # up to eight, of about as many lines each
    names = [_span(low, high, k == 0) for k, (low, high) in enumerate(pairwise(edges))] or [str(edges[0])]
    masks = [(name, bucket == k) for k, name in enumerate(names) if (bucket == k).any()]
    return [
        Chart(
            title=f"{c.metric.name} by length",
            x="words of the reference",
            y=c.metric.name + ("" if c.metric.higher_is_better else " (lower is better)"),
            buckets=[name for name, _ in masks],
            sizes=[int(mask.sum()) for _, mask in masks],
            series={
                result.system: [c.metric.value(stats[mask].sum(0).tolist()) for _, mask in masks]
                for result, stats in zip(c.results, c.stats, strict=True)
            },
        )
        for c in comparisons
    ]


def _span(low: int, high: int, first: bool) -> str:
    start = low if first else low + 1
    return str(high) if start >= high else f"{start}–{high}"


def _by_frequency(text: _Text, frequency: Counter[str], counted_in: str) -> Chart:
    """F1 of words, counted line by line, over how often the word occurs in the counted text."""
    edges = _FREQUENCIES if counted_in != "references" else _FREQUENCIES[1:]
    names = [f"{low}" if low + 1 == high else f"{low}–{high - 1}" for low, high in pairwise(edges)] + [f"{edges[-1]}+"]

    def bucket(words: Iterable[str]) -> np.ndarray:
        ranks = np.searchsorted(edges, [frequency[word] for word in words], side="right") - 1
        return np.bincount(ranks[ranks >= 0], minlength=len(names))

    sizes = bucket(word for line in text.refs[0] for word in line)
    filled = [k for k, size in enumerate(sizes) if size]
    series = {}
    for name, hyps in text.systems.items():
        refs = text.closest[name]
        matched = bucket(w for h, r in zip(hyps, refs, strict=True) for w in (Counter(h) & Counter(r)).elements())
        total = bucket(w for h in hyps for w in h) + bucket(w for r in refs for w in r)
        series[name] = [200.0 * matched[k] / max(1, total[k]) for k in filled]
    return Chart(
        title="Words by frequency",
        x=f"occurrences in the {counted_in}",
        y="F1 of words",
        buckets=[names[k] for k in filled],
        sizes=[int(sizes[k]) for k in filled],
        series=series,
    )


def _length_ratio(text: _Text) -> Chart:
    names = [f"{low:g}–{high:g}" for low, high in pairwise(_RATIOS)] + [f"{_RATIOS[-1]:g}+"]
    series = {}
    for name, hyps in text.systems.items():
        ratios = [len(h) / max(1, len(r)) for h, r in zip(hyps, text.closest[name], strict=True)]
        counts = np.bincount(np.searchsorted(_RATIOS, ratios, side="right") - 1, minlength=len(names))
        series[name] = (100.0 * counts / len(hyps)).tolist()
    sizes = [len(text.refs[0])] * len(names)
    return Chart("Length of output to length of reference", "ratio", "% of lines", names, sizes, series, bars=True)


def _unaligned(text: _Text) -> dict[str, list[list[bool]]] | None:
    """For each system, and for the first reference: which words no source word explains."""
    if text.src is None:
        return None
    aligner = Aligner((src, line) for ref in text.refs for src, line in zip(text.src, ref, strict=True))
    every = {**text.systems, REFERENCE: text.refs[0]}
    return {
        name: [aligner.unaligned(s, h) for s, h in zip(text.src, lines, strict=True)] for name, lines in every.items()
    }


def _signs(
    systems: Systems,
    refs: list[list[str]],
    src: list[str] | None,
    text: _Text,
    lost: dict[str, list[list[bool]]] | None,
) -> list[Sign]:
    """Measures of each system, beside the same measures of the first reference."""
    lines = {**systems, REFERENCE: refs[0]}
    words = {**text.systems, REFERENCE: text.refs[0]}
    closest = {**text.closest, REFERENCE: text.refs[0]}
    num = {name: sum(map(len, w)) for name, w in words.items()}

    def share_of_lines(name: str, found: Iterable[bool]) -> float:
        return _percent(sum(found), len(lines[name]))

    def paired(name: str) -> Iterable[tuple[Words, Words]]:
        return zip(words[name], closest[name], strict=True)

    def sign(title: str, meaning: str, values: Iterable[float]) -> Sign:
        return Sign(title, meaning, dict(zip(lines, values, strict=True)))

    signs = [
        sign("length ratio", "words of output to words of reference", [
            num[name] / max(1, sum(map(len, closest[name]))) for name in lines
        ]),
        sign("empty", "% of lines without a word where the reference has some", [
            share_of_lines(name, (not h and bool(r) for h, r in paired(name))) for name in lines
        ]),
        sign("far too long", "% of lines with over five words more than twice the reference's", [
            share_of_lines(name, (too_long(h, r) for h, r in paired(name))) for name in lines
        ]),
        sign("repeated", "% of lines with one to four words twice in a row, or the same three words twice anywhere", [
            share_of_lines(name, (repeats(h) for h in words[name])) for name in lines
        ]),
        sign("not in reference", "% of words that the reference lacks", [
            _percent(num[name] - sum(_shared(h, r) for h, r in paired(name)), num[name]) for name in lines
        ]),
    ]  # fmt: skip
    if src is None or text.src is None or lost is None:
        return signs
    src_words = text.src
    return signs + [
        sign("copied lines", "% of lines equal to the source", [
            share_of_lines(name, (bool(h) and h == s for h, s in zip(words[name], src_words, strict=True)))
            for name in lines
        ]),
        sign("copied words", "% of words that stand in the source", [
            _percent(sum(_shared(h, s) for h, s in zip(words[name], src_words, strict=True)), num[name])
            for name in lines
        ]),
        sign("unaligned", "% of words that nothing in the source explains (IBM Model 1 learned from the references)", [
            _percent(sum(map(sum, lost[name])), num[name]) for name in lines
        ]),
    ]  # fmt: skip


def too_long(hyp: Sequence[str], ref: Sequence[str]) -> bool:
    """An output that runs on: over five words more than twice the reference's."""
    return len(hyp) > 2 * len(ref) + 5


def repeats(words: Sequence[str]) -> bool:
    """Whether one to four words stand twice in a row, or any three words occur twice."""
    for n in range(1, 5):
        if any(words[i : i + n] == words[i + n : i + 2 * n] for i in range(len(words) - 2 * n + 1)):
            return True
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(trigrams)) < len(trigrams)


def _wins(chrf: dict[str, np.ndarray]) -> dict[str, tuple[int, int, int]]:
    baseline, *others = chrf
    signs = {name: np.sign(chrf[name] - chrf[baseline]) for name in others}
    return {name: (int((s > 0).sum()), int((s == 0).sum()), int((s < 0).sum())) for name, s in signs.items()}


def _suspects(examples: Examples, text: _Text, lost: dict[str, list[list[bool]]] | None) -> list[Difference]:
    """Lines that look made up, stuck or left untranslated; the most reasons first, then the lowest chrF."""
    found = []
    for name, hyps in text.systems.items():
        for i, (hyp, ref) in enumerate(zip(hyps, text.closest[name], strict=True)):
            reasons = []
            if too_long(hyp, ref):
                reasons.append(f"{len(hyp)} words for {len(ref)}")
            if repeats(hyp) and not repeats(ref):
                reasons.append("repeats itself")
            if text.src is not None and hyp and hyp == text.src[i] and hyp != ref:
                reasons.append("copies the source")
            if lost is not None and sum(lost[name][i]) >= max(2.0, 0.4 * len(hyp)):
                reasons.append(f"{sum(lost[name][i])} of {len(hyp)} words unaligned")
            if ref and not hyp:
                reasons.append("empty")
            if reasons:
                found.append((-len(reasons), float(examples.chrf[name][i]), i, name, "; ".join(reasons)))
    return [examples.at(i, [name], reason) for *_, i, name, reason in sorted(found)[:NUM_EXAMPLES]]
