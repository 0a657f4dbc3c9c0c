"""Sampling: outputs drawn at random from the model's distribution, or from its most probable part.

What is drawn for a position is a function of (the seed of the sentence, number of the sample, position) and of nothing else:
no generator is passed from one draw to the next, so that neither the batch nor its order, device or threads have a say.
"""

from typing import Any

import torch
from torch import Tensor

from s2s_cli.config import SearchSettings
from s2s_cli.search.strategies import Candidates, Hypothesis, Limits, Specials, Step, search


def sample(
    step: Step,
    memory: Any,
    state: Any,
    limits: Limits,
    specials: Specials,
    settings: SearchSettings,
    seeds: list[int],
    num_samples: int = 1,
    attention: bool = False,
    prefixes: list[list[int]] | None = None,
) -> list[list[Hypothesis]]:
    """`num_samples` outputs of each of the memory's B sentences, drawn independently, best score first; doubles stay.

    `seeds` has an integer of at most 64 bits for each sentence. At each position the log-probabilities, after the rules, are
    divided by the temperature; then the `top_k` most probable pieces remain, and of these the nucleus `top_p`. Log-probabilities
    and scores are those of the model, not of the distribution that is drawn from. Other arguments as in `strategies.search`.
    """
    device = memory.mask.device
    keys = _mix(torch.tensor([_signed(seed) for seed in seeds], dtype=torch.long, device=device))
    numbers = torch.arange(num_samples, device=device)

    def choose(logp: Tensor, model: Tensor, totals: Tensor, sentences: Tensor, length: int) -> Candidates:
        uniform = uniforms(keys[sentences][:, None], numbers, length)
        piece = draw(logp, uniform, settings.temperature, settings.top_k, settings.top_p)
        value = _at(model, piece).masked_fill(_at(logp, piece) == -torch.inf, -torch.inf)
        return Candidates(totals + value, numbers.expand_as(piece), piece, value)

    totals = torch.zeros(len(seeds), num_samples, device=device)
    rest = (limits, specials, settings, num_samples, attention, prefixes)
    return search(step, memory, state, choose, totals, num_samples, *rest)


def draw(logp: Tensor, uniform: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """One piece [...] for each row of log-probabilities [..., V], which need not sum to 1, by a number in [0, 1) [...].

    `top_k` (0 is all): only the so many most probable ones (Fan et al. 2018). `top_p`: of these only the nucleus, the fewest
    most probable ones whose probabilities sum to `top_p` or more (Holtzman et al. 2020).
    """
    pieces = None
    if top_k:
        logp, pieces = logp.topk(min(top_k, logp.shape[-1]), dim=-1)
    elif top_p < 1.0:
        logp, pieces = logp.sort(dim=-1, descending=True, stable=True)
    p = (logp / temperature).softmax(dim=-1)
    if top_p < 1.0:
        p = p.masked_fill(p.cumsum(dim=-1) - p >= top_p, 0.0)
    sums = p.cumsum(dim=-1)
    # The first whose sum is above the drawn part of all: a piece of probability 0 adds nothing and is never the first.
    place = torch.searchsorted(sums, uniform[..., None] * sums[..., -1:], right=True).clamp(max=p.shape[-1] - 1)
    return (place if pieces is None else pieces.gather(-1, place)).squeeze(-1)


def uniforms(keys: Tensor, numbers: Tensor, position: int) -> Tensor:
    """Numbers in [0, 1) of 23 bits, so that times a float32 they stay below it: [b, 1] keys, [K] samples -> [b, K]."""
    drawn = _mix(_mix(keys + numbers) + position)
    return _shifted(drawn, 41).to(torch.float32) * 2.0**-23


def _mix(x: Tensor) -> Tensor:
    """The finalizer of SplitMix64 (Steele et al. 2014) on int64, which wrap around: any change of x changes half of the bits."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits of the unsigned number that has the same bits."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The int64 that has the lowest 64 bits of `number`."""
    return (number + 2**63) % 2**64 - 2**63


def _at(logp: Tensor, pieces: Tensor) -> Tensor:
    """[b, K, V] at pieces [b, K]."""
    return logp.gather(2, pieces[:, :, None]).squeeze(2)
