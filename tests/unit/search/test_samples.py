"""Sampling draws what the probabilities say, from numbers that depend on seed, sample and position alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Scripted

from s2s_cli.config import SearchSettings
from s2s_cli.search.sampling import _mix, draw, uniforms
from s2s_cli.search.strategies import Limits

MASK = 2**64 - 1
EVEN = (torch.arange(20_000) + 0.5) / 20_000


def mixed(x: int) -> int:
    """SplitMix64 as it is published, in Python's own integers."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_bits_are_those_of_splitmix(numbers: list[int]) -> None:
    assert [x & MASK for x in _mix(torch.tensor(numbers)).tolist()] == [mixed(x & MASK) for x in numbers]


def test_numbers_are_uniform_and_of_no_pattern() -> None:
    """Over seeds, samples and positions: means, bins and correlations within four standard deviations of chance."""
    keys = _mix(torch.arange(100))[:, None]
    drawn = torch.stack([uniforms(keys, torch.arange(40), position) for position in range(25)])  # [T, seeds, samples]
    assert float(drawn.min()) >= 0.0
    assert float(drawn.max()) < 1.0
    bins = torch.histc(drawn, 20, 0, 1)
    assert float(((bins - 5000) ** 2 / 5000).sum()) < 19 + 4 * (2 * 19) ** 0.5
    centred = (drawn - 0.5) * 12**0.5
    for one, other in [
        (centred[1:], centred[:-1]),
        (centred[:, 1:], centred[:, :-1]),
        (centred[..., 1:], centred[..., :-1]),
    ]:
        assert abs(float((one * other).mean())) < 4 * one.numel() ** -0.5
    assert len(drawn.unique()) > 0.99 * drawn.numel()


def drawn_shares(p: torch.Tensor, **options: float) -> torch.Tensor:
    """How often each piece comes, over evenly spread numbers."""
    pieces = draw(p.log().expand(len(EVEN), -1), EVEN, **options)
    return torch.bincount(pieces, minlength=len(p)) / len(EVEN)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30), st.floats(0.3, 2.0), st.integers(0, 30), st.floats(0.05, 1.0))
def test_pieces_come_as_often_as_they_should(
    seed: int, size: int, temperature: float, top_k: int, top_p: float
) -> None:
    p = torch.randn(size, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(0)
    wanted = (p.log() / temperature).softmax(0)
    rest, kept = 0.0, []
    for piece in wanted.argsort(descending=True).tolist()[: top_k or None]:
        kept.append(piece)
    within = wanted[kept] / wanted[kept].sum()
    for place, share in enumerate(within.tolist()):
        if rest >= top_p - 1e-5 and place:
            if rest < top_p + 1e-5:
                return  # on the edge of the nucleus, rounding decides
            kept = kept[:place]
            break
        rest += share
    expected = torch.zeros(size)
    expected[kept] = wanted[kept] / wanted[kept].sum()
    shares = drawn_shares(p, temperature=temperature, top_k=top_k, top_p=top_p)
    torch.testing.assert_close(shares, expected, atol=2e-4, rtol=0)


def test_what_is_impossible_is_not_drawn() -> None:
    """Whatever the number, at both ends of the range and behind the last possible piece too."""
    p = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0, 0.0])
    ends = torch.tensor([0.0, 2.0**-23, 0.5, 1 - 2.0**-23])
    for scale in (1.0, 0.3, 1.7, 1e-3):
        for options in ({}, {"top_k": 5}, {"top_p": 0.99}):
            assert set(draw((p * scale).log().expand(4, -1), ends, **options).tolist()) <= {1, 3}


def test_samples_follow_the_model() -> None:
    """Outputs of one sentence come as often as their probability says."""
    model, num = Scripted(5, 1), 4000
    (found,) = model.sample([0], Limits([0], [2]), SearchSettings(), [7], num)
    assert len(found) == num
    shares = {}
    for h in found:
        shares[tuple(h.ids)] = shares.get(tuple(h.ids), 0) + 1 / num
    # What search forbids (padding, BOS) and the end at the limit make the distribution another one: count those that ended.
    first = model.table[0, 1].exp()
    ends = float(first[2] / first[2:].sum())
    assert shares[()] == pytest.approx(ends, abs=4 * (ends * (1 - ends) / num) ** 0.5)


def test_a_sample_is_that_of_its_number() -> None:
    """More samples are the same ones and others; another seed gives others."""
    model = Scripted(5, 1, sharpness=0.3)
    limits = Limits([0], [6])

    def outputs(seed: int, num: int) -> list[list[int]]:
        return [h.ids for h in model.sample([0], limits, SearchSettings(), [seed], num)[0]]

    few, many, others = outputs(1, 5), outputs(1, 20), outputs(2, 20)
    assert all(few.count(ids) <= many.count(ids) for ids in few)
    assert sorted(many) != sorted(others)


def test_a_cold_sample_is_greedy_search() -> None:
    model = Scripted(5, 4)
    limits, ids = Limits([0] * 4, [6] * 4), [0, 1, 2, 3]
    greedy = [[h.ids for h in one] for one in model.search(ids, limits, SearchSettings(beam=1))]
    for options in ({"temperature": 1e-3}, {"top_k": 1}, {"top_p": 1e-6}):
        found = model.sample(ids, limits, SearchSettings(**options), ids)
        assert [[h.ids for h in one] for one in found] == greedy


def test_log_probabilities_of_samples_are_the_models() -> None:
    """Whatever made the distribution that was drawn from another one."""
    model = Scripted(1, 1, sharpness=0.3)
    odd = SearchSettings(temperature=0.5, top_k=2, repetition_penalty=1.7)
    (found,) = model.sample([0], Limits([6], [9]), odd, [1], 20)
    for h in found:
        assert len(set(h.ids)) < len(h.ids), "without a repetition this proves nothing"
        assert h.logps == model.forced(0, h.ids)[0].tolist()
