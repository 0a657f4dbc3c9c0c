"""The loss of two passes over the same targets: their cross-entropy, and how far their distributions are apart.

Like the loss of one pass in `heads.py`, it is computed a chunk of positions at a time and never holds the logits of a whole
batch. What makes the two passes differ (dropout, cut tokens) is the business of the objective in `training/`.
"""

from functools import partial
from typing import NamedTuple

from torch import Tensor

from s2s_cli.models.heads import Attended, SoftmaxHead, by_chunks


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
        loss = partial(_pair_gradient, label_smoothing, pull)
        return PairLoss(*head.chunked(hidden, targets, 2, 3, loss))

    def chunk(hidden: Tensor, weights: Tensor, pieces: Tensor, targets: Tensor) -> PairLoss:
        hidden, weights, pieces = (pair.transpose(0, 1).flatten(0, 1) for pair in (hidden, weights, pieces))
        return plain_pair_loss(head.logp(hidden, Attended(weights, pieces)), targets, label_smoothing, pull)

    pairs = (one.unflatten(0, (2, -1)).transpose(0, 1) for one in (hidden, attended.weights, attended.pieces))
    total, nll, divergence = by_chunks(chunk, 2 * len(head.weight), *pairs, targets)
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


def _pair_gradient(
    label_smoothing: float, pull: Pull, logits: Tensor, targets: Tensor, sums: Tensor, _needs_grad: bool
) -> Tensor:
    """For `SoftmaxHead.chunked`: adds the loss, the cross-entropy and the divergence of the passes."""
    vocab = logits.shape[1]
    logp = logits.log_softmax(dim=-1)
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
