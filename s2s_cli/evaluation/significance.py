"""What a score is worth: confidence intervals by bootstrap, and paired tests of systems against a baseline.

Both resample statistics of lines (see `metrics.Metric`), never text. Random numbers are drawn as sacrebleu draws them, and for
its metrics p-values are computed as it does: the same seed gives its p-values to the last digit. For the others, whose lines
often tie, they are computed as the tests are meant: what is as far off as the observed difference counts, on both sides. This
file must not know what a statistic means.
"""

from dataclasses import dataclass

import numpy as np

from s2s_cli.evaluation.metrics import Metric

_CELLS = 1 << 22  # of a resampling matrix held at once (32 MiB); a multiple of 32, see `_chunks`


@dataclass(frozen=True)
class Interval:
    """A 95 % interval: sacrebleu prints `mean ± half`; `low` and `high` are the percentiles it comes from."""

    mean: float
    half: float
    low: float
    high: float


def _chunks(total: int, num_lines: int) -> list[int]:
    """Sizes of the pieces in which `total` resamples are drawn; the random stream is that of one piece.

    numpy draws bits from words of 32, and starts a new word with each call: all pieces but the last are multiples of 32.
    """
    size = max(1, _CELLS // (32 * num_lines)) * 32
    return [min(size, total - start) for start in range(0, total, size)]


def bootstrap_sums(stats: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums of statistics (lines, k) over as many lines drawn with replacement: (resamples, k)."""
    rng = np.random.default_rng(seed)
    num_lines = len(stats)
    sums = []
    for size in _chunks(resamples, num_lines):
        drawn = rng.choice(num_lines, size=(size, num_lines), replace=True)
        drawn += num_lines * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_lines).reshape(size, num_lines)
        sums.append(counts @ stats)
    return np.concatenate(sums)


def randomization_sums(
    baseline: np.ndarray, system: np.ndarray, trials: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of statistics after two systems swapped each line with probability ½: two of (trials, k)."""
    rng = np.random.default_rng(seed)
    first, second = [], []
    for size in _chunks(trials, len(system)):
        keep = rng.integers(2, size=(size, len(system)), dtype=bool)
        first.append(keep @ baseline + ~keep @ system)
        second.append(~keep @ baseline + keep @ system)
    return np.concatenate(first), np.concatenate(second)


def bootstrap_values(metric: Metric, sums: np.ndarray) -> np.ndarray:
    """The score of each resample. In float32, as sacrebleu holds these sums, so that rounding is the same too."""
    return np.array([metric.value(row) for row in sums.astype(np.float32)])


def interval(values: np.ndarray) -> Interval:
    """95 % of the resampled scores lie within."""
    values = np.sort(values)
    cut = len(values) // 40
    low, high = float(values[cut]), float(values[len(values) - cut - 1])
    return Interval(float(values.mean()), 0.5 * (high - low), low, high)


def bootstrap_p(system: np.ndarray, baseline: np.ndarray, difference: float, as_sacrebleu: bool) -> float:
    """Paired bootstrap: how often the difference of resampled scores is as far from its mean as the observed one is from 0.

    sacrebleu, as Moses before it, takes the mean from the absolute difference: it looks at one side only, and finds p about
    half as large.
    """
    differences = system - baseline
    if as_sacrebleu:
        differences = np.abs(differences)
        return _p_value(differences - differences.mean(), difference, ties=False)
    return _p_value(np.abs(differences - differences.mean()), difference, ties=True)


def randomization_p(
    metric: Metric, first: np.ndarray, second: np.ndarray, difference: float, as_sacrebleu: bool
) -> float:
    """Approximate randomization (Riezler and Maxwell 2005), two-sided: how often swapped systems differ by as much.

    sacrebleu counts those that differ by more, and so finds p too small where few lines differ.
    """
    values = [np.array([metric.value(row) for row in sums.tolist()]) for sums in (first, second)]
    return _p_value(np.abs(values[0] - values[1]), difference, ties=not as_sacrebleu)


def _p_value(trials: np.ndarray, observed: float, ties: bool) -> float:
    found = np.sum(trials >= observed if ties else trials > observed)
    return float((found + 1) / (len(trials) + 1))  # the observed one counted in: a p of 0 is not to be had by trials
