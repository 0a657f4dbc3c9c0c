"""Matrix products in fp32 on a CPU, by oneDNN where that is faster than torch's own library: with weights, and in attention.

The latter uses half the width of AVX-512 on processors that are not Intel's; oneDNN, which torch brings along on x86 and asks for
products in bf16, uses it all. What is computed is the same but for rounding. Everything else is torch's: other devices and
processors, products under autocast, and small ones: oneDNN compiles a product for each number of rows that it meets, which takes
as long as a small product many times over, and keeps the last thousand of them, up to half a GB. Attention in training, whose
shapes are new at each step, is torch's too.
"""

import os
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_LARGE = 2**25  # multiplications of a product from which on it gains more than it costs to compile one
_PRODUCTS = ("mkldnn", "matmul")  # as torch names what its precision in fp32 is set for
_LEAST = 4096  # multiplications of products in a batch up to which torch never asks oneDNN


class Linear(nn.Linear):
    """torch's linear layer, [..., D] -> [..., D'], by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., D] -> [..., D']."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., D], weight [D', D], bias [D'] -> [..., D'], as `F.linear`; there is no second derivative of it."""
    if not suits(x, weight) or not (bias is None or bias.is_contiguous()):
        return F.linear(x, weight, bias)
    return _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether the product of x [..., D] and a weight [D', D] is oneDNN's."""
    return (
        _is_fp32_on_cpu(x, weight)
        and x.numel() * len(weight) >= _LARGE
        and weight.dim() == 2
        and not torch.is_autocast_enabled("cpu")
        and has_wide_onednn()
    )


def _is_fp32_on_cpu(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype == torch.float32 and a.device.type == b.device.type == "cpu"


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` of rows [M, D] that suit, for the backward pass of one who writes it: no gradient goes through."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a [B, ..., M, D] @ b [B, ..., D, N], in inference mode by oneDNN in bf16, and where that suits in fp32: then the product
    of a sentence is the same, bit by bit, whatever else is in the batch, for sums of up to 1024 numbers.
    """
    if not torch.is_inference_mode_enabled() or a.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return a @ b
    halves = a.dtype == b.dtype == torch.bfloat16
    if not halves and (a.shape[-2] == 1 or not _is_fp32_on_cpu(a, b) or not multiplies_batches()):
        return a @ b  # of one row as fast
    num, size = len(a), a.numel() * b.shape[-1]
    if 0 < size <= _LEAST:
        a, b = (F.pad(x, (0, 0) * (x.dim() - 1) + (0, num * (_LEAST // size))) for x in (a, b))
    return (a @ b if halves else _batched(a, b))[:num]


def _batched(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` with leave to round to bf16 inside, which alone has torch ask oneDNN; that makes no use of it, as was tried.

    The leave is the whole process's: one thread at a time has it, and nobody whose torch was told otherwise. It is taken back
    by a function in C, for a signal's handler raises within functions in Python.
    """
    with _leave:
        if torch._C._get_fp32_precision_getter(*_PRODUCTS) != "none":
            return a @ b
        try:
            torch._C._set_fp32_precision_setter(*_PRODUCTS, "bf16")
            return a @ b
        finally:
            torch._C._set_fp32_precision_setter(*_PRODUCTS, "none")


def _after_fork() -> None:
    """In a new process: what another thread of the old one may have held is nobody's."""
    global _leave
    if _leave.locked():
        _leave = Lock()
        torch._C._set_fp32_precision_setter(*_PRODUCTS, "none")


_leave = Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    """grad [M, D'] and x [M, D] that suit -> the gradient of a weight [D', D]. The larger side is the faster second one."""
    if grad.shape[1] > x.shape[1]:
        return product(x.t(), grad.t()).t()
    return product(grad.t(), x.t())


@cache
def has_wide_onednn() -> bool:
    """Whether oneDNN is here and the processor has AVX-512 and is not Intel's. torch makes no promise of the product: so it is
    tried.
    """
    about = Path("/proc/cpuinfo")
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not about.exists() or "GenuineIntel" in about.read_text():
        return False
    x, weight = torch.eye(32), torch.arange(1024.0).view(32, 32)
    try:
        with torch.no_grad():
            return torch.equal(product(x, weight), weight.t()) and torch.equal(product(weight.t(), x), weight.t())
    except (AttributeError, RuntimeError, TypeError):
        return False


@cache
def multiplies_batches() -> bool:
    """Whether oneDNN multiplies batches of matrices in fp32 here, and does not round them to bf16: it is tried."""
    if not has_wide_onednn():
        return False
    try:
        return all(_is_exact(torch.linspace(-1.0, 1.0, 2 * n * 512).view(2, n, 512)) for n in (5, 64))
    except (AttributeError, RuntimeError):
        return False


def _is_exact(keys: Tensor) -> bool:
    """Products [2, 5, N] of [2, 5, D] with keys [2, N, D], laid out in both ways, and as they are."""
    plain = keys.flip(2)[:, :5]
    with torch.no_grad():
        wanted = plain.double() @ keys.double().transpose(1, 2)
        found = [_batched(plain, b) for b in (keys.transpose(1, 2), keys.transpose(1, 2).contiguous())]
    return all(torch.allclose(one.double(), wanted, rtol=1e-5, atol=1e-4) for one in found)


class _Linear(torch.autograd.Function):
    """`linear` of rows [M, D]. What no gradient needs is not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return (
            None if weight is None else product(grad, weight.t()),
            None if x is None else weight_grad(grad, x),
            grad.sum(dim=0) if ctx.needs_input_grad[2] else None,
        )
