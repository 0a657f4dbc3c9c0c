"""From a decoder's hidden vectors to probabilities over the target vocabulary, and to the training loss.

Only this file knows how the distribution is made. It never holds the logits of a whole batch: with a vocabulary of 32k
they would be the largest tensor of a training step by far.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s2s_cli.config import ArchitectureSettings
from s2s_cli.models.products import Linear, linear, suits, weight_grad

CHUNK = 2**22  # logits held at once while computing the loss: 16 MiB in fp32, which stays in a CPU's caches
_CHUNK_THERE = 2**27  # the same elsewhere, where fewer would leave a device idle: 512 MiB
_NOTHING = 1e-30  # for the logarithm of a probability that may be 0

_OfLogits = Callable[[Tensor, Tensor, Tensor, bool], Tensor | None]


class Attended(NamedTuple):
    """Where M positions look: attention weights [M, S], and the pieces [M, S] that stand there."""

    weights: Tensor
    pieces: Tensor


class SoftmaxHead(nn.Module):
    """softmax(W·h + b). W [V, D] is the weight of an embedding, which may serve as one too (Press and Wolf 2017)."""

    reads_attention = False
    coverage_loss = 0.0

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.weight = table.weight
        self.bias = nn.Parameter(torch.zeros(table.num_embeddings))
        self.product: nn.Module | None = None  # the packed form of W·h + b, see `pack.py`
        self.of_chunk = _of_chunk  # in training; it may be compiled

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [M, D] -> W·h + b [M, V]."""
        return linear(hidden, self.weight, self.bias) if self.product is None else self.product(hidden)

    def logp(self, hidden: Tensor, attended: Attended | None = None, normalize: bool = True) -> Tensor:
        """hidden [M, D] -> log-probabilities [M, V] in fp32; without `normalize` they may lack a number common to a row."""
        logits = self.logits(hidden)
        if not normalize:
            return logits.float()
        if self.product is not None:  # no second tensor of this size, which is the largest of a step
            return torch.log_softmax(logits, dim=-1, out=logits)
        return F.log_softmax(logits, dim=-1, dtype=torch.float32)

    def each(self, hidden: Tensor, attended: Attended | None, of: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """What `of` makes of log-probabilities [m, V] and the rows that they are of, for all M rows: few are held at once."""
        size, parts = max(1, _at_once(hidden) // len(self.weight)), []
        for begin in range(0, len(hidden), size):
            rows = slice(begin, begin + size)
            seen = None if attended is None else Attended(attended.weights[rows], attended.pieces[rows])
            parts.append(of(self.logp(hidden[rows], seen), rows))
        return torch.cat(parts)

    def loss(
        self, hidden: Tensor, attended: Attended | None, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """hidden [M, D], targets [M] -> (label-smoothed cross-entropy, plain cross-entropy), both summed, in nats.

        The smoothed target gives 1 - ε to the reference and spreads ε over all V pieces (Szegedy et al. 2016).
        """
        total, nll = self.chunked(hidden, targets, 1, 2, partial(_cross_entropy, label_smoothing))
        return total, nll

    def chunked(self, hidden: Tensor, targets: Tensor, passes: int, num_sums: int, of: _OfLogits) -> tuple[Tensor, ...]:
        """Output layer and a loss from its logits in one, few positions at a time: `num_sums` sums, the loss first.

        `hidden` [P·M, D] has the M positions of `passes` passes one after the other, `targets` is [M]. Of m of these, `of` gets
        logits [P·m, V] in fp32, targets [m], the sums, to add to, and whether anybody needs gradients; then it returns
        d loss / d logits, for which it may use the logits' memory.
        """
        of_chunk = partial(self.of_chunk if self.training else _of_chunk, of)
        sums: tuple[Tensor, ...] = _Chunked.apply(hidden, self.weight, self.bias, targets, passes, num_sums, of_chunk)
        return sums


class CopyHead(SoftmaxHead):
    """The pointer-generator (See et al. 2017): g · softmax + (1 - g) · the attention mass on the places of each source piece.

    g = σ(v·h + b) for each position, from h alone, in which state and context have met. Source and target share one
    vocabulary, whose subwords spell every word, so that no place for unknown words is needed: V stays V.
    """

    reads_attention = True

    def __init__(self, table: nn.Embedding, coverage_loss: float) -> None:
        super().__init__(table)
        self.coverage_loss = coverage_loss
        self.generate = Linear(table.embedding_dim, 1)

    def logp(self, hidden: Tensor, attended: Attended | None = None, normalize: bool = True) -> Tensor:
        """See `SoftmaxHead.logp`; these always are normalized."""
        assert attended is not None
        logp = super().logp(hidden)
        gate = self.generate(hidden).float()
        copied = torch.zeros_like(logp).scatter_add(1, attended.pieces, attended.weights.float())
        copied = copied.clamp(min=_NOTHING).log() + F.logsigmoid(-gate)
        # Attention of half the digits may sum to more than 1, and so may rounding make it; search counts on no more than 0.
        return torch.logaddexp(logp + F.logsigmoid(gate), copied).clamp_(max=0.0)

    def loss(
        self, hidden: Tensor, attended: Attended | None, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """See `SoftmaxHead.loss`. A chunk's log-probabilities are made again on the way back rather than kept."""
        assert attended is not None
        of = partial(self._chunk, label_smoothing)
        total, nll = by_chunks(of, len(self.weight), hidden, attended.weights, attended.pieces, targets)
        return total, nll.detach()

    def _chunk(
        self, label_smoothing: float, hidden: Tensor, weights: Tensor, pieces: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of a chunk from `logp` at few pieces alone: the target, and those of the source, where alone it differs
        from the softmax by more than the gate.
        """
        logp = super().logp(hidden)
        gate = self.generate(hidden).float()
        places = torch.cat([pieces, targets[:, None]], dim=1)  # [M, S+1]: to the target, no attention is added
        mass = torch.zeros_like(logp).scatter_add(1, places, F.pad(weights.float(), (0, 1))).gather(1, places)
        generated = logp.gather(1, places) + F.logsigmoid(gate)
        both = torch.logaddexp(generated, mass.clamp(min=_NOTHING).log() + F.logsigmoid(-gate))
        nll = -both[:, -1].sum()
        if not label_smoothing:
            return nll, nll
        times = torch.zeros_like(logp.detach()).scatter_add_(1, places, torch.ones_like(mass)).gather(1, places)
        vocab = logp.shape[1]
        mean = F.logsigmoid(gate).sum() + (logp.sum() + ((both - generated) / times).sum()) / vocab
        return (1.0 - label_smoothing) * nll - label_smoothing * mean, nll


def build_head(settings: ArchitectureSettings, table: nn.Embedding) -> SoftmaxHead:
    """The head that the settings name; `table` [V, D] is its weight."""
    return CopyHead(table, settings.coverage_loss) if settings.head == "copy" else SoftmaxHead(table)


def _at_once(hidden: Tensor) -> int:
    return CHUNK if hidden.device.type == "cpu" else _CHUNK_THERE


def coverage_loss(weights: Tensor) -> Tensor:
    """Attention weights [B, T, S] -> Σ_s min(weight, sum of the weights before) [B, T] (See et al. 2017)."""
    return torch.minimum(weights, weights.cumsum(dim=1) - weights).sum(dim=2)


def by_chunks(of: Callable[..., tuple[Tensor, ...]], num_logits: int, *tensors: Tensor) -> list[Tensor]:
    """The sums that `of` makes of tensors [M, …], added up over parts of them whose logits, `num_logits` a position, are few.

    What `of` computes of a part is not kept for the way back, but made again there.
    """
    parts = zip(*(tensor.split(max(1, _at_once(tensors[0]) // num_logits)) for tensor in tensors), strict=True)
    sums = [checkpoint(of, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return [torch.stack(column).sum() for column in zip(*sums, strict=True)]


class _Chunked(torch.autograd.Function):
    """See `SoftmaxHead.chunked`. The forward pass keeps no more than is the size of the parameters and of `hidden`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        passes: int,
        num_sums: int,
        of_chunk: Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor] | None],
    ) -> tuple[Tensor, ...]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        grads = ctx.needs_input_grad[:3]  # of frozen ones, none
        sums = torch.zeros(num_sums, dtype=torch.float32, device=hidden.device)
        with torch.autocast(device, enabled=False):
            h, w, b = hidden.to(dtype).unflatten(0, (passes, -1)), weight.to(dtype), bias.to(dtype)
            grad_h = torch.empty_like(h) if grads[0] else None
            grad_w = torch.zeros_like(weight, dtype=torch.float32) if grads[1] else None
            grad_b = torch.zeros_like(bias, dtype=torch.float32) if grads[2] else None
            size = max(1, _at_once(hidden) // len(weight) // passes)
            for begin in range(0, len(targets), size):
                rows = slice(begin, begin + size)
                part = h[:, rows].flatten(0, 1)
                found = of_chunk(linear(part, w, b), targets[rows], sums, any(grads))
                if found is None:
                    continue
                grad, total = found
                if grad_b is not None:
                    grad_b += total
                if grad_h is not None:
                    grad_h[:, rows] = linear(grad, w.t()).unflatten(0, (passes, -1))
                if grad_w is not None and dtype == torch.float32 and not suits(part, w):
                    grad_w.addmm_(grad.t(), part)
                elif grad_w is not None:
                    grad_w += weight_grad(grad, part) if suits(part, w) else grad.t() @ part
        if any(grads):
            ctx.save_for_backward(None if grad_h is None else grad_h.flatten(0, 1), grad_w, grad_b)
            ctx.dtypes = hidden.dtype, weight.dtype, bias.dtype
        loss, *others = (one.clone() for one in sums.unbind())
        ctx.mark_non_differentiable(*others)
        return loss, *others

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *(None if grad is None else (grad * grad_loss).to(dtype) for grad, dtype in pairs), *[None] * 4


def _of_chunk(
    of: _OfLogits, logits: Tensor, targets: Tensor, sums: Tensor, needs_grad: bool
) -> tuple[Tensor, Tensor] | None:
    """What `of` makes of logits [P·m, V] of any type: their gradient in that type, and its sum over positions [V] in fp32."""
    grad = of(logits.float(), targets, sums, needs_grad)
    return None if grad is None else (grad.to(logits.dtype), grad.sum(dim=0))


def _cross_entropy(label_smoothing: float, z: Tensor, targets: Tensor, sums: Tensor, needs_grad: bool) -> Tensor | None:
    """For `SoftmaxHead.chunked`: adds the label-smoothed cross-entropy and the plain one.

    One exponential serves loss and gradient: log p = z - log Σ exp z, p = exp z / Σ exp z, where z is at most 0.
    """
    vocab, target = z.shape[1], targets[:, None]
    z -= z.amax(dim=-1, keepdim=True)
    reference = z.gather(1, target)
    mean = z.mean(dim=-1) if label_smoothing else 0.0
    grad = z.exp_()
    total = grad.sum(dim=-1, keepdim=True)
    logs = total.log().squeeze(1)
    cross = logs.sum() - reference.sum()
    sums[1] += cross
    sums[0] += (1.0 - label_smoothing) * cross
    if label_smoothing:
        sums[0] += label_smoothing * (logs - mean).sum()
    if not needs_grad:
        return None
    grad *= 1.0 / total  # p - (1-ε)·onehot - ε/V
    if label_smoothing:
        grad -= label_smoothing / vocab
    return grad.scatter_add_(1, target, grad.new_full(target.shape, label_smoothing - 1.0))
