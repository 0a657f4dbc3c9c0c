"""ROUGE equals rouge-score, and means something where rouge-score's own tokenizer erases the text."""

import csv
import subprocess
import sys
import time
import unicodedata
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from s2s_cli.config import ScoreSettings
from s2s_cli.evaluation.metrics import corpus_score
from s2s_cli.evaluation.rouge import UnicodeTokenizer, sentences

KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
EXACT = {"abs": 1e-7}  # line scores are rounded to 2⁻³²


@pytest.mark.parametrize("stem", [False, True])
def test_equals_rouge_score(stem, refs, noisy):
    hyps, second = noisy(0.3, 1), [line.replace("runs", "running") for line in noisy(0.1, 2)]
    scorer = RougeScorer(KINDS, use_stemmer=stem)
    for kind in KINDS:
        one = [scorer.score(ref, hyp)[kind].fmeasure for hyp, ref in zip(hyps, refs, strict=True)]
        score = corpus_score(kind, hyps, [refs], ScoreSettings(rouge_stem=stem))
        assert score.value == pytest.approx(100 * mean(one), **EXACT)

        lines = list(zip(hyps, refs, second, strict=True))
        best = [scorer.score_multi(list(line_refs), hyp)[kind].fmeasure for hyp, *line_refs in lines]
        score = corpus_score(kind, hyps, [refs, second], ScoreSettings(rouge_stem=stem))
        assert score.value == pytest.approx(100 * mean(best), **EXACT)

        each = [mean(scorer.score(ref, hyp)[kind].fmeasure for ref in line_refs) for hyp, *line_refs in lines]
        score = corpus_score(kind, hyps, [refs, second], ScoreSettings(rouge_stem=stem, rouge_multi_ref="mean"))
        assert score.value == pytest.approx(100 * mean(each), **EXACT)


def test_equals_rouge_scores_command(refs, noisy, write, tmp_path):
    hyps, out = noisy(0.3, 1), tmp_path / "out.csv"
    command = [sys.executable, "-m", "rouge_score.rouge", "--noaggregate", "--use_stemmer=true"]
    command += [f"--target_filepattern={write('ref', refs)}", f"--prediction_filepattern={write('hyp', hyps)}"]
    subprocess.run(
        [*command, "--rouge_types=rouge1,rougeL", f"--output_filename={out}"], check=True, capture_output=True
    )
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == len(hyps)
    for kind in ("rouge1", "rougeL"):
        theirs = mean(float(row[f"{kind}-F"]) for row in rows)
        assert corpus_score(kind, hyps, [refs], ScoreSettings(rouge_stem=True)).value == pytest.approx(
            100 * theirs, abs=1e-3
        )


@settings(max_examples=50)
@given(
    st.text(st.characters(max_codepoint=127))
    | st.lists(st.sampled_from(["his", "was", "dies", "Running", "flies", "as", "_"])).map(" ".join),
    st.booleans(),
)
def test_the_unicode_tokenizer_is_rouge_scores_on_ascii(text, stem):
    from nltk.stem.porter import PorterStemmer

    ours = UnicodeTokenizer(PorterStemmer() if stem else None).tokenize(text)
    assert ours == DefaultTokenizer(use_stemmer=stem).tokenize(text)


@settings(max_examples=50)
@given(st.text())
def test_no_letter_or_digit_is_lost_in_any_script_and_its_spelling_does_not_matter(text):
    tokens = UnicodeTokenizer().tokenize(text)
    letters = [char for char in unicodedata.normalize("NFKC", text).lower() if unicodedata.category(char)[0] in "LN"]
    assert [char for char in "".join(tokens) if unicodedata.category(char)[0] in "LN"] == letters
    assert all(tokens)
    assert UnicodeTokenizer().tokenize(unicodedata.normalize("NFD", text)) == tokens


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("Der Hund läuft über die Straße.", ["der", "hund", "läuft", "über", "die", "straße"]),
        ("Собака бежит.", ["собака", "бежит"]),
        ("مَرْحَبًا بالعالم", ["مَرْحَبًا", "بالعالم"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),
        ("私はABC学校へ", ["私", "は", "abc", "学", "校", "へ"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("한국어 문장", ["한국어", "문장"]),
    ],
)
def test_words_of_other_scripts(line, tokens):
    assert UnicodeTokenizer().tokenize(line) == [unicodedata.normalize("NFKC", token) for token in tokens]
    unicode = ScoreSettings(rouge_tokenizer="unicode")
    assert corpus_score("rouge1", [line], [[line]], unicode).value == 100
    assert corpus_score("rouge1", ["xyz"], [[line]], unicode).value == 0


def test_the_default_tokenizer_erases_other_scripts():
    assert corpus_score("rouge1", ["Собака бежит"], [["Собака бежит"]]).value == 0


DOCUMENT = ["The cat sat. It slept.", "A dog barked at it! Why?"]
REFERENCE = ["It slept. The cat sat.", "Why? A dog barked at me!"]


@pytest.mark.parametrize("split", ["newline", "q", "sentence"])
def test_all_ways_to_mark_sentences_agree_with_rouge_score_on_newlines(split):
    def marked(text: str, mark: str) -> str:
        return text.replace(". ", "." + mark).replace("! ", "!" + mark).replace("? ", "?" + mark)

    mark = {"newline": "\\n", "q": "<q>", "sentence": " "}[split]
    hyps, refs = [marked(line, mark) for line in DOCUMENT], [marked(line, mark) for line in REFERENCE]
    scorer = RougeScorer(KINDS)
    for kind in KINDS:
        lines = zip(DOCUMENT, REFERENCE, strict=True)
        theirs = mean(scorer.score(marked(ref, "\n"), marked(hyp, "\n"))[kind].fmeasure for hyp, ref in lines)
        score = corpus_score(kind, hyps, [refs], ScoreSettings(rouge_split=split))
        assert score.value == pytest.approx(100 * theirs, **EXACT)
        assert f"split:{mark if split != 'sentence' else split}|" in score.signature
    by_line, by_sentence = (corpus_score(k, hyps, [refs], ScoreSettings(rouge_split=split)).value for k in KINDS[2:])
    assert by_line < by_sentence  # the sentences stand in another order


def test_sentences_end_at_full_stops_of_any_script_and_not_inside_numbers():
    assert sentences('He said "stop." Then 3.5 left!', "sentence").split("\n") == ['He said "stop."', "Then 3.5 left!"]
    assert sentences("今日は。明日！", "sentence").strip().split("\n") == ["今日は。", "明日！"]
    assert sentences("「行く。」と言う。", "sentence").strip().split("\n") == ["「行く。」", "と言う。"]
    assert sentences("यह है। वह था।", "sentence").split("\n") == ["यह है।", "वह था।"]


def test_sentences_are_found_in_linear_time():
    hostile = ".'" + ")" * 200_000 + "x " + ".)" * 200_000  # a model that hangs says such things
    start = time.process_time()
    assert sentences(hostile, "sentence") == hostile
    assert time.process_time() - start < 5
