"""BLEU, chrF and TER equal sacrebleu's own command over its options; every metric obeys what a score must."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_cli.config import METRICS, ScoreSettings
from s2s_cli.errors import ConfigError, DataError
from s2s_cli.evaluation.compare import sentence_values
from s2s_cli.evaluation.metrics import build_metric, corpus_score

GRID = [
    ({}, []),
    (
        {"tokenize": "intl", "lowercase": True, "ter_normalized": True},
        ["--tokenize", "intl", "--lowercase", "--chrf-lowercase", "--ter-normalized"],
    ),
    (
        {
            "tokenize": "zh",
            "smooth": "floor",
            "chrf_word_order": 2,
            "ter_normalized": True,
            "ter_asian_support": True,
        },
        ["--tokenize", "zh", "-s", "floor", "--chrf-word-order", "2", "--ter-normalized", "--ter-asian-support"],
    ),
    (
        {"tokenize": "char", "smooth": "add-k", "smooth_value": 0.5, "chrf_beta": 3, "ter_no_punct": True},
        ["--tokenize", "char", "-s", "add-k", "-sv", "0.5", "--chrf-beta", "3", "--ter-no-punct"],
    ),
    (
        {"tokenize": "none", "smooth": "none", "chrf_whitespace": True, "ter_case_sensitive": True},
        ["--tokenize", "none", "-s", "none", "--chrf-whitespace", "--ter-case-sensitive"],
    ),
    (
        {
            "smooth": "floor",
            "smooth_value": 0.2,
            "chrf_eps_smoothing": True,
            "chrf_char_order": 4,
            "chrf_word_order": 1,
        },
        ["-s", "floor", "-sv", "0.2", "--chrf-eps-smoothing", "--chrf-char-order", "4", "--chrf-word-order", "1"],
    ),
]


def sacrebleu(*args: str) -> str:
    command = [sys.executable, "-m", "sacrebleu", *args]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout


CASES = [(1, *case) for case in GRID] + [(3, *GRID[0]), (3, *GRID[3])]


@pytest.mark.parametrize(("num_refs", "options", "flags"), CASES)
def test_equals_sacrebleus_command(num_refs, options, flags, refs, noisy, write):
    hyps, every = [line + "  " for line in noisy(0.3, 1)], [refs, noisy(0.1, 2), noisy(0.2, 3)][:num_refs]
    paths = [write(f"ref{k}", ref) for k, ref in enumerate(every)]
    out = sacrebleu(*paths, "-i", write("hyp", hyps), "-m", "bleu", "chrf", "ter", "-w", "10", *flags)
    theirs = {entry["name"]: (entry["score"], entry["signature"]) for entry in json.loads(out)}
    scores = [corpus_score(name, hyps, every, ScoreSettings(**options)) for name in ("bleu", "chrf", "ter")]
    assert {score.name: (round(score.value, 10), score.signature) for score in scores} == theirs


def test_smoothing_equals_sacrebleus_where_no_long_ngram_matches(write):
    hyps, refs = ["the cat sat down on a mat", "a dog"], ["the cat lay down here on the mat", "the dog"]
    hyp, ref, values = write("hyp", hyps), write("ref", refs), set()
    for smooth, value in (("exp", None), ("floor", 0.3), ("add-k", None), ("none", None)):
        flags = ["-s", smooth] + (["-sv", str(value)] if value else [])
        theirs = json.loads(sacrebleu(ref, "-i", hyp, "-w", "10", *flags))
        ours = corpus_score("bleu", hyps, [refs], ScoreSettings(smooth=smooth, smooth_value=value))
        assert (round(ours.value, 10), ours.signature) == (theirs["score"], theirs["signature"])
        values.add(ours.value)
    assert len(values) == 4


def test_a_score_prints_as_sacrebleu_prints_it(refs, noisy, write):
    hyps = noisy(0.3, 1)
    out = sacrebleu(write("ref", refs), "-i", write("hyp", hyps), "-f", "text", "-w", "2")
    assert str(corpus_score("bleu", hyps, [refs])) == out.rstrip("\n")


def test_sentence_scores_equal_sacrebleus(refs, noisy, write):
    hyps, second = noisy(0.3, 1), noisy(0.1, 2)
    for name in ("bleu", "ter"):
        flags = ["-m", name, "-sl", "-b", "-w", "6", "-i", write("hyp", hyps)]
        theirs = [float(row) for row in sacrebleu(write("ref0", refs), write("ref1", second), *flags).split()]
        metric = build_metric(name, [refs, second], ScoreSettings(), sentence=True)
        [ours] = sentence_values({"hyp": hyps}, metric)
        assert ours.tolist() == pytest.approx(theirs, abs=1e-6), name


TEXT = st.lists(
    st.lists(st.sampled_from(["one", "two", "drei", "четыре", "五", "6", "x-y"]), min_size=4, max_size=9).map(" ".join),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=8, deadline=None)
@given(text=TEXT, data=st.data())
def test_what_every_score_obeys(metric, text, data):
    """The reference itself is perfect, nothing else is better, and the order of lines does not matter."""
    options = ScoreSettings(rouge_tokenizer="unicode")
    worst, best = (100.0, 0.0) if metric in ("ter", "wer") else (0.0, 100.0)
    perfect = corpus_score(metric, text, [text], options)
    assert perfect.value == pytest.approx(best)
    assert corpus_score(metric, [""] * len(text), [text], options).value == pytest.approx(worst)

    order = data.draw(st.permutations(range(len(text))))
    shuffled = [text[i] for i in order]
    score = corpus_score(metric, shuffled, [text], options)
    assert score.value <= best + 1e-9 if score.higher_is_better else score.value >= best - 1e-9
    again = corpus_score(metric, text, [[text[order.index(i)] for i in range(len(text))]], options)
    assert score.value == pytest.approx(again.value)
    assert corpus_score(metric, shuffled, [text, shuffled], options).value == pytest.approx(best)


@pytest.mark.parametrize("metric", METRICS)
def test_an_empty_line_counts(metric, refs, noisy):
    hyps = noisy(0.2, 1)
    emptied = ["" if i < 30 else line for i, line in enumerate(hyps)]
    full, less = corpus_score(metric, hyps, [refs]), corpus_score(metric, emptied, [refs])
    assert less.value < full.value if full.higher_is_better else less.value > full.value


def test_options_that_change_a_score_change_its_signature(refs, noisy):
    hyps, second = noisy(0.3, 1), noisy(0.1, 2)
    changes = {
        "bleu": [{"tokenize": "char"}, {"lowercase": True}, {"smooth": "add-k"}],
        "chrf": [{"chrf_word_order": 1}, {"chrf_char_order": 3}, {"lowercase": True}, {"chrf_eps_smoothing": True}],
        "ter": [{"ter_case_sensitive": True}, {"ter_no_punct": True}, {"ter_normalized": True}],
        "wer": [{"lowercase": True}],
        "rouge2": [{"rouge_tokenizer": "unicode"}, {"rouge_multi_ref": "mean"}],
    }
    for metric, options in changes.items():
        plain = corpus_score(metric, hyps, [refs, second])
        for option in options:
            changed = corpus_score(metric, hyps, [refs, second], ScoreSettings(**option))
            assert changed.value != plain.value, option
            assert changed.signature != plain.signature, option
    assert corpus_score("chrf", hyps, [refs], ScoreSettings(chrf_beta=3)).name == "chrF3"


def test_mistakes_are_named():
    with pytest.raises(DataError, match=r"2 lines to score, but reference 2 has 1 lines"):
        corpus_score("bleu", ["a", "b"], [["a", "b"], ["a"]])
    with pytest.raises(DataError, match="nothing to score"):
        corpus_score("bleu", [], [[]])
    with pytest.raises(ConfigError, match=r"meteor.*bleu"):
        corpus_score("meteor", ["a"], [["a"]])
    with pytest.raises(ValueError, match="smooth_value"):
        ScoreSettings(smooth="exp", smooth_value=0.1)


def test_a_tokenizer_that_is_not_installed_says_how_to_get_it():
    try:
        import MeCab  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"ja-mecab.*sacrebleu\[ja\]"):
            corpus_score("bleu", ["a"], [["a"]], ScoreSettings(tokenize="ja-mecab"))
    else:
        assert (
            "tok:ja-mecab" in corpus_score("bleu", ["犬 が"], [["犬 が"]], ScoreSettings(tokenize="ja-mecab")).signature
        )
