"""Minimum Bayes risk by hand, over a utility that a test can see through."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s_cli.config import ScoreSettings
from s2s_cli.evaluation.pairwise import utility
from s2s_cli.search.mbr import by_utility
from s2s_cli.search.output import Output


def output(text: str, logp: float, score: float | None = None) -> Output:
    return Output(text, logp if score is None else score, logp, list(text), [logp])


def common(texts: Sequence[str]) -> np.ndarray:
    return np.array([[100.0 * len({*a} & {*b}) / max(1, len({*a} | {*b})) for b in texts] for a in texts])


def test_samples_vote_and_hypotheses_are_weighed() -> None:
    drawn = [output("abc", -3), output("xyz", -1), output("abd", -2), output("abd", -2)]
    assert [o.text for o in by_utility(drawn, common, drawn=True)] == ["abd", "abc", "xyz"]
    assert by_utility(drawn, common, drawn=True)[0].utility == pytest.approx((2 * 100 + 50 + 0) / 4)
    assert by_utility(drawn, common, drawn=False)[0].text == "xyz", "it has most of the probability"


@given(st.lists(st.tuples(st.sampled_from(["ab", "abc", "bc", "x", ""]), st.floats(-9, 0)), min_size=1, max_size=8))
def test_against_the_definition(found: list[tuple[str, float]]) -> None:
    candidates = [output(*one) for one in found]
    table = common([text for text, _ in found])
    expected = {text: row.mean() for (text, _), row in zip(found, table, strict=True)}
    ranked = by_utility(candidates, common, drawn=True)
    assert {o.text: o.utility for o in ranked} == pytest.approx(expected, abs=1e-6)
    assert [o.utility for o in ranked] == sorted((o.utility for o in ranked), reverse=True)
    for o in ranked:
        assert o.score == max(c.score for c in candidates if c.text == o.text)


def test_ties_go_to_the_better_score() -> None:
    pair = [output("aaaa", -2), output("bbbb", -1)]
    assert by_utility(pair, common, drawn=True)[0].text == "bbbb"
    assert by_utility(pair[::-1], common, drawn=True)[0].text == "bbbb"


@pytest.mark.parametrize("name", ["chrf", "bleu", "rouge"])
def test_what_others_agree_with_wins(name: str) -> None:
    texts = ["the old dog sees a cat", "the old dog sees the cat", "an old dog sees the cat", "no"]
    ranked = by_utility([output(t, -1) for t in texts], utility(name, ScoreSettings()), drawn=True)
    assert ranked[0].text in texts[1:3]
    assert ranked[-1].text == "no"
