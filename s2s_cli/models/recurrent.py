"""Recurrent layers: torch's own cells, in stacks with what torch's stacks lack.

A single position goes by torch's functions of one, since its kernels for sequences prepare the weights anew at each call; and
on a CPU sequences of unequal length go by the kernels for equal ones, which are up to three times as fast. Cells are a tuple of
what a recurrence carries, [N, L, D] each: the hidden state, and for an LSTM the cell state.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from s2s_cli.config import RnnSettings
from s2s_cli.data.loader import copied
from s2s_cli.models.layers import Dropout, VariationalDropout
from s2s_cli.models.products import linear, suits

_CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "elman": nn.RNN}
_MANY = 40  # rows of padding at the mean position, which cost as much as torch's kernel for unequal lengths loses
_PADDING = 1e4  # added to a gate that no input is to pass, or all of the state; then it is 0 or 1 to the last bit
_POSITION = {"GRU": torch.gru_cell, "LSTM": torch.lstm_cell, "RNN_TANH": torch.rnn_tanh_cell}
_LACKS = {"cuda": torch.bfloat16, "cpu": torch.float16}  # kernels for sequences
READY = "ready"  # what a layer that searches has: its products of the input and of the state, over weights laid out for that
Cells = tuple[Tensor, ...]
Masks = tuple[Tensor, ...]  # variational dropout between layers, [N, 1, D] each; none where it is off


class Stack(nn.Module):
    """Layers of one recurrence with dropout between them, of width `dim` in each direction; each may have a layer norm before it
    and, from the third on, a residual sum around.
    """

    def __init__(self, settings: RnnSettings, input_dim: int, dim: int, layers: int, bidirectional: bool) -> None:
        super().__init__()
        width = dim * (2 if bidirectional else 1)
        self.residual = settings.residual
        self.layers = nn.ModuleList(
            _CELLS[settings.cell](width if number else input_dim, dim, bidirectional=bidirectional, batch_first=True)
            for number in range(layers)
        )
        for layer in self.layers:
            _begin(layer)  # type: ignore[arg-type]
        self.norms = nn.ModuleList(
            nn.LayerNorm(width if number else input_dim) for number in range(layers) if settings.layer_norm
        )
        self.dropout = (VariationalDropout if settings.variational_dropout else Dropout)(settings.dropout)
        self.width = width

    def masks(self, num_rows: int, like: Tensor) -> Masks:
        """Variational dropout for a whole target that is fed position by position."""
        if not (self.training and isinstance(self.dropout, VariationalDropout)):
            return ()
        return tuple(self.dropout.mask(num_rows, self.width, like) for _ in self.layers[1:])

    def forward(
        self, x: Tensor, first: Cells | None = None, lengths: Tensor | None = None, masks: Masks = ()
    ) -> tuple[Tensor, Cells]:
        """x [N, T, E] from the cells `first` (zero, if none are given) -> states [N, T, D] and the cells after the last position.

        With `lengths` [N], in the host's memory, no padding reaches a state in either direction. Of two directions, the states
        stand side by side.
        """
        lasts = []
        for number, layer in enumerate(self.layers):
            if number:
                x = x * masks[number - 1] if masks else self.dropout(x)
            before = None if first is None else tuple(cell[:, number] for cell in first)
            y = self.norms[number](x) if self.norms else x
            y, last = _run_layer(layer, y, before, lengths)  # type: ignore[arg-type]
            x = x + y if self.residual and number >= 2 else y
            lasts.append(last)
        return x, tuple(torch.stack(cells, dim=1) for cells in zip(*lasts, strict=True))


def _begin(layer: nn.RNNBase) -> None:
    """First weights: for each gate Xavier's from the input, and an orthogonal matrix from the state (Saxe et al. 2014), so that
    both reach it with their own variance; biases zero.
    """
    for name, tensor in layer.named_parameters():
        for gate in tensor.detach().split(layer.hidden_size):
            if name.startswith("bias"):
                nn.init.zeros_(gate)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(gate)
            elif not gate.is_meta:
                nn.init.orthogonal_(gate)


def _run_layer(layer: nn.RNNBase, x: Tensor, first: Cells | None, lengths: Tensor | None) -> tuple[Tensor, Cells]:
    """One layer of a stack, whose cells are [N, D] each."""
    with _arithmetic(x.device.type) as cast:
        x, first = cast(x), None if first is None else tuple(map(cast, first))
        if lengths is not None:
            assert first is None
            # In search what is computed for a sentence depends on no other: the kernel is the same for all batches.
            aligned = torch.is_inference_mode_enabled() or _mean_padding(x, lengths) < _MANY
            aligned = aligned and x.device.type == "cpu" and not isinstance(layer, nn.RNN)
            return (_run_aligned if aligned else _run_packed)(layer, x, lengths)
        if first is not None and x.shape[1] == 1:
            y, *more = _run_position(layer, x[:, 0], first)
            return y[:, None], (y, *more)
        states, after = _kernel(layer, x, first)
        return states, _by_row(after)


@contextlib.contextmanager
def _arithmetic(device: str) -> Iterator[Callable[[Tensor], Tensor]]:
    """What a recurrent layer computes in: a context, and what its input is cast by. That is autocast's, but for bf16 on CUDA,
    where torch's kernel would compute in fp16, in which small gradients vanish for want of a scaled loss, and for fp16 on a
    CPU, for which it has none: there it is fp32.
    """
    if not torch.is_autocast_enabled(device) or torch.get_autocast_dtype(device) != _LACKS.get(device):
        yield lambda x: x
        return
    with torch.autocast(device, enabled=False):
        yield lambda x: x.float()


def _kernel(layer: nn.RNNBase, x: Any, first: Cells | None = None) -> tuple[Any, Any]:
    """torch's kernel for whole sequences, of a tensor or packed."""
    cells = tuple(cell[None].contiguous() for cell in first or ())
    return layer(x, cells[0] if len(cells) == 1 else cells or None)


