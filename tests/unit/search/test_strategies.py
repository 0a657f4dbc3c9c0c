"""Beam search over a scripted model: a table of log-probabilities that depend on a row's sentence and own prefix alone."""

from dataclasses import dataclass
from itertools import product

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from s2s_cli.config import SearchSettings
from s2s_cli.models.base import Rows, State, StepOut
from s2s_cli.search import strategies
from s2s_cli.search.logprobs import penalty
from s2s_cli.search.strategies import Hypothesis, Limits, Specials, beam_search, limits_for

PAD, BOS, EOS, PIECES = 0, 1, 2, (3, 4, 5)
SPECIALS = Specials(BOS, EOS, banned=(PAD, BOS))
PENALTIES = [("none", 0.0), ("average", 0.6), ("average", 1.0), ("average", 1.7), ("gnmt", 0.6), ("gnmt", 2.0)]


@dataclass(frozen=True)
class Sentences(Rows):
    ids: Tensor  # [B]
    mask: Tensor  # [B, 1]


@dataclass(frozen=True)
class Prefix(State):
    ids: Tensor  # [N]
    code: Tensor  # [N] a number for the pieces so far


class Scripted:
    """p(piece | sentence, prefix) out of a random table; `sharpness` makes long or short outputs stand out."""

    def __init__(self, seed: int, num_sentences: int, sharpness: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(num_sentences, 101, len(PIECES) + 3, generator=generator) * sharpness
        self.table = logits.log_softmax(dim=-1)

    def memory(self, ids: list[int]) -> Sentences:
        return Sentences(torch.tensor(ids), torch.ones(len(ids), 1, dtype=torch.bool))

    def start(self, memory: Sentences) -> Prefix:
        return Prefix(memory.ids, torch.zeros_like(memory.ids))

    def step(self, tokens: Tensor, memory: Sentences, state: Prefix) -> StepOut:
        assert torch.equal(memory.ids.repeat_interleave(len(tokens) // len(memory.ids)), state.ids)
        code = (state.code * 31 + tokens) % 101
        return StepOut(self.table[state.ids, code], None, Prefix(state.ids, code))

    def score(self, sentence: int, pieces: list[int]) -> Tensor:
        """Forced decoding: the log-probability of an output and its end."""
        total, code = torch.zeros(()), 0
        for before, piece in zip([BOS, *pieces], [*pieces, EOS], strict=True):
            code = (code * 31 + before) % 101
            total = total + self.table[sentence, code, piece]
        return total

    def search(
        self, ids: list[int], limits: Limits, options: SearchSettings, num_best: int = 1
    ) -> list[list[Hypothesis]]:
        memory = self.memory(ids)
        return beam_search(self.step, memory, self.start(memory), limits, SPECIALS, options, num_best)


def options(beam: int, length_penalty: str = "average", alpha: float = 1.0) -> SearchSettings:
    return SearchSettings(beam=beam, length_penalty=length_penalty, alpha=alpha)


def every_output(shortest: int, longest: int) -> list[list[int]]:
    return [list(pieces) for n in range(shortest, longest + 1) for pieces in product(PIECES, repeat=n)]


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
            scores = [float(model.score(sentence, o)) / penalty(len(o) + 1, wide) for o in outputs]
            expected = sorted(zip(scores, outputs, strict=True), key=lambda pair: -pair[0])
            assert [h.ids for h in found] == [ids for _, ids in expected]
            assert [h.score for h in found] == pytest.approx([score for score, _ in expected], abs=1e-5)


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


@st.composite
def cases(draw: st.DrawFn) -> tuple[Scripted, Limits, SearchSettings, int]:
    size = draw(st.integers(1, 6))
    model = Scripted(draw(st.integers(0, 10_000)), size, draw(st.sampled_from([0.3, 2.0, 6.0])))
    longest = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    shortest = [draw(st.integers(0, n)) for n in longest]
    beam = draw(st.integers(1, 6))
    name, alpha = draw(st.sampled_from(PENALTIES))
    return model, Limits(shortest, longest), options(beam, name, alpha), draw(st.integers(1, beam))


@settings(max_examples=60, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_output_does_not_depend_on_the_batch(case: tuple, random: object) -> None:
    """Alone, in order, in any other order, and beside its own doubles, a sentence gets the same hypotheses."""
    model, limits, search, num_best = case
    ids = list(range(len(limits.max_len)))
    together = model.search(ids, limits, search, num_best)
    for i in ids:
        assert model.search([i], Limits([limits.min_len[i]], [limits.max_len[i]]), search, num_best) == [together[i]]
    order = ids + ids
    random.shuffle(order)
    mixed = Limits([limits.min_len[i] for i in order], [limits.max_len[i] for i in order])
    assert model.search(order, mixed, search, num_best) == [together[i] for i in order]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_hypotheses_are_what_they_say(case: tuple) -> None:
    """Sorted, distinct, within the limits, free of special pieces, and scored as forced decoding scores them."""
    model, limits, search, num_best = case
    found = model.search(list(range(len(limits.max_len))), limits, search, num_best)
    for sentence, hypotheses in enumerate(found):
        assert 1 <= len(hypotheses) <= num_best
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(h.ids) for h in hypotheses}) == len(hypotheses)
        for h in hypotheses:
            assert limits.min_len[sentence] <= len(h.ids) <= limits.max_len[sentence]
            assert set(h.ids) <= set(PIECES)
            assert h.logp == pytest.approx(float(model.score(sentence, h.ids)), abs=1e-5)
            assert h.score == pytest.approx(h.logp / penalty(len(h.ids) + 1, search), abs=1e-5)
            assert len(h.logps) == len(h.ids) + 1
            assert h.logp == pytest.approx(sum(h.logps))
            assert h.attention is None


@settings(max_examples=80, deadline=None)
@given(cases())
def test_stopping_early_loses_nothing(case: tuple) -> None:
    """A search that goes on until no hypothesis lives finds the same ones."""
    model, limits, search, num_best = case
    assume(search.beam > 1)
    ids = list(range(len(limits.max_len)))
    early = model.search(ids, limits, search, num_best)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies, "_may_improve", lambda totals, _: totals.amax(dim=1) > -torch.inf)
        assert model.search(ids, limits, search, num_best) == early


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


def test_limits_come_from_the_sentence() -> None:
    limits = limits_for([1, 10, 300], SearchSettings(max_len=100, max_len_ratio=1.5, max_len_extra=3, min_len=8))
    assert limits.max_len == [4, 18, 100]
    assert limits.min_len == [4, 8, 8]


def test_penalties() -> None:
    """No penalty at alpha 0, and none that falls with length."""
    for name in ("none", "average", "gnmt"):
        assert penalty(7, options(1, name, 0.0)) == 1.0
        values = [penalty(n, options(1, name, 0.8)) for n in range(1, 50)]
        assert values == sorted(values)
    assert penalty(1, options(1, "gnmt", 0.9)) == 1.0
    assert penalty(8, options(1, "average", 1.0)) == 8.0
