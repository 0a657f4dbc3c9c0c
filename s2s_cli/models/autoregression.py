"""How a target position sees those before it: self-attention, a simple recurrent unit, or a running average.

All three have one form: `start` gives what is known before the first position, and the call takes positions [N, T, D]
and what is known of those before them to [N, T, D] and what is known after them. Of the unit and the average, that is a
tuple of tensors whose first dimension counts rows: one vector however long the output, so that a step costs the same at every
position. Self-attention carries a cache of the keys and values of all positions.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2s_cli.config import TransformerSettings
from s2s_cli.models.cache import Cache
from s2s_cli.models.layers import Attention, FeedForward, xavier
from s2s_cli.models.positions import Order, rotate
from s2s_cli.models.products import Linear

Sums = tuple[Tensor, ...]
Past = Sums | Cache


class Autoregression(Protocol):
    """What the decoder needs of each of the three."""

    def start(self, keys: Tensor) -> Past:
        """What is known before the first position, for as many rows as keys [N, G, S, d] of the source has."""

    def __call__(self, x: Tensor, past: Past | None, order: Order) -> tuple[Tensor, Past]:
        """x [N, T, D] after `past` (None: from the first position on) -> [N, T, D], and what is known after it."""


def autoregression(settings: TransformerSettings) -> nn.Module:
    """The one that the settings name."""
    if settings.autoregression == "ssru":
        return Ssru(settings.dim)
    if settings.autoregression == "aan":
        return AverageAttention(settings.dim, settings.ffn_dim, settings.activation, settings.activation_dropout)
    return SelfAttention(settings.dim, settings.heads, settings.attention_dropout, settings.kv_heads)


class SelfAttention(Attention):
    """Attention over the positions up to and including the query's own."""

    def start(self, keys: Tensor) -> Cache:
        """No keys and no values yet."""
        return Cache(None, 0, 1)

    def forward(self, x: Tensor, past: Past | None, order: Order) -> tuple[Tensor, Past]:
        """See `Autoregression`. After a cache, T is 1, and N are the hypotheses of its groups."""
        cache = past if isinstance(past, Cache) else None
        y = x if cache is None else x.view(-1, cache.width, x.shape[2])  # those of a group are queries over one buffer
        q, k, v = self.queries_keys_values(y)
        q, k = rotate(q, order.rotation), rotate(k, order.rotation)
        if cache is None:
            return self.attend(q, (k, v), order.bias, order.is_causal), ()
        cache = cache.append(k, v)
        return self.attend(q, cache.keys_values, order.bias).view(x.shape), cache


class Ssru(nn.Module):
    """The simpler simple recurrent unit (Kim et al. 2019): c_t = f_t ⊙ c_{t-1} + (1 - f_t) ⊙ Wx_t, and relu(c_t) comes out.

    The forget gate f_t = σ(Ux_t + b) sees x_t alone, so that both products are made for all positions at once.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = Linear(dim, dim)
        self.value = Linear(dim, dim, bias=False)
        xavier(self.gate, self.value)

    def start(self, keys: Tensor) -> Sums:
        """c_0 = 0."""
        return (keys.new_zeros(keys.shape[0], self.gate.out_features, dtype=torch.float32),)

    def forward(self, x: Tensor, past: Sums | None, order: Order) -> tuple[Tensor, Sums]:
        """See `Autoregression`; the unit needs no word of the order, it reads in order."""
        forget = torch.sigmoid(self.gate(x).float())
        fresh = (1.0 - forget) * self.value(x)
        cell = fresh.new_zeros(x.shape[0], x.shape[2]) if past is None else past[0]
        cells = []
        for f, new in zip(forget.unbind(1), fresh.unbind(1), strict=True):
            cell = torch.addcmul(new, f, cell)
            cells.append(cell)
        return F.relu(torch.stack(cells, dim=1)).to(x.dtype), (cell,)


class AverageAttention(nn.Module):
    """The average attention network (Zhang et al. 2018): a feed-forward block over the mean of all inputs up to here, gated.

    g_t = FFN(mean(x_1 … x_t)); (i_t, f_t) = σ(W[x_t; g_t] + b); i_t ⊙ x_t + f_t ⊙ g_t comes out.
    """

    def __init__(self, dim: int, inner: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.feed_forward = FeedForward(dim, inner, activation, dropout)
        self.gates = Linear(2 * dim, 2 * dim)
        xavier(self.gates)

    def start(self, keys: Tensor) -> Sums:
        """The sum of no inputs, and their number."""
        num_rows, dim = keys.shape[0], self.gates.in_features // 2
        return keys.new_zeros(num_rows, dim, dtype=torch.float32), keys.new_zeros(num_rows, 1, dtype=torch.float32)

    def forward(self, x: Tensor, past: Sums | None, order: Order) -> tuple[Tensor, Sums]:
        """See `Autoregression`; a mean is blind to order, which the positions added to the embeddings hold."""
        total, count = self.start(x[:, None]) if past is None else past  # [N, D], [N, 1]
        totals = total[:, None] + x.float().cumsum(dim=1)
        counts = count + torch.arange(1, x.shape[1] + 1, device=x.device)  # [N, T]
        mean = self.feed_forward((totals / counts[:, :, None]).to(x.dtype))
        keep, take = torch.sigmoid(self.gates(torch.cat([x, mean], dim=2))).chunk(2, dim=2)
        return keep * x + take * mean, (totals[:, -1], counts[:, -1:])
