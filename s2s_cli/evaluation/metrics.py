"""The metrics: BLEU, chrF and TER by sacrebleu, ROUGE by rouge-score, word error rate and exact match of our own, all as
corpus scores in percent.

There is one path: validation inside `train` and `s2s score` build a metric by `build_metric` and score by `score_of`. A metric is
statistics of each line and a score of their sum, so that significance tests resample numbers and not text. This file must not
know where the lines come from or how scores are shown. sacrebleu and rouge-score are imported when a metric needs them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from s2s_cli.config import METRICS, ScoreSettings
from s2s_cli.errors import ConfigError, DataError
from s2s_cli.evaluation.error_rates import ExactMatch, WordErrors


@dataclass(frozen=True)
class Score:
    """A number and all that someone else needs to compute it again."""

    name: str
    value: float
    signature: str
    higher_is_better: bool
    detail: str = ""
    """What the value is made of: BLEU's n-gram precisions, brevity penalty and lengths; edits; lines."""

    def __str__(self) -> str:
        return f"{self.name}|{self.signature} = {self.value:.2f} {self.detail}".rstrip()


class Metric(Protocol):
    """A metric with its references inside, so that they are analysed once for all systems."""

    name: str
    higher_is_better: bool

    def statistics(self, hyps: Sequence[str]) -> np.ndarray:
        """Sufficient statistics of each line: float64 (lines, k), to be summed over any choice of lines."""

    def value(self, sums: Sequence[float]) -> float:
        """Score of the k statistics summed over lines."""

    def detail(self, sums: Sequence[float]) -> str:
        """What the value is made of, as the field prints it; may be empty."""

    def signature(self, resampling: dict[str, int]) -> str:
        """Everything the value depends on, `resampling` (method or seed to number) included."""


class SacreMetric:
    """A metric of sacrebleu; its statistics are sacrebleu's own, and so is every score made of them."""

    def __init__(self, name: str, metric: Any, higher_is_better: bool = True) -> None:
        self.name = name
        self.higher_is_better = higher_is_better
        self._metric = metric

    def statistics(self, hyps: Sequence[str]) -> np.ndarray:
        """See `Metric`. Spaces at the end of a line do not count, as in sacrebleu's own command."""
        stats = self._metric._extract_corpus_statistics([hyp.rstrip() for hyp in hyps], None)
        return np.array(stats, dtype=np.float64)

    def ngrams(self, text: str) -> dict[str, Any]:
        """What sacrebleu counts in a text that is a reference by itself, and would count in it as an output."""
        return dict(self._metric._extract_reference_info([self._metric._preprocess_segment(text.rstrip())]))

    def value(self, sums: Sequence[float]) -> float:
        """See `Metric`."""
        return float(self._metric._compute_score_from_stats(list(sums)).score)

    def detail(self, sums: Sequence[float]) -> str:
        """See `Metric`."""
        return str(self._metric._compute_score_from_stats(list(sums))._verbose)

    def signature(self, resampling: dict[str, int]) -> str:
        """See `Metric`."""
        signature = self._metric.get_signature()
        for key, number in resampling.items():
            signature.update(key, number)
        return str(signature)


def _bleu(refs: list[list[str]], options: ScoreSettings, sentence: bool) -> SacreMetric:
    from sacrebleu.metrics.bleu import BLEU

    try:
        metric = BLEU(
            lowercase=options.lowercase,
            tokenize=options.tokenize,
            smooth_method=options.smooth,
            smooth_value=options.smooth_value,
            effective_order=sentence,  # else a line of three words could not score
            force=True,
            references=refs,
        )
    except (ImportError, RuntimeError, OSError, KeyError) as error:
        raise ConfigError(
            f"tokenize: sacrebleu cannot use {options.tokenize} here: {' '.join(str(error).split())}"
        ) from error
    return SacreMetric("BLEU", metric)


def _chrf(refs: list[list[str]], options: ScoreSettings, word_order: int) -> SacreMetric:
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF(
        char_order=options.chrf_char_order,
        word_order=word_order,
        beta=options.chrf_beta,
        lowercase=options.lowercase,
        whitespace=options.chrf_whitespace,
        eps_smoothing=options.chrf_eps_smoothing,
        references=refs,
    )
    return SacreMetric(f"chrF{options.chrf_beta}" + "+" * word_order, metric)


def _ter(refs: list[list[str]], options: ScoreSettings) -> SacreMetric:
    from sacrebleu.metrics.ter import TER

    metric = TER(
        normalized=options.ter_normalized,
        no_punct=options.ter_no_punct,
        asian_support=options.ter_asian_support,
        case_sensitive=options.ter_case_sensitive,
        references=refs,
    )
    return SacreMetric("TER", metric, higher_is_better=False)


def build_metric(name: str, refs: list[list[str]], options: ScoreSettings, sentence: bool = False) -> Metric:
    """The metric of that name against these references (`refs[k]` is the k-th reference of every line).

    With `sentence` it is meant for single lines: BLEU then counts only the n-gram orders that a line has.
    """
    if name not in METRICS:
        raise ConfigError(f"unknown metric {name}: choose one of {', '.join(METRICS)}")
    refs = [[line.rstrip() for line in ref] for ref in refs]
    if name == "bleu":
        return _bleu(refs, options, sentence)
    if name == "chrf":
        return _chrf(refs, options, options.chrf_word_order)
    if name == "ter":
        return _ter(refs, options)
    if name == "wer":
        return WordErrors(refs, options)
    if name == "exact":
        return ExactMatch(refs, options)
    from s2s_cli.evaluation.rouge import Rouge

    return Rouge(name, refs, options)


def score_of(metric: Metric, stats: np.ndarray, resampling: dict[str, int] | None = None) -> Score:
    """Corpus score of per-line statistics (lines, k)."""
    sums = stats.sum(0).tolist()
    return Score(
        metric.name,
        metric.value(sums),
        metric.signature(resampling or {}),
        metric.higher_is_better,
        metric.detail(sums),
    )


def corpus_score(metric: str, hyps: list[str], refs: list[list[str]], options: ScoreSettings | None = None) -> Score:
    """Score of a whole text in percent, as validation and `s2s score` give it.

    `metric` is one of METRICS, `hyps[i]` is line i and `refs[k][i]` its k-th reference. Empty lines count.
    """
    if not hyps or not refs:
        raise DataError("nothing to score: there are no lines or no references")
    for k, ref in enumerate(refs):
        if len(ref) != len(hyps):
            raise DataError(f"{len(hyps)} lines to score, but reference {k + 1} has {len(ref)} lines")
    built = build_metric(metric, refs, options or ScoreSettings())
    return score_of(built, built.statistics(hyps))
