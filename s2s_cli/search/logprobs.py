"""What may change log-probabilities before search chooses among them: one function a rule, and models joined into one.

A rule sees the log-probabilities of b sentences with K hypotheses each, [b, K, V], and changes them in place. Where it looks
at what a hypothesis has said so far, it gets that as `prefix` [b·K, T]. No rule lets one row see another.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s2s_cli.config import SearchSettings
from s2s_cli.errors import ConfigError
from s2s_cli.models.base import Memory, Rows, Seq2Seq, State, StepOut

_NOTHING = 1e-30  # for the logarithm of a sum of attention weights that may be 0


def ban(logp: Tensor, pieces: Tensor) -> None:
    """The pieces [P] are never generated."""
    logp.index_fill_(2, pieces, -torch.inf)


def no_eos_at(logp: Tensor, sentences: Tensor, eos: int) -> None:
    """Where `sentences` [b] is true, the output does not end."""
    logp[:, :, eos].masked_fill_(sentences[:, None], -torch.inf)


def only_eos_at(logp: Tensor, sentences: Tensor, eos: int) -> None:
    """Where `sentences` [b] is true, nothing but EOS may follow."""
    rest = torch.arange(logp.shape[2], device=logp.device) != eos
    logp.masked_fill_(sentences[:, None, None] & rest, -torch.inf)


def only(logp: Tensor, pieces: Tensor, theirs: Tensor) -> None:
    """Where `pieces` [b] is not -1, nothing but this piece may follow, and with the log-probability `theirs` [b, K]."""
    index = pieces.clamp(min=0)[:, None, None].expand(-1, logp.shape[1], 1)
    here = (pieces >= 0)[:, None, None]
    value = torch.where(here, theirs[:, :, None], logp.gather(2, index))
    logp.masked_fill_(here, -torch.inf).scatter_(2, index, value)


def penalise_repetition(logp: Tensor, prefix: Tensor, factor: float, exempt: Tensor) -> None:
    """Multiply the log-probability of each piece that the hypothesis has said already by `factor` (Keskar et al. 2019).

    They divide logits; of a logit the sign is arbitrary, so that the same division may reward. A log-probability is at most
    0: multiplied by 1 or more it never rises, which the proof of early stopping needs. The sum is then no longer 1;
    sampling makes it so again. Pieces of `exempt` [P] are left alone.
    """
    said = prefix.view(*logp.shape[:2], -1)  # [b, K, T]
    values = logp.gather(2, said)
    spared = _among(said, exempt, logp.shape[2])
    logp.scatter_(2, said, torch.where(spared, values, values * factor))  # the same for doubles


def no_repeat_ngram(logp: Tensor, prefix: Tensor, size: int, exempt: Tensor, never: int) -> None:
    """No `size` pieces in a row come twice in an output (Paulus et al. 2018), unless a piece of `exempt` [P] is among them.

    `never` is a piece that is banned anyway: it stands where nothing is to be banned.
    """
    said = prefix.view(*logp.shape[:2], -1)  # [b, K, T]
    if said.shape[2] < size:
        return
    windows = said.unfold(2, size, 1)  # [b, K, T-size+1, size]
    last = said[:, :, said.shape[2] - size + 1 :]  # what the next piece would complete
    again = (windows[..., :-1] == last[:, :, None]).all(dim=3)
    if exempt.numel():
        again &= ~_among(windows, exempt, logp.shape[2]).any(dim=3)
    logp.scatter_(2, torch.where(again, windows[..., -1], never), -torch.inf)


def _among(ids: Tensor, pieces: Tensor, vocab: int) -> Tensor:
    """Whether each of `ids` is one of `pieces` [P]; where these are many, `torch.isin` would have the host wait for a device."""
    return torch.zeros(vocab, dtype=torch.bool, device=ids.device).index_fill_(0, pieces, True)[ids]


def ban_completions(logp: Tensor, prefix: Tensor, completing: Callable[[list[int]], list[int]]) -> None:
    """No piece that `completing` gives for what a hypothesis has said so far: the last of a banned word or phrase."""
    rows, pieces = [], []
    for row, said in enumerate(prefix.tolist()):
        found = completing(said)
        rows += [row] * len(found)
        pieces += found
    if rows:
        at = torch.tensor([rows, pieces], device=logp.device)
        logp.view(-1, logp.shape[2])[at[0], at[1]] = -torch.inf


def penalty(length: int, settings: SearchSettings) -> float:
    """What a log-probability over `length` pieces, EOS among them, is divided by."""
    if settings.length_penalty == "average":
        return float(length**settings.alpha)
    if settings.length_penalty == "gnmt":
        return float(((5 + length) / 6) ** settings.alpha)
    return 1.0


def coverage(covered: Tensor, mask: Tensor, beta: float) -> Tensor:
    """β · Σ_s log min(covered_s, 1) (Wu et al. 2016), at most 0: covered [b·K, S] over source positions mask [b, S] -> [b, K].

    `covered` is the sum of the attention of all pieces, that of EOS among them; the source's own EOS is a position too.
    """
    logs = covered.float().clamp(_NOTHING, 1.0).log().unflatten(0, (len(mask), -1))  # [b, K, S]
    return beta * logs.masked_fill(~mask[:, None], 0.0).sum(dim=2)


def formula(settings: SearchSettings) -> str:
    """How hypotheses are ranked, as a formula for people to read."""
    divisor = {
        "none": "",
        "average": f" / length^{settings.alpha:g}",
        "gnmt": f" / ((5 + length) / 6)^{settings.alpha:g}",
    }[settings.length_penalty]
    value = (
        "log p" if settings.repetition_penalty == 1.0 else f"log p [× {settings.repetition_penalty:g} where repeated]"
    )
    cover = f" + {settings.coverage_penalty:g} · Σ log min(attention, 1)" if settings.coverage_penalty else ""
    return f"score = {value}{divisor}{cover}"


@dataclass(frozen=True)
class EnsembleMemory(Rows):
    """The memories of several models over the same sentences; `mask` [B, S] is common to them."""

    members: tuple[Memory, ...]
    mask: Tensor


@dataclass(frozen=True)
class EnsembleState(State):
    """The states of several models over the same rows."""

    members: tuple[State, ...]

    def spread(self, index: Tensor, num: int) -> "EnsembleState":
        """See `State.spread`."""
        return EnsembleState(tuple(state.spread(index, num) for state in self.members))


class Ensemble:
    """Several models of one vocabulary as one: at every position the weighted mean Σ w·p of their probabilities.

    `weights`, one a model, are at least 0, and are divided by their sum; without them all models weigh the same. A model
    of weight 0 is not run.
    """

    def __init__(self, models: list[Seq2Seq], weights: list[float] | None = None) -> None:
        if weights is None:
            weights = [1.0] * len(models)
        if len(weights) != len(models):
            raise ConfigError(f"{len(weights)} weights for {len(models)} models: give one a model, or none at all")
        if not all(0.0 <= w < math.inf for w in weights) or not any(weights):
            raise ConfigError(f"weights of an ensemble are numbers from 0 on, at least one above it, not {weights}")
        weights = [w / max(weights) for w in weights]  # whose sum is a number
        chosen = [(model, w / math.fsum(weights)) for model, w in zip(models, weights, strict=True) if w]
        self.models = [model for model, _ in chosen]
        self.weights = [w for _, w in chosen]

    def encode(self, src: Tensor, src_len: Tensor) -> EnsembleMemory:
        """See `Seq2Seq.encode`."""
        members = tuple(model.encode(src, src_len) for model in self.models)
        return EnsembleMemory(members, members[0].mask)

    def start(self, memory: EnsembleMemory) -> EnsembleState:
        """See `Seq2Seq.start`."""
        return EnsembleState(tuple(m.start(part) for m, part in zip(self.models, memory.members, strict=True)))

    def step(
        self,
        tokens: Tensor,
        memory: EnsembleMemory,
        state: EnsembleState,
        attention: bool = False,
        normalize: bool = True,
    ) -> StepOut:
        """See `Seq2Seq.step`. The attention is the weighted mean of that of the models that have one."""
        normalize = normalize or len(self.models) > 1
        parts: Any = zip(self.models, memory.members, state.members, strict=True)
        outs = [model.step(tokens, part, past, attention, normalize) for model, part, past in parts]
        after = EnsembleState(tuple(out.state for out in outs))
        if len(outs) == 1:
            return StepOut(outs[0].logp, outs[0].attention, after)
        logp = self.mean([out.logp for out in outs])
        seen = [(w, out.attention) for w, out in zip(self.weights, outs, strict=True) if out.attention is not None]
        if not seen:
            return StepOut(logp, None, after)
        looks = torch.stack([w * weights.float() for w, weights in seen]).sum(dim=0)
        return StepOut(logp, looks / math.fsum(w for w, _ in seen), after)

    def mean(self, logps: list[Tensor]) -> Tensor:
        """Log-probabilities of each model -> those of the ensemble; any shape."""
        if len(logps) == 1:
            return logps[0]
        each = [logp + math.log(w) for logp, w in zip(logps, self.weights, strict=True)]
        return torch.stack(each).logsumexp(dim=0).clamp_(max=0.0)
