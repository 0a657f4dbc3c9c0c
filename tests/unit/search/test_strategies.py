"""Beam search over a scripted model, beside brute force, beside itself on other batches, and beside what it must do."""

import contextlib
import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scripted import BOS, EOS, PAD, PIECES, SPECIALS, Scripted, every_output

from s2s_cli.config import SearchSettings
from s2s_cli.errors import ConfigError
from s2s_cli.models.base import StepOut
from s2s_cli.search import strategies
from s2s_cli.search.logprobs import formula, no_repeat_ngram, penalty
from s2s_cli.search.strategies import Hypothesis, Limits, beam_search, limits_for

PENALTIES = [("none", 1.0), ("average", 0.6), ("average", 1.0), ("average", 1.7), ("gnmt", 0.6), ("gnmt", 2.0)]
RULES = [
    {},
    {"no_repeat_ngram": 1},
    {"no_repeat_ngram": 2, "coverage_penalty": 0.3},
    {"repetition_penalty": 1.7},
    {"coverage_penalty": 2.0, "repetition_penalty": 1.2},
]


def options(beam: int, length_penalty: str = "average", alpha: float = 1.0, **rules: object) -> SearchSettings:
    return SearchSettings(beam=beam, length_penalty=length_penalty, alpha=alpha, **rules)


def no_four_after_three(said: list[int]) -> list[int]:
    """A phrase of two pieces, banned."""
    return [4] if said[-1:] == [3] else []


RULED = replace(SPECIALS, may_repeat=(5,), completing=no_four_after_three)


def allowed(pieces: list[int], size: int) -> bool:
    """What the rules of `RULED` and n-gram blocking forbid, told in another way."""
    windows = [tuple(pieces[i : i + size]) for i in range(len(pieces) - size + 1)] if size else []
    windows = [window for window in windows if 5 not in window]
    return len(set(windows)) == len(windows) and (3, 4) not in itertools.pairwise(pieces)


def score_of(model: Scripted, sentence: int, pieces: list[int], search: SearchSettings) -> float:
    """The score of an output by its formula, for `RULED`."""
    logps, looks = model.forced(sentence, pieces)
    factors = [search.repetition_penalty if p in pieces[:i] and p != 5 else 1.0 for i, p in enumerate(pieces)]
    value = sum(float(logp) * factor for logp, factor in zip(logps, [*factors, 1.0], strict=True))
    cover = sum(math.log(min(float(mass), 1.0)) for mass in looks.sum(dim=0))
    return value / penalty(len(pieces) + 1, search) + search.coverage_penalty * cover


@pytest.mark.parametrize(("name", "alpha"), PENALTIES)
@pytest.mark.parametrize(("shortest", "longest"), [(0, 3), (2, 3), (0, 0), (3, 3)])
def test_wide_beam_is_brute_force(name: str, alpha: float, shortest: int, longest: int) -> None:
    """All outputs there are, in their order, with their scores."""
    wide = options(60, name, alpha)
    for seed in range(5):
        model = Scripted(seed, num_sentences=2)
        outputs = every_output(shortest, longest)
        for found, sentence in zip(
            model.search([1, 0], Limits([shortest] * 2, [longest] * 2), wide, num_best=60), [1, 0], strict=True
        ):
            scores = [float(model.forced(sentence, o)[0].sum()) / penalty(len(o) + 1, wide) for o in outputs]
            expected = sorted(zip(scores, outputs, strict=True), key=lambda pair: -pair[0])
            assert [h.ids for h in found] == [ids for _, ids in expected]
            assert [h.score for h in found] == pytest.approx([score for score, _ in expected], abs=1e-5)


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("name", ["none", "average", "gnmt"])
def test_wide_beam_is_brute_force_under_rules(rules: dict, name: str) -> None:
    """All outputs that the rules allow and no other, in the order of their scores."""
    wide = options(90, name, 0.8, **rules)
    for seed in range(2):
        model = Scripted(seed, num_sentences=2)
        outputs = [o for o in every_output(1, 4) if allowed(o, wide.no_repeat_ngram)]
        found = model.search([1, 0], Limits([1, 1], [4, 4]), wide, num_best=90, specials=RULED)
        for sentence, hypotheses in zip([1, 0], found, strict=True):
            expected = sorted(((score_of(model, sentence, o, wide), o) for o in outputs), reverse=True)
            assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
            assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-5)
            for h in hypotheses:
                assert h.logps == model.forced(sentence, h.ids)[0].tolist()


