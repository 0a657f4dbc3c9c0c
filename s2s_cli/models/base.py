"""The contract between a model and the rest of the house: what training calls, and what search calls.

Training calls `forward`, or `encode`, `decode` and `read`; search calls `encode`, `start` and `step`, and scores given outputs by
`decode`; neither knows a model class. State is a value that is passed from step to step and never kept in a module, so that
beams, ensembles and compiled steps need no special case.
This room knows token ids and tensors, no text, no files, no optimizer.

Letters in shapes: B sentences, N = B·K rows (K hypotheses of each sentence, those of one sentence beside each other),
S source and T target positions, D width, V target vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from s2s_cli.config import ModelSettings
from s2s_cli.data.loader import Batch
from s2s_cli.errors import ConfigError
from s2s_cli.models.heads import Attended, SoftmaxHead, coverage_loss


def _pick(value: Any, index: Tensor, stay: bool) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(0, index)
    if isinstance(value, Rows):
        return value.select(index, stay)
    if isinstance(value, tuple):
        return tuple(_pick(item, index, stay) for item in value)
    return value


@dataclass(frozen=True)
class Rows:
    """A value made of tensors whose first dimension counts rows, of tuples of such, and of plain values common to all rows."""

    def select(self, index: Tensor, stay: bool = False) -> Self:
        """Rows `index` [M], in that order; a row may be taken several times.

        They `stay` where each row of a state comes from one of the same sentence, and no sentence leaves: what is known of
        the index on the host saves asking the device.
        """
        return type(self)(**{f.name: _pick(getattr(self, f.name), index, stay) for f in fields(self)})


@dataclass(frozen=True)
class Memory(Rows):
    """What the encoder leaves of B sources: `states` [B, S, D]; `mask` [B, S], True at real positions; their ids `src` [B, S]."""

    states: Tensor
    mask: Tensor
    src: Tensor

    @property
    def num_rows(self) -> int:
        """B."""
        return self.mask.shape[0]


@dataclass(frozen=True)
class State(Rows):
    """What a decoder carries from one target position to the next, for N rows."""

    def spread(self, index: Tensor, num: int) -> Self:
        """Rows `index` [M], of one hypothesis a sentence, as `num` hypotheses of each that have begun alike: M·num rows."""
        return self.select(index.repeat_interleave(num))


class StepOut(NamedTuple):
    """One target position of N rows: `logp` [N, V]; `attention` [N, S] over source positions, where asked for; `state`."""

    logp: Tensor
    attention: Tensor | None
    state: State


class Loss(NamedTuple):
    """Sums over the real target tokens of a batch: the training criterion, the plain cross-entropy in nats, and their count;
    and of two passes over it, how far their distributions are apart.
    """

    total: Tensor
    nll: Tensor
    num_tokens: int
    divergence: Tensor | None = None


class Real(NamedTuple):
    """The M real target positions of a batch: `hidden` [M, D]; where they attend, if the head reads it; `targets` [M]; and
    what each attends to again, [M], if there is a loss on that.
    """

    hidden: Tensor
    attended: Attended | None
    targets: Tensor
    repeated: Tensor | None


@dataclass(frozen=True)
class Sizes:
    """Vocabulary sizes, and whether both sides share one vocabulary (and so may share embeddings)."""

    src: int
    tgt: int
    shared: bool


class Seq2Seq(nn.Module, ABC):
    """A model of p(tgt | src). A family writes `encode`, `start`, `decode` and `advance`; the rest follows from them.

    The law that ties them together, and that the tests hold for every family: `step`, taken token by token, gives the
    log-probabilities of the parallel pass `decode`.
    """

    settings: ModelSettings
    src_embedding: nn.Embedding
    tgt_embedding: nn.Embedding
    head: SoftmaxHead
    recurrent = False  # whether a target is read one position after the other, at training too

    @abstractmethod
    def encode(self, src: Tensor, src_len: Tensor) -> Any:
        """src [B, S] ids, right-padded, and their lengths [B], in the host's memory -> the encoder memory.

        Padding never changes a real position.
        """

    @abstractmethod
    def start(self, memory: Any) -> Any:
        """The decoder's state before the first token, one row for each sentence of `memory`."""

    @abstractmethod
    def decode(self, tgt_in: Tensor, memory: Any) -> tuple[Tensor, Tensor | None]:
        """The parallel pass: tgt_in [B, T], BOS first -> hidden [B, T, D]; attention [B, T, S] where the head reads it."""

    @abstractmethod
    def advance(self, tokens: Tensor, memory: Any, state: Any, attention: bool) -> tuple[Tensor, Tensor | None, Any]:
        """One position: tokens [N] -> hidden [N, D], attention [N, S] where asked for and there is any, the next state."""

    def compile_layers(self) -> None:
        """Have torch compile what training spends its time in. Raises ConfigError where that would gain nothing."""
        raise ConfigError("runtime.compile is for Transformers: leave it out")

    def forward(self, batch: Batch, label_smoothing: float = 0.0) -> Loss:
        """The loss of a batch, summed over real target tokens (teacher forcing)."""
        return self.read(batch, self.encode(batch.src, batch.src_len), label_smoothing)

    def read(self, batch: Batch, memory: Any, label_smoothing: float) -> Loss:
        """The decoder's part of `forward`."""
        real = self.real(batch, memory, *self.decode(batch.tgt_in, memory))
        total, nll = self.head.loss(real.hidden, real.attended, real.targets, label_smoothing)
        if real.repeated is not None:
            total = total + self.head.coverage_loss * real.repeated.sum()
        return Loss(total, nll, batch.num_tokens)

    def real(self, batch: Batch, memory: Any, hidden: Tensor, weights: Tensor | None) -> Real:
        """What the loss needs of the output of `decode`, at real positions only: the output layer's cost is the largest
        of a small model.
        """
        num_positions = batch.tgt_in.shape[1]
        real = batch.real()
        attended = repeated = None
        if self.head.reads_attention and weights is not None:
            pieces = memory.src.index_select(0, real.div(num_positions, rounding_mode="floor"))
            attended = Attended(weights.flatten(0, 1).index_select(0, real), pieces)
        if self.head.coverage_loss and weights is not None:
            repeated = coverage_loss(weights).flatten().index_select(0, real)
        targets = batch.tgt_out.flatten().index_select(0, real)
        return Real(hidden.flatten(0, 1).index_select(0, real), attended, targets, repeated)

    def step(self, tokens: Tensor, memory: Any, state: Any, attention: bool = False, normalize: bool = True) -> StepOut:
        """tokens [N] -> the log-probabilities of the next tokens. N is a multiple K of the memory's B sentences.

        Without `normalize` they may lack a number common to all pieces of a row: the best are the same.
        """
        copies = self.head.reads_attention
        hidden, weights, state = self.advance(tokens, memory, state, attention or copies)
        attended = None
        if copies and weights is not None:
            attended = Attended(weights, memory.src.repeat_interleave(len(tokens) // memory.num_rows, dim=0))
        return StepOut(self.head.logp(hidden, attended, normalize), weights if attention else None, state)