def _by_row(cells: Tensor | Cells) -> Cells:
    """Cells as torch gives them, a bare one for all but the LSTM and [directions, N, D/directions] each, as ours."""
    cells = cells if isinstance(cells, tuple) else (cells,)
    return tuple(cell.transpose(0, 1).flatten(1) for cell in cells)


def _run_position(layer: nn.RNNBase, x: Tensor, first: Cells) -> Cells:
    """The cells after one position more, x [N, E], in one direction; by torch's function where the products are torch's too."""
    (w_in, b_in), (w_state, b_state) = (layer.weight_ih_l0, layer.bias_ih_l0), (layer.weight_hh_l0, layer.bias_hh_l0)
    if ready := getattr(layer, READY, None):
        by_input, by_state = (product(rows) for product, rows in zip(ready, (x, first[0]), strict=True))
    elif suits(x, w_in):  # type: ignore[arg-type]
        by_input, by_state = linear(x, w_in, b_in), linear(first[0], w_state, b_state)  # type: ignore[arg-type]
    else:
        state = first if len(first) > 1 else first[0]
        after = _POSITION[layer.mode](x, state, w_in, w_state, b_in, b_state)  # type: ignore[operator]
        return after if isinstance(after, tuple) else (after,)
    if layer.mode == "RNN_TANH":
        return (torch.tanh(by_input + by_state),)
    if layer.mode == "LSTM":
        add, keep, new, out = (by_input + by_state).chunk(4, dim=1)
        cell = torch.sigmoid(keep) * first[1] + torch.sigmoid(add) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(cell), cell
    (reset, keep, new), (more_reset, more_keep, old) = by_input.chunk(3, dim=1), by_state.chunk(3, dim=1)
    new = torch.tanh(new + torch.sigmoid(reset + more_reset) * old)
    return (new + torch.sigmoid(keep + more_keep) * (first[0] - new),)


def _run_packed(layer: nn.RNNBase, x: Tensor, lengths: Tensor) -> tuple[Tensor, Cells]:
    """`_run_layer` from zero cells, by torch's kernel for unequal lengths, for rows sorted by length."""
    order = lengths.argsort(descending=True, stable=True)
    there, back = copied(order, x.device), copied(order.argsort(), x.device)
    packed, cells = _kernel(layer, pack_padded_sequence(x.index_select(0, there), lengths[order], batch_first=True))
    states, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    return states.index_select(0, back), tuple(cell.index_select(0, back) for cell in _by_row(cells))


def _mean_padding(x: Tensor, lengths: Tensor) -> float:
    return x.shape[0] - int(lengths.sum()) / x.shape[1]


def _run_aligned(layer: nn.RNNBase, x: Tensor, lengths: Tensor) -> tuple[Tensor, Cells]:
    """`_run_layer` from zero cells, for an LSTM or a GRU: each row ends where the longest does, its padding before it.

    A further input that is 1 at padding closes the LSTM's input gate, or opens the GRU's update gate to the old state. So
    cells that were zero stay zero up to the first real input, whatever the weights, and no gradient comes from there.
    """
    num_rows, times = x.shape[:2]
    is_lstm = isinstance(layer, nn.LSTM)
    at = torch.arange(times)
    before = (times - lengths)[:, None]  # how much padding
    flat = torch.arange(num_rows)[:, None] * times
    moved = (flat + (at - before).clamp(min=0)).flatten()
    back = (flat + torch.where(at < lengths[:, None], at + before, 0)).flatten()  # where there is padding, 0 is of it
    padding = (at < before)[..., None]
    hidden = layer.hidden_size
    gate = x.new_zeros(len(layer.weight_hh_l0), 1, dtype=torch.float32)  # type: ignore[arg-type]
    gate[slice(0, hidden) if is_lstm else slice(hidden, 2 * hidden)] = -_PADDING if is_lstm else _PADDING
    zero = x.new_zeros(1, num_rows, hidden)
    sides, lasts = [], []
    for suffix in ("", "_reverse") if layer.bidirectional else ("",):
        names = (f"{name}_l0{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        w_in, *others = (getattr(layer, name) for name in names)
        y = torch.cat([x.flip(1) if suffix else _rows(x, moved), padding.to(x.dtype)], dim=2)
        weights, more = [torch.cat([w_in, gate], dim=1), *others], (True, 1, 0.0, layer.training, False, True)
        y, *last = torch.lstm(y, (zero, zero), weights, *more) if is_lstm else torch.gru(y, zero, weights, *more)
        sides.append(y.flip(1) if suffix else _rows(y, back))
        lasts.append(last)
    return torch.cat(sides, dim=2), _by_row(tuple(torch.cat(cells) for cells in zip(*lasts, strict=True)))


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """[N, T, D] with other rows of its N·T, in as many places."""
    return x.flatten(0, 1).index_select(0, index).view_as(x)
