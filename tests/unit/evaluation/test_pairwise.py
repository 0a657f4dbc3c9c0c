"""Every text against every other gives what `score` gives for the pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_cli.config import ScoreSettings
from s2s_cli.evaluation.metrics import build_metric
from s2s_cli.evaluation.pairwise import utility

WORDS = st.lists(
    st.sampled_from(["a", "the", "dog", "Hunde", "über", "don't", "(x)", "3,5", "犬が好き", "."]), max_size=9
)
TEXTS = st.lists(WORDS.map(" ".join), min_size=1, max_size=5)


def test_rouge_keeps_all_letters_unless_told_otherwise() -> None:
    texts = ["犬が好き", "犬が好き"]
    assert utility("rouge", ScoreSettings())(texts)[0, 1] == 100.0
    assert utility("rouge", ScoreSettings(rouge_tokenizer="rouge-score"))(texts)[0, 1] == 0.0


@pytest.mark.parametrize(
    ("name", "same", "options"),
    [
        ("chrf", "chrf", {}),
        ("chrf", "chrf", {"chrf_word_order": 2, "chrf_beta": 1, "lowercase": True}),
        ("chrf", "chrf", {"chrf_eps_smoothing": True, "chrf_whitespace": True}),
        ("bleu", "bleu", {}),
        ("bleu", "bleu", {"tokenize": "zh", "smooth": "floor"}),
        ("rouge", "rougeL", {"rouge_tokenizer": "unicode"}),
        ("rouge", "rougeL", {"rouge_tokenizer": "rouge-score"}),
        ("rouge", "rougeL", {"rouge_tokenizer": "unicode", "rouge_stem": True}),
    ],
)
@given(texts=TEXTS)
@settings(max_examples=25, deadline=None)
def test_pairs_are_scored_as_score_does(name: str, same: str, options: dict, texts: list[str]) -> None:
    chosen = ScoreSettings(**options)
    found = utility(name, chosen)(texts)
    for j, ref in enumerate(texts):
        metric = build_metric(same, [[ref] * len(texts)], chosen, sentence=True)
        expected = [metric.value(row) for row in metric.statistics(texts).tolist()]
        assert np.allclose(found[:, j], expected, atol=1e-6)
