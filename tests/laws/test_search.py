"""What search says of every model of the grid, alone and in an ensemble: scores, attention, prefixes."""

import copy
import math
import random

import pytest
import torch
from grid import BOS, EOS, GRID, PAD, VOCAB, Case, pad, sentences

from s2s_cli.config import SearchSettings
from s2s_cli.errors import ConfigError
from s2s_cli.search.forced import force, force_at_once
from s2s_cli.search.logprobs import Ensemble
from s2s_cli.search.sampling import sample
from s2s_cli.search.strategies import Hypothesis, Limits, Specials, beam_search

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
EACH = pytest.mark.parametrize("case", GRID, ids=lambda case: case.name)
SRC = sentences(4, seed=1)
SPECIALS = Specials(bos=BOS, eos=EOS, banned=(PAD, BOS))
LIMITS = Limits([0] * len(SRC), [4] * len(SRC))
SETTINGS = SearchSettings(beam=3, length_penalty="gnmt", alpha=0.8)
PREFIXES = [[5, 6], [], [7], [8, 9, 10]]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def has_attention(case: Case) -> bool:
    return getattr(case.settings, "attention", "") != "none"


def searched(model: Ensemble, way=beam_search, **more) -> list[list[Hypothesis]]:
    memory = model.encode(*pad(SRC))
    return way(model.step, memory, model.start(memory), LIMITS, SPECIALS, SETTINGS, **more)


def forced_both_ways(model: Ensemble, targets: list[list[int]], settings=SETTINGS) -> list[Hypothesis]:
    """Forced decoding at once, which must agree with that by steps."""
    memory = model.encode(*pad(SRC))
    slow = force(model.step, memory, model.start(memory), targets, SPECIALS, settings)
    fast = force_at_once(model, memory, targets, SPECIALS, settings)
    for one, other in zip(fast, slow, strict=True):
        agree(one, other)
    return fast


def agree(one: Hypothesis, other: Hypothesis) -> None:
    assert one.ids == other.ids
    torch.testing.assert_close(torch.tensor(one.logps), torch.tensor(other.logps), atol=1e-4, rtol=1e-3)
    assert math.isclose(one.logp, math.fsum(one.logps), rel_tol=1e-6)
    assert math.isclose(one.score, other.score, rel_tol=1e-3, abs_tol=1e-4)


@EACH
@pytest.mark.parametrize("beam", [1, 3])
def test_outputs_do_not_depend_on_the_batch(case: Case, beam: int):
    """In fp64, where sums rounded in another order flip no choice: each alone, and two batches drawn by chance."""
    model = Ensemble([copy.deepcopy(case.build()).double()])
    settings = SETTINGS.model_copy(update={"beam": beam})
    src = sentences(5, seed=2)

    def outputs(places: list[int]) -> dict[int, list[int]]:
        memory = model.encode(*pad([src[i] for i in places]))
        limits = Limits([0] * len(places), [1 + i % 4 for i in places])
        found = beam_search(model.step, memory, model.start(memory), limits, SPECIALS, settings)
        return {i: hypotheses[0].ids for i, hypotheses in zip(places, found, strict=True)}

    places = random.Random(case.name).sample(range(len(src)), len(src))
    together = outputs(places[:2]) | outputs(places[2:])
    alone = {i: ids for place in places for i, ids in outputs([place]).items()}
    assert together == alone


@EACH
def test_forced_scores_are_those_of_search(case: Case):
    """Of beams and of samples, with prefixes and without, by one pass over all positions and step by step."""
    model = Ensemble([case.build()])
    for prefixes in (None, PREFIXES):
        beams = searched(model, num_best=2, prefixes=prefixes)
        samples = searched(model, sample, seeds=[1, 2, 3, 4], num_samples=2, prefixes=prefixes)
        for found in (beams, samples):
            for rank in range(2):
                hypotheses = [one[rank] for one in found]
                for h, forced in zip(hypotheses, forced_both_ways(model, [h.ids for h in hypotheses]), strict=True):
                    agree(h, forced)
        for found, prefix in zip(beams + samples, (prefixes or [[]] * 4) * 2, strict=True):
            assert all(h.ids[: len(prefix)] == prefix for h in found)