def test_beam_of_one_is_greedy() -> None:
    model = Scripted(3, num_sentences=20)
    found = model.search(list(range(20)), Limits([0] * 20, [6] * 20), options(1))
    for sentence, (hypothesis,) in enumerate(found):
        pieces, code, last = [], 0, BOS
        while len(pieces) < 6:
            code = (code * 31 + last) % 101
            logp = model.table[sentence, code].clone()
            logp[[PAD, BOS]] = -torch.inf
            last = int(logp.argmax())
            if last == EOS:
                break
            pieces.append(last)
        assert hypothesis.ids == pieces


@given(st.lists(st.lists(st.integers(3, 5), min_size=9, max_size=9), min_size=1, max_size=4), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_ngrams_of_any_size(said: list[list[int]], size: int) -> None:
    """Banned is what would make n pieces come twice, for each hypothesis by itself; nothing else is touched."""
    logp = torch.zeros(1, len(said), 6)
    no_repeat_ngram(logp, torch.tensor(said), size, torch.tensor([], dtype=torch.long), BOS)
    for row, pieces in enumerate(said):
        grams = [tuple(pieces[i : i + size]) for i in range(len(pieces) - size + 1)]
        twice = [p for p in PIECES if (*pieces[len(pieces) - size + 1 :], p) in grams]
        assert [p for p in PIECES if logp[0, row, p] < 0] == twice
        assert not logp[0, row, [PAD, EOS]].any()


@st.composite
def cases(draw: st.DrawFn) -> tuple[Scripted, Limits, SearchSettings, int, list[list[int]] | None]:
    size = draw(st.integers(1, 6))
    model = Scripted(draw(st.integers(0, 10_000)), size, draw(st.sampled_from([0.3, 2.0, 6.0])))
    longest = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    shortest = [draw(st.integers(0, min(n, 2))) for n in longest]
    beam = draw(st.integers(1, 6))
    name, alpha = draw(st.sampled_from(PENALTIES))
    rules = draw(st.sampled_from(RULES))
    prefix = st.lists(st.sampled_from(PIECES), max_size=4)
    prefixes = draw(st.none() | st.lists(prefix, min_size=size, max_size=size))
    return model, Limits(shortest, longest), options(beam, name, alpha, **rules), draw(st.integers(1, beam)), prefixes


def pick(limits: Limits, prefixes: list[list[int]] | None, order: list[int]) -> tuple[Limits, list[list[int]] | None]:
    """Limits and prefixes of some of the sentences, in some order."""
    chosen = Limits([limits.min_len[i] for i in order], [limits.max_len[i] for i in order])
    return chosen, prefixes and [prefixes[i] for i in order]


def same(found: list[list[Hypothesis]], wanted: list[list[Hypothesis]]) -> bool:
    """Equal to the last bit, attention included."""
    pairs = [pair for both in zip(found, wanted, strict=True) for pair in zip(*both, strict=True)]
    return found == wanted and all(torch.equal(a.attention, b.attention) for a, b in pairs)


@settings(max_examples=60, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_output_does_not_depend_on_the_batch(case: tuple, random: object) -> None:
    """Alone, in order, in any other order, and beside its own doubles, a sentence gets the same, whatever the rules."""
    model, limits, search, num_best, prefixes = case
    ids = list(range(len(limits.max_len)))

    def searched(order: list[int]) -> list[list[Hypothesis]]:
        part, heads = pick(limits, prefixes, order)
        return model.search(order, part, search, num_best, attention=True, prefixes=heads, specials=RULED)

    together = searched(ids)
    for i in ids:
        assert same(searched([i]), [together[i]])
    order = ids + ids
    random.shuffle(order)
    assert same(searched(order), [together[i] for i in order])


@settings(max_examples=60, deadline=None)
@given(cases(), st.randoms(use_true_random=False), st.booleans())
def test_samples_do_not_depend_on_the_batch(case: tuple, random: object, some: bool) -> None:
    model, limits, search, num_samples, prefixes = case
    search = search.model_copy(update={"temperature": 0.8, "top_k": 3, "top_p": 0.9} if some else {})
    ids = list(range(len(limits.max_len)))

    def drawn(order: list[int]) -> list[list[Hypothesis]]:
        part, heads = pick(limits, prefixes, order)
        seeds = [100 + i for i in order]
        return model.sample(order, part, search, seeds, num_samples, prefixes=heads, specials=RULED)

    together = drawn(ids)
    for i in ids:
        assert same(drawn([i]), [together[i]])
    order = ids + ids
    random.shuffle(order)
    assert same(drawn(order), [together[i] for i in order])


@settings(max_examples=60, deadline=None)
@given(cases(), st.booleans())
def test_hypotheses_are_what_they_say(case: tuple, samples: bool) -> None:
    """Sorted, within the limits, as the prefixes begin, and free of special pieces; scored as forced decoding scores them."""
    model, limits, search, num_best, prefixes = case
    ids = list(range(len(limits.max_len)))
    if samples:
        found = model.sample(ids, limits, search, ids, num_best, prefixes, RULED)
        search = search.model_copy(update={"repetition_penalty": 1.0})  # which samples' scores know nothing of
    else:
        found = model.search(ids, limits, search, num_best, True, prefixes, RULED)
        assert all(len({tuple(h.ids) for h in hypotheses}) == len(hypotheses) for hypotheses in found)
    for sentence, hypotheses in enumerate(found):
        assert len(hypotheses) <= num_best
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        prefix = prefixes[sentence] if prefixes else []
        for h in hypotheses:
            assert limits.min_len[sentence] <= len(h.ids) <= max(limits.max_len[sentence], len(prefix))
            assert h.ids[: len(prefix)] == prefix
            assert set(h.ids) <= set(PIECES)
            logps, looks = model.forced(sentence, h.ids)
            assert h.logps == logps.tolist()
            assert h.logp == pytest.approx(float(logps.sum()), abs=1e-5)
            assert torch.equal(h.attention, looks)
            if not prefix:
                assert allowed(h.ids, search.no_repeat_ngram)
                assert h.score == pytest.approx(score_of(model, sentence, h.ids, search), abs=1e-4)


@settings(max_examples=80, deadline=None)
@given(cases())
def test_stopping_early_loses_nothing(case: tuple) -> None:
    """A search that goes on until no hypothesis lives finds the same ones."""
    model, limits, search, num_best, prefixes = case
    assume(search.beam > 1)
    ids = list(range(len(limits.max_len)))
    early = model.search(ids, limits, search, num_best, prefixes=prefixes, specials=RULED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies, "_may_improve", lambda totals, _: totals.amax(dim=1) > -torch.inf)
        assert model.search(ids, limits, search, num_best, prefixes=prefixes, specials=RULED) == early


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from([0.5, 1.0, 2.0, 1000.0]))
def test_patience_ends_by_the_number_of_finished_hypotheses(case: tuple, patience: float) -> None:
    """Each sentence by itself: the best of those that a search without an end has finished by then."""
    model, limits, search, num_best, prefixes = case
    assume(search.beam > 1)
    ids = list(range(len(limits.max_len)))
    patient = search.model_copy(update={"beam_patience": patience})
    found = model.search(ids, limits, patient, num_best, prefixes=prefixes, specials=RULED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies, "_may_improve", lambda totals, _: totals.amax(dim=1) > -torch.inf)
        everything = model.search(ids, limits, search, 1000, prefixes=prefixes, specials=RULED)
    enough = max(math.ceil(patience * search.beam), num_best)
    for hypotheses, finished in zip(found, everything, strict=True):
        lengths = sorted(len(h.ids) for h in finished)
        last = lengths[enough - 1] if len(lengths) >= enough else math.inf
        assert hypotheses == [h for h in finished if len(h.ids) <= last][:num_best]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_greedy_search_without_scores_finds_the_same(case: tuple) -> None:
    """And does not ask what follows the longest outputs, which can only end."""
    model, limits, search, _, prefixes = case
    search = search.model_copy(update={"beam": 1})
    ids = list(range(len(limits.max_len)))
    wanted = model.search(ids, limits, search, prefixes=prefixes, specials=RULED)
    memory, lengths = model.memory(ids), []

    def step(*arguments: object, normalize: bool = True) -> StepOut:
        lengths.append(len(lengths))
        return model.step(*arguments)

    start = model.start(memory)
    found = beam_search(step, memory, start, limits, RULED, search, prefixes=prefixes, scores=False)
    assert [[h.ids for h in hypotheses] for hypotheses in found] == [
        [h.ids for h in hypotheses] for hypotheses in wanted
    ]
    assert len(lengths) <= max(map(max, zip(limits.max_len, map(len, prefixes or [[]] * len(ids)), strict=True)))


def test_greedy_search_and_a_sample_keep_their_state_in_place() -> None:
    """Nothing is copied while every hypothesis goes on by itself."""
    model = Scripted(3, 1)
    memory = model.memory([0])
    start = model.start(memory)
    passed = []

    def watching(tokens: torch.Tensor, memory: object, state: object) -> StepOut:
        out = model.step(tokens, memory, state)
        passed.append((state, out.state))
        return out

    beam_search(watching, memory, start, Limits([6], [6]), SPECIALS, options(1))
    assert len(passed) == 7
    assert all(after is given for (_, after), (given, _) in itertools.pairwise(passed))


@pytest.mark.parametrize("beam", [1, 2])
def test_sentences_that_are_done_leave_several_at_a_time(beam: int) -> None:
    """Outputs of 1 to 20 pieces: the batch never has a fifth more sentences than go on, and seldom changes."""
    most = list(range(1, 21))
    model = Scripted(1, len(most))
    memory = model.memory(list(range(len(most))))
    sizes = []

    def counting(tokens: torch.Tensor, *rest: object) -> StepOut:
        sizes.append(len(tokens) // (beam if sizes else 1))  # which all begin alike
        return model.step(tokens, *rest)

    beam_search(counting, memory, model.start(memory), Limits(most, most), SPECIALS, options(beam))
    going = [sum(n >= step for n in most) for step in range(len(sizes))]
    assert len(sizes) == 21
    assert all(num <= size < num / strategies._FULL for num, size in zip(going, sizes, strict=True))
    assert len(set(sizes)) < 15


def test_early_stop_is_early() -> None:
    """Where the end is nearly certain at once, one step is enough."""
    model = Scripted(0, 1)
    model.table[...] = torch.tensor([-9.0, -9.0, -0.01, -9.0, -9.0, -9.0])
    steps = []
    memory = model.memory([0])

    def counting(*arguments: object) -> StepOut:
        steps.append(1)
        return model.step(*arguments)

    beam_search(counting, memory, model.start(memory), Limits([0], [50]), SPECIALS, options(2, "none"))
    assert len(steps) == 1


def test_no_number_ends_without_output() -> None:
    """A model that has diverged does not keep the search for ever."""
    model = Scripted(0, 2)
    model.table[0] = torch.nan
    bad, good = model.search([0, 1], Limits([0, 0], [5, 5]), options(3))
    assert bad == []
    assert good == model.search([1], Limits([0], [5]), options(3))[0]


@pytest.mark.parametrize("mode", [contextlib.nullcontext, torch.inference_mode, torch.no_grad])
def test_search_keeps_no_gradients_and_leaves_the_mode_to_its_caller(mode: type) -> None:
    """Autocast keeps the weights that it has cast from step to step, but not in inference mode."""
    model, modes = Scripted(0, 1), set()

    def step(*arguments: object) -> StepOut:
        modes.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return model.step(*arguments)

    with mode():
        memory = model.memory([0])
        beam_search(step, memory, model.start(memory), Limits([1], [3]), SPECIALS, options(2))
    assert modes == {(False, mode is torch.inference_mode)}


def test_limits_come_from_the_sentence() -> None:
    limits = limits_for([1, 10, 300], SearchSettings(max_len=100, max_len_ratio=1.5, max_len_extra=3, min_len=8))
    assert limits.max_len == [4, 18, 100]
    assert limits.min_len == [4, 8, 8]


def test_least_length_by_ratio() -> None:
    """The greater of both least lengths, and never more than the most."""
    limits = limits_for([1, 10, 11, 300], SearchSettings(max_len=100, max_len_ratio=1.5, min_len=3, min_len_ratio=0.5))
    assert limits.min_len == [3, 5, 6, 100]


@given(st.integers(0, 5000), st.integers(0, 300))
def test_least_length_is_that_many_times_the_source(num_pieces: int, percent: int) -> None:
    """The fewest pieces that are; ratios that no float holds are those that were written."""
    settings = SearchSettings(min_len_ratio=percent / 100, max_len=10**6, max_len_ratio=3.0)
    assert limits_for([num_pieces], settings).min_len == [-(-num_pieces * percent // 100)]


@given(st.integers(0, 5000), st.integers(0, 300))
def test_greatest_length_is_that_many_times_the_source(num_pieces: int, percent: int) -> None:
    settings = SearchSettings(max_len_ratio=percent / 100, max_len_extra=0, max_len=10**6)
    assert limits_for([num_pieces], settings).max_len == [num_pieces * percent // 100]


def test_attention_that_there_is_none_of() -> None:
    model = Scripted(0, 1)
    memory = model.memory([0])

    def blind(*arguments: object, normalize: bool = True) -> StepOut:
        return model.step(*arguments)._replace(attention=None)

    for search, asked in ((options(2), True), (options(2, coverage_penalty=0.1), False)):
        with pytest.raises(ConfigError, match="the model has none"):
            beam_search(blind, memory, model.start(memory), Limits([0], [3]), SPECIALS, search, attention=asked)
    greedy = options(1, coverage_penalty=0.1)  # which chooses by no score
    beam_search(blind, memory, model.start(memory), Limits([0], [3]), SPECIALS, greedy, scores=False)
    with pytest.raises(ConfigError, match="the model has none"):
        beam_search(blind, memory, model.start(memory), Limits([0], [3]), SPECIALS, greedy)


def test_formula_names_all_that_ranks() -> None:
    assert formula(options(1, "none")) == "score = log p"
    assert formula(options(1, "average", 0.6)) == "score = log p / length^0.6"
    text = formula(options(1, "gnmt", 1.0, coverage_penalty=0.2, repetition_penalty=1.5))
    assert all(part in text for part in ("((5 + length) / 6)^1", "0.2 · Σ log min(attention, 1)", "1.5"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_len": 9, "max_len": 3}, "min_len"),
        ({"min_len_ratio": 2.5}, "min_len_ratio"),
        ({"may_repeat": ["the"]}, "may_repeat"),
    ],
)
def test_settings_in_conflict(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchSettings(**wrong).check()


@pytest.mark.parametrize("wrong", [{"alpha": 200}, {"temperature": 1e-40}, {"temperature": 1e39}], ids=str)
def test_extremes_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SearchSettings(**wrong)


@pytest.mark.parametrize("length_penalty", ["average", "gnmt"])
def test_the_greatest_alpha_tells_scores_apart(length_penalty: str) -> None:
    """And overflows for no length: as doubles, and as the floats that search holds scores in."""
    divisors = [penalty(n, options(1, length_penalty, 10.0)) for n in (1, 512, 2000)]
    scores = -1.0 / torch.tensor(divisors)
    assert scores.isfinite().all()
    assert (scores < 0).all()


@pytest.mark.parametrize("temperature", [0.001, 1000.0])
def test_any_temperature_draws(temperature: float) -> None:
    model = Scripted(2, 3)
    settings = SearchSettings(temperature=temperature)
    found = model.sample([0, 1, 2], Limits([1] * 3, [4] * 3), settings, [1, 2, 3], 2)
    assert all(len(hypotheses) == 2 for hypotheses in found)


def test_penalties() -> None:
    """No penalty at alpha 0, and none that falls with length."""
    for name in ("none", "average", "gnmt"):
        assert penalty(7, options(1, name, 0.0)) == 1.0
        values = [penalty(n, options(1, name, 0.8)) for n in range(1, 50)]
        assert values == sorted(values)
    assert penalty(1, options(1, "gnmt", 0.9)) == 1.0
    assert penalty(8, options(1, "average", 1.0)) == 8.0


@given(
    st.integers(1, 4), st.integers(1, 6), st.sampled_from([5, 40, 96, 97, 240, 1000]), st.integers(1, 12), st.randoms()
)
def test_the_best_of_sums_are_those_of_all_sums(num_sentences, num_rows, vocab, num, chance):
    """By chunks of the vocabulary, or, where it has no divisor that serves, at once; forbidden pieces and dead rows too."""
    generator = torch.Generator().manual_seed(chance.randrange(2**31))
    logp = torch.randn(num_sentences, num_rows, vocab, generator=generator).log_softmax(dim=2)
    logp[torch.rand(logp.shape, generator=generator) < 0.3] = -torch.inf
    totals = torch.randn(num_sentences, num_rows, generator=generator)
    totals[:, 3:] = -torch.inf
    num = min(num, num_rows * vocab)
    best, places = strategies.best_of_sums(logp, totals, num)
    sums = (totals[:, :, None] + logp).flatten(1)
    assert torch.equal(best, sums.topk(num, dim=1).values)
    assert torch.equal(best, sums.gather(1, places))
