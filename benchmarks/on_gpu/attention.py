"""Attention by each of torch's kernels, forwards and back: queries, keys and values [B, H, T, 64] in bf16, dropout 0.1.

`ms_new` is what one call costs, forwards and back, where the number of sentences is one that never was: the median of three.
"""

import argparse
import statistics
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from on_gpu.turns import Row, noted, now

SHAPES = [(850, 8, 30), (2000, 8, 30), (420, 16, 60), (250, 8, 100), (100, 8, 256), (50, 8, 512)]
KERNELS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "Flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "plain": SDPBackend.MATH,
}
TIMES, WARM_UPS = 30, 5


def cases(options: argparse.Namespace) -> Iterator[tuple[list[Row], list[Row]]]:
    """Rows and failures, shape by shape: with padding, which is a mask, and with later positions hidden."""
    device = options.runtime.device
    for rows, heads, length in [(4, 2, 8)] if options.smoke else SHAPES:
        shape = (rows, length, heads, 64)
        q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16).transpose(1, 2) for _ in range(3))
        leaves = [x.requires_grad_() for x in (q, k, v)]
        padding = torch.zeros(rows, 1, 1, length, device=device, dtype=torch.bfloat16)
        padding[::3, :, :, -1] = -torch.inf
        grad = torch.randn_like(q)
        found: list[Row] = []
        failed: dict[str, str] = {}
        ways: dict[str, dict[str, Any]] = {"padding": {"attn_mask": padding}, "causal": {"is_causal": True}}
        for hides, how in ways.items():
            for name, kernel in KERNELS.items():
                with noted(failed, f"{name}, {hides}"), sdpa_kernel(kernel):
                    row: Row = {"rows": rows, "heads": heads, "positions": length, "hides": hides, "kernel": name}
                    for part in ("ms_forwards", "ms"):
                        for number in range(-WARM_UPS, TIMES):
                            if number == 0:
                                begun = now(device)
                            out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, scale=1.0, **how)
                            if part == "ms":
                                torch.autograd.grad(out, leaves, grad)
                        row[part] = round(1000 * (now(device) - begun) / TIMES, 3)
                    new = []
                    for num in range(rows - 1, max(rows - 4, 0), -1):
                        less = {key: x[:num] if isinstance(x, Tensor) else x for key, x in how.items()}
                        fewer = [x.detach()[:num].requires_grad_() for x in leaves]
                        begun = now(device)
                        out = F.scaled_dot_product_attention(*fewer, dropout_p=0.1, scale=1.0, **less)
                        torch.autograd.grad(out, fewer, grad[:num])
                        new.append(1000 * (now(device) - begun))
                    row["ms_new"] = round(statistics.median(new), 3)
                    found.append(row)
        case = {"rows": rows, "heads": heads, "positions": length}
        yield found, [case | {"engine": name, "why": why} for name, why in failed.items()]
