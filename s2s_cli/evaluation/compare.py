"""Systems by metrics: every score, with its interval and its p-value against the baseline where they are asked for.

The statistics of a line are computed once and kept, for resampling and for the analysis. This file must not know where
systems come from or how they are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s2s_cli.config import METRICS, ScoreSettings
from s2s_cli.evaluation.metrics import Metric, SacreMetric, Score, build_metric, score_of
from s2s_cli.evaluation.significance import (
    Interval,
    bootstrap_p,
    bootstrap_sums,
    bootstrap_values,
    interval,
    randomization_p,
    randomization_sums,
)

Systems = dict[str, list[str]]
"""Name of a system to its lines. The first one is the baseline."""


@dataclass(frozen=True)
class Result:
    """One system by one metric."""

    system: str
    score: Score
    interval: Interval | None = None
    p_value: float | None = None
    significant: bool = False
    """p below 0.05 and a score other than the baseline's; sacrebleu gives equal outputs the smallest p of all."""

    @property
    def p_shown(self) -> str:
        """The p-value for a table: starred where significant; "equal" where it is small for equal scores only."""
        assert self.p_value is not None
        if self.p_value < 0.05 and not self.significant:
            return "equal"
        return f"{self.p_value:.4f}{'*' if self.significant else ''}"


@dataclass(frozen=True)
class Comparison:
    """All systems by one metric; `stats[k]` are the k-th system's statistics (lines, columns)."""

    metric: Metric
    stats: list[np.ndarray]
    results: list[Result]


def chosen_metrics(settings: ScoreSettings) -> list[str]:
    """Names of the metrics that were asked for; all of them where none was."""
    named = [name for name in METRICS if getattr(settings, "rouge" if name.startswith("rouge") else name)]
    return named or list(METRICS)


def compare(systems: Systems, refs: list[list[str]], settings: ScoreSettings) -> list[Comparison]:
    """Scores of all systems by all chosen metrics; the first system is the baseline of paired tests."""
    comparisons = []
    for name in chosen_metrics(settings):
        metric = build_metric(name, refs, settings)
        stats = [metric.statistics(hyps) for hyps in systems.values()]
        comparisons.append(Comparison(metric, stats, results(list(systems), metric, stats, settings)))
    return comparisons


def sentence_values(systems: Systems, metric: Metric) -> list[np.ndarray]:
    """Score of each line by itself: for each system an array (lines,). The metric was built for sentences."""
    return [np.array([metric.value(row) for row in metric.statistics(hyps).tolist()]) for hyps in systems.values()]


def results(names: Sequence[str], metric: Metric, stats: list[np.ndarray], settings: ScoreSettings) -> list[Result]:
    """Every system's result by one metric, from `stats[k]`, the k-th system's statistics; the first is the baseline."""
    bootstrap = settings.confidence or settings.paired == "bootstrap"
    theirs = isinstance(metric, SacreMetric)
    resampling: dict[str, int] = {}
    if bootstrap:
        resampling["bs"] = settings.resamples or 1000
    if settings.paired == "randomization":
        resampling["ar"] = settings.resamples or 10_000
    if resampling:
        resampling["seed"] = settings.seed
    scores = [score_of(metric, s, resampling) for s in stats]
    intervals: list[Interval | None] = [None] * len(names)
    p_values: list[float | None] = [None] * len(names)
    differences = [abs(score.value - scores[0].value) for score in scores]
    if bootstrap:
        sums = bootstrap_sums(np.hstack(stats), resampling["bs"], settings.seed)  # the same lines for every system
        drawn = [bootstrap_values(metric, s) for s in np.split(sums, len(stats), axis=1)]
        intervals = [interval(values) for values in drawn]
        if settings.paired == "bootstrap":
            p_values[1:] = [
                bootstrap_p(v, drawn[0], d, theirs) for v, d in zip(drawn[1:], differences[1:], strict=True)
            ]
    if settings.paired == "randomization":
        for k, difference in enumerate(differences[1:], 1):
            swapped = randomization_sums(stats[0], stats[k], resampling["ar"], settings.seed)
            p_values[k] = randomization_p(metric, *swapped, difference, theirs)
    significant = [
        p is not None and p < 0.05 and difference > 0 for p, difference in zip(p_values, differences, strict=True)
    ]
    return [Result(*fields) for fields in zip(names, scores, intervals, p_values, significant, strict=True)]
