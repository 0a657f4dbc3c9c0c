"""The parts that model families are made of: dropout, norms, embeddings, attention, feed-forward.

Each is the plain textbook function. Where a kernel of torch is slow on a processor, the same function is written here in
another way, and a test holds the two together. This file knows no batch, no loss and no search.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from s2s_cli.models.products import Linear, matmul

# cuDNN's attention, which torch takes first on CUDA, makes a plan for each shape, in some 160 ms on an H200, and saves less than
# one at each call: the shapes of sentences are too many for it. Flash, which takes no padding, is twice as slow as the efficient
# kernel up to so many scores a head, and faster for more (`benchmarks/gpu.py attention`).
_FEW_SCORES = 64 * 64
_SHORT = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_LONG = [SDPBackend.FLASH_ATTENTION, *_SHORT]
_LANES = 16  # fp32 numbers in the widest vectors that processors have
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "swiglu": F.silu}


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout (Srivastava et al. 2014) that on CPU spends one random byte an element, where torch spends a slow draw.

    The rate is rounded to a multiple of 1/256 there, up to 255/256, and what stays is scaled by the exact inverse of that rate.
    """
    if not training or rate == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    return _ByteDropout.apply(x, min(255, round(rate * 256)))


class Dropout(nn.Module):
    """`dropout` as a module."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; the identity unless training."""
        return dropout(x, self.rate, self.training)


class VariationalDropout(Dropout):
    """Dropout of the same elements at all positions of a sentence (Gal and Ghahramani 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """x [N, T, D]."""
        return x * self.mask(x.shape[0], x.shape[2], x) if self.training else x

    def mask(self, num_rows: int, width: int, like: Tensor) -> Tensor:
        """What to multiply all positions with: [num_rows, 1, width], of the device and type of `like`."""
        return super().forward(like.new_ones(num_rows, 1, width))


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        # 64 random bits make 8 bytes; each of them is below `dropped` with probability dropped/256.
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        ctx.save_for_backward(keep)
        ctx.scale = 256.0 / (256 - dropped)
        return x * keep * ctx.scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.saved_tensors[0] * ctx.scale, None


def embedding(num: int, dim: int, std: float | None = None) -> nn.Embedding:
    """An embedding whose rows have length about 1, so that it can serve as output layer too, unless `std` says otherwise."""
    weight = torch.empty(num, dim)
    if weight.is_meta:  # where torch would import its compiler, in a second or two, to draw nothing
        return nn.Embedding.from_pretrained(weight, freeze=False)
    table = nn.Embedding(num, dim)
    nn.init.normal_(table.weight, std=dim**-0.5 if std is None else std)
    return table


def norm(kind: str, dim: int) -> nn.Module:
    """`layer`: (x - mean) / deviation · g + b (Ba et al. 2016); `rms`: x / root mean square · g (Zhang and Sennrich 2019)."""
    return LayerNorm(dim) if kind == "layer" else RMSNorm(dim, eps=1e-5)


class LayerNorm(nn.LayerNorm):
    """torch's, which gives what is of the type of its input under autocast too; inside it computes in fp32."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class RMSNorm(nn.RMSNorm):
    """As `LayerNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def as_products(x: Tensor) -> Tensor:
    """`x` in the type of matrix products, if that is bf16 and the device a GPU: what passes memory most often is half as large.

    fp16, whose largest number is 65,504, is too small for the sum of many layers.
    """
    device = x.device.type
    halves = device == "cuda" and torch.is_autocast_enabled(device)
    return x.bfloat16() if halves and torch.get_autocast_dtype(device) == torch.bfloat16 else x


def xavier(*linears: nn.Linear) -> None:
    """Uniform weights of variance 2 / (inputs + outputs) (Glorot and Bengio 2010), biases zero."""
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)


def joined(*linears: nn.Linear) -> nn.Linear:
    """One linear layer whose outputs are those of all of these beside each other."""
    one = Linear(linears[0].in_features, sum(linear.out_features for linear in linears))
    one.weight = nn.Parameter(torch.cat([linear.weight.detach() for linear in linears]))
    one.bias = nn.Parameter(torch.cat([linear.bias.detach() for linear in linears]))
    return one


def padding_bias(mask: Tensor) -> Tensor:
    """mask [B, S], True at real positions -> what is added to attention scores [B, 1, 1, S]: 0 or -inf."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -math.inf)[:, None, None, :]


