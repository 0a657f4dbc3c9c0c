"""The analysis counts what was planted, its marks lose no character, and the page is whole by itself."""

import random
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_cli.config import ScoreSettings
from s2s_cli.errors import S2SError
from s2s_cli.evaluation.alignment import Aligner
from s2s_cli.evaluation.analyze import REFERENCE, Analysis, analyze, repeats, too_long
from s2s_cli.evaluation.compare import Systems, compare, sentence_values
from s2s_cli.evaluation.examples import Examples
from s2s_cli.evaluation.metrics import build_metric, corpus_score
from s2s_cli.evaluation.page import _scale, render, write_page

CHRF = ScoreSettings(chrf=True)


def translated(num_lines: int = 200) -> tuple[list[str], list[str]]:
    """Source lines, and their translation by a lexicon of one word for one word, in reversed order."""
    rng = random.Random(2)
    lines = [rng.sample(range(60), k=rng.randint(5, 9)) for _ in range(num_lines)]
    src = [" ".join(f"s{word}" for word in line) for line in lines]
    return src, [" ".join(f"t{word}" for word in reversed(line)) for line in lines]


def run(systems: Systems, refs: list[list[str]], src: list[str] | None = None, **kwargs: list[str]) -> Analysis:
    return analyze(systems, refs, src, compare(systems, refs, CHRF), **kwargs)


def test_signs_count_what_was_planted():
    src, ref = translated()
    hyp = list(ref)
    hyp[0] = hyp[1] = ""
    hyp[2] = src[2]
    hyp[3], hyp[4], hyp[5] = (f"{ref[i]} t1 t2 t1 t2" for i in (3, 4, 5))
    hyp[6] = " ".join(ref[10:14])
    for i in range(20, 40):
        hyp[i] = ref[i + 100]
    signs = {sign.name: sign.values for sign in run({"hyp": hyp}, [ref], src).signs}
    assert signs["empty"] == {"hyp": 1.0, REFERENCE: 0.0}
    assert signs["copied lines"] == {"hyp": 0.5, REFERENCE: 0.0}
    assert signs["repeated"]["hyp"] == pytest.approx(1.5 + 0.5 * repeats(hyp[6].split()))
    assert signs["far too long"] == {"hyp": 0.5, REFERENCE: 0.0}
    assert signs["length ratio"][REFERENCE] == 1
    assert signs["not in reference"][REFERENCE] == 0 < signs["not in reference"]["hyp"]
    assert signs["unaligned"][REFERENCE] < 1
    assert 6 < signs["unaligned"]["hyp"] < 13  # a tenth of the lines belong to other sources


def test_suspects_name_their_reasons():
    src, ref = translated()
    ref[11] += " t1 t1"  # what the reference does too is no fault
    hyp = list(ref)
    hyp[0], hyp[2], hyp[3], hyp[6], hyp[9] = "", src[2], f"{ref[3]} t1 t1", " ".join(ref[10:14]), ref[90]
    found = {suspect.line: suspect.reason for suspect in run({"hyp": hyp}, [ref], src).suspects}
    assert {line: found[line] for line in (1, 3, 4)} == {1: "empty", 3: "copies the source", 4: "repeats itself"}
    assert "words for" in found[7]
    assert "unaligned" in found[10]
    assert set(found) == {1, 3, 4, 7, 10}


def test_alignment_tells_translations_from_inventions():
    src, ref = ([line.split() for line in side] for side in translated())
    aligner = Aligner(zip(src, ref, strict=True))
    right = [lost for s, t in zip(src, ref, strict=True) for lost in aligner.unaligned(s, t)]
    wrong = [
        lost
        for s, t, u in zip(src, ref, ref[1:] + ref[:1], strict=True)
        for lost in aligner.unaligned(s, [word for word in u if word not in t])
    ]
    assert sum(right) < 0.01 * len(right)
    assert sum(wrong) > 0.95 * len(wrong)
    assert aligner.unaligned(src[0], [src[0][0], "never seen"]) == [False, False]
    assert aligner.unaligned(["t5", "s1"], ["t5", "t6"]) == [False, True]  # a copy is explained
    assert Aligner([]).unaligned(["a"], ["b"]) == [False]


