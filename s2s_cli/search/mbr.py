"""Minimum Bayes risk: of several candidates the one that the others agree with most, rather than the most probable one.

The expected utility of an output is its mean score against all candidates as if each were the reference. Drawn from the
model, they stand for its distribution, and count as often as they were drawn (Eikema & Aziz 2020; Freitag et al. 2022);
those of an n-best list count by their probability (Kumar & Byrne 2004).
"""

import math
from dataclasses import replace

import numpy as np

from s2s_cli.evaluation.pairwise import Utility
from s2s_cli.search.output import Output


def by_utility(candidates: list[Output], utility: Utility, drawn: bool) -> list[Output]:
    """The different ones among the candidates, that of the greatest expected utility first; of equal ones that of the best
    score. `utility` of each is filled in. `drawn` says that they are samples.
    """
    top = max(candidate.logp for candidate in candidates)
    best: dict[str, Output] = {}
    weight: dict[str, float] = {}
    for candidate in candidates:
        text = candidate.text
        weight[text] = weight.get(text, 0.0) + (1.0 if drawn else math.exp(candidate.logp - top))
        if text not in best or candidate.score > best[text].score:
            best[text] = candidate
    texts = list(best)
    weights = np.array([weight[text] for text in texts])
    expected = (utility(texts) @ weights / weights.sum()).round(9)  # so that rounding does not undo a tie
    outputs = [replace(best[text], utility=float(value)) for text, value in zip(texts, expected, strict=True)]
    return sorted(outputs, key=lambda output: (-(output.utility or 0.0), -output.score))
