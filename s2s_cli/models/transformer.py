"""The Transformer (Vaswani et al. 2017) and what has become of it, behind the contract of `base.py`.

The parallel pass and the step share every block: a step is the parallel pass over one position that also sees what is
known of the positions before it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2s_cli.config import TransformerSettings
from s2s_cli.data.loader import copied, real_positions
from s2s_cli.errors import ConfigError
from s2s_cli.models.autoregression import Past, autoregression
from s2s_cli.models.base import Memory, Seq2Seq, Sizes, State
from s2s_cli.models.cache import Cache, Paths, select, spread
from s2s_cli.models.heads import build_head
from s2s_cli.models.layers import (
    Attention,
    CoverageAttention,
    Dropout,
    FeedForward,
    as_products,
    causal_bias,
    embedding,
    lanes,
    norm,
    padding_bias,
)
from s2s_cli.models.positions import Order, Positions, rotate

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TransformerMemory(Memory):
    """Encoder output, and what every target position needs of it: padding bias [B, 1, 1, S'], keys and values by layer, where
    S' is `lanes(S)`, or S in training on CUDA.
    """

    bias: Tensor
    cross: tuple[KeysValues, ...]


@dataclass(frozen=True)
class TransformerState(State):
    """What each layer knows of the positions so far, how many they are, and the coverage [N, S'] of a head that has one.

    Where layers have caches, `paths` tells from the first step on what in them belongs to which row.
    """

    past: tuple[Past, ...]
    num_past: int
    coverage: Tensor | None
    paths: Paths | None = None

    def select(self, index: Tensor, stay: bool = False) -> "TransformerState":
        """See `Rows.select`; keys and values stay where they are."""
        if self.paths is None:
            return super().select(index, stay)
        paths, past = select(self.paths, self.past, index, stay)  # type: ignore[arg-type] # all of them are caches
        coverage = None if self.coverage is None else self.coverage.index_select(0, index)
        return TransformerState(past, self.num_past, coverage, paths)

    def spread(self, index: Tensor, num: int) -> "TransformerState":
        """See `State.spread`."""
        if self.paths is None:
            return super().spread(index, num)
        paths, past = spread(self.paths, self.past, index, num)  # type: ignore[arg-type] # all of them are caches
        coverage = None if self.coverage is None else self.coverage.index_select(0, index.repeat_interleave(num))
        return TransformerState(past, self.num_past, coverage, paths)


class Residual(nn.Module):
    """x + dropout(block(norm(x))), or norm(x + dropout(block(x))): the two places of the layer norm."""

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        self.norm = norm(settings.normalization, settings.dim)
        self.dropout = Dropout(settings.dropout)
        self.pre = settings.norm == "pre"

    def enter(self, x: Tensor) -> Tensor:
        """What the block gets."""
        return self.norm(x) if self.pre else x

    def leave(self, x: Tensor, block: Tensor) -> Tensor:
        """The sum of the stream `x` and the block's output."""
        x = x + self.dropout(block)
        return x if self.pre else self.norm(x)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        self.attention = Attention(settings.dim, settings.heads, settings.attention_dropout, settings.kv_heads)
        self.around_attention = Residual(settings)
        self.feed_forward = _feed_forward(settings)
        self.around_feed_forward = Residual(settings)

    def forward(self, x: Tensor, order: Order) -> Tensor:
        """x [B, S, D] -> [B, S, D]."""
        q, k, v = self.attention.queries_keys_values(self.around_attention.enter(x))
        q, k = rotate(q, order.rotation), rotate(k, order.rotation)
        x = self.around_attention.leave(x, self.attention.attend(q, (k, v), order.bias))
        return self.around_feed_forward.leave(x, self.feed_forward(self.around_feed_forward.enter(x)))


class LayerOut(NamedTuple):
    """Of a decoder layer: the stream [N, T, D], what it knows of all positions, cross-attention and coverage [B, K·T, S']."""

    x: Tensor
    past: Past
    weights: Tensor | None
    coverage: Tensor | None


class DecoderLayer(nn.Module):
    """Self-attention or what stands in its place, attention over the encoder memory, feed-forward."""

    def __init__(self, settings: TransformerSettings, coverage: bool) -> None:
        super().__init__()
        self.self_attention = autoregression(settings)
        self.around_self_attention = Residual(settings)
        kind = CoverageAttention if coverage else Attention
        self.cross_attention = kind(settings.dim, settings.heads, settings.attention_dropout, settings.kv_heads)
        self.around_cross_attention = Residual(settings)
        self.feed_forward = _feed_forward(settings)
        self.around_feed_forward = Residual(settings)

    def forward(
        self,
        x: Tensor,
        past: Past | None,
        order: Order,
        cross: KeysValues,
        cross_bias: Tensor,
        attention: bool = False,
        coverage: Tensor | None = None,
    ) -> LayerOut:
        """x [N, T, D] after `past`; the weights are given if `attention` asks for them."""
        y, past = self.self_attention(self.around_self_attention.enter(x), past, order)
        x = self.around_self_attention.leave(x, y)
        # The K hypotheses of a sentence stand as positions of one query, so that its memory is neither copied nor read K times.
        y = self.around_cross_attention.enter(x)
        num_sentences = cross[0].shape[0]
        q = self.cross_attention.queries(y.reshape(num_sentences, -1, y.shape[-1]))  # [B, H, K·T, d]
        weights = None
        if isinstance(self.cross_attention, CoverageAttention):
            y, weights, coverage = self.cross_attention.attend_with_coverage(q, cross, cross_bias, coverage)
        elif attention:
            y, weights = self.cross_attention.attend_with_weights(q, cross, cross_bias)
        else:
            y = self.cross_attention.attend(q, cross, cross_bias)
        x = self.around_cross_attention.leave(x, y.view(x.shape))
        x = self.around_feed_forward.leave(x, self.feed_forward(self.around_feed_forward.enter(x)))
        return LayerOut(x, past, weights, coverage)


def _filled(k: Tensor, v: Tensor) -> KeysValues:
    """Keys and values [B, G, S, d] with zeros up to `lanes(S)`, laid out anew: as they lay, each step would copy them."""
    extra = lanes(k.shape[2]) - k.shape[2]
    return F.pad(k, (0, 0, 0, extra)).contiguous(), F.pad(v, (0, 0, 0, extra)).contiguous()


def _feed_forward(settings: TransformerSettings) -> FeedForward:
    return FeedForward(settings.dim, settings.ffn_dim, settings.activation, settings.activation_dropout)


class Transformer(Seq2Seq):
    """Encoder and decoder of self-attention; the attention it shows is the mean over the heads of the last decoder layer."""

    settings: TransformerSettings

    def __init__(self, settings: TransformerSettings, sizes: Sizes) -> None:
        super().__init__()
        dim = settings.dim
        self.settings, self.is_compiled = settings, False
        tie = settings.tie or ("all" if sizes.shared else "target")
        self.tgt_embedding = embedding(sizes.tgt, dim)
        self.src_embedding = self.tgt_embedding if tie == "all" else embedding(sizes.src, dim)
        self.head = build_head(settings, embedding(sizes.tgt, dim) if tie == "none" else self.tgt_embedding)
        self.dropout = Dropout(settings.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(settings) for _ in range(settings.encoder_layers))
        last = settings.decoder_layers - 1
        self.decoder = nn.ModuleList(
            DecoderLayer(settings, settings.coverage and number == last) for number in range(settings.decoder_layers)
        )
        self.encoder_norm = norm(settings.normalization, dim) if settings.norm == "pre" else nn.Identity()
        self.decoder_norm = norm(settings.normalization, dim) if settings.norm == "pre" else nn.Identity()
        self.src_positions = Positions(settings, two_ways=True)
        self.tgt_positions = Positions(settings, two_ways=False, attends=settings.autoregression == "attention")
        if settings.init == "depth":
            _scale_by_depth(self.encoder)
            _scale_by_depth(self.decoder)

    def compile_layers(self) -> None:
        """See `Seq2Seq.compile_layers`: one layer's program serves all of its kind, for any number of rows and positions. Where
        the model does not train, layers are called as they are.
        """
        if self.settings.autoregression == "ssru":
            raise ConfigError(
                "runtime.compile: a simple recurrent unit is another program for each length: leave it out"
            )
        self.is_compiled = True
        from torch._dynamo import config  # which takes a second

        # Programs of a layer: with attention and without, for few scores and many, one row and more, with gradients and without.
        config.cache_size_limit = 64
        for layer in [*self.encoder, *self.decoder]:
            layer.compile(dynamic=True)
        self.head.of_chunk = torch.compile(self.head.of_chunk, dynamic=True)

    def _called(self, layer: nn.Module) -> Callable[..., Any]:
        return layer.forward if self.is_compiled and not self.training else layer

    def _embed(self, table: nn.Embedding, positions: Positions, ids: Tensor, start: int = 0) -> Tensor:
        x = table(ids) * math.sqrt(self.settings.dim)
        vectors = positions.vectors(start, ids.shape[1], ids.device)
        return as_products(self.dropout(x if vectors is None else x + vectors))

    def _is_left_out(self, last: bool = False) -> bool:
        """Whether training passes over a layer this time; never the `last` one of a decoder whose attention the head reads."""
        rate = self.settings.layer_drop
        return self.training and rate > 0.0 and not (last and self.head.reads_attention) and bool(torch.rand(()) < rate)

    def encode(self, src: Tensor, src_len: Tensor) -> TransformerMemory:
        """See `Seq2Seq.encode`; the decoder's keys and values over the memory are computed here, once a sentence."""
        mask = copied(real_positions(src_len, src.shape[1]), src.device)
        bias = padding_bias(mask)
        order = self.src_positions.order(0, src.shape[1], src.device, bias)
        x = self._embed(self.src_embedding, self.src_positions, src)
        for layer in self.encoder:
            if not self._is_left_out():
                x = self._called(layer)(x, order)
        x = self.encoder_norm(x)
        cross = tuple(layer.cross_attention.keys_values(x) for layer in self.decoder)  # type: ignore[union-attr, operator]
        if not (self.training and src.device.type == "cuda"):  # where this is work for nothing
            cross = tuple(_filled(*keys_values) for keys_values in cross)
            bias = F.pad(bias, (0, lanes(src.shape[1]) - src.shape[1]), value=-math.inf)
        return TransformerMemory(states=x, mask=mask, src=src, bias=bias, cross=cross)

    def start(self, memory: TransformerMemory) -> TransformerState:
        """No positions yet."""
        layers = zip(self.decoder, memory.cross, strict=True)
        past = tuple(layer.self_attention.start(keys) for layer, (keys, _) in layers)  # type: ignore[union-attr, operator]
        coverage = (
            memory.states.new_zeros(memory.bias[:, 0, 0].shape, dtype=torch.float32) if self.settings.coverage else None
        )
        return TransformerState(past, 0, coverage)

    def decode(self, tgt_in: Tensor, memory: TransformerMemory) -> tuple[Tensor, Tensor | None]:
        """See `Seq2Seq.decode`."""
        num, device = tgt_in.shape[1], tgt_in.device
        x = self._embed(self.tgt_embedding, self.tgt_positions, tgt_in)
        is_causal = device.type == "cuda" and self.tgt_positions.kind != "relative"
        bias = None if is_causal else causal_bias(num, device)
        order = self.tgt_positions.order(0, num, device, bias)._replace(is_causal=is_causal)
        weights = None
        for number, (layer, cross) in enumerate(zip(self.decoder, memory.cross, strict=True), start=1):
            last = number == len(self.decoder)
            if not self._is_left_out(last):
                reads = last and self.head.reads_attention
                x, _, weights, _ = self._called(layer)(x, None, order, cross, memory.bias, reads)
        return self.decoder_norm(x), None if weights is None else weights[:, :, : memory.mask.shape[1]]

    def advance(
        self, tokens: Tensor, memory: TransformerMemory, state: TransformerState, attention: bool
    ) -> tuple[Tensor, Tensor | None, TransformerState]:
        """See `Seq2Seq.advance`."""
        x = self._embed(self.tgt_embedding, self.tgt_positions, tokens[:, None], state.num_past)  # [N, 1, D]
        order = self.tgt_positions.order(state.num_past, 1, tokens.device, None)
        paths, before = state.paths, state.past
        if self.settings.autoregression == "attention":
            if paths is None:
                paths = Paths.first(len(tokens), len(tokens) // memory.num_rows, tokens.device)
                before = tuple(Cache(None, 0, paths.width) for _ in before)
            paths = paths.append()
            order = Order(paths.bias(order.bias), order.rotation)
        coverage = None if state.coverage is None else state.coverage.unflatten(0, (memory.num_rows, -1))  # [B, K, S']
        past, weights = [], None
        for number, layer in enumerate(self.decoder, start=1):
            cross = memory.cross[number - 1]
            last = number == len(self.decoder)
            out = layer(x, before[number - 1], order, cross, memory.bias, attention and last, coverage)
            x, weights, coverage = out.x, out.weights, out.coverage
            past.append(out.past)
        if weights is not None:
            weights = weights[:, :, : memory.mask.shape[1]].flatten(0, 1)  # [B, K, S'] -> [N, S]
        if coverage is not None:
            coverage = coverage.flatten(0, 1)
        return (
            self.decoder_norm(x).squeeze(1),
            weights,
            TransformerState(tuple(past), state.num_past + 1, coverage, paths),
        )


def _scale_by_depth(layers: nn.ModuleList) -> None:
    """Divide the matrices of the l-th layer by √l (Zhang et al. 2019), so that the sum of many layers stays in bounds."""
    with torch.no_grad():
        for number, layer in enumerate(layers, start=1):
            for parameter in layer.parameters():
                if parameter.dim() == 2:
                    parameter.div_(math.sqrt(number))
