"""A CUDA device where there is none: tensors that say they lie on it, and are computed with on the CPU.

What torch would refuse there is refused (an operation on tensors of both devices), and what would have the host wait for
the device is counted, as far as that is known of an operation by its name and its indices. It is for search and for loss
without gradients; of what training asks a device, the meta device tells.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
_ATEN = torch.ops.aten
_MIXES = {
    "_to_copy",
    "copy_",
    "index",
    "index_put_",
    "_index_put_impl_",
    "_pack_padded_sequence",
    "_pad_packed_sequence",
}
_ASKS = {
    "_local_scalar_dense",
    "equal",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "_unique2",
    "unique_dim",
}  # the host's answers


class There(Tensor):
    """A tensor on the pretended device; `here` is the one that is computed with."""

    here: Tensor
    waits: list[str]  # of the pretended device there is
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> "There":
        size = {"strides": here.stride(), "storage_offset": here.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(cls, here.shape, **size, dtype=here.dtype, device=CUDA)

    def __init__(self, here: Tensor) -> None:
        self.here = here

    def __repr__(self, **_: Any) -> str:
        return f"There({self.here!r})"

    def __getitem__(self, index: Any) -> "There":
        self._note(index)
        with _disable_current_modes():  # where torch would ask the device's driver
            return There(self.here[_here(index)])

    def __invert__(self) -> "There":
        return _ATEN.bitwise_not(self)

    def __bool__(self) -> bool:
        return bool(_ATEN._local_scalar_dense(self))

    def __float__(self) -> float:
        return float(_ATEN._local_scalar_dense(self))

    def contiguous(self) -> "There":
        """As of any tensor."""
        return _ATEN.clone(self, memory_format=torch.contiguous_format)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._note(index)
        with _disable_current_modes():
            self.here[_here(index)] = _here(value)

    def _note(self, index: Any) -> None:
        """Of truth values it must be known how many are true; what lies on the host is copied."""
        parts = [*index] if isinstance(index, tuple) else [index]
        if any(
            isinstance(p, list) or (isinstance(p, Tensor) and not (isinstance(p, There) and p.dtype != torch.bool))
            for p in parts
        ):
            There.waits.append("index")

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["here"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> "There":
        return There(inner["here"])

    @classmethod
    def __torch_dispatch__(cls, *_: Any, **__: Any) -> Any:
        raise AssertionError("a tensor of the pretended device has left it")


class _Device(TorchDispatchMode):
    """Computes all operations, and notes in `waits` those that a host would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        There.waits = self.waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func._schema.name.removeprefix("aten::")
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [x for x in tensors if isinstance(x, There)]
        if there and name not in _MIXES and any(x.dim() for x in tensors if not isinstance(x, There)):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        if func is _ATEN._fused_sdp_choice.default:
            return 0  # the plain products
        device = kwargs.get("device")
        goes = bool(there) if device is None else _is_cuda(device)
        if name == "copy_":
            goes = isinstance(args[0], There)
        asks = there and name in _ASKS
        brings = (
            goes and name in ("_to_copy", "copy_") and len(there) < len(tensors)
        )  # from memory that is not page-locked
        takes = there and not goes and not kwargs.get("non_blocking")
        if asks or brings or takes:
            self.waits.append(name)
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        with _disable_current_modes():
            call = _CELLS.get(func, func) if there else func
            out = call(*_here(args), **_here(kwargs))
        if name == "_pack_padded_sequence" and there:
            return There(out[0]), out[1]
        if not goes:
            return args[0] if name == "copy_" else out
        out = tree_map(lambda x: There(x) if isinstance(x, Tensor) else x, out)
        return return_and_correct_aliasing(func, args, kwargs, out) if there else out


class _Event:
    """Passes at once."""

    def record(self) -> None:
        """Nothing is under way."""

    def synchronize(self) -> None:
        """Nothing is waited for."""


@contextlib.contextmanager
def pretended_cuda() -> Iterator[list[str]]:
    """Inside, `.to("cuda")` and `device="cuda"` are of the pretended device; yields the names of what has waited for it."""
    to, tensor, new_tensor, tolist = torch.Tensor.to, torch.tensor, torch.Tensor.new_tensor, torch.Tensor.tolist

    def move(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        fixed = {key: CUDA if key == "device" and _is_cuda(value) else value for key, value in kwargs.items()}
        return to(x, *(CUDA if _is_cuda(value) else value for value in args), **fixed)

    def make(data: Any, device: Any = None, **kwargs: Any) -> Tensor:
        return to(tensor(data, **kwargs), CUDA) if _is_cuda(device) else tensor(data, device=device, **kwargs)

    def make_like(x: Tensor, data: Any, **kwargs: Any) -> Tensor:
        return make(data, device=x.device, dtype=x.dtype) if isinstance(x, There) else new_tensor(x, data, **kwargs)

    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with (
            torch.no_grad(),
            mock.patch.object(torch.Tensor, "to", move),
            mock.patch.object(torch.Tensor, "new_tensor", make_like),
            mock.patch.object(torch.Tensor, "tolist", lambda x: tolist(x.cpu() if isinstance(x, There) else x)),
            mock.patch.object(torch.Tensor, "pin_memory", lambda x: x),
            mock.patch.object(torch, "tensor", make),
            mock.patch.object(torch.cuda, "Event", _Event),
            mock.patch.object(torch.cuda, "_lazy_init"),
            _Device() as device,
        ):
            yield device.waits
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def _is_cuda(value: Any) -> bool:
    return isinstance(value, str | torch.device) and torch.device(value).type == "cuda"


def _here(tree: Any) -> Any:
    return tree_map(lambda x: x.here if isinstance(x, There) else x, tree)


def _lstm_cell(x: Tensor, h: Tensor, cell: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None) -> Any:
    gates = x + h if b_x is None else x + h + b_x + b_h
    i, f, g, o = gates.chunk(4, dim=1)
    after = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(after), after, gates


def _gru_cell(x: Tensor, h: Tensor, cell: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None) -> Any:
    x, h = (x, h) if b_x is None else (x + b_x, h + b_h)
    (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, dim=1), h.chunk(3, dim=1)
    z = torch.sigmoid(x_z + h_z)
    return (1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + z * cell, h


# Kernels that a CPU has not, of two products of a cell to its next state and what its gradient would need.
_CELLS = {_ATEN._thnn_fused_lstm_cell.default: _lstm_cell, _ATEN._thnn_fused_gru_cell.default: _gru_cell}