def causal_bias(num: int, device: torch.device) -> Tensor:
    """What is added to self-attention scores [num, num] so that no position sees a later one."""
    return torch.full((num, num), -math.inf, device=device).triu_(1)


def lanes(num: int) -> int:
    """`num` positions, and so many more that the whole vectors of a processor hold them.

    torch's softmax over a row whose end fills no vector takes ten times as long. Zeros at the end of a sum, on the other hand,
    change no bit of it, up to 1024: what a position sees does not depend on how long the other sentences of its batch are.
    """
    return -(-num // _LANES) * _LANES


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: Dropout | None) -> tuple[Tensor, Tensor]:
    """Attention in plain products: q [B, H, T, d], scaled already, k and v [B, G, S, d] -> ([B, H, T, d], weights).

    Query heads h·H/G to (h+1)·H/G - 1 read key head h: they stand as positions of one head, so that it is not copied.
    """
    heads, groups, num = q.shape[1], k.shape[1], k.shape[2]
    if k.device.type == "cpu" and (extra := lanes(num) - num):
        k, v = F.pad(k, (0, 0, 0, extra)), F.pad(v, (0, 0, 0, extra))
        bias = F.pad(q.new_zeros(1, num) if bias is None else bias, (0, extra), value=-math.inf)
    if heads != groups:
        q = q.unflatten(1, (groups, -1)).flatten(2, 3)  # [B, G, H/G·T, d]
    scores = matmul(q, k.transpose(-2, -1))
    if heads != groups:
        scores = scores.unflatten(2, (heads // groups, -1)).flatten(1, 2)  # [B, H, T, S]
    if bias is not None:
        scores = scores + bias
    weights = torch.softmax(scores, dim=-1).to(v.dtype)
    kept = weights if dropout is None else dropout(weights)
    weights = weights[..., :num]
    if heads == groups:
        return matmul(kept, v), weights
    x = matmul(kept.unflatten(1, (groups, -1)).flatten(2, 3), v)
    return x.unflatten(2, (heads // groups, -1)).flatten(1, 2), weights


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, D] -> [B, H, T, D/H]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """[B, H, T, D/H] -> [B, T, D]."""
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017), the H query heads in groups over G key heads (Ainslie et al. 2023)."""

    def __init__(self, dim: int, heads: int, dropout: float, kv_heads: int | None = None) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim // heads * self.kv_heads)
        self.out = Linear(dim, dim)
        self.scale = (dim // heads) ** -0.5
        self.qkv: nn.Module | None = None
        self.dropout = Dropout(dropout)
        xavier(self.q)
        for half in self.kv.weight.chunk(2):
            nn.init.xavier_uniform_(half)
        nn.init.zeros_(self.kv.bias)
        xavier(self.out)

    @torch.no_grad()
    def ready(self, of_self: bool) -> None:
        """Change the weights, for the last time: the scale is a part of them, and with `of_self` queries, keys and values of
        the same vectors are made in one product.
        """
        self.q.weight.mul_(self.scale)
        self.q.bias.mul_(self.scale)
        self.scale = 1.0
        if of_self:
            self.qkv = joined(self.q, self.kv)
            del self.q, self.kv

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, D] -> queries [B, H, T, d], keys and values [B, G, T, d]."""
        if self.qkv is None:
            return self.queries(x), *self.keys_values(x)
        heads = split_heads(self.qkv(x), self.heads + 2 * self.kv_heads)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        return q, k, v

    def queries(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, H, T, d]."""
        return split_heads(self.q(x), self.heads)

    def scaled(self, q: Tensor) -> Tensor:
        """Queries as `attend` of this file wants them: divided by √d, if they are not yet."""
        return q if self.scale == 1.0 else q * self.scale

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, S, D] -> keys and values, [B, G, S, d] each."""
        k, v = self.kv(x).chunk(2, dim=-1)
        return split_heads(k, self.kv_heads), split_heads(v, self.kv_heads)

    def attend(self, q: Tensor, kv: tuple[Tensor, Tensor], bias: Tensor | None, is_causal: bool = False) -> Tensor:
        """q [B, H, T, d], as `queries` gives it, over kv [B, G, S, d], with `bias` added to the scores -> [B, T, D]. Where it
        `is_causal`, which needs a CUDA device, no position sees a later one.
        """
        if q.device.type == "cuda":
            rate = self.dropout.rate if self.training else 0.0
            mask = None if bias is None else bias.to(q.dtype)
            k, v = kv
            if self.heads != self.kv_heads:
                k, v = (x.repeat_interleave(self.heads // self.kv_heads, dim=1) for x in kv)
            few = not self.training or q.shape[2] * k.shape[2] <= _FEW_SCORES
            with sdpa_kernel(_SHORT if few else _LONG):
                x = F.scaled_dot_product_attention(q, k, v, mask, rate, is_causal, scale=self.scale)
            return self.out(join_heads(x))
        # On CPU at the lengths of sentences, plain products are faster than the fused kernel, its backward pass above all.
        return self.out(join_heads(attend(self.scaled(q), *kv, bias, self.dropout)[0]))

    def attend_with_weights(self, q: Tensor, kv: tuple[Tensor, Tensor], bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `attend`, and the attention weights, before dropout, as their mean over the heads [B, T, S]."""
        return self._with_weights(self.scaled(q), kv, bias)

    def _with_weights(self, q: Tensor, kv: tuple[Tensor, Tensor], bias: Tensor | None) -> tuple[Tensor, Tensor]:
        x, weights = attend(q, *kv, bias, self.dropout)
        return self.out(join_heads(x)), weights.float().mean(dim=1)


class CoverageAttention(Attention):
    """Attention that knows how much weight each source position has had from the target positions before.

    A learned vector times that sum is added to each key, as in See et al. 2017. They sum the weights that so arise; here
    the sum is over the weights as they are without coverage, so that all target positions are computed at once.
    """

    def __init__(self, dim: int, heads: int, dropout: float, kv_heads: int | None = None) -> None:
        super().__init__(dim, heads, dropout, kv_heads)
        self.coverage = nn.Parameter(torch.zeros(heads, 1, dim // heads))

    def attend_with_coverage(
        self, q: Tensor, kv: tuple[Tensor, Tensor], bias: Tensor, covered: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `attend_with_weights`, and the coverage [B, T, S] after each position.

        `covered` [B, T, S] is the coverage before it; None where the T positions follow each other from the first on.
        """
        q = self.scaled(q)
        plain = attend(q, *kv, bias, None)[1].float().mean(dim=1)
        if covered is None:
            after = plain.cumsum(dim=1)
            covered = after - plain
        else:
            after = covered + plain
        strength = (q * self.coverage).sum(dim=-1, keepdim=True)  # [B, H, T, 1]
        x, weights = self._with_weights(q, kv, bias + strength * covered[:, None])
        return x, weights, after


class FeedForward(nn.Module):
    """Two linear maps with an activation between: [..., D] -> [..., D]. swiglu: silu(Wx) ⊙ Vx between (Shazeer 2020)."""

    def __init__(self, dim: int, inner: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.gated = activation == "swiglu"
        self.up = Linear(dim, 2 * inner if self.gated else inner)
        self.down = Linear(inner, dim)
        self.activation = _ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)
        xavier(self.up, self.down)
        if self.gated:
            for half in self.up.weight.chunk(2):
                nn.init.xavier_uniform_(half)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        x = self.up(x)
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            x = self.activation(gate) * x
        else:
            x = self.activation(x)
        return self.down(self.dropout(x))
