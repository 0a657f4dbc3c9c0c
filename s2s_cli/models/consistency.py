"""The loss of two passes over the same targets: their cross-entropy, and how far their distributions are apart.

Like the loss of one pass in `heads.py`, it is computed a chunk of positions at a time and never holds the logits of a whole
batch. What makes the two passes differ (dropout, cut tokens) is the business of the objective in `training/`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s2s_cli.models.heads import CHUNK, Attended, SoftmaxHead


class Pull(NamedTuple):
    """What is added to the cross-entropy: `weight` times the divergence of the passes.

    `both`: ½ KL(p‖q) + ½ KL(q‖p), and the cross-entropy is the mean of both passes; else KL(p‖q), and it is the first's.
    """

    weight: float
    both: bool

    @property
    def shares(self) -> tuple[float, float]:
        """What the cross-entropy of each pass counts."""
        return (0.5, 0.5) if self.both else (1.0, 0.0)


class PairLoss(NamedTuple):
    """Sums over M positions: the training criterion, the plain cross-entropy in nats, and the divergence, unweighted."""

    total: Tensor
    nll: Tensor
    divergence: Tensor


def pair_loss(
    head: SoftmaxHead, hidden: Tensor, attended: Attended | None, targets: Tensor, label_smoothing: float, pull: Pull
) -> PairLoss:
    """The loss of hidden [2M, D], the M positions of a first pass and then those of a second one, for targets [M].

    A head that reads no attention has its gradients computed by hand on the way forward; for any other, a chunk's
    log-probabilities are made again on the way back.
    """
    if attended is None:
        return PairLoss(*_ChunkedPairs.apply(hidden, head.weight, head.bias, targets, label_smoothing, pull))
    pairs = [t.unflatten(0, (2, -1)) for t in (hidden, attended.weights, attended.pieces)]
    size = max(1, CHUNK // head.weight.shape[0] // 2)
    parts = zip(*(t.split(size, dim=1) for t in pairs), targets.split(size), strict=True)

    def chunk(hidden: Tensor, weights: Tensor, pieces: Tensor, targets: Tensor) -> PairLoss:
        where = Attended(weights.flatten(0, 1), pieces.flatten(0, 1))
        return plain_pair_loss(head.logp(hidden.flatten(0, 1), where), targets, label_smoothing, pull)

    sums = [checkpoint(chunk, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    total, nll, divergence = (torch.stack(column).sum() for column in zip(*sums, strict=True))
    return PairLoss(total, nll.detach(), divergence.detach())


def plain_pair_loss(logp: Tensor, targets: Tensor, label_smoothing: float, pull: Pull) -> PairLoss:
    """`pair_loss` from the log-probabilities [2M, V] of all positions, as the formulas have it."""
    first, second = logp.unflatten(0, (2, -1))
    total, nll = logp.new_zeros(()), logp.new_zeros(())
    for share, one in zip(pull.shares, (first, second), strict=True):
        cross = -one.gather(1, targets[:, None]).sum()
        nll = nll + share * cross
        total = total + share * ((1.0 - label_smoothing) * cross - label_smoothing * one.mean(dim=1).sum())
    divergence = (first.exp() * (first - second)).sum()
    if pull.both:
        divergence = 0.5 * (divergence + (second.exp() * (second - first)).sum())
    return PairLoss(total + pull.weight * divergence, nll, divergence)


class _ChunkedPairs(torch.autograd.Function):
    """Output layer and loss of two passes in one, a chunk of positions at a time, like `heads._ChunkedCrossEntropy`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, label_smoothing: float, pull: Pull
    ) -> tuple[Tensor, Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        sums = torch.zeros(3, dtype=torch.float32, device=hidden.device)
        with torch.autocast(device, enabled=False):
            h, w, b = hidden.to(dtype).unflatten(0, (2, -1)), weight.to(dtype), bias.to(dtype)
            grad_h = torch.empty_like(h)
            grad_w, grad_b = (torch.zeros_like(t, dtype=torch.float32) for t in (weight, bias))
            size = max(1, CHUNK // weight.shape[0] // 2)
            for begin in range(0, h.shape[1], size):
                rows = slice(begin, begin + size)
                part = h[:, rows].flatten(0, 1)
                logits = torch.addmm(b, part, w.t())
                grad = _pair_gradient(
                    torch.log_softmax(logits, dim=-1, dtype=torch.float32), targets[rows], label_smoothing, pull, sums
                )
                grad_b += grad.sum(dim=0)
                grad = grad.to(dtype)
                grad_h[:, rows] = (grad @ w).unflatten(0, (2, -1))
                if dtype == torch.float32:
                    grad_w.addmm_(grad.t(), part)
                else:
                    grad_w += grad.t() @ part
        ctx.save_for_backward(grad_h.flatten(0, 1), grad_w, grad_b)
        ctx.dtypes = hidden.dtype, weight.dtype, bias.dtype
        total, nll, divergence = sums.unbind()
        ctx.mark_non_differentiable(nll, divergence)
        return total.clone(), nll.clone(), divergence.clone()

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        h, w, b = ((grad * grad_total).to(dtype) for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True))
        return h, w, b, None, None, None


def _pair_gradient(logp: Tensor, targets: Tensor, label_smoothing: float, pull: Pull, sums: Tensor) -> Tensor:
    """d loss / d logits [2m, V] from log-probabilities [2m, V]; adds the loss, cross-entropy and divergence to `sums` [3]."""
    vocab = logp.shape[1]
    prob = logp.exp()
    grad = prob.clone()
    for half, share in enumerate(pull.shares):  # share · (p - (1-ε)·onehot - ε/V)
        rows = slice(half * len(targets), (half + 1) * len(targets))
        cross = -logp[rows].gather(1, targets[:, None]).sum()
        sums[1] += share * cross
        sums[0] += share * ((1.0 - label_smoothing) * cross - label_smoothing / vocab * logp[rows].sum())
        grad[rows] -= label_smoothing / vocab
        grad[rows].scatter_add_(1, targets[:, None], grad.new_full((len(targets), 1), label_smoothing - 1.0))
        grad[rows] *= share
    (p, q), (to_p, to_q) = prob.chunk(2), grad.chunk(2)
    ratio = logp[: len(targets)] - logp[len(targets) :]  # log p/q
    strength = pull.weight * (0.5 if pull.both else 1.0)
    # d KL(p‖q) / d logits: of p, p·(log p/q - KL); of q, q - p.
    apart = (p * ratio).sum(dim=1, keepdim=True)
    to_p.add_(p * (ratio - apart), alpha=strength)
    to_q.add_(q - p, alpha=strength)
    divergence = apart.sum()
    if pull.both:
        back = -(q * ratio).sum(dim=1, keepdim=True)
        to_p.add_(p - q, alpha=strength)
        to_q.add_(q * (-ratio - back), alpha=strength)
        divergence = 0.5 * (divergence + back.sum())
    sums[2] += divergence
    sums[0] += pull.weight * divergence
    return grad
