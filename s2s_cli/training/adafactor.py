"""Adafactor (Shazeer and Stern 2018), with nothing in a step that waits for a device.

It is what `torch.optim.Adafactor` computes, which asks the device for two norms of each parameter in turn. The tests hold the
two to each other.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_DECAY = -0.8  # of 1 - β₂, as a power of the number of steps
_LEAST = torch.finfo(torch.float32).eps  # ε₁; its square is the least second moment
_LEAST_SCALE = 1e-3  # ε₂: a parameter moves as if its root mean square were no less


class Adafactor(torch.optim.Optimizer):
    """The second moment of a matrix is kept as its row and column means; steps are relative to the size of a parameter.

    The rate of step t is at most 1/√t. Set `found_inf` to a tensor that is 1 to make a step change nothing, 0 to take it.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": 0.0, "weight_decay": weight_decay})
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override] # a closure has no use here
        """Take a step, unless `found_inf` says otherwise."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group["lr"], group["weight_decay"])

    def _step(self, parameter: Tensor, grad: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        is_matrix = grad.dim() > 1
        if not state:
            state["step"] = torch.zeros((), device=grad.device)
            for name, factor in (("row_var", grad[..., :1]), ("col_var", grad[..., :1, :])) if is_matrix else ():
                state[name] = torch.zeros_like(factor, memory_format=torch.contiguous_format)
            if not is_matrix:
                state["variance"] = torch.zeros_like(grad)
        new = {"step": state["step"] + 1}
        fresh = new["step"] ** _DECAY
        if is_matrix:
            squared = grad.square()
            new["row_var"] = state["row_var"].lerp(squared.mean(-1, keepdim=True), fresh)
            new["col_var"] = state["col_var"].lerp(squared.mean(-2, keepdim=True), fresh)
            second = new["row_var"] @ new["col_var"]
            second /= new["row_var"].mean(-2, keepdim=True).clamp(min=_LEAST)
        else:
            new["variance"] = state["variance"].lerp(grad.square(), fresh)
            second = new["variance"].clone()
        update = second.clamp_(min=_LEAST**2).rsqrt_().mul_(grad)
        rate = new["step"].rsqrt().clamp(max=lr) * _root_mean_square(parameter).clamp(min=_LEAST_SCALE)
        update *= rate / _root_mean_square(update).clamp(min=1.0)
        for tensor, value in [(parameter, parameter * (1 - lr * weight_decay) - update)] + [
            (state[name], value) for name, value in new.items()
        ]:
            tensor.copy_(value if self.found_inf is None else torch.where(self.found_inf > 0, tensor, value))


def _root_mean_square(x: Tensor) -> Tensor:
    return x.norm() / x.numel() ** 0.5
