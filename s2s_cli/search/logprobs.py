"""What may change log-probabilities before search chooses among them: one function a rule, and models joined into one.

A rule sees the log-probabilities of b sentences with K hypotheses each, [b, K, V], and changes them in place.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s2s_cli.config import SearchSettings
from s2s_cli.models.base import Memory, Rows, Seq2Seq, State, StepOut


def ban(logp: Tensor, pieces: tuple[int, ...]) -> None:
    """These pieces are never generated."""
    logp[:, :, list(pieces)] = -torch.inf


def only_eos_at(logp: Tensor, sentences: list[bool], eos: int) -> None:
    """Where `sentences` [b] is true, nothing but EOS may follow."""
    if any(sentences):
        rest = torch.arange(logp.shape[2], device=logp.device) != eos
        here = torch.tensor(sentences, device=logp.device)
        logp.masked_fill_(here[:, None, None] & rest, -torch.inf)


def penalty(length: int, settings: SearchSettings) -> float:
    """What a log-probability over `length` pieces, EOS among them, is divided by."""
    if settings.length_penalty == "average":
        return float(length**settings.alpha)
    if settings.length_penalty == "gnmt":
        return float(((5 + length) / 6) ** settings.alpha)
    return 1.0


@dataclass(frozen=True)
class EnsembleMemory(Rows):
    """The memories of several models over the same sentences; `mask` [B, S] is common to them."""

    members: tuple[Memory, ...]
    mask: Tensor


@dataclass(frozen=True)
class EnsembleState(State):
    """The states of several models over the same rows."""

    members: tuple[State, ...]


class Ensemble:
    """Several models of one vocabulary as one: the mean of their probabilities, at every position."""

    def __init__(self, models: list[Seq2Seq]) -> None:
        self.models = models

    def encode(self, src: Tensor, src_len: Tensor) -> EnsembleMemory:
        """See `Seq2Seq.encode`."""
        members = tuple(model.encode(src, src_len) for model in self.models)
        return EnsembleMemory(members, members[0].mask)

    def start(self, memory: EnsembleMemory) -> EnsembleState:
        """See `Seq2Seq.start`."""
        return EnsembleState(tuple(m.start(part) for m, part in zip(self.models, memory.members, strict=True)))

    def step(self, tokens: Tensor, memory: EnsembleMemory, state: EnsembleState) -> StepOut:
        """See `Seq2Seq.step`."""
        parts: Any = zip(self.models, memory.members, state.members, strict=True)
        outs = [model.step(tokens, part, past) for model, part, past in parts]
        if len(outs) == 1:
            return StepOut(outs[0].logp, None, EnsembleState((outs[0].state,)))
        mean = torch.stack([out.logp for out in outs]).logsumexp(dim=0) - math.log(len(outs))
        return StepOut(mean.clamp_(max=0.0), None, EnsembleState(tuple(out.state for out in outs)))
