"""Recurrent layers: torch's own cells, in stacks with what torch's stacks lack.

A plain stack is one module of torch, whose kernel runs all its layers in one call. `Stack` is one such module a layer, with
residual sums, layer norm and variational dropout between them. `run` hides the difference. A single position goes by torch's
functions of one, since its kernels for sequences prepare the weights anew at each call; and on a CPU sequences of unequal
length go by the kernels for equal ones, which are up to three times as fast. On CUDA, a plain stack of several layers with
dropout waits for the device once an update, when cuDNN makes its random state anew. Cells are a tuple of what a recurrence
carries, [N, L, D] each: the hidden state, and for an LSTM the cell state.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from s2s_cli.config import RnnSettings
from s2s_cli.data.loader import copied
from s2s_cli.models.layers import Dropout, VariationalDropout, dropout

_CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "elman": nn.RNN}
_MANY = 40  # rows of padding at the mean position, which cost as much as torch's kernel for unequal lengths loses
_PADDING = 1e4  # added to a gate that no input is to pass, or all of the state; then it is 0 or 1 to the last bit
_POSITION = {"GRU": torch.gru_cell, "LSTM": torch.lstm_cell, "RNN_TANH": torch.rnn_tanh_cell}
Cells = tuple[Tensor, ...]
Masks = tuple[Tensor, ...]  # variational dropout between layers, [N, 1, D] each; none where it is off


class Stack(nn.Module):
    """Layers of one recurrence, each of which may have a layer norm before it and, from the third on, a residual sum around."""

    def __init__(self, settings: RnnSettings, input_dim: int, dim: int, layers: int, bidirectional: bool) -> None:
        super().__init__()
        width = dim * (2 if bidirectional else 1)
        self.residual = settings.residual
        self.layers = nn.ModuleList(
            _CELLS[settings.cell](width if number else input_dim, dim, bidirectional=bidirectional, batch_first=True)
            for number in range(layers)
        )
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

    def forward(self, x: Tensor, first: Cells | None, lengths: Tensor | None, masks: Masks) -> tuple[Tensor, Cells]:
        """See `run`."""
        lasts = []
        for number, layer in enumerate(self.layers):
            if number:
                x = x * masks[number - 1] if masks else self.dropout(x)
            before = None if first is None else tuple(cell[:, number : number + 1] for cell in first)
            y = self.norms[number](x) if self.norms else x
            y, last = _run_module(layer, y, before, lengths)  # type: ignore[arg-type]
            x = x + y if self.residual and number >= 2 else y
            lasts.append(last)
        return x, tuple(torch.cat(cells, dim=1) for cells in zip(*lasts, strict=True))


def recurrence(settings: RnnSettings, input_dim: int, dim: int, layers: int, bidirectional: bool) -> nn.Module:
    """A stack of `layers` cells of width `dim` in each direction."""
    if settings.residual or settings.layer_norm or settings.variational_dropout:
        return Stack(settings, input_dim, dim, layers, bidirectional)
    return _CELLS[settings.cell](
        input_dim,
        dim,
        layers,
        bidirectional=bidirectional,
        dropout=settings.dropout if layers > 1 else 0.0,
        batch_first=True,
    )


def run(
    stack: nn.Module, x: Tensor, first: Cells | None = None, lengths: Tensor | None = None, masks: Masks = ()
) -> tuple[Tensor, Cells]:
    """x [N, T, E] from the cells `first` (zero, if none are given) -> states [N, T, D] and the cells after the last position.

    With `lengths` [N], in the host's memory, no padding reaches a state in either direction. Of two directions, the states
    stand side by side.
    """
    if isinstance(stack, Stack):
        return stack(x, first, lengths, masks)
    assert isinstance(stack, nn.RNNBase)
    return _run_module(stack, x, first, lengths)


def _run_module(module: nn.RNNBase, x: Tensor, first: Cells | None, lengths: Tensor | None) -> tuple[Tensor, Cells]:
    """`run` for a module of torch, which wants cells as [L·directions, N, D/directions], and a bare one for all but the LSTM."""
    if lengths is not None:
        assert first is None
        aligned = x.device.type == "cpu" and not isinstance(module, nn.RNN) and _mean_padding(x, lengths) < _MANY
        return (_run_aligned if aligned else _run_packed)(module, x, lengths)
    if first is not None and x.shape[1] == 1 and not module.bidirectional:
        return _run_position(module, x, first)
    cells = tuple(cell.transpose(0, 1).contiguous() for cell in first or ())
    states, after = _kernel(module, x, cells)
    return states, _by_row(module, after)


def _kernel(module: nn.RNNBase, x: Any, cells: Cells = ()) -> tuple[Any, Any]:
    """torch's kernel for whole sequences, of a tensor or packed. On CUDA, autocast to bf16 would have it compute in fp16, where
    small gradients vanish for want of a scaled loss: there it computes in fp32.
    """
    if x.data.device.type == "cuda" and torch.get_autocast_dtype("cuda") == torch.bfloat16:
        with torch.autocast("cuda", enabled=False):
            x, cells = x.float(), tuple(cell.float() for cell in cells)
            return module(x, cells[0] if len(cells) == 1 else cells or None)
    return module(x, cells[0] if len(cells) == 1 else cells or None)


def _by_row(module: nn.RNNBase, cells: Tensor | Cells) -> Cells:
    """Cells as torch gives them, [L·directions, N, D/directions], as ours."""
    cells = cells if isinstance(cells, tuple) else (cells,)
    return tuple(cell.unflatten(0, (module.num_layers, -1)).permute(2, 0, 1, 3).flatten(2) for cell in cells)


def _run_position(module: nn.RNNBase, x: Tensor, first: Cells) -> tuple[Tensor, Cells]:
    """`_run_module` in one direction, for x [N, 1, E]."""
    y, lasts = x[:, 0], []
    for number in range(module.num_layers):
        if number:
            y = dropout(y, module.dropout, module.training)
        before = tuple(cell[:, number] for cell in first)
        weights = [getattr(module, f"{name}_l{number}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        after = _POSITION[module.mode](y, before if len(before) > 1 else before[0], *weights)  # type: ignore[operator]
        lasts.append(after if isinstance(after, tuple) else (after,))
        y = lasts[-1][0]
    return y[:, None], tuple(torch.stack(cells, dim=1) for cells in zip(*lasts, strict=True))


def _run_packed(module: nn.RNNBase, x: Tensor, lengths: Tensor) -> tuple[Tensor, Cells]:
    """`_run_module` from zero cells, by torch's kernel for unequal lengths, for rows sorted by length."""
    order = lengths.argsort(descending=True, stable=True)
    there, back = copied(order, x.device), copied(order.argsort(), x.device)
    packed, cells = _kernel(module, pack_padded_sequence(x.index_select(0, there), lengths[order], batch_first=True))
    states, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    return states.index_select(0, back), tuple(cell.index_select(0, back) for cell in _by_row(module, cells))


