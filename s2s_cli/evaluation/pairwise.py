"""Every text of a few held against every other, for search by expected utility: sentence scores of `score`'s own metrics.

What is counted in a text is counted once; a pair then costs a few products. This file must not know where the texts
come from.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from s2s_cli.config import ScoreSettings
from s2s_cli.evaluation.metrics import SacreMetric, build_metric
from s2s_cli.evaluation.rouge import build_tokenizer

Utility = Callable[[Sequence[str]], np.ndarray]  # k texts -> [k, k]: row the output, column the reference, 0 to 100


def utility(name: str, options: ScoreSettings) -> Utility:
    """The sentence score `name` (chrf, bleu or rouge, which is ROUGE-L) of each text against each as its reference.

    The options are those of `score`, but that ROUGE keeps the letters of every script unless told otherwise, since it would
    else erase most of a text that is not English.
    """
    if name == "rouge":
        tokenize = build_tokenizer(rouge_tokenizer(options), options.rouge_stem).tokenize
        return lambda texts: _rouge_l([tokenize(text) for text in texts])
    metric = cast(SacreMetric, build_metric(name, [[""]], options, sentence=True))
    counts = _bleu_counts if name == "bleu" else _chrf_counts
    return lambda texts: counts(metric, [metric.ngrams(text) for text in texts])


def rouge_tokenizer(options: ScoreSettings) -> str:
    """The tokenizer that `utility` takes for ROUGE."""
    return options.rouge_tokenizer if "rouge_tokenizer" in options.model_fields_set else "unicode"


def _chrf_counts(metric: SacreMetric, ngrams: list[dict[str, Any]]) -> np.ndarray:
    """chrF's statistics: for each order n-grams of the output, of the reference, and of both."""
    orders = list(zip(*(found["ref_ngrams"][0] for found in ngrams), strict=True))
    stats = np.empty((len(ngrams), len(ngrams), 3 * len(orders)))
    for order, counters in enumerate(orders):
        totals = np.array([counter.total() for counter in counters])
        stats[:, :, 3 * order] = totals[:, None] * (totals > 0)  # none count where the reference has no such n-gram
        stats[:, :, 3 * order + 1] = totals
        stats[:, :, 3 * order + 2] = _matches(counters)
    return _scores(metric, stats)


def _bleu_counts(metric: SacreMetric, ngrams: list[dict[str, Any]]) -> np.ndarray:
    """BLEU's statistics: both lengths, and for each order the n-grams in common and those of the output."""
    lengths = np.array([found["ref_lens"][0] for found in ngrams])
    num = len(lengths)
    columns = [np.repeat(lengths[:, None], num, 1), np.repeat(lengths[None], num, 0)]
    totals = []
    for order in range(1, 5):
        counters = [Counter({n: c for n, c in f["ref_ngrams"].items() if len(n) == order}) for f in ngrams]
        columns.append(_matches(counters))
        totals.append(np.repeat(np.array([counter.total() for counter in counters])[:, None], num, 1))
    return _scores(metric, np.stack([*columns, *totals], axis=2))


def _matches(counters: Sequence[Counter[Any]]) -> np.ndarray:
    """[k, k] the n-grams that two texts have in common, an n-gram as often as the text with fewer of it has it."""
    column: dict[Any, int] = {}
    for counter in counters:
        for ngram in counter:
            column.setdefault(ngram, len(column))
    counts = np.zeros((len(counters), len(column)), np.float32)
    for row, counter in enumerate(counters):
        counts[row, [column[ngram] for ngram in counter]] = list(counter.values())
    common = np.zeros((len(counters), len(counters)), np.float32)
    for times in range(1, int(counts.max(initial=0)) + 1):  # min(a, b) is how many of 1, 2, … neither falls short of
        enough = (counts >= times).astype(np.float32)
        enough = enough[:, enough.any(axis=0)]
        common += enough @ enough.T
    return common


def _scores(metric: SacreMetric, stats: np.ndarray) -> np.ndarray:
    return np.array([[metric.value(pair) for pair in row] for row in stats.tolist()])


def _rouge_l(tokens: list[list[str]]) -> np.ndarray:
    """F1 of the longest common subsequence, which does not mind which of the two is the reference."""
    from rouge_score.rouge_scorer import _score_lcs

    values = np.zeros((len(tokens), len(tokens)))
    for i, one in enumerate(tokens):
        for j in range(i + 1):
            values[i, j] = values[j, i] = 100.0 * _score_lcs(tokens[j], one).fmeasure
    return values