def test_repeats_and_length():
    assert repeats(["a", "a"])
    assert repeats(["x", "a", "b", "c", "d", "a", "b", "c", "d"])
    assert repeats(["a", "b", "c", "x", "a", "b", "c"])
    assert not repeats(["a", "b", "a", "c", "a"])
    assert not repeats([])
    assert not too_long(["a", "b", "c", "d", "e", "f", "g", "h", "i"], ["a", "b"])
    assert too_long(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"], ["a", "b"])


def test_charts_hold_every_line_and_the_corpus_score(refs, noisy):
    hyp = noisy(0.3, 1)
    analysis = run({"hyp": hyp, "perfect": refs}, [refs])
    [chart] = analysis.by_length
    assert sum(chart.sizes) == len(refs)
    assert chart.series["perfect"][1:] == pytest.approx([100.0] * (len(chart.buckets) - 1))
    assert set(analysis.by_frequency.series["perfect"]) == {100.0}
    assert max(analysis.by_frequency.series["hyp"]) < 100
    assert all(sum(shares) == pytest.approx(100) for shares in analysis.length_ratio.series.values())

    same_length = [f"one two {word}" for word in ["a", "b", "c", "d", "e"]]
    [chart] = run({"hyp": same_length[::-1]}, [same_length]).by_length
    assert chart.buckets == ["3"]
    assert chart.series["hyp"] == [corpus_score("chrf", same_length[::-1], [same_length]).value]


def test_word_frequencies_of_the_training_text(refs, noisy):
    training = ["a a a a a small", "small zebra"]
    chart = run({"hyp": noisy(0.3, 1)}, [refs], train_tgt=training).by_frequency
    words = [word for line in refs for word in line.split()]
    assert dict(zip(chart.buckets, chart.sizes, strict=True))["5–9"] == sum(w.strip(".!?") == "a" for w in words)
    assert chart.buckets[0] == "0"


def test_differences_come_largest_first_and_wins_add_up(refs, noisy):
    systems = {"base": noisy(0.3, 1), "near": noisy(0.3, 2), "better": noisy(0.1, 3)}
    analysis = run(systems, [refs])
    gaps = []
    for difference in analysis.differences:
        base, other = difference.chrf
        assert base == "base"
        gaps.append(abs(difference.chrf[base] - difference.chrf[other]))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] > 0
    base, *others = sentence_values(systems, build_metric("chrf", [refs], ScoreSettings(), sentence=True))
    expected = [gap for other in others for gap in sorted(abs(other - base))[-20:]]
    assert gaps == pytest.approx(sorted(expected, reverse=True))
    assert all(sum(wins) == len(refs) for wins in analysis.wins.values())
    assert analysis.wins["better"][0] > analysis.wins["better"][2]
    worst = run({"base": systems["base"]}, [refs]).differences
    assert [d.chrf["base"] for d in worst] == sorted(d.chrf["base"] for d in worst)
    assert not run({"base": refs}, [refs]).differences


@given(st.text(), st.text(), st.text())
def test_marks_keep_every_character(hyp, other, ref):
    chrf = {"a": [0.0], "b": [0.0]}
    line = Examples({"a": [hyp], "b": [other]}, [[ref]], None, chrf).at(0, ["a", "b"])
    joined = ["".join(piece.text for piece in pieces) for pieces in [*line.outputs.values(), *line.refs]]
    assert joined == [hyp, other, ref]
    assert not any(piece.off and piece.text.isspace() for piece in line.outputs["a"])
    equal = Examples({"a": [ref], "b": [ref]}, [[ref]], None, chrf).at(0, ["a", "b"])
    assert not any(piece.off or piece.own for pieces in [*equal.outputs.values(), *equal.refs] for piece in pieces)


