"""What search finds, and how it is put together at the end from what search wrote down on its way.

While it runs, search keeps for each step which hypothesis each new piece continues, on the device; only when all sentences
are done does this come to the host, at once, and the pieces of finished hypotheses are read off backwards.
"""

import math
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Hypothesis:
    """A finished output.

    `ids` has no EOS. `logps` are log-probabilities in nats of each piece, EOS last, as the model gives them, before any rule
    or temperature; their sum is `logp`. `score` is what search ranks by: `logp` over the length penalty, plus the coverage
    penalty, if there is one; a repetition penalty changes it and leaves `logp` alone. `attention` [len(ids)+1, S], where
    it was asked for, is over the S positions of this sentence's source, its EOS among them, in fp32 on the host.
    """

    ids: list[int]
    score: float
    logp: float
    logps: list[float]
    attention: Tensor | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Record:
    """One step over b sentences with K hypotheses each, N = b·K rows, of whose continuations M go on. The first step of a beam
    has one row a sentence, N = b: its K hypotheses begin alike.

    number [b]: places of the sentences in the batch. score [b, K]: of hypotheses that end here, -inf elsewhere; the row [b, K]
    that each continues, the log-probability [b, K] of its EOS. The same of those that go on: piece, parent, logp [M].
    """

    number: Tensor
    score: Tensor
    row: Tensor
    last: Tensor
    piece: Tensor
    parent: Tensor
    logp: Tensor
    attention: Tensor | None  # [N, S]


def assemble(records: list[Record], num_best: int, src_len: list[int]) -> list[list[Hypothesis]]:
    """The `num_best` finished hypotheses of each sentence, best first; of equal scores the one that ended first."""
    scores = _host([r.score for r in records]).numpy()
    ended = np.flatnonzero(np.isfinite(scores))
    widths = [r.score.shape[1] for r in records]
    numbers = _host([r.number.repeat_interleave(k) for r, k in zip(records, widths, strict=True)]).numpy()[ended]
    steps = np.repeat(np.arange(len(records)), [r.score.numel() for r in records])[ended]
    rows, lasts = (_host(part).numpy()[ended] for part in ([r.row for r in records], [r.last for r in records]))
    scores = scores[ended]
    pieces, parents, logps = (
        _host(part).tolist()
        for part in ([r.piece for r in records], [r.parent for r in records], [r.logp for r in records])
    )
    goes_on = [0, *accumulate(r.piece.numel() for r in records)]  # where each step's pieces begin
    seen = [0, *accumulate(0 if r.attention is None else len(r.attention) for r in records)]  # and its attention

    found: list[list[Hypothesis]] = [[] for _ in src_len]
    looks: list[int] = []
    for i in np.lexsort((np.arange(len(ended)), -scores, numbers)).tolist():
        sentence, step, row = int(numbers[i]), int(steps[i]), int(rows[i])
        if len(found[sentence]) == num_best:
            continue
        ids, each, at = [], [float(lasts[i])], [seen[step] + row]
        while step > 0:
            step -= 1
            here = goes_on[step] + row
            ids.append(pieces[here])
            each.append(logps[here])
            row = parents[here]
            at.append(seen[step] + row)
        looks += reversed(at)
        each.reverse()
        found[sentence].append(Hypothesis(ids[::-1], float(scores[i]), math.fsum(each), each))
    weights = [r.attention for r in records if r.attention is not None]
    return _with_attention(found, torch.cat(weights), looks, src_len) if weights else found


def _with_attention(
    found: list[list[Hypothesis]], weights: Tensor, looks: list[int], src_len: list[int]
) -> list[list[Hypothesis]]:
    """The same with their attention: rows `looks` of `weights` [rows of all steps, S], one hypothesis after the other."""
    chosen = weights.index_select(0, torch.tensor(looks, dtype=torch.long, device=weights.device)).float().cpu()
    parts = iter(chosen.split([len(h.logps) for hypotheses in found for h in hypotheses]))
    return [
        [Hypothesis(h.ids, h.score, h.logp, h.logps, next(parts)[:, :size]) for h in hypotheses]
        for hypotheses, size in zip(found, src_len, strict=True)
    ]


def _host(parts: list[Tensor]) -> Tensor:
    """All numbers of the parts in one row on the host: one transfer."""
    return torch.cat([part.flatten() for part in parts]).cpu()
