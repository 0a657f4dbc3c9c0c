"""Recurrent encoder and decoder, with and without attention, behind the contract of `base.py`.

Without attention the decoder sees the source through the encoder's last state alone (Sutskever et al. 2014, Cho et al.
2014); with it, through a weighted sum of all encoder states, weighted anew at every target position: by the decoder's state
after its cell (Luong et al. 2015) or before it (Bahdanau et al. 2015).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2s_cli.config import RnnSettings
from s2s_cli.data.loader import copied, real_positions
from s2s_cli.models.base import Memory, Seq2Seq, Sizes, State
from s2s_cli.models.heads import build_head
from s2s_cli.models.layers import Dropout, VariationalDropout, embedding, lanes, xavier
from s2s_cli.models.products import Linear
from s2s_cli.models.recurrent import Cells, Masks, Stack


@dataclass(frozen=True)
class RnnMemory(Memory):
    """Encoder output, the keys [B, S, D] that attention scores (None without attention), the decoder's first state. In search
    on a CPU both may have places more than the mask.
    """

    keys: Tensor | None
    first: Cells


@dataclass(frozen=True)
class RnnState(State):
    """The cells; where they are used, the attention output of the position before [N, D'] and the coverage [N, S]."""

    cells: Cells
    fed: Tensor | None
    coverage: Tensor | None


class Noise(NamedTuple):
    """Variational dropout drawn for a whole target: for the output [N, 1, D'] and between the layers of the decoder."""

    out: Tensor | None = None
    layers: Masks = ()


class GlobalAttention(nn.Module):
    """Attention of each decoder state h over all encoder states s, with one of four scores.

    dot: hᵀs, scaled: hᵀs/√D, general: hᵀWs (Luong et al. 2015, Vaswani et al. 2017); additive: vᵀtanh(Wh + Us) (Bahdanau
    et al. 2015). With coverage c, the sum of the weights so far, c·w is added to s or its image (See et al. 2017).
    """

    def __init__(self, dim: int, score: str, coverage: bool) -> None:
        super().__init__()
        self.score = score
        if score in ("general", "additive"):
            self.key = Linear(dim, dim, bias=False)
        if score == "additive":
            self.query = Linear(dim, dim)
            self.energy = Linear(dim, 1, bias=False)
        xavier(*self.children())  # type: ignore[arg-type]
        if score == "general":  # so that it begins by looking everywhere, and not at a few places by chance
            self.key.weight.data *= dim**-0.5
        if coverage:
            self.coverage = nn.Parameter(torch.zeros(dim))

    def keys(self, states: Tensor) -> Tensor:
        """What is computed once a source sentence: [B, S, D] -> [B, S, D]."""
        return self.key(states) if self.score in ("general", "additive") else states

    def forward(
        self, queries: Tensor, keys: Tensor, states: Tensor, mask: Tensor, coverage: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """queries [B, T, D] over keys and states [B, S, D] -> context [B, T, D], weights [B, T, S]; coverage as the weights.

        Keys and states may have more places than the mask [B, S], which are hidden.
        """
        num = mask.shape[1]
        if extra := keys.shape[1] - num:
            mask, coverage = F.pad(mask, (0, extra)), None if coverage is None else F.pad(coverage, (0, extra))
        if self.score == "additive":
            image = self.query(queries)[:, :, None] + keys[:, None]  # [B, T, S, D]
            if coverage is not None:
                image = image + coverage[..., None] * self.coverage
            scores = self.energy(torch.tanh(image)).squeeze(3)
        else:
            if self.score == "scaled":
                queries = queries * queries.shape[-1] ** -0.5
            scores = queries @ keys.transpose(1, 2)
            if coverage is not None:
                scores = scores + coverage * (queries @ self.coverage)[..., None]
        weights = torch.softmax(scores.float().masked_fill(~mask[:, None], -torch.inf), dim=-1)
        return weights.to(states.dtype) @ states, weights[..., :num]


class Rnn(Seq2Seq):
    """Recurrent encoder–decoder."""

    recurrent = True
    settings: RnnSettings

    def __init__(self, settings: RnnSettings, sizes: Sizes) -> None:
        super().__init__()
        dim, emb_dim = settings.dim, settings.emb_dim
        self.settings = settings
        tie = settings.tie or ("all" if sizes.shared else "target")
        # A table that is no output layer too begins with variance 1: cells would hardly notice what is so much smaller.
        self.tgt_embedding = embedding(sizes.tgt, emb_dim, 1.0 if tie == "none" else None)
        self.src_embedding = self.tgt_embedding if tie == "all" else embedding(sizes.src, emb_dim, 1.0)
        out_dim = dim if tie == "none" else emb_dim  # a tied output layer is as wide as the embedding
        self.head = build_head(settings, embedding(sizes.tgt, out_dim) if tie == "none" else self.tgt_embedding)
        self.dropout = (VariationalDropout if settings.variational_dropout else Dropout)(settings.dropout)
        directions = 2 if settings.bidirectional else 1
        self.encoder = Stack(settings, emb_dim, dim // directions, settings.encoder_layers, settings.bidirectional)
        self.before = settings.attention_place == "before"
        more = out_dim if settings.input_feeding else dim if self.before else 0
        self.decoder = Stack(settings, emb_dim + more, dim, settings.decoder_layers, bidirectional=False)
        self.num_cells = 2 if settings.cell == "lstm" else 1
        self.bridge = nn.ModuleList(
            Linear(dim, settings.decoder_layers * dim) for _ in range(self.num_cells) if settings.bridge == "linear"
        )
        self.attention = (
            None if settings.attention == "none" else GlobalAttention(dim, settings.attention, settings.coverage)
        )
        seen = dim if self.attention is None else 2 * dim + (emb_dim if self.before else 0)
        self.out = Linear(seen, out_dim)
        xavier(self.out, *self.bridge)
        # Whether a position needs the attention of the one before it, so that training too goes one by one.
        self.one_by_one = settings.input_feeding or self.before or settings.coverage

    def encode(self, src: Tensor, src_len: Tensor) -> RnnMemory:
        """See `Seq2Seq.encode`."""
        states, last = self.encoder(self.dropout(self.src_embedding(src)), lengths=src_len)  # [B, S, D]
        if torch.is_inference_mode_enabled() and states.device.type == "cpu":
            # So that the length of other sentences changes no sum over the positions of one; the mask has no such places.
            states = F.pad(states, (0, 0, 0, lanes(states.shape[1]) - states.shape[1]))
        return RnnMemory(
            states=states,
            mask=copied(real_positions(src_len, src.shape[1]), src.device),
            src=src,
            keys=None if self.attention is None else self.attention.keys(self.dropout(states)),
            first=self._bridged(last),
        )

    def _bridged(self, last: Cells) -> Cells:
        """From the encoder's last cells to the decoder's first."""
        if self.settings.bridge == "copy":
            return last
        layers = self.settings.decoder_layers
        if self.settings.bridge == "zero":
            return tuple(cell.new_zeros(cell.shape[0], layers, cell.shape[2]) for cell in last)
        top = zip(self.bridge, last, strict=True)
        return tuple(torch.tanh(bridge(cell[:, -1])).unflatten(1, (layers, -1)) for bridge, cell in top)

    def start(self, memory: RnnMemory) -> RnnState:
        """The bridged state of the encoder; nothing fed, nothing covered."""
        first = memory.first[0]
        return RnnState(
            cells=memory.first,
            fed=first.new_zeros(first.shape[0], self.out.out_features) if self.settings.input_feeding else None,
            coverage=memory.states.new_zeros(memory.mask.shape, dtype=torch.float32)
            if self.settings.coverage
            else None,
        )

    def decode(self, tgt_in: Tensor, memory: RnnMemory) -> tuple[Tensor, Tensor | None]:
        """See `Seq2Seq.decode`; one position after the other where each needs the attention of the one before."""
        state = self.start(memory)
        x = self.dropout(self.tgt_embedding(tgt_in))
        noise = self._noise(x)
        if not self.one_by_one:
            states, _ = self.decoder(x, state.cells, masks=noise.layers)
            hidden, weights = self._attend_after(states, memory, None)
            return self._dropped(hidden, noise), weights
        hiddens, all_weights = [], []
        for t in range(tgt_in.shape[1]):
            hidden, weights, state = self._position(x[:, t : t + 1], memory, state, noise)
            hiddens.append(hidden)
            all_weights.append(weights)
        return torch.cat(hiddens, dim=1), torch.cat(all_weights, dim=1)  # type: ignore[arg-type] # it has attention

    def advance(
        self, tokens: Tensor, memory: RnnMemory, state: RnnState, attention: bool
    ) -> tuple[Tensor, Tensor | None, RnnState]:
        """See `Seq2Seq.advance`."""
        x = self.dropout(self.tgt_embedding(tokens[:, None]))  # [N, 1, E]
        hidden, weights, state = self._position(x, memory, state, Noise())
        return hidden.squeeze(1), weights.squeeze(1) if attention and weights is not None else None, state

    def _position(
        self, x: Tensor, memory: RnnMemory, state: RnnState, noise: Noise
    ) -> tuple[Tensor, Tensor | None, RnnState]:
        """One position of N rows: x [N, 1, E] -> what the head gets [N, 1, D'], weights [N, 1, S], the next state.

        The K hypotheses of a sentence stand as K queries of one sentence, which share its memory.
        """
        num_sentences = memory.num_rows
        covered = None if state.coverage is None else state.coverage.unflatten(0, (num_sentences, -1))  # [B, K, S]
        weights: Tensor | None
        if self.before:
            query = state.cells[0][:, -1].unflatten(0, (num_sentences, -1))  # [B, K, D]
            seen, weights = self._look(query, memory, covered)
            context = seen.flatten(0, 1)[:, None].to(x.dtype)  # [N, 1, D]
            states, cells = self.decoder(torch.cat([x, context], dim=2), state.cells, masks=noise.layers)
            hidden = torch.tanh(self.out(torch.cat([states, context, x], dim=2)))
        else:
            if state.fed is not None:
                x = torch.cat([x, state.fed[:, None].to(x.dtype)], dim=2)
            states, cells = self.decoder(x, state.cells, masks=noise.layers)
            query = states.reshape(num_sentences, -1, states.shape[-1])
            hidden, weights = self._attend_after(query, memory, covered)
            hidden = hidden.flatten(0, 1)[:, None]
        hidden = self._dropped(hidden, noise)
        fed = None if state.fed is None else hidden.squeeze(1)
        if weights is None:
            return hidden, None, RnnState(cells, fed, None)
        weights = weights.flatten(0, 1)  # [N, S]
        coverage = None if state.coverage is None else state.coverage + weights
        return hidden, weights[:, None], RnnState(cells, fed, coverage)

    def _look(self, queries: Tensor, memory: RnnMemory, covered: Tensor | None) -> tuple[Tensor, Tensor]:
        """queries [B, T, D] -> context [B, T, D], weights [B, T, S]."""
        assert self.attention is not None
        assert memory.keys is not None
        return self.attention(queries, memory.keys, memory.states, memory.mask, covered)

    def _attend_after(self, states: Tensor, memory: RnnMemory, covered: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Decoder states [B, T, D] -> what the head gets [B, T, D'], attention weights [B, T, S]."""
        if self.attention is None:
            return torch.tanh(self.out(states)), None
        context, weights = self._look(states, memory, covered)
        return torch.tanh(self.out(torch.cat([states, context], dim=2))), weights

    def _noise(self, like: Tensor) -> Noise:
        """Drawn once a target, where dropout is variational and the model trains."""
        if not (self.training and isinstance(self.dropout, VariationalDropout)):
            return Noise()
        num_rows = like.shape[0]
        out = self.dropout.mask(num_rows, self.out.out_features, like)
        return Noise(out, self.decoder.masks(num_rows, like))

    def _dropped(self, hidden: Tensor, noise: Noise) -> Tensor:
        return self.dropout(hidden) if noise.out is None else hidden * noise.out