def test_marks_stand_where_the_words_differ():
    line = Examples({"a": ["the red cat"], "b": ["the cat"]}, [["the cat slept", "x"]], None, {"a": [1], "b": [2]})
    marked = line.at(0, ["a", "b"])
    assert [piece.text for piece in marked.outputs["a"] if piece.off] == ["red"]
    assert [piece.text for piece in marked.outputs["a"] if piece.own] == ["red"]
    assert [piece.text for piece in marked.refs[0] if piece.off] == ["slept"]
    assert not any(piece.off or piece.own for piece in marked.outputs["b"])


class _Page(HTMLParser):
    """Collects the text, the tags that fetch or run something, and the tags that stay open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.outside, self.open = "", [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        links = [value for name, value in attrs if name in ("src", "href", "srcset") or name.startswith("on")]
        if tag in ("script", "link", "img", "iframe", "object") or any(not link.startswith("#") for link in links):
            self.outside.append((tag, attrs))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


NASTY = ['<script>alert("x")</script>', "& &amp; </div>", "a\u2028b\x00c\x85d", "שלום <b>", "", "}} {{ 7*7 }} {% if %}"]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(NASTY), st.text()), min_size=1, max_size=6), st.data())
def test_the_page_is_whole_and_shows_any_text_as_it_is(lines, data):
    other = data.draw(st.permutations(lines))
    for systems in ({"<i>a": list(other)}, {"<i>a": lines, "x/b&": list(other), "x/c": ["<u>"] * len(lines)}):
        analysis = run(systems, [lines], src=lines)
        page = _Page(render(analysis))
        assert not page.outside
        assert not page.open
        assert all(name.rsplit("/", 1)[-1] in page.text for name in systems)
        for difference in analysis.differences:
            for pieces in difference.outputs.values():
                assert "".join(p.text for p in pieces).replace("\r", "\n").replace("\x00", "�") in page.text.replace(
                    "\r", "\n"
                ).replace("\x00", "�")


def test_the_page_is_written_whole_or_not_at_all(tmp_path, refs, noisy):
    analysis = run({"hyp": noisy(0.2, 1)}, [refs])
    write_page(tmp_path / "new" / "page.html", analysis)
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == render(analysis)
    (tmp_path / "new" / "folder").mkdir()
    with pytest.raises(S2SError, match="new/folder could not be written"):
        write_page(tmp_path / "new" / "folder", analysis)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["folder", "page.html"]
    (tmp_path / "link").symlink_to("new/page.html")
    (tmp_path / "new" / "page.html").write_text("old")
    write_page(tmp_path / "link", analysis)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == render(analysis)


def test_axes_stand_on_round_numbers_around_the_values_and_not_below_zero():
    for values in ([0.0, 0.0], [100.0], [41.3, 44.9, 43.0], [0.0, 99.7], [3.1e-4, 7e-4]):
        low, high, step = _scale(values, from_zero=False)
        assert 0 <= low <= min(values) <= max(values) <= high
        assert 2 <= round((high - low) / step) <= 8
        assert low / step == pytest.approx(round(low / step))
    assert _scale([40.0, 60.0], from_zero=True)[0] == 0


def test_sentence_values_are_scores_of_one_line(refs, noisy):
    hyps = noisy(0.3, 1)
    [values] = sentence_values({"hyp": hyps}, build_metric("chrf", [refs], ScoreSettings(), sentence=True))
    assert values.tolist() == [corpus_score("chrf", [h], [[r]]).value for h, r in zip(hyps, refs, strict=True)]


def test_words_that_only_another_reference_has():
    """Of the first reference they are none of an output's: no F1 of nothing."""
    chart = run({"hyp": ["bar"]}, [["foo foo"], ["bar"]]).by_frequency
    assert all(0.0 <= value <= 100.0 for value in chart.series["hyp"])
