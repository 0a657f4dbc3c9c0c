"""The parts that model families are made of: dropout, positions, embeddings, attention, feed-forward.

Each is the plain textbook function. Where a kernel of torch is slow on a processor, the same function is written here in
another way, and a test holds the two together. This file knows no batch, no loss and no search.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) that on CPU spends one random byte an element, where torch spends a slow draw.

    The rate is rounded to a multiple of 1/256 there, and what stays is scaled by the exact inverse of that rate.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; the identity unless training."""
        if not self.training or self.rate == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        return _ByteDropout.apply(x, round(self.rate * 256))


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        # 64 random bits make 8 bytes; each of them is below `dropped` with probability dropped/256.
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        ctx.keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        ctx.scale = 256.0 / (256 - dropped)
        return x * ctx.keep * ctx.scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.keep * ctx.scale, None


def sinusoidal_positions(start: int, num: int, dim: int, device: torch.device) -> Tensor:
    """Positions start … start+num-1 as [num, dim]: sines in the first half, cosines in the second (Vaswani et al. 2017)."""
    position = torch.arange(start, start + num, device=device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / dim))
    return torch.cat([torch.sin(position * rate), torch.cos(position * rate)], dim=1)


def embedding(num: int, dim: int) -> nn.Embedding:
    """An embedding whose rows have length about 1, so that it can serve as output layer too."""
    table = nn.Embedding(num, dim)
    nn.init.normal_(table.weight, std=dim**-0.5)
    return table


def padding_bias(mask: Tensor) -> Tensor:
    """mask [B, S], True at real positions -> what is added to attention scores [B, 1, 1, S]: 0 or -inf."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -math.inf)[:, None, None, :]


def causal_bias(num: int, device: torch.device) -> Tensor:
    """What is added to self-attention scores [num, num] so that no position sees a later one."""
    return torch.full((num, num), -math.inf, device=device).triu_(1)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: Dropout | None) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention in plain products: q [B, H, T, d], k and v [B, H, S, d] -> ([B, H, T, d], weights)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, H, T, S]
    if bias is not None:
        scores = scores + bias
    weights = torch.softmax(scores, dim=-1).to(v.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return weights @ v, weights


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, D] -> [B, H, T, D/H]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """[B, H, T, D/H] -> [B, T, D]."""
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention; queries, keys and values of self-attention come from one product."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)
        for weight in (self.q.weight, *self.kv.weight.chunk(2), self.out.weight):
            nn.init.xavier_uniform_(weight)
        for linear in (self.q, self.kv, self.out):
            nn.init.zeros_(linear.bias)

    def queries(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, H, T, d]."""
        return split_heads(self.q(x), self.heads)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, S, D] -> keys and values, [B, H, S, d] each."""
        k, v = self.kv(x).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, q: Tensor, kv: tuple[Tensor, Tensor], bias: Tensor | None) -> Tensor:
        """q [B, H, T, d] over kv [B, H, S, d], with `bias` added to the scores -> [B, T, D]."""
        if q.device.type == "cuda":
            rate = self.dropout.rate if self.training else 0.0
            mask = None if bias is None else bias.to(q.dtype)
            return self.out(join_heads(F.scaled_dot_product_attention(q, *kv, attn_mask=mask, dropout_p=rate)))
        # On CPU at the lengths of sentences, plain products are faster than the fused kernel, its backward pass above all.
        return self.out(join_heads(attend(q, *kv, bias, self.dropout)[0]))

    def with_weights(self, q: Tensor, kv: tuple[Tensor, Tensor], bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `forward`, and the attention weights as their mean over the heads [B, T, S]."""
        x, weights = attend(q, *kv, bias, self.dropout)
        return self.out(join_heads(x)), weights.float().mean(dim=1)


class FeedForward(nn.Module):
    """Two linear maps with an activation between: [..., D] -> [..., D]."""

    def __init__(self, dim: int, inner: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(dim, inner)
        self.down = nn.Linear(inner, dim)
        self.activation = F.relu if activation == "relu" else F.gelu
        self.dropout = Dropout(dropout)
        for linear in (self.up, self.down):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.down(self.dropout(self.activation(self.up(x))))
