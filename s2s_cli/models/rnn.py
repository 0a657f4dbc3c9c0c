"""Recurrent encoder and decoder, with and without attention, behind the contract of `base.py`.

Without attention the decoder sees the source through the encoder's last state alone (Sutskever et al. 2014, Cho et al.
2014); with it, through a weighted sum of all encoder states, weighted anew at every target position (Bahdanau et al. 2015;
scores and placement as in Luong et al. 2015). The recurrences are torch's own fused cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from s2s_cli.config import RnnSettings
from s2s_cli.models.base import Memory, Seq2Seq, Sizes, State, real_positions
from s2s_cli.models.heads import SoftmaxHead
from s2s_cli.models.layers import Dropout, embedding

_CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}
Cells = tuple[Tensor, ...]  # the hidden state, and for an LSTM the cell state: [N, L, D] each


@dataclass(frozen=True)
class RnnMemory(Memory):
    """Encoder output, the keys [B, S, D] that attention scores (None without attention), the decoder's first state."""

    keys: Tensor | None
    first: Cells


@dataclass(frozen=True)
class RnnState(State):
    """The cells, and the attention output of the position before [N, D'] (None unless it is fed)."""

    cells: Cells
    fed: Tensor | None


class GlobalAttention(nn.Module):
    """Attention of each decoder state over all encoder states, with one of three scores.

    dot: hᵀs; general: hᵀWs (Luong et al. 2015); additive: vᵀtanh(Wh + Us) (Bahdanau et al. 2015).
    """

    def __init__(self, dim: int, score: str) -> None:
        super().__init__()
        self.score = score
        if score != "dot":
            self.key = nn.Linear(dim, dim, bias=False)
        if score == "additive":
            self.query = nn.Linear(dim, dim)
            self.energy = nn.Linear(dim, 1, bias=False)

    def keys(self, states: Tensor) -> Tensor:
        """What is computed once a source sentence: [B, S, D] -> [B, S, D]."""
        return states if self.score == "dot" else self.key(states)

    def forward(self, queries: Tensor, keys: Tensor, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """queries [B, T, D] over keys and states [B, S, D] -> context [B, T, D], weights [B, T, S]."""
        if self.score == "additive":
            scores = self.energy(torch.tanh(self.query(queries)[:, :, None] + keys[:, None])).squeeze(3)
        else:
            scores = queries @ keys.transpose(1, 2)
        weights = torch.softmax(scores.float().masked_fill(~mask[:, None], -torch.inf), dim=-1)
        return weights.to(states.dtype) @ states, weights


class Rnn(Seq2Seq):
    """Recurrent encoder–decoder."""

    def __init__(self, settings: RnnSettings, sizes: Sizes) -> None:
        super().__init__()
        dim, emb_dim = settings.dim, settings.emb_dim
        self.settings = settings
        tie = settings.tie or ("all" if sizes.shared else "target")
        self.tgt_embedding = embedding(sizes.tgt, emb_dim)
        self.src_embedding = self.tgt_embedding if tie == "all" else embedding(sizes.src, emb_dim)
        out_dim = dim if tie == "none" else emb_dim  # a tied output layer is as wide as the embedding
        self.head = SoftmaxHead(embedding(sizes.tgt, out_dim) if tie == "none" else self.tgt_embedding)
        self.dropout = Dropout(settings.dropout)
        self.encoder = _CELLS[settings.cell](
            emb_dim,
            dim // (2 if settings.bidirectional else 1),
            settings.encoder_layers,
            bidirectional=settings.bidirectional,
            dropout=settings.dropout if settings.encoder_layers > 1 else 0.0,
            batch_first=True,
        )
        self.decoder = _CELLS[settings.cell](
            emb_dim + (out_dim if settings.input_feeding else 0),
            dim,
            settings.decoder_layers,
            dropout=settings.dropout if settings.decoder_layers > 1 else 0.0,
            batch_first=True,
        )
        num_cells = 2 if settings.cell == "lstm" else 1
        self.bridge = nn.ModuleList(nn.Linear(dim, settings.decoder_layers * dim) for _ in range(num_cells))
        self.attention = None if settings.attention == "none" else GlobalAttention(dim, settings.attention)
        self.out = nn.Linear(dim if self.attention is None else 2 * dim, out_dim)

    def encode(self, src: Tensor, src_len: Tensor) -> RnnMemory:
        """See `Seq2Seq.encode`. Sentences are packed, so that no padding reaches a state in either direction."""
        x = self.dropout(self.src_embedding(src))
        packed = pack_padded_sequence(x, src_len.cpu(), batch_first=True, enforce_sorted=False)
        packed_states, final = self.encoder(packed)
        states, _ = pad_packed_sequence(packed_states, batch_first=True, total_length=src.shape[1])  # [B, S, D]
        finals = final if isinstance(final, tuple) else (final,)  # [layers·directions, B, D/directions] each
        first = []
        for bridge, last in zip(self.bridge, finals, strict=True):
            top = last[-2:].transpose(0, 1).flatten(1) if self.settings.bidirectional else last[-1]  # [B, D]
            first.append(torch.tanh(bridge(top)).unflatten(1, (self.settings.decoder_layers, -1)))  # [B, L, D]
        return RnnMemory(
            states=states,
            mask=real_positions(src_len, src.shape[1]),
            keys=None if self.attention is None else self.attention.keys(self.dropout(states)),
            first=tuple(first),
        )

    def start(self, memory: RnnMemory) -> RnnState:
        """The bridged state of the encoder."""
        first = memory.first[0]
        fed = first.new_zeros(first.shape[0], self.out.out_features) if self.settings.input_feeding else None
        return RnnState(cells=memory.first, fed=fed)

    def decode(self, tgt_in: Tensor, memory: RnnMemory) -> Tensor:
        """See `Seq2Seq.decode`; with input feeding a loop over positions, since each needs the attention of the one before."""
        state = self.start(memory)
        x = self.dropout(self.tgt_embedding(tgt_in))
        if not self.settings.input_feeding:
            states, _ = self._recur(x, state.cells)
            return self.dropout(self._attend(states, memory)[0])
        outs = []
        for t in range(tgt_in.shape[1]):
            states, cells = self._recur(torch.cat([x[:, t : t + 1], state.fed[:, None]], dim=2), state.cells)  # type: ignore[index]
            outs.append(self.dropout(self._attend(states, memory)[0]))
            state = RnnState(cells, outs[-1].squeeze(1))
        return torch.cat(outs, dim=1)

    def advance(
        self, tokens: Tensor, memory: RnnMemory, state: RnnState, attention: bool
    ) -> tuple[Tensor, Tensor | None, RnnState]:
        """See `Seq2Seq.advance`."""
        x = self.dropout(self.tgt_embedding(tokens[:, None]))  # [N, 1, E]
        if state.fed is not None:
            x = torch.cat([x, state.fed[:, None].to(x.dtype)], dim=2)
        states, cells = self._recur(x, state.cells)
        queries = states.view(
            memory.num_rows, -1, states.shape[-1]
        )  # [B, K, D]: the hypotheses of a sentence share its memory
        hidden, weights = self._attend(queries, memory)
        hidden = self.dropout(hidden.flatten(0, 1))  # [N, D']
        if weights is not None:
            weights = weights.flatten(0, 1)
        return hidden, weights if attention else None, RnnState(cells, None if state.fed is None else hidden)

    def _recur(self, x: Tensor, cells: Cells) -> tuple[Tensor, Cells]:
        """x [N, T, E] from `cells` -> states [N, T, D] and the cells after the last of them."""
        before = tuple(cell.transpose(0, 1).contiguous() for cell in cells)  # torch wants [L, N, D]
        states, after = self.decoder(x, before if len(before) == 2 else before[0])
        after = after if isinstance(after, tuple) else (after,)
        return states, tuple(cell.transpose(0, 1) for cell in after)

    def _attend(self, states: Tensor, memory: RnnMemory) -> tuple[Tensor, Tensor | None]:
        """Decoder states [B, T, D] -> what the head gets [B, T, D'], attention weights [B, T, S]."""
        if self.attention is None or memory.keys is None:
            return torch.tanh(self.out(states)), None
        context, weights = self.attention(states, memory.keys, memory.states, memory.mask)
        return torch.tanh(self.out(torch.cat([states, context], dim=2))), weights
