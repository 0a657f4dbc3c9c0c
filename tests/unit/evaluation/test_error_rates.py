"""Word error rate and exact match against the plainest way to count them."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_cli.config import ScoreSettings
from s2s_cli.evaluation.compare import compare, sentence_values
from s2s_cli.evaluation.error_rates import edit_distance
from s2s_cli.evaluation.metrics import build_metric, corpus_score

TOKENS = st.lists(st.sampled_from("abcd"), max_size=7)
LINES = st.lists(TOKENS.map(" ".join), min_size=1, max_size=8)


def plain_distance(hyp: list[str], ref: list[str]) -> int:
    """The recursion as textbooks write it."""

    @cache
    def to(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(to(i - 1, j) + 1, to(i, j - 1) + 1, to(i - 1, j - 1) + (hyp[i - 1] != ref[j - 1]))

    return to(len(hyp), len(ref))


@given(hyp=TOKENS, ref=TOKENS)
def test_distance_is_the_textbook_recursion(hyp, ref):
    assert edit_distance(hyp, ref) == plain_distance(hyp, ref) == edit_distance(ref, hyp)


@given(hyps=LINES, data=st.data())
@settings(max_examples=30)
def test_corpus_scores_count_edits_tokens_and_lines(hyps, data):
    refs = data.draw(st.lists(TOKENS.map(" ".join), min_size=len(hyps), max_size=len(hyps)))
    edits = sum(plain_distance(h.split(), r.split()) for h, r in zip(hyps, refs, strict=True))
    tokens = sum(len(r.split()) for r in refs)
    expected = 100 * edits / tokens if tokens else 100 * (edits > 0)
    assert corpus_score("wer", hyps, [refs]).value == pytest.approx(expected)
    right = sum(h == r for h, r in zip(hyps, refs, strict=True))
    assert corpus_score("exact", hyps, [refs]).value == pytest.approx(100 * right / len(hyps))


def test_of_several_references_the_nearest_counts_and_of_equally_near_ones_the_longest():
    assert corpus_score("wer", ["a b c"], [["x y z"], ["a b"], ["a b c d"]]).detail == "(1 edits / 4 tokens)"
    assert corpus_score("exact", ["a b", "a"], [["x", "a"], ["a b", "b"]]).value == 100.0


def test_space_and_case():
    for metric, right, wrong in (("wer", 0.0, 100.0), ("exact", 100.0, 0.0)):
        assert corpus_score(metric, [" a  b "], [["a b"]]).value == right
        assert corpus_score(metric, ["A B"], [["a b"]]).value == wrong
        lowercased = corpus_score(metric, ["A B"], [["a b"]], ScoreSettings(lowercase=True))
        assert (lowercased.value, "case:lc" in lowercased.signature) == (right, True)


def test_output_without_reference_is_all_wrong_and_longer_output_more_than_that():
    assert corpus_score("wer", ["a"], [[""]]).value == 100.0
    assert corpus_score("wer", [""], [[""]]).value == 0.0
    assert corpus_score("wer", ["a b c"], [["x"]]).value == 300.0


def test_lines_add_up_and_paired_tests_see_a_difference():
    refs = ["a b c", "d e", "a", "b c"] * 10
    good, bad = refs[:36] + ["x"] * 4, [line[::-1] for line in refs]
    metric = build_metric("wer", [refs], ScoreSettings(), sentence=True)
    [values] = sentence_values({"bad": bad}, metric)
    assert values[:4].tolist() == pytest.approx([200 / 3, 100, 0, 100])
    options = ScoreSettings(wer=True, exact=True, paired="randomization", confidence=True, resamples=200)
    for comparison in compare({"good": good, "bad": bad}, [refs], options):
        first, second = comparison.results
        assert second.significant
        assert first.interval.low <= first.score.value <= first.interval.high
        assert "bs:200|ar:200|seed:12345" in first.score.signature
