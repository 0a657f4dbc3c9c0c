"""The search loop: from an encoder memory to finished hypotheses.

It gets a step function and knows no model class, no text and no files. Every decision is made for each sentence by
itself: limits, stopping and bookkeeping never look at the other sentences of the batch, which leave it as they finish.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s2s_cli.config import SearchSettings
from s2s_cli.models.base import StepOut
from s2s_cli.search.logprobs import ban, only_eos_at, penalty

Step = Callable[[Tensor, Any, Any], StepOut]  # tokens [N], memory of B sentences, state of N rows


@dataclass(frozen=True)
class Hypothesis:
    """A finished output: `ids` without EOS; `logp` in nats, EOS included; `score` is logp divided by the length penalty."""

    ids: list[int]
    score: float
    logp: float


@dataclass(frozen=True)
class Limits:
    """For each of B sentences, the fewest and the most pieces of its output, EOS not counted."""

    min_len: list[int]
    max_len: list[int]


@dataclass(frozen=True)
class Specials:
    """Ids that search must know: what begins and ends an output, and what never stands in one."""

    bos: int
    eos: int
    banned: tuple[int, ...]


def limits_for(src_len: list[int], settings: SearchSettings) -> Limits:
    """Limits of each output by its own source length in pieces, never by the batch."""
    most = [min(settings.max_len, int(n * settings.max_len_ratio) + settings.max_len_extra) for n in src_len]
    return Limits(min_len=[min(settings.min_len, n) for n in most], max_len=most)


@torch.inference_mode()
def beam_search(
    step: Step, memory: Any, state: Any, limits: Limits, specials: Specials, settings: SearchSettings, num_best: int = 1
) -> list[list[Hypothesis]]:
    """The `num_best` best hypotheses of each of the memory's B sentences, best first; fewer where a beam finds fewer.

    `state` has one row a sentence. At each step a sentence keeps the `beam` best continuations of its live hypotheses;
    those that end among them are finished. A sentence ends when no live hypothesis can still beat its `num_best`
    finished ones: log-probabilities only fall, so what a live one can reach at most is its log-probability over the
    penalty of the longest output allowed. A beam of 1 is greedy search, which ends where it first says so.
    """
    num_sentences, beam = len(limits.max_len), settings.beam
    device = memory.mask.device
    alive = list(range(num_sentences))
    finished: list[list[Hypothesis]] = [[] for _ in alive]
    state = state.select(torch.arange(num_sentences, device=device).repeat_interleave(beam))
    tokens = torch.full((num_sentences * beam,), specials.bos, device=device)
    prefix = tokens.new_empty((num_sentences * beam, 0))  # [B·K, pieces so far]
    scores = torch.zeros(num_sentences, beam, device=device)
    scores[:, 1:] = -torch.inf  # all hypotheses of a sentence begin alike: let one of them speak
    length = 0
    while alive:
        out = step(tokens, memory, state)
        logp = out.logp.view(len(alive), beam, -1)  # [b, K, V]
        ban(logp, specials.banned)
        if any(length < limits.min_len[s] for s in alive):
            logp[[length < limits.min_len[s] for s in alive], :, specials.eos] = -torch.inf
        only_eos_at(logp, [length >= limits.max_len[s] for s in alive], specials.eos)
        vocab = logp.shape[2]
        # Of 2K candidates at most K end, so that K live ones remain.
        best, flat = (scores[:, :, None] + logp).flatten(1).topk(min(2 * beam, beam * vocab), dim=1)
        origin, piece = flat // vocab, flat % vocab  # [b, 2K]
        ends = piece == specials.eos
        ended = ends[:, :beam] & best[:, :beam].isfinite()
        for slot, rank in ended.nonzero().tolist():
            row = slot * beam + int(origin[slot, rank])
            logprob = float(best[slot, rank])
            score = logprob / penalty(length + 1, settings)
            finished[alive[slot]].append(Hypothesis(prefix[row].tolist(), score, logprob))
        order = ends.to(torch.uint8).sort(dim=1, stable=True).indices[:, :beam]  # live candidates, best first
        live_scores = best.gather(1, order).masked_fill_(ends.gather(1, order), -torch.inf)
        best_live = live_scores[:, 0].tolist()
        keep = [
            slot
            for slot, sentence in enumerate(alive)
            if length < limits.max_len[sentence]
            and not _is_done(best_live[slot], finished[sentence], limits.max_len[sentence], num_best, settings)
        ]
        rows = torch.arange(len(alive), device=device)[:, None] * beam + origin.gather(1, order)  # [b, K]
        tokens = piece.gather(1, order)
        scores = live_scores
        if len(keep) < len(alive):
            slots = torch.tensor(keep, dtype=torch.long, device=device)
            rows, tokens, scores = rows[slots], tokens[slots], scores[slots]
            memory = memory.select(slots)
            alive = [alive[slot] for slot in keep]
        rows, tokens = rows.flatten(), tokens.flatten()
        prefix = torch.cat([prefix[rows], tokens[:, None]], dim=1)
        state = out.state.select(rows)
        length += 1
    return [sorted(ones, key=lambda h: -h.score)[:num_best] for ones in finished]


def _is_done(
    best_live: float, finished: list[Hypothesis], max_len: int, num_best: int, settings: SearchSettings
) -> bool:
    """Whether no live hypothesis, the best of which has log-probability `best_live`, can still enter the `num_best` finished."""
    if best_live == -torch.inf or (finished and settings.beam == 1):  # greedy search ends with its one hypothesis
        return True
    if len(finished) < num_best:
        return False
    worst_kept = sorted((h.score for h in finished), reverse=True)[num_best - 1]
    return best_live / penalty(max_len + 1, settings) <= worst_kept
