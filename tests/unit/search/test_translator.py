"""From lines to lines: none is lost, none is added, and none depends on the others."""

import io
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended_cuda import pretended_cuda
from samples import MODEL, random_model, sentences

from s2s_cli.checkpoint.bundle import save_bundle, weights_of
from s2s_cli.config import RuntimeSettings, ScoreSettings, SearchSettings, TranslateSettings
from s2s_cli.data.vocab import TextRules, Vocab, Vocabs
from s2s_cli.errors import BundleError, ConfigError, S2SError
from s2s_cli.runtime import Runtime
from s2s_cli.search.account import Seen
from s2s_cli.search.graphs import Recorder
from s2s_cli.search.logprobs import Ensemble
from s2s_cli.search.output import Output
from s2s_cli.search.sentences import split
from s2s_cli.search.strategies import Hypothesis
from s2s_cli.search.translate import _identity, _report, translate
from s2s_cli.search.translator import Line, Translator, _links

CPU = Runtime(torch.device("cpu"), torch.float32)
GPU = Runtime(torch.device("cuda"), torch.float32)
ON_CPU = RuntimeSettings(device="cpu", precision="fp32")
LINES = [src for src, _ in sentences(40, seed=5)]
BLANK = ["", " ", "\t", "\u00a0\u3000", "\u2028"]


def translator(vocabs: Vocabs, seeds: tuple[int, ...] = (1,), **search: object) -> Translator:
    models = [random_model(vocabs, seed) for seed in seeds]
    return Translator.of(models, vocabs, SearchSettings(**{"beam": 3, "max_len": 12} | search), CPU)


def wanted(**settings: object) -> TranslateSettings:
    return TranslateSettings(**settings)


def best(outputs: list[list[Output]]) -> list[str]:
    return [ones[0].text if ones else "" for ones in outputs]


def numbered(lines: list[str]) -> list[Line]:
    return [Line(number, line) for number, line in enumerate(lines, start=1)]