def _mean_padding(x: Tensor, lengths: Tensor) -> float:
    return x.shape[0] - int(lengths.sum()) / x.shape[1]


def _run_aligned(module: nn.RNNBase, x: Tensor, lengths: Tensor) -> tuple[Tensor, Cells]:
    """`_run_module` from zero cells, for an LSTM or a GRU: each row ends where the longest does, its padding before it.

    A further input that is 1 at padding closes the LSTM's input gate, or opens the GRU's update gate to the old state. So
    cells that were zero stay zero up to the first real input, whatever the weights, and no gradient comes from there.
    """
    num_rows, times = x.shape[:2]
    is_lstm = isinstance(module, nn.LSTM)
    at = torch.arange(times)
    before = (times - lengths)[:, None]  # how much padding
    flat = torch.arange(num_rows)[:, None] * times
    moved = (flat + (at - before).clamp(min=0)).flatten()
    back = (flat + torch.where(at < lengths[:, None], at + before, 0)).flatten()  # where there is padding, 0 is of it
    padding = (at < before)[..., None].to(x.dtype)
    gate = torch.zeros(len(module.weight_hh_l0), 1)  # type: ignore[arg-type]
    hidden = module.hidden_size
    gate[slice(0, hidden) if is_lstm else slice(hidden, 2 * hidden)] = -_PADDING if is_lstm else _PADDING
    zero = x.new_zeros(1, num_rows, hidden)
    lasts = []
    for number in range(module.num_layers):
        if number:
            x = dropout(x, module.dropout, module.training)
        sides = []
        for suffix in ("", "_reverse") if module.bidirectional else ("",):
            names = (f"{name}_l{number}{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            w_in, *others = (getattr(module, name) for name in names)
            weights = [torch.cat([w_in, gate], dim=1), *others]
            y = x.flip(1) if suffix else _rows(x, moved)
            y = torch.cat([y, padding.to(y.dtype)], dim=2)
            more = (True, 1, 0.0, module.training, False, True)
            y, *last = torch.lstm(y, (zero, zero), weights, *more) if is_lstm else torch.gru(y, zero, weights, *more)
            sides.append(y.flip(1) if suffix else _rows(y, back))
            lasts.append(last)
        x = torch.cat(sides, dim=2)
    return x, _by_row(module, tuple(torch.cat(cells) for cells in zip(*lasts, strict=True)))


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """[N, T, D] with other rows of its N·T, in as many places."""
    return x.flatten(0, 1).index_select(0, index).view_as(x)