@EACH
def test_attention_of_a_hypothesis_is_that_of_its_steps(case: Case):
    """Wherever it stood in the beam; and where there is no attention, this is said."""
    model = case.build()
    if not has_attention(case):
        with pytest.raises(ConfigError, match="the model has none"):
            searched(Ensemble([model]), attention=True)
        return
    found = searched(Ensemble([model]), num_best=3, attention=True)
    for src, hypotheses in zip(SRC, found, strict=True):
        memory = model.encode(*pad([src]))
        for h in hypotheses:
            state, looks = model.start(memory), []
            for piece in [BOS, *h.ids]:
                out = model.step(torch.tensor([piece]), memory, state, attention=True)
                state = out.state
                looks.append(out.attention)
            assert h.attention.shape == (len(h.ids) + 1, len(src))
            torch.testing.assert_close(h.attention, torch.cat(looks), atol=1e-4, rtol=1e-3)


@EACH
def test_weights_of_one_and_nothing_leave_one_model(case: Case):
    other = next(each for each in GRID if each.shared == case.shared and type(each.settings) is not type(case.settings))
    alone = searched(Ensemble([case.build()]), attention=has_attention(case))
    for weights in ([1.0, 0.0], [0.3, 0.0]):
        found = searched(Ensemble([case.build(), other.build()], weights), attention=has_attention(case))
        assert found == alone
    for one, twice in zip(alone, searched(Ensemble([case.build()] * 2, [3.0, 1.0])), strict=True):
        for h, again in zip(one, twice, strict=True):
            agree(h, again)


def test_a_weighted_ensemble_is_the_weighted_mean():
    """Of probabilities and of attention, over models of both families; what has no attention has no say in it."""
    cases = [case for case in GRID if case.shared][::5]
    blind = next(case for case in GRID if case.shared and not has_attention(case))
    cases = [case for case in cases if has_attention(case)] + [blind]
    weights = [float(n) for n in range(1, len(cases) + 1)]
    models = [case.build() for case in cases]
    tokens = torch.full((len(SRC),), BOS)
    mixed = Ensemble(models, weights)
    memory = mixed.encode(*pad(SRC))
    out = mixed.step(tokens, memory, mixed.start(memory), attention=True)
    outs = [m.step(tokens, part, m.start(part), True) for m, part in zip(models, memory.members, strict=True)]
    wanted = sum(w / sum(weights) * o.logp.exp() for w, o in zip(weights, outs, strict=True))
    torch.testing.assert_close(out.logp.exp(), wanted, **CLOSE)
    looks = sum(w / sum(weights[:-1]) * o.attention for w, o in zip(weights, outs[:-1], strict=False))
    torch.testing.assert_close(out.attention, looks, **CLOSE)
    targets = [h[0].ids for h in searched(mixed)]
    for found, forced in zip(searched(mixed), forced_both_ways(mixed, targets), strict=True):
        agree(found[0], forced)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.nan], [math.inf, 1.0]])
def test_weights_that_are_none(weights: list[float]):
    models = [case.build() for case in GRID if case.shared][:2]
    with pytest.raises(ConfigError, match="weights"):
        Ensemble(models, weights)


def test_forced_pieces_need_not_be_allowed():
    """Special pieces, repetitions and any length: what is given is scored as the model scores it."""
    model = Ensemble([GRID[0].build()])
    targets = [[PAD, BOS, PAD], [], [5] * 30, list(range(3, VOCAB))]
    strict = SearchSettings(beam=3, no_repeat_ngram=1, repetition_penalty=2.0, max_len=2, length_penalty="none")
    for h, ids in zip(forced_both_ways(model, targets, strict), targets, strict=True):
        assert h.ids == ids
        assert h.score == pytest.approx(h.logp)
