"""The search loop: from an encoder memory to finished hypotheses.

It gets a step function and knows no model class, no text and no files. Every decision is made for each sentence by
itself: limits, stopping and bookkeeping never look at the other sentences of the batch. Those that are done leave it, several
at a time, since what the others hold is then copied.
Beam search and sampling are this one loop with another way of choosing. Its bookkeeping stays on the device; what comes
from there at each step is one flag a sentence.

Letters in shapes, beside those of `models/base.py`: b sentences still searched, K hypotheses of each, M candidates.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from s2s_cli.config import SearchSettings
from s2s_cli.errors import ConfigError
from s2s_cli.models.base import Rows, StepOut
from s2s_cli.search.graphs import Recorder
from s2s_cli.search.hypotheses import Hypothesis, Record, assemble
from s2s_cli.search.logprobs import coverage, penalty
from s2s_cli.search.rules import Rules, Specials

__all__ = ["Candidates", "Hypothesis", "Limits", "Specials", "Step", "beam_search", "limits_for", "search"]

_FULL = 0.8  # part of the sentences of a batch that go on, at which those that are done leave it
_EVEN = 8  # see `evenly`
_CHUNK = 80  # log-probabilities at most of which search looks at the best first, in `best_of_sums`
Step = Callable[..., StepOut]  # of tokens [N], memory of B sentences, state of N rows; and True to ask for attention

_NO_ATTENTION = (
    "attention is asked for, by alignments or by coverage_penalty, and the model has none: leave them out, "
    "or use a model with attention"
)


@dataclass(frozen=True)
class Limits:
    """For each of B sentences, the fewest and the most pieces of its output, EOS not counted."""

    min_len: list[int]
    max_len: list[int]


class Candidates(NamedTuple):
    """What may come next, for each sentence [b, M], M at least K, best first where M is more than K.

    `total` is the value of the hypothesis with its new `piece`, `origin` the hypothesis (0 to K-1) that it continues, `logp`
    the model's log-probability of the piece. Where M is K, the k-th candidate continues the k-th hypothesis.
    """

    total: Tensor
    origin: Tensor
    piece: Tensor
    logp: Tensor


# Log-probabilities after the rules and those of the model [b, K, V] (one tensor where the rules only forbid), values of the
# hypotheses so far [b, K], places of the sentences in the batch [b], pieces so far.
Choose = Callable[[Tensor, Tensor, Tensor, Tensor, int], Candidates]


@dataclass(frozen=True)
class _Sentences(Rows):
    """What is known of the b sentences still searched."""

    memory: Any
    number: Tensor  # [b] their places in the batch
    longest: Tensor  # [b] the length penalty of the longest output allowed
    kept: Tensor  # [b, num_best] the best scores of finished hypotheses, best first, -inf where there are none yet
    finished: Tensor | None  # [b] how many these are, where search ends by their number


@dataclass(frozen=True)
class _Live(Rows):
    """What is known of the N = b·K hypotheses that go on."""

    state: Any
    prefix: Tensor | None  # [N, T] their pieces, where a rule reads them
    covered: Tensor | None  # [N, S] the sum of their attention, where the coverage penalty reads it

    def spread(self, index: Tensor, num: int) -> "_Live":
        """See `State.spread`."""
        rows = index.repeat_interleave(num)
        prefix, covered = (None if x is None else x.index_select(0, rows) for x in (self.prefix, self.covered))
        return _Live(self.state.spread(index, num), prefix, covered)


class _At(NamedTuple):
    """Where a search stands before a step: beside these, values of the hypotheses [b, K], and what each said last [N]."""

    sentences: _Sentences
    live: _Live
    totals: Tensor
    tokens: Tensor


class _Flags:
    """Brings flags [b] from the device to the host. A GPU is not waited for: while it runs a step, the host reads those of the
    step before, and begins with flags that are all true.
    """

    def __init__(self) -> None:
        self._before: tuple[Tensor, torch.cuda.Event] | None = None

    def __call__(self, flags: Tensor) -> list[bool]:
        if flags.device.type == "cpu":
            return flags.tolist()
        before, done = self._before, torch.cuda.Event()
        self._before = (flags.to("cpu", non_blocking=True), done)  # into page-locked memory
        done.record()
        if before is None:
            return [True] * len(flags)
        before[1].synchronize()
        return before[0].tolist()


def evenly(num: int) -> int:
    """What the number of sentences in a batch of about `num` is best a multiple of: a product of each other number of rows is
    compiled anew.
    """
    return min(_EVEN, 1 << max(0, num.bit_length() - 4))


def limits_for(src_len: list[int], settings: SearchSettings) -> Limits:
    """Limits of each output by its own source length in pieces, never by the batch."""
    # 10 times 1.1 is 11, which the product of floats is a little above, and 100 times 1.15 is 115, which it is a little below.
    most = [min(settings.max_len, int(n * settings.max_len_ratio + 1e-6) + settings.max_len_extra) for n in src_len]
    fewest = [max(settings.min_len, math.ceil(n * settings.min_len_ratio - 1e-6)) for n in src_len]
    return Limits(min_len=[min(pair) for pair in zip(fewest, most, strict=True)], max_len=most)


def beam_search(
    step: Step,
    memory: Any,
    state: Any,
    limits: Limits,
    specials: Specials,
    settings: SearchSettings,
    num_best: int = 1,
    attention: bool = False,
    prefixes: list[list[int]] | None = None,
    scores: bool = True,
    recorder: Recorder | None = None,
) -> list[list[Hypothesis]]:
    """The `num_best` best hypotheses of each of the memory's B sentences, best first; fewer where a beam finds fewer.

    At each step a sentence keeps the `beam` best continuations of its live hypotheses; those that end among them are
    finished. A beam of 1 is greedy search, which ends where it first says so. For the arguments see `search`. Where no `scores`
    are asked for, greedy search leaves out what they alone need: its hypotheses' numbers then mean nothing.
    """
    bare = not scores and settings.beam == 1
    if bare:
        settings = settings.model_copy(update={"coverage_penalty": 0.0})
        if settings.repetition_penalty == 1.0:
            step = partial(step, normalize=False)
    totals = torch.zeros(len(limits.max_len), 1, device=memory.mask.device)  # all hypotheses of a sentence begin alike
    choose = partial(best_continuations, settings.beam)
    rest = (limits, specials, settings, num_best, attention, prefixes, recorder, scores, not bare or attention)
    return search(step, memory, state, choose, totals, settings.beam, *rest)


def best_continuations(
    beam: int, logp: Tensor, model: Tensor, totals: Tensor, number: Tensor, length: int
) -> Candidates:
    """Beam search's choice. Of 2K candidates at most K end, so that K live ones remain; greedy search needs but one."""
    num_now, vocab = logp.shape[1:]
    num, there = 1 if beam == 1 else 2 * beam, num_now * vocab
    total, flat = best_of_sums(logp, totals, min(num, there))
    found = Candidates(total, flat // vocab, flat % vocab, model.flatten(1).gather(1, flat))
    if there >= num:
        return found
    value, *rest = (F.pad(part, (0, num - there)) for part in found)  # a small vocabulary, and one row at first
    value[:, there:] = -torch.inf
    return Candidates(value, *rest)


def best_of_sums(logp: Tensor, totals: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The `num` best of totals [b, K] + logp [b, K, V], best first, and their places [b, num] in K·V.

    They stand in the `num` chunks with the best maxima. To look for these is one fast pass, where torch's topk is slow over
    many elements; a sum over the whole vocabulary is not made either. Rounding keeps order, so that nothing else is found.
    A chunk has every so many-th piece: the maxima of all are then taken over vectors that lie beside each other.
    """
    num_sentences, num_rows, vocab = logp.shape
    size = next((n for n in range(_CHUNK, _CHUNK // 4, -1) if vocab % n == 0), 1)
    if size == 1:
        return (totals[:, :, None] + logp).flatten(1).topk(num, dim=1)
    step = vocab // size
    best = logp.view(num_sentences, num_rows, size, step).amax(dim=2).add_(totals[:, :, None]).flatten(1)
    best = best.topk(min(num, best.shape[1]), dim=1, sorted=False).indices
    row = best.div(step, rounding_mode="floor")
    places = (row * vocab + best % step)[:, :, None] + torch.arange(0, vocab, step, device=logp.device)
    places = places.flatten(1)  # [b, num·size]
    inside = logp.flatten(1).gather(1, places) + totals.gather(1, row).repeat_interleave(size, dim=1)
    total, at = inside.topk(num, dim=1)
    return total, places.gather(1, at)


@torch.no_grad()
def search(
    step: Step,
    memory: Any,
    state: Any,
    choose: Choose,
    totals: Tensor,
    num_rows: int,
    limits: Limits,
    specials: Specials,
    settings: SearchSettings,
    num_best: int,
    attention: bool,
    prefixes: list[list[int]] | None,
    recorder: Recorder | None = None,
    how: Hashable = None,
    ends: bool = True,
) -> list[list[Hypothesis]]:
    """The `num_best` best of what `choose` makes of K = `num_rows` hypotheses a sentence, whose first values are `totals` [B, K],
    or [B, 1] if they begin alike: then there is one of each at the first step, of which `choose` makes M > K candidates.

    `state` has one row a sentence. `attention` asks for the attention of each hypothesis, which the model must have
    (ConfigError if not). With `prefixes`, each output begins with the one of its sentence, even one longer than its limit.
    With a `recorder`, steps of shapes that have been here before are replayed; then no sentence leaves the batch before all are
    done. All searches that share one differ in nothing but memory, limits, `num_best`, `attention`, and what `how` tells apart.
    Without `ends`, the model is not asked for what alone can follow the longest outputs, their end: for K = 1, where it decides
    nothing.

    A sentence ends when no live hypothesis can still beat its `num_best` finished ones, provably: the value of a
    hypothesis never rises, since a log-probability is at most 0 and so is what the rules make of it; the length penalty
    never falls with length; the coverage penalty is at most 0. A live hypothesis of value v can thus reach at most v over
    the length penalty of the longest output allowed. This holds for rounded numbers too, as rounding keeps order.
    With `beam_patience` it ends earlier, by the number of finished hypotheses.
    """
    num_sentences, num_first = totals.shape
    rules = Rules(specials, settings, limits.min_len, limits.max_len, prefixes, totals.device)
    longest = [penalty(n + 1, settings) for n in rules.most]
    number = torch.arange(num_sentences, device=totals.device)
    kept = totals.new_full((num_sentences, num_best), -torch.inf)
    finished = torch.zeros_like(number) if settings.beam_patience else None
    sentences = _Sentences(memory, number, totals.new_tensor(longest), kept, finished)
    repeated = number.repeat_interleave(num_first)
    tokens = torch.full_like(repeated, specials.bos)
    live = _Live(state.select(repeated), tokens[:, None][:, :0] if rules.read_prefix else None, None)
    at = _At(sentences, live, totals, tokens)
    loop = _Loop(step, choose, rules, settings, num_best, attention, number[:, None], num_rows)
    alive, records, longest_output = _Alive(num_sentences), list[Record](), max(rules.most, default=-1)
    replay = None
    if recorder is not None and rules.limits is not None:
        replay = recorder.take((at, rules.limits), loop.step, (num_best, num_rows, attention, how))
        ends = ends or replay is not None
    while alive.numbers and len(records) < longest_output + ends:
        if replay is None:
            at, record, _ = loop.step(at, len(records), alive)
        else:
            record, improves = replay(len(records))
            alive.leaving(improves, together=True)
        records.append(record)
    if alive.numbers and not ends:
        records.append(_cut(at))
    found = assemble(records, num_best, memory.mask.sum(dim=1).tolist())
    if recorder is not None and replay is not None:
        recorder.put(replay)
    return found


class _Alive:
    """Which sentences of a batch, by their places, are still searched, as the host knows it."""

    def __init__(self, num: int) -> None:
        self.numbers, self._flags = list(range(num)), _Flags()

    def leaving(self, improves: Tensor, together: bool = False) -> Tensor | None:
        """By whether each may still improve [b]: the places in `improves` of those that go on, if now is the time for the others
        to leave; else None. They leave once they are many, but for some that make the number even, or all `together` at the end.
        """
        goes_on = self._flags(improves)
        num = sum(goes_on)
        if num and together:
            return None
        num += -num % evenly(num)
        if num > _FULL * len(goes_on):
            return None
        for i in islice((i for i, yes in enumerate(goes_on) if not yes), num - sum(goes_on)):
            goes_on[i] = True
        self.numbers = [number for number, yes in zip(self.numbers, goes_on, strict=True) if yes]
        self._flags = _Flags()
        return torch.tensor([i for i, yes in enumerate(goes_on) if yes], dtype=torch.long, device=improves.device)


@dataclass(frozen=True)
class _Loop:
    """One step of search, after what is the same for all of them: `places` [B, 1] are 0 to B-1, `num_rows` is K."""

    choose_from: Step
    choose: Choose
    rules: Rules
    settings: SearchSettings
    num_best: int
    attention: bool
    places: Tensor
    num_rows: int

    def step(self, at: _At, length: int, alive: _Alive | None = None) -> tuple[_At, Record, Tensor]:
        """From outputs of `length` pieces to those of one more; what is to be kept of it; which sentences [b] may still improve.

        Those that are done leave as `alive` says; without it all stay, and what is computed depends on no number of the batch.
        """
        sentences, live, totals, tokens = at
        settings, specials, num_rows = self.settings, self.rules.specials, self.num_rows
        num_now = totals.shape[1]  # K, or 1 where all begin alike
        looks = self.attention or settings.coverage_penalty > 0.0
        out = self.choose_from(tokens, sentences.memory, live.state, *[True] * looks)
        if looks and out.attention is None:
            raise ConfigError(_NO_ATTENTION)
        model = out.logp.view(len(totals), num_now, -1)
        logp = self.rules(model, live.prefix, None if alive is None else alive.numbers, sentences.number, length)
        found = self.choose(logp, model, totals, sentences.number, length)
        covered = out.attention if settings.coverage_penalty else None  # [N, S], the sum over all positions so far
        if covered is not None and live.covered is not None:
            covered = live.covered + covered
        live = _Live(out.state, live.prefix, covered)
        ends = found.piece == specials.eos
        chooses = found.piece.shape[1] > num_rows  # or else each hypothesis goes on by itself until it ends
        rows = self.places[: len(totals)] * num_now + found.origin  # [b, M]
        scores = _scores(found, ends, rows, covered, sentences.memory.mask, settings, length + 1, num_rows)
        if chooses:
            kept = torch.cat([sentences.kept, scores], dim=1).topk(self.num_best, dim=1).values
            finished = None if sentences.finished is None else sentences.finished + scores.isfinite().sum(dim=1)
            sentences = replace(sentences, kept=kept, finished=finished)
        ended = (sentences.number, scores, rows[:, :num_rows], found.logp[:, :num_rows])

        totals, *going = _going(found, ends, rows, num_rows)  # [b, K] each
        improves = _may_improve(totals, sentences)
        if sentences.finished is not None and chooses:
            improves &= sentences.finished < max(settings.beam_patience * settings.beam, self.num_best)
        # Of a sentence that is done, nothing more is finished.
        totals = totals.masked_fill(~improves[:, None], -torch.inf)
        slots = None if alive is None else alive.leaving(improves)
        if slots is not None:
            sentences, totals, going = sentences.select(slots), totals[slots], [t[slots] for t in going]
        rows, tokens, logps = (t.flatten() for t in going)
        record = Record(*ended, tokens, rows, logps, out.attention if self.attention else None)
        if num_now < num_rows:
            live = live.spread(rows[::num_rows], num_rows)
        elif chooses or slots is not None:
            live = live.select(rows, stay=slots is None)
        if live.prefix is not None:
            live = replace(live, prefix=torch.cat([live.prefix, tokens[:, None]], dim=1))
        return _At(sentences, live, totals, tokens), record, improves


def _cut(at: _At) -> Record:
    """What is left to write down of the one hypothesis of each sentence, at its limit: it ends, however likely that is."""
    number, totals = at.sentences.number, at.totals
    lowest = torch.full_like(totals, torch.finfo(totals.dtype).min).masked_fill(totals == -torch.inf, -torch.inf)
    nothing = torch.zeros_like(totals)
    rows = torch.arange(len(number), device=number.device)[:, None]
    return Record(number, lowest, rows, nothing, number[:0], number[:0], nothing[:0, 0], None)


def _may_improve(totals: Tensor, sentences: _Sentences) -> Tensor:
    """Whether a live hypothesis of values `totals` [b, K] may still enter the best finished ones of its sentence [b]."""
    best = totals.amax(dim=1)
    return (best > -torch.inf) & ~(best / sentences.longest <= sentences.kept[:, -1])


def _scores(
    found: Candidates,
    ends: Tensor,
    rows: Tensor,
    covered: Tensor | None,
    mask: Tensor,
    settings: SearchSettings,
    length: int,
    num_rows: int,
) -> Tensor:
    """The scores [b, K] of the hypotheses of `length` pieces that end here, -inf for the others. Only the K best may end."""
    ended = found.total[:, :num_rows].masked_fill(~ends[:, :num_rows], -torch.inf)
    ended /= ended.new_full((), penalty(length, settings))  # by a plain number, CUDA would multiply with its inverse
    if covered is None:
        return ended
    return ended + coverage(covered, mask, settings.coverage_penalty).flatten()[rows[:, :num_rows]]


def _going(found: Candidates, ends: Tensor, rows: Tensor, num_rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, rows, pieces and log-probabilities [b, K] of the best that do not end; a value of -inf is of none."""
    totals = found.total.masked_fill(ends, -torch.inf)
    if totals.shape[1] == num_rows:
        return totals, rows, found.piece, found.logp
    totals, order = totals.sort(dim=1, descending=True, stable=True)
    order = order[:, :num_rows]
    return totals[:, :num_rows], rows.gather(1, order), found.piece.gather(1, order), found.logp.gather(1, order)