def test_any_batches_any_order(vocabs: Vocabs) -> None:
    expected = translator(vocabs).translate(LINES)
    assert len(set(expected)) > 10, "a model that always says the same proves nothing"
    for search_tokens in (1, 60, 10_000):
        assert translator(vocabs, search_tokens=search_tokens).translate(LINES) == expected
    order = list(range(len(LINES)))
    random.Random(1).shuffle(order)
    assert translator(vocabs).translate([LINES[i] for i in order]) == [expected[i] for i in order]
    assert best(translator(vocabs).search(LINES, wanted(flush_every=7))) == expected


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="a build of torch with CUDA asks its driver")
@pytest.mark.parametrize("search_tokens", [60, 700, 10_000])
def test_a_gpu_gives_the_same_lines(vocabs: Vocabs, search_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With batches of few shapes, and sources that are padded; blank lines and prefixes among them."""
    lines = [" ".join(LINES[i : i + 1 + i % 4]) for i in range(len(LINES))]
    lines[9] = ""
    settings, prefixes = TranslateSettings(nbest=2), ["der", "", *[""] * (len(lines) - 2)]
    expected = translator(vocabs)
    shapes = []

    def take(_self: Recorder, start: tuple, _step: object, _how: object) -> None:
        shapes.append(start[0].sentences.memory.mask.shape)

    monkeypatch.setattr(Recorder, "take", take)
    with pretended_cuda():
        there = [random_model(vocabs).to("cuda")]
        wanted = expected.settings.model_copy(update={"search_tokens": search_tokens})
        tool = Translator.of(there, vocabs, wanted, GPU)
        assert tool.translate(lines) == expected.translate(lines)
        *full, _last = shapes
        found = tool.search(lines, settings, prefixes)
    assert [[o.text for o in one] for one in found] == [
        [o.text for o in one] for one in expected.search(lines, settings, prefixes)
    ]
    assert all(length % 16 == 0 for _, length in shapes)
    assert len(set(full)) == len({length for _, length in full})  # as many rows for each length


def test_recordings_go_before_the_search_fails_for_memory(vocabs: Vocabs, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, search, kept = translator(vocabs).translate(LINES), Translator._found, []

    def found(self: Translator, *arguments: object) -> object:
        kept.append(len(self.recorder._kept))
        if self.recorder._kept:
            raise torch.OutOfMemoryError("too much")
        return search(self, *arguments)

    monkeypatch.setattr(Translator, "_found", found)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    tool = translator(vocabs, search_tokens=60)
    recorder = tool.workers._work.__self__.recorder = Recorder()
    recorder._kept["some"] = None
    tool.workers.num = 1
    assert tool.translate(LINES) == expected
    assert kept[0] == 1
    assert not any(kept[1:])


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
@pytest.mark.parametrize("rules", [{}, {"repetition_penalty": 1.5}, {"no_repeat_ngram": 2, "min_len": 3}], ids=str)
def test_greedy_search_needs_no_scores(vocabs: Vocabs, seeds: tuple[int, ...], rules: dict) -> None:
    tool = translator(vocabs, seeds, beam=1, **rules)
    assert tool.translate(LINES) == best(tool.search(LINES))


def test_blank_lines_stay_blank_and_meet_no_model(vocabs: Vocabs, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [text for pair in zip(LINES[:5], BLANK, strict=True) for text in pair]
    seen, encoded, encode = Seen(), [], Ensemble.encode

    def spy(self: Ensemble, src: torch.Tensor, src_len: torch.Tensor) -> object:
        encoded.extend(src_len.tolist())
        return encode(self, src, src_len)

    monkeypatch.setattr(Ensemble, "encode", spy)
    tool = translator(vocabs)
    found = best(tool.search_lines(numbered(lines), seen=seen))
    assert found[1::2] == [""] * 5
    assert found[::2] == tool.translate(LINES[:5])
    assert len(encoded) == 10
    assert (seen.lines, seen.blank) == (10, 5)


def test_a_line_of_tags_alone_is_blank() -> None:
    """As `preprocess` has it, and tags are soon put before each line of a file."""
    vocab = Vocab.train([text for pair in sentences(200, seed=9) for text in pair], size=400, tags=["<2de>", "<hi>"])
    tool, seen = translator(Vocabs(vocab, vocab)), Seen()
    lines = ["<2de> the dog", "<2de> ", "<2de>  ", "<hi> <2de> \u3000", "the dog <2de>"]
    found = best(tool.search_lines(numbered(lines), seen=seen))
    assert [bool(text) for text in found] == [True, False, False, False, True]
    assert seen.blank == 3
    assert tool.force(["<2de> "], ["Hund"]) == [None]


def test_long_lines_are_cut_and_told(vocabs: Vocabs) -> None:
    seen, tool = Seen(), translator(vocabs, max_src_len=3)
    long = tool.search_lines(numbered(["the", "the dog sees the old cat", "the"]), seen=seen)[1]
    assert (seen.cut.count, seen.cut.first) == (1, [2])
    ids = vocabs.src.encode(["the dog sees the old cat"])[0][:3]
    assert long[0].text == tool.translate([vocabs.src.decode(ids)])[0]


def test_score_is_that_of_forced_decoding(vocabs: Vocabs) -> None:
    tool, model = translator(vocabs), random_model(vocabs).requires_grad_(False)
    for line, outputs in zip(LINES[:8], tool.search(LINES[:8], wanted(nbest=3)), strict=True):
        assert len(outputs) == 3
        src = torch.tensor([[*vocabs.src.encode([line])[0], vocabs.src.eos]])
        memory = model.encode(src, torch.tensor([src.shape[1]]))
        for found in outputs:
            state, logps = model.start(memory), []
            pieces = [vocabs.tgt.bos, *map(vocabs.tgt.id, found.pieces), vocabs.tgt.eos]
            for before, piece in itertools.pairwise(pieces):
                out = model.step(torch.tensor([before]), memory, state)
                logps.append(float(out.logp[0, piece]))
                state = out.state
            assert found.logps == pytest.approx(logps, abs=1e-4)
            assert found.logp == pytest.approx(sum(logps), abs=1e-4)


def test_given_outputs_are_scored_as_search_scores_its_own() -> None:
    """Where a text has one split into pieces alone, both are the same `Output`."""
    vocab = Vocab.train(
        [text for pair in sentences(200, seed=9) for text in pair], size=64, kind="char", byte_fallback=False
    )
    tool, compared = translator(Vocabs(vocab, vocab)), 0
    own = [
        outputs[-1] for outputs in tool.search(LINES, wanted(nbest=3, prefix_text="der"))
    ]  # else few begin as text does
    for ours, theirs in zip(own, tool.force(LINES, [o.text for o in own]), strict=True):
        if theirs.pieces == ours.pieces:
            compared += 1
            assert theirs.text == ours.text
            assert theirs.logps == pytest.approx(ours.logps, abs=1e-4)
            assert theirs.score == pytest.approx(ours.score, abs=1e-4)
    assert compared > 10


def test_force_of_blank_lines(vocabs: Vocabs) -> None:
    tool, seen = translator(vocabs), Seen()
    assert tool.force(["", "the dog", " "], ["", "", "Hund"])[::2] == [None, None]
    empty = tool.force(["the dog"], [""])[0]
    assert (empty.pieces, len(empty.logps)) == ([], 1)
    lines = [Line(4, "", tgt=""), Line(5, " ", tgt="Hund"), Line(6, "the dog", tgt="der Hund")]
    [_, _, scored] = tool.search_lines(lines, seen=seen)
    assert (seen.blank, seen.unscored.first) == (2, [5])
    assert (seen.logp, seen.pieces) == (scored[0].logp, len(scored[0].logps))


def test_what_is_given_and_the_vocabulary_lacks_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [text for pair in sentences(200, seed=9) for text in pair]
    vocab = Vocab.train(texts, size=60, kind="word", byte_fallback=False)
    tool, seen = translator(Vocabs(vocab, vocab)), Seen()
    tool.search_lines([Line(4, "the dog", prefix="der Hund"), Line(5, "the dog", prefix="der Zyxwv")], seen=seen)
    assert seen.unknown.first == [5]
    tool.search_lines([Line(6, "the dog", tgt="Zyxwv Hund"), Line(7, "the dog", tgt="der Hund")], seen=seen)
    assert (seen.unknown.first, seen.unknown.count) == ([5, 6], 2)
    _report(wanted(prefix_text="der Zyxwv"), tool.settings, seen, {})
    assert (
        "2 prefixes have words that the vocabulary lacks, each an unknown piece: line 5, 6" in capsys.readouterr().err
    )
    before = asdict(seen)
    del before["unknown"]  # as an account of before has it
    later = Seen()
    later.add(before)
    assert (later.lines, later.unknown.count) == (4, 0)


def test_what_is_given_must_be_one_a_line(vocabs: Vocabs) -> None:
    with pytest.raises(ConfigError, match="both prefixes and prefix_text"):
        translator(vocabs).search(["the"], wanted(prefix_text="der"), prefixes=["die"])
    with pytest.raises(S2SError, match="2 source lines, but 1"):
        translator(vocabs).force(["the", "dog"], ["der"])
    with pytest.raises(S2SError, match="1 source lines, but 2"):
        translator(vocabs).search(["the"], prefixes=["der", "die"])


def test_prefixes_begin_outputs(vocabs: Vocabs) -> None:
    tool = translator(vocabs)
    prefixes = ["der alte" if i % 2 else "" for i in range(len(LINES))]
    plain, found = tool.search(LINES), tool.search(LINES, prefixes=prefixes)
    assert found[::2] == plain[::2]
    pieces = [vocabs.tgt.piece(i) for i in vocabs.tgt.encode(["der alte"])[0]]
    for outputs in found[1::2]:
        assert outputs[0].pieces[: len(pieces)] == pieces
        assert outputs[0].text.startswith("der alte")
    assert tool.search(LINES[:3], wanted(prefix_text="der alte"))[1] == found[1]


def test_samples_depend_on_seed_and_number_alone(vocabs: Vocabs) -> None:
    tool = translator(vocabs)
    found = tool.search(LINES, wanted(samples=4))
    assert all(len(outputs) == 4 for outputs in found)
    assert len({o.text for outputs in found for o in outputs}) > len(LINES)
    texts = [[o.text for o in outputs] for outputs in found]
    assert [[o.text for o in outputs] for outputs in tool.search(LINES, wanted(samples=4, flush_every=3))] == texts
    lines = numbered(LINES)
    assert [o.text for o in tool.search_lines(lines[7:9], wanted(samples=4))[1]] == texts[8]
    assert best(tool.search(LINES, wanted(samples=4, seed=2))) != best(found)


def test_mbr_ranks_candidates(vocabs: Vocabs) -> None:
    tool = translator(vocabs)
    samples = tool.search(LINES[:9], wanted(samples=8))
    for drawn, ranked in zip(samples, tool.search(LINES[:9], wanted(samples=8, mbr="chrf")), strict=True):
        assert {o.text for o in ranked} == {o.text for o in drawn}
        utilities = [o.utility for o in ranked]
        assert utilities == sorted(utilities, reverse=True)
        assert len(ranked) == len({o.text for o in ranked})
    usual, other = (
        tool.search(LINES[:9], wanted(samples=8, mbr="chrf"), score=ScoreSettings(chrf_char_order=n)) for n in (6, 1)
    )
    assert [o.utility for o in usual[0]] == [
        o.utility for o in tool.search(LINES[:1], wanted(samples=8, mbr="chrf"))[0]
    ]
    assert [o.utility for o in usual[0]] != [o.utility for o in other[0]], "options of the metric count"


SENTENCES = "the dog sees the cat. the man hears! not today? here and the old man. the young dog knows."


@pytest.mark.parametrize("options", [{}, {"nbest": 3}, {"samples": 3}, {"samples": 5, "mbr": "bleu"}])
def test_long_lines_are_split_and_joined(vocabs: Vocabs, options: dict) -> None:
    """A split line is what its parts are by themselves, joined by a space; nothing of it is left out."""
    tool, seen = translator(vocabs, max_src_len=12), Seen()
    settings = wanted(long_lines="split", align="words", **options)
    lines = numbered(["the dog", SENTENCES])
    whole = tool.search_lines(lines, settings, seen)[1]
    assert (seen.split.count, seen.split.first, seen.cut.count) == (1, [2], 0)
    assert len(whole[0].logps) > len(whole[0].pieces) + 1, "several ends"
    assert all(o.logp == pytest.approx(sum(o.logps), abs=1e-4) for o in whole)
    num_src = len(SENTENCES.split())
    for o in whole:
        assert sorted({tgt for _, tgt in o.alignment}) == list(range(len(o.text.split())))
        assert {src for src, _ in o.alignment} <= set(range(num_src))
    if not options.get("samples"):
        assert whole[0].text == tool.search_lines(lines, settings.model_copy(update={"nbest": 1}))[1][0].text
        scores = [o.score for o in whole]
        assert scores == sorted(scores, reverse=True)
    if not options:
        count = lambda texts: [len(ids) for ids in vocabs.src.encode(texts)]  # noqa: E731
        parts = [SENTENCES[start:end] for start, end in split(SENTENCES, 12, count)]
        assert len(parts) > 1
        assert whole[0].text == " ".join(tool.translate(parts))


@pytest.mark.parametrize("head", ["", "<2de> "])
def test_pieces_of_parts_are_numbered_in_the_whole_line(head: str) -> None:
    """Each part looks at all of its positions, one after the other: together these are those of the line."""
    vocab = Vocab.train([text for pair in sentences(200, seed=9) for text in pair], size=400, tags=["<2de>"])
    tool = translator(Vocabs(vocab, vocab), max_src_len=13)
    whole = vocab.encode([head + SENTENCES])[0]
    seen = []
    for unit in tool._parts(0, Line(1, head + SENTENCES), head, [], 13):
        attention = torch.eye(len(unit.ids) + 1)
        each = Hypothesis(unit.ids, 0.0, 0.0, [0.0] * len(attention), attention)
        places = [src for src, _ in _links(vocab, vocab, unit, each, "pieces")]
        assert [whole[place] for place in places] == unit.ids
        seen += places[bool(head) and bool(seen) :]  # the tag stands before each part
    assert seen == list(range(len(whole)))


def test_tags_stand_before_each_part() -> None:
    vocab = Vocab.train([text for pair in sentences(200, seed=9) for text in pair], size=400, tags=["<2de>"])
    vocabs = Vocabs(vocab, vocab)
    tool = translator(vocabs, max_src_len=13)
    settings = wanted(long_lines="split", align="words")
    whole = tool.search(["<2de> " + SENTENCES], settings)[0][0]
    count = lambda texts: [len(ids) for ids in vocab.encode(texts)]  # noqa: E731
    parts = ["<2de> " + SENTENCES[start:end] for start, end in split(SENTENCES, 12, count)]
    assert whole.text == " ".join(tool.translate(parts))
    assert {src for src, _ in whole.alignment} <= set(range(1 + len(SENTENCES.split())))


@pytest.mark.parametrize("between", ["words", "pieces"])
def test_alignments_follow_the_attention(vocabs: Vocabs, between: str) -> None:
    tool = translator(vocabs)
    for line, outputs in zip(LINES, tool.search(LINES, wanted(align=between)), strict=True):
        num_src = len(line.split()) if between == "words" else len(vocabs.src.encode([line])[0])
        num_tgt = len(outputs[0].text.split()) if between == "words" else len(outputs[0].pieces)
        assert [tgt for _, tgt in outputs[0].alignment] == list(range(num_tgt))
        assert all(0 <= src < num_src for src, _ in outputs[0].alignment)
    assert tool.search(LINES[:1])[0][0].alignment is None


def test_ensemble_of_one_model_twice_is_that_model(vocabs: Vocabs) -> None:
    assert translator(vocabs, seeds=(1, 1)).translate(LINES) == translator(vocabs).translate(LINES)
    assert translator(vocabs, seeds=(1, 2)).translate(LINES) != translator(vocabs).translate(LINES)


def test_model_that_diverged_is_named(vocabs: Vocabs) -> None:
    tool = translator(vocabs)
    with torch.no_grad():
        tool.model.models[0].head.bias.fill_(torch.nan)
    with pytest.raises(S2SError, match=r"line 2 .*diverged"):
        tool.translate(["", "the dog"])
    with pytest.raises(S2SError, match=r"line 2 .*diverged"):
        tool.force(["", "the dog"], ["", "der hund"])


@pytest.mark.parametrize("options", [{}, {"samples": 3}])
def test_rules_that_forbid_everything_are_named(vocabs: Vocabs, options: dict) -> None:
    """Each piece once is less than is asked for: all hypotheses come to nothing, and it is not the model's fault."""
    most = len(vocabs.tgt) + 5
    tool = translator(vocabs, no_repeat_ngram=1, min_len=most, max_len=most, max_len_extra=most)
    with pytest.raises(S2SError, match=r"line 1 .*rules of search forbid"):
        tool.search(["the dog"], wanted(**options))


def said_twice(outputs: list[list[Output]]) -> set[str]:
    counts = [Counter(ones[0].pieces) for ones in outputs]
    return {piece for count in counts for piece in count if count[piece] > 1}


def test_rules_about_words_reach_the_search(vocabs: Vocabs) -> None:
    plain = translator(vocabs).search(LINES)
    [(word, _)] = Counter(word for ones in plain for word in re.findall(r"\w+", ones[0].text)).most_common(1)
    other = translator(vocabs, ban=[word]).translate(LINES)
    assert not any(word.lower() in re.findall(r"\w+", text.lower()) for text in other)
    repeated = said_twice(plain)
    assert len(repeated) > 3
    assert not said_twice(translator(vocabs, no_repeat_ngram=1).search(LINES))
    words = [piece.strip("\u2581") for piece in repeated if piece.strip("\u2581").isalpha()]
    assert said_twice(translator(vocabs, no_repeat_ngram=1, may_repeat=words).search(LINES))
    unk = vocabs.tgt.piece(vocabs.tgt.unk)
    for allowed in (False, True):
        tool = translator(vocabs, allow_unk=allowed)
        with torch.no_grad():
            tool.model.models[0].head.bias[vocabs.tgt.unk] = 1000.0
        assert all((unk in ones[0].pieces) == allowed for ones in tool.search(LINES))


def test_load_takes_search_from_the_bundle_unless_told(bundle: Path, vocabs: Vocabs) -> None:
    tool = Translator(bundle, runtime=ON_CPU)
    assert (tool.settings.beam, tool.settings.max_len) == (3, 12)
    assert tool.translate(LINES) == translator(vocabs).translate(LINES)
    told = Translator(bundle, search=SearchSettings(beam=1), runtime=ON_CPU).settings
    assert told == SearchSettings(beam=1, max_len=12)


@pytest.mark.parametrize(
    ("ours", "told", "message"),
    [
        ({"max_len": 12}, {"min_len": 50}, r"min_len \(50\) is more than max_len \(12\): set both"),
        ({"min_len": 5}, {"max_len": 3}, r"min_len \(5\) is more than max_len \(3\)"),
        ({"no_repeat_ngram": 2, "may_repeat": ["der"]}, {"no_repeat_ngram": 0}, "may_repeat has no rule"),
        ({}, {"may_repeat": ["der"]}, "may_repeat has no rule"),
        ({"no_repeat_ngram": 2}, {"may_repeat": ["der"]}, ""),
        ({"max_len_ratio": 3.0}, {"min_len_ratio": 2.5}, ""),
        ({"max_len": 900}, {"min_len": 800}, ""),
    ],
    ids=str,
)
def test_settings_conflict_or_fit_as_a_whole(
    vocabs: Vocabs, tmp_path: Path, ours: dict, told: dict, message: str
) -> None:
    """Those that were given together with those of the bundle, and neither half by itself."""
    save_bundle(tmp_path / "b", weights_of(random_model(vocabs)), MODEL, SearchSettings(**ours), vocabs, {})
    make = lambda: Translator(tmp_path / "b", search=SearchSettings(**told), runtime=ON_CPU)  # noqa: E731
    if message:
        with pytest.raises(ConfigError, match=message):
            make()
    else:
        assert make().settings == SearchSettings(**ours | told)


MISUSE: dict[str, tuple[Callable[[Translator], object], str]] = {
    "a string for lines": (lambda t: t.translate("the dog"), r'lines: a list .* translate\(\["the dog"\]\)'),
    "a string to search": (lambda t: t.search("the dog"), "lines: a list .* a single str"),
    "a string to force": (lambda t: t.force("dog", "Hun"), "lines: a list"),
    "a string for outputs": (lambda t: t.force(["dog", "cat", "man"], "Hun"), "outputs: a list"),
    "a string for prefixes": (lambda t: t.search(["the", "old", "dog"], prefixes="der"), "prefixes: a list"),
    "bytes": (lambda t: t.translate(b"the dog"), "a single bytes"),
    "nothing": (lambda t: t.translate(None), "a single NoneType"),
    "lines of bytes": (lambda t: t.translate(["the", b"dog"]), "lines: line 2 is b'dog'"),
    "lines of numbers": (lambda t: t.search([7]), "lines: line 1 is 7, where text"),
    "half a character": (
        lambda t: t.translate(["the", "a \ud800 dog"]),
        "lines: line 2 is no text that UTF-8 could hold",
    ),
    "outputs that are split": (
        lambda t: t.force(["the"], ["der"], wanted(long_lines="split")),
        "force scores the outputs that it is given: leave out long_lines",
    ),
    "outputs that are drawn": (lambda t: t.force(["the"], ["der"], wanted(samples=2)), "leave out samples"),
    "no prefix": (lambda t: t.search(["the"], prefixes=[None]), "prefixes: line 1 is None"),
    "other settings": (lambda t: t.search(["the"], SearchSettings()), "settings must be TranslateSettings"),
    "settings as a dict": (lambda t: t.force(["the"], ["der"], {"nbest": 2}), r"TranslateSettings\(…\).* not dict"),
    "options of a metric": (
        lambda t: t.search(["the"], wanted(samples=2, mbr="chrf"), score={"chrf_beta": 2}),
        "score must be ScoreSettings",
    ),
    "more than the beam": (lambda t: t.search(["the"], wanted(nbest=10)), r"nbest \(10\) is more than beam \(3\)"),
    "a list of models": (lambda _: Translator(["a", "b"]), r'Translator\("a", "b"\)'),
    "no model": (lambda _: Translator(None), "needs a model"),
    "a machine": (lambda _: Translator("b", runtime=CPU), "runtime must be RuntimeSettings"),
    "a machine as a dict": (lambda _: Translator("b", runtime={"device": "cpu"}), "runtime must be RuntimeSettings"),
    "search as a dict": (lambda _: Translator("b", search={"beam": 1}), "search must be SearchSettings"),
    "other search": (lambda _: Translator("b", search=wanted()), "not TranslateSettings"),
    "one weight": (lambda _: Translator("b", weights=0.5), "weights must be numbers"),
    "weights that are none": (lambda _: Translator("b", weights=["much"]), "weights must be numbers"),
}


@pytest.mark.parametrize("name", MISUSE)
def test_arguments_of_another_kind_are_named(vocabs: Vocabs, name: str) -> None:
    call, message = MISUSE[name]
    with pytest.raises(ConfigError, match=message):
        call(translator(vocabs))


def test_lines_may_come_one_by_one(vocabs: Vocabs) -> None:
    tool = translator(vocabs)
    assert tool.translate(iter(LINES)) == tool.translate(np.array(LINES)) == tool.translate(LINES)


@pytest.mark.parametrize("fast", [True, False])
def test_precision_is_that_of_validation_unless_told(
    vocabs: Vocabs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, fast: bool
) -> None:
    """Where the processor is fast at it, else it is told; an ensemble of several kinds does as a model that does not tell."""
    monkeypatch.setattr("s2s_cli.runtime.is_bf16_fast", lambda device: fast)
    odd = {"none": {}, "odd": {"precision": ["fp32"]}}
    for name in ("fp32", "bf16", "none", "fp99", "odd"):
        origin = odd.get(name, {"precision": name})
        save_bundle(tmp_path / name, weights_of(random_model(vocabs)), MODEL, SearchSettings(), vocabs, origin)

    def precision(*names: str, told: str = "auto") -> str:
        settings = RuntimeSettings(device="cpu", precision=told)
        return Translator(*(tmp_path / name for name in names), runtime=settings).runtime.precision

    default = "bf16" if fast else "fp32"
    assert precision("fp32") == precision("fp32", "fp32") == "fp32"
    assert [precision(name) for name in ("bf16", "none", "fp99", "odd")] == [default] * 4
    assert precision("fp32", "bf16") == precision("fp32", "none") == default
    assert [precision("fp32", told=told) for told in ("bf16", "int8", "fp32")] == ["bf16", "int8", "fp32"]
    (tmp_path / "src").write_text("the dog\n")
    for told in ("auto", "fp32"):
        settings = TranslateSettings(model=[tmp_path / "bf16"], input=tmp_path / "src", output=tmp_path / f"{told}.out")
        translate(settings, SearchSettings(), RuntimeSettings(device="cpu", precision=told))
        said = "fp32, where the model was validated in bf16" in capsys.readouterr().err
        assert said == (told == "auto" and not fast)


def test_what_mbr_was_begun_with_is_told_from_what_it_is_now(bundle: Path, tmp_path: Path) -> None:
    """ROUGE keeps all letters unless it is told otherwise, even told what is the default of `score`."""
    (tmp_path / "src").write_text("the dog\n")
    settings = TranslateSettings(model=[bundle], input=tmp_path / "src", samples=2, mbr="rouge")
    options = [ScoreSettings(), ScoreSettings(rouge_tokenizer="unicode"), ScoreSettings(rouge_tokenizer="rouge-score")]
    ours = Translator(bundle, runtime=ON_CPU)
    plain, same, other = (_identity(settings, ours, ON_CPU, score, 1) for score in options)
    assert plain == same != other


def test_ensemble_needs_one_vocabulary(bundle: Path, tmp_path: Path) -> None:
    other = Vocab.train(["another text with other words"], size=300)
    vocabs = Vocabs(other, other)
    save_bundle(tmp_path / "other", weights_of(random_model(vocabs)), MODEL, SearchSettings(), vocabs, {})
    with pytest.raises(BundleError, match="different vocabularies"):
        Translator(bundle, tmp_path / "other", runtime=ON_CPU)


def test_an_ensemble_needs_a_weight_for_each(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="1 weights for 2 models"):
        Translator(bundle, bundle, runtime=ON_CPU, weights=[1.0])
    with pytest.raises(ConfigError, match="needs a model"):
        Translator()
    one = Translator(bundle, runtime=ON_CPU)
    for weights in ([0.3, 0.7], np.array([0.3, 0.7]), []):
        both = Translator(bundle, bundle, runtime=ON_CPU, weights=weights)
        assert both.translate(LINES[:9]) == one.translate(LINES[:9])


def test_the_package_has_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the README writes it."""
    import s2s_cli

    assert s2s_cli.Translator is Translator
    assert s2s_cli.Output is Output
    with pytest.raises(AttributeError, match="no attribute 'Tranlator'"):
        s2s_cli.Tranlator  # noqa: B018
    monkeypatch.chdir(bundle.parent)
    assert len(s2s_cli.Translator("bundle").translate(["the dog", ""])) == 2


def test_the_keyboard_is_answered_line_by_line(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    class Keyboard(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    windows = []

    def spy(self: Translator, lines: list[Line], *_: object) -> list[list[Output]]:
        windows.append([line.src for line in lines])
        return [[] for _ in lines]

    monkeypatch.setattr(Translator, "search_lines", spy)
    for options, expected in (({}, [["the dog"], ["a cat"]]), ({"flush_every": 2}, [["the dog", "a cat"]])):
        windows.clear()
        monkeypatch.setattr("sys.stdin", Keyboard(io.BufferedReader(io.BytesIO(b"the dog\na cat\n"))))
        translate(wanted(model=[bundle], output=Path("/dev/null"), **options), SearchSettings(), RuntimeSettings())
        assert windows == expected
        assert "reading lines from the keyboard" in capsys.readouterr().err


def test_text_rules_hold_for_what_is_translated_and_given() -> None:
    """Case and Unicode form as at training: the vocabulary knows them, source, prefix and given output alike."""
    rules = TextRules(normalize="nfkc", lowercase=True)
    vocab = Vocab.train([text for pair in sentences(200, seed=9) for text in pair], size=400, rules=rules)
    tool = translator(Vocabs(vocab, vocab))
    plain, other = ["the dog fits"], ["THE dog ﬁts"]
    assert tool.search(plain) == tool.search(other)
    assert tool.force(plain, plain) == tool.force(other, other)
    assert tool.search(plain, prefixes=plain) == tool.search(other, prefixes=other)
