"""The Transformer (Vaswani et al. 2017), behind the contract of `base.py`.

The parallel pass and the step share every block: a step is the parallel pass over one position whose self-attention
also sees the cached keys and values of the positions before it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from s2s_cli.config import TransformerSettings
from s2s_cli.models.base import Memory, Seq2Seq, Sizes, State, real_positions
from s2s_cli.models.heads import SoftmaxHead
from s2s_cli.models.layers import (
    Attention,
    Dropout,
    FeedForward,
    causal_bias,
    embedding,
    padding_bias,
    sinusoidal_positions,
)

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TransformerMemory(Memory):
    """Encoder output, and what every target position needs of it: padding bias [B, 1, 1, S], keys and values by layer."""

    bias: Tensor
    cross: tuple[KeysValues, ...]


@dataclass(frozen=True)
class TransformerState(State):
    """Keys and values [N, H, t, d] of the t positions so far, by layer; `num_past` is t."""

    past: tuple[KeysValues, ...]
    num_past: int


class Residual(nn.Module):
    """x + dropout(block(norm(x))), or norm(x + dropout(block(x))): the two places of the layer norm."""

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(settings.dim)
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
        self.attention = Attention(settings.dim, settings.heads, settings.attention_dropout)
        self.around_attention = Residual(settings)
        self.feed_forward = FeedForward(
            settings.dim, settings.ffn_dim, settings.activation, settings.activation_dropout
        )
        self.around_feed_forward = Residual(settings)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x [B, S, D] -> [B, S, D]."""
        y = self.around_attention.enter(x)
        y = self.attention(self.attention.queries(y), self.attention.keys_values(y), bias)
        x = self.around_attention.leave(x, y)
        return self.around_feed_forward.leave(x, self.feed_forward(self.around_feed_forward.enter(x)))


class DecoderLayer(nn.Module):
    """Self-attention, attention over the encoder memory, feed-forward."""

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        self.self_attention = Attention(settings.dim, settings.heads, settings.attention_dropout)
        self.around_self_attention = Residual(settings)
        self.cross_attention = Attention(settings.dim, settings.heads, settings.attention_dropout)
        self.around_cross_attention = Residual(settings)
        self.feed_forward = FeedForward(
            settings.dim, settings.ffn_dim, settings.activation, settings.activation_dropout
        )
        self.around_feed_forward = Residual(settings)

    def forward(
        self,
        x: Tensor,
        past: KeysValues | None,
        causal: Tensor | None,
        cross: KeysValues,
        cross_bias: Tensor,
        attention: bool = False,
    ) -> tuple[Tensor, KeysValues, Tensor | None]:
        """x [N, T, D] after `past` -> ([N, T, D], all keys and values, cross-attention weights [B, K·T, S] if asked for)."""
        y = self.around_self_attention.enter(x)
        keys, values = self.self_attention.keys_values(y)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        x = self.around_self_attention.leave(
            x, self.self_attention(self.self_attention.queries(y), (keys, values), causal)
        )
        # The K hypotheses of a sentence stand as positions of one query, so that its memory is neither copied nor read K times.
        y = self.around_cross_attention.enter(x)
        num_sentences = cross[0].shape[0]
        queries = self.cross_attention.queries(y.reshape(num_sentences, -1, y.shape[-1]))  # [B, H, K·T, d]
        weights = None
        if attention:
            y, weights = self.cross_attention.with_weights(queries, cross, cross_bias)
        else:
            y = self.cross_attention(queries, cross, cross_bias)
        x = self.around_cross_attention.leave(x, y.view(x.shape))
        x = self.around_feed_forward.leave(x, self.feed_forward(self.around_feed_forward.enter(x)))
        return x, (keys, values), weights


class Transformer(Seq2Seq):
    """Encoder and decoder of self-attention; the attention it shows is the mean over the heads of the last decoder layer."""

    def __init__(self, settings: TransformerSettings, sizes: Sizes) -> None:
        super().__init__()
        self.dim = settings.dim
        tie = settings.tie or ("all" if sizes.shared else "target")
        self.tgt_embedding = embedding(sizes.tgt, settings.dim)
        self.src_embedding = self.tgt_embedding if tie == "all" else embedding(sizes.src, settings.dim)
        self.head = SoftmaxHead(embedding(sizes.tgt, settings.dim) if tie == "none" else self.tgt_embedding)
        self.dropout = Dropout(settings.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(settings) for _ in range(settings.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(settings) for _ in range(settings.decoder_layers))
        final_norm = settings.norm == "pre"
        self.encoder_norm = nn.LayerNorm(settings.dim) if final_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(settings.dim) if final_norm else nn.Identity()

    def _embed(self, table: nn.Embedding, ids: Tensor, start: int = 0) -> Tensor:
        positions = sinusoidal_positions(start, ids.shape[1], self.dim, ids.device)
        return self.dropout(table(ids) * math.sqrt(self.dim) + positions)

    def encode(self, src: Tensor, src_len: Tensor) -> TransformerMemory:
        """See `Seq2Seq.encode`; the decoder's keys and values over the memory are computed here, once a sentence."""
        mask = real_positions(src_len, src.shape[1])
        bias = padding_bias(mask)
        x = self._embed(self.src_embedding, src)
        for layer in self.encoder:
            x = layer(x, bias)
        x = self.encoder_norm(x)
        cross = tuple(layer.cross_attention.keys_values(x) for layer in self.decoder)  # type: ignore[union-attr, operator]
        return TransformerMemory(states=x, mask=mask, bias=bias, cross=cross)

    def start(self, memory: TransformerMemory) -> TransformerState:
        """No positions yet."""
        empty = tuple((k[:, :, :0], v[:, :, :0]) for k, v in memory.cross)
        return TransformerState(past=empty, num_past=0)

    def decode(self, tgt_in: Tensor, memory: TransformerMemory) -> Tensor:
        """See `Seq2Seq.decode`."""
        x = self._embed(self.tgt_embedding, tgt_in)
        causal = causal_bias(tgt_in.shape[1], tgt_in.device)
        for layer, cross in zip(self.decoder, memory.cross, strict=True):
            x, _, _ = layer(x, None, causal, cross, memory.bias)
        return self.decoder_norm(x)

    def advance(
        self, tokens: Tensor, memory: TransformerMemory, state: TransformerState, attention: bool
    ) -> tuple[Tensor, Tensor | None, TransformerState]:
        """See `Seq2Seq.advance`."""
        x = self._embed(self.tgt_embedding, tokens[:, None], state.num_past)  # [N, 1, D]
        past, weights = [], None
        for number, layer in enumerate(self.decoder):
            last = number == len(self.decoder) - 1
            x, kv, weights = layer(
                x, state.past[number], None, memory.cross[number], memory.bias, attention=attention and last
            )
            past.append(kv)
        if weights is not None:
            weights = weights.flatten(0, 1)  # [B, K, S] -> [N, S]
        return self.decoder_norm(x).squeeze(1), weights, TransformerState(tuple(past), state.num_past + 1)
