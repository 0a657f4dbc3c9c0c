"""Matrix products with weights in fp32 on a CPU, by oneDNN where the processor has AVX-512.

torch gives those to a library that uses half the width of processors of some makers; oneDNN, which torch brings along on x86
and asks for products in bf16, uses it all. What is computed is the same but for rounding. Everything else is torch's: other
types, other devices, other processors, and products under autocast.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Linear(nn.Linear):
    """torch's linear layer, [..., D] -> [..., D'], by the faster of both libraries."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., D] -> [..., D']."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., D], weight [D', D], bias [D'] -> [..., D'], as `F.linear`."""
    if not (suits(x) and suits(weight)) or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def suits(x: Tensor) -> bool:
    """Whether a product of this tensor with another that suits is oneDNN's."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and has_wide_onednn() and x.numel() > 0


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` of rows [M, D] that suit, for the backward pass of one who writes it: no gradient goes through."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    """grad [M, D'] and x [M, D] that suit -> the gradient of a weight [D', D]. The larger side is the faster second one."""
    if grad.shape[1] > x.shape[1]:
        return product(x.t(), grad.t()).t()
    return product(grad.t(), x.t())


@cache
def has_wide_onednn() -> bool:
    """Whether oneDNN is here and the processor has AVX-512. torch makes no promise of the product: so it is tried."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    x, weight = torch.eye(32), torch.arange(1024.0).view(32, 32)
    try:
        with torch.no_grad():
            return torch.equal(product(x, weight), weight.t()) and torch.equal(product(weight.t(), x), weight.t())
    except (AttributeError, RuntimeError, TypeError):
        return False


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(_rows(x), weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = _rows(grad)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(rows, weight.t()).view_as(x) if of_x else None,
            weight_grad(rows, _rows(x)) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
