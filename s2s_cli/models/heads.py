"""From a decoder's hidden vectors to probabilities over the target vocabulary, and to the training loss.

Only this file knows how the distribution is made. It never holds the logits of a whole batch: with a vocabulary of 32k
they would be the largest tensor of a training step by far.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHUNK = 2**22  # logits held at once while computing the loss: 16 MiB in fp32, which stays in a CPU's caches


class SoftmaxHead(nn.Module):
    """softmax(W·h + b). W [V, D] is the weight of an embedding, which may serve as one too (Press and Wolf 2017)."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.weight = table.weight
        self.bias = nn.Parameter(torch.zeros(table.num_embeddings))

    def logp(self, hidden: Tensor) -> Tensor:
        """hidden [N, D] -> log-probabilities [N, V] in fp32."""
        return F.log_softmax(F.linear(hidden, self.weight, self.bias), dim=-1, dtype=torch.float32)

    def loss(self, hidden: Tensor, targets: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """hidden [M, D], targets [M] -> (label-smoothed cross-entropy, plain cross-entropy), both summed, in nats.

        The smoothed target gives 1 - ε to the reference and spreads ε over all V pieces (Szegedy et al. 2016).
        """
        total, nll = _ChunkedCrossEntropy.apply(hidden, self.weight, self.bias, targets, label_smoothing)
        return total, nll


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Output layer and loss in one, a chunk of rows at a time; gradients are computed on the way forward.

    What the forward pass keeps is the size of the parameters and of `hidden`, never M × V.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        needs_grad = any(ctx.needs_input_grad[:3])
        num_rows, vocab = hidden.shape[0], weight.shape[0]
        with torch.autocast(device, enabled=False):
            h, w, b = hidden.to(dtype), weight.to(dtype), bias.to(dtype)
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            nll = torch.zeros_like(total)
            grad_h = torch.empty_like(h) if needs_grad else None
            grad_w = torch.zeros_like(weight, dtype=torch.float32) if needs_grad else None
            grad_b = torch.zeros_like(bias, dtype=torch.float32) if needs_grad else None
            size = max(1, _CHUNK // vocab)
            for begin in range(0, num_rows, size):
                rows = slice(begin, begin + size)
                target = targets[rows, None]
                logp = torch.log_softmax(torch.addmm(b, h[rows], w.t()), dim=-1, dtype=torch.float32)
                reference = logp.gather(1, target)
                nll -= reference.sum()
                if label_smoothing:
                    total -= logp.mean(dim=-1).sum() * label_smoothing
                if grad_h is None or grad_w is None or grad_b is None:
                    continue
                # d loss / d logits = p - (1-ε)·onehot - ε/V
                grad = logp.exp_()
                if label_smoothing:
                    grad -= label_smoothing / vocab
                grad.scatter_add_(1, target, grad.new_full(target.shape, label_smoothing - 1.0))
                grad_b += grad.sum(dim=0)
                grad = grad.to(dtype)
                torch.mm(grad, w, out=grad_h[rows])
                if dtype == torch.float32:
                    grad_w.addmm_(grad.t(), h[rows])
                else:
                    grad_w += grad.t() @ h[rows]
            total += nll * (1.0 - label_smoothing)
        if needs_grad:
            ctx.save_for_backward(grad_h, grad_w, grad_b)
            ctx.dtypes = hidden.dtype, weight.dtype, bias.dtype
        ctx.mark_non_differentiable(nll)
        return total, nll

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _grad_nll: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        grads = ctx.saved_tensors
        h, w, b = ((grad * grad_total).to(dtype) for grad, dtype in zip(grads, ctx.dtypes, strict=True))
        return h, w, b, None, None
