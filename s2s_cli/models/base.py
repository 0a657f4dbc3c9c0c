"""The contract between a model and the rest of the house: what training calls, and what search calls.

Training calls `forward`; search calls `encode`, `start` and `step` and knows no model class. State is a value that is
passed from step to step and never kept in a module, so that beams, ensembles and compiled steps need no special case.
This room knows token ids and tensors, no text, no files, no optimizer.

Letters in shapes: B sentences, N = B·K rows (K hypotheses of each sentence, those of one sentence beside each other),
S source and T target positions, D width, V target vocabulary.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from s2s_cli.data.loader import Batch
from s2s_cli.models.heads import SoftmaxHead


def _pick(value: Any, index: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(0, index)
    if isinstance(value, Rows):
        return value.select(index)
    if isinstance(value, tuple):
        return tuple(_pick(item, index) for item in value)
    return value


@dataclass(frozen=True)
class Rows:
    """A value made of tensors whose first dimension counts rows, of tuples of such, and of plain values common to all rows."""

    def select(self, index: Tensor) -> Self:
        """Rows `index` [M], in that order; a row may be taken several times."""
        return type(self)(**{f.name: _pick(getattr(self, f.name), index) for f in fields(self)})


@dataclass(frozen=True)
class Memory(Rows):
    """What the encoder leaves of B source sentences: `states` [B, S, D], and `mask` [B, S], True at real positions."""

    states: Tensor
    mask: Tensor

    @property
    def num_rows(self) -> int:
        """B."""
        return self.mask.shape[0]


@dataclass(frozen=True)
class State(Rows):
    """What a decoder carries from one target position to the next, for N rows."""


class StepOut(NamedTuple):
    """One target position of N rows: `logp` [N, V]; `attention` [N, S] over source positions, where asked for; `state`."""

    logp: Tensor
    attention: Tensor | None
    state: State


class Loss(NamedTuple):
    """Sums over the real target tokens of a batch: the training criterion, the plain cross-entropy in nats, and their count."""

    total: Tensor
    nll: Tensor
    num_tokens: int


@dataclass(frozen=True)
class Sizes:
    """Vocabulary sizes, and whether both sides share one vocabulary (and so may share embeddings)."""

    src: int
    tgt: int
    shared: bool


class Seq2Seq(nn.Module):
    """A model of p(tgt | src). A family writes `encode`, `start`, `decode` and `advance`; the rest follows from them.

    The law that ties them together, and that the tests hold for every family: `step`, taken token by token, gives the
    log-probabilities of the parallel pass `decode`.
    """

    head: SoftmaxHead

    def encode(self, src: Tensor, src_len: Tensor) -> Any:
        """src [B, S] ids, right-padded, and their lengths [B] -> the encoder memory. Padding never changes a real position."""
        raise NotImplementedError

    def start(self, memory: Any) -> Any:
        """The decoder's state before the first token, one row for each sentence of `memory`."""
        raise NotImplementedError

    def decode(self, tgt_in: Tensor, memory: Any) -> Tensor:
        """The parallel pass: tgt_in [B, T], which begins with BOS -> hidden [B, T, D] for the head."""
        raise NotImplementedError

    def advance(self, tokens: Tensor, memory: Any, state: Any, attention: bool) -> tuple[Tensor, Tensor | None, Any]:
        """One position: tokens [N] -> hidden [N, D], attention [N, S] where asked for and there is any, the next state."""
        raise NotImplementedError

    def forward(self, batch: Batch, label_smoothing: float = 0.0) -> Loss:
        """The loss of a batch, summed over real target tokens (teacher forcing)."""
        hidden = self.decode(batch.tgt_in, self.encode(batch.src, batch.src_len))
        # Only real positions reach the output layer: its cost is the largest of a small model.
        real = real_positions(batch.tgt_len, batch.tgt_in.shape[1]).flatten().nonzero().squeeze(1)  # [M]
        hidden = hidden.flatten(0, 1).index_select(0, real)  # [M, D]
        total, nll = self.head.loss(hidden, batch.tgt_out.flatten().index_select(0, real), label_smoothing)
        return Loss(total, nll, batch.num_tokens)

    def step(self, tokens: Tensor, memory: Any, state: Any, attention: bool = False) -> StepOut:
        """tokens [N] -> the log-probabilities of the next tokens. N is a multiple K of the memory's B sentences."""
        hidden, weights, state = self.advance(tokens, memory, state, attention)
        return StepOut(self.head.logp(hidden), weights, state)


def real_positions(lengths: Tensor, size: int) -> Tensor:
    """lengths [B] -> [B, size], True at the first `length` positions of each row."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]
