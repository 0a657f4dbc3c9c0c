"""Forced decoding: how probable given outputs are.

`force_at_once` makes one parallel pass over all positions; `force` is search that has no choice. A law of the tests holds the
two to each other and to what search says of the outputs that it finds.
"""

import math
from typing import Any

import torch
from torch import Tensor

from s2s_cli.config import SearchSettings
from s2s_cli.data.loader import real_positions
from s2s_cli.models.heads import Attended
from s2s_cli.search.logprobs import Ensemble, EnsembleMemory, penalty
from s2s_cli.search.strategies import Hypothesis, Limits, Specials, Step, beam_search


def force(
    step: Step,
    memory: Any,
    state: Any,
    targets: list[list[int]],
    specials: Specials,
    settings: SearchSettings,
    attention: bool = False,
) -> list[Hypothesis]:
    """The given output of each of the memory's B sentences, ids without EOS, as search would report it, position by position.

    Pieces that search would not generate, because they are banned or unknown, count with the model's log-probability of
    them. No rule and no limit changes a log-probability; length and coverage penalty make the score.
    """
    plain = settings.model_copy(update={"beam": 1, "no_repeat_ngram": 0, "repetition_penalty": 1.0})
    lengths = [len(ids) for ids in targets]
    specials = Specials(specials.bos, specials.eos, ())
    limits = Limits(lengths, lengths)
    found = beam_search(step, memory, state, limits, specials, plain, 1, attention, targets)
    return [one[0] if one else _impossible(ids) for one, ids in zip(found, targets, strict=True)]


@torch.no_grad()
def force_at_once(
    model: Ensemble, memory: EnsembleMemory, targets: list[list[int]], specials: Specials, settings: SearchSettings
) -> list[Hypothesis]:
    """What `force` gives without attention, from one pass over all positions: several times as fast.

    The coverage penalty needs attention, which the parallel pass of most models does not give: AssertionError with it.
    """
    assert not settings.coverage_penalty
    device = memory.mask.device
    lengths = [len(ids) + 1 for ids in targets]
    most = max(lengths, default=0)
    rows = torch.tensor(
        [[specials.bos, *ids, specials.eos] + [specials.eos] * (most - len(ids) - 1) for ids in targets]
    )
    rows = rows.to(device)
    real = real_positions(torch.tensor(lengths), most).flatten().nonzero().squeeze(1).to(device)  # [M]
    wanted = rows[:, 1:].flatten()[real]
    each = [
        _target_logps(one, part, rows[:, :-1], real, wanted)
        for one, part in zip(model.models, memory.members, strict=True)
    ]
    logps = model.mean(each).cpu().split(lengths)
    found = []
    for ids, part in zip(targets, logps, strict=True):
        values = part.tolist()
        logp = math.fsum(values)
        found.append(Hypothesis(list(ids), logp / penalty(len(values), settings), logp, values))
    return found


def _target_logps(model: Any, memory: Any, tgt_in: Tensor, real: Tensor, wanted: Tensor) -> Tensor:
    """tgt_in [B, T], its M real positions, the piece wanted at each [M] -> its log-probability [M]. Never B·T·V at once."""
    hidden, weights = model.decode(tgt_in, memory)
    attended = None
    if model.head.reads_attention and weights is not None:
        sentences = real.div(tgt_in.shape[1], rounding_mode="floor")
        attended = Attended(weights.flatten(0, 1)[real], memory.src[sentences])
    hidden = hidden.flatten(0, 1)[real]
    return model.head.each(hidden, attended, lambda logp, rows: logp.gather(1, wanted[rows, None]).squeeze(1))


def _impossible(ids: list[int]) -> Hypothesis:
    """An output that the model gives no probability at all."""
    return Hypothesis(list(ids), -math.inf, -math.inf, [-math.inf] * (len(ids) + 1))
