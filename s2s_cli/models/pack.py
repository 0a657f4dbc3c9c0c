"""Models made ready to translate: weights laid out once, at load, as the processor's matrix products want them.

On a CPU, oneDNN, which torch brings along on x86, reads such weights about twice as fast as plain ones, in fp32 as in bf16, and
multiplies int8. Only linear layers change, whatever the model around them; each computes what it computed before, but for
rounding. Where torch has no oneDNN, and on CUDA, its own products stand in, of weights that are cast once.
"""

from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2s_cli.models.autoregression import SelfAttention
from s2s_cli.models.base import Seq2Seq
from s2s_cli.models.layers import Attention, FeedForward
from s2s_cli.models.recurrent import READY
from s2s_cli.models.rnn import Rnn
from s2s_cli.models.transformer import DecoderLayer, EncoderLayer
from s2s_cli.runtime import is_bf16_fast

_LARGE = 2**17  # elements of a matrix from which on int8 gains more in the product than it costs in rounding the input
_WIDE_HEAD = 32  # elements of a head from which on products of several queries with its keys are faster in bf16
_MANY = 1024  # rows of a product, beyond which their number is rounded up
_ROUNDER = (
    1.5 * 2**23
)  # added to it in fp32, a number is rounded, and stands as a whole one in the last bits of the sum
_SMALLEST = 1e-9  # stands for the largest element of a row of zeros


def pack(model: Seq2Seq, dtype: torch.dtype, is_beam: bool = False) -> Seq2Seq:
    """Change `model` for the last time: it translates on its device from now on, its matrix products in fp32, bf16 or int8, on
    CUDA in fp32, bf16 or fp16; `is_beam` says that it will get several hypotheses of a sentence at once.

    With int8, matrices too small to gain are multiplied in bf16 where the processor is fast at it, else in fp32. Where it is,
    with int8 and bf16, so are several queries at once with keys and values of all but narrow heads, which are then half as
    large: between `is_beam` and not, all that the model computes differs by rounding, samples too.
    """
    on_cpu = model.head.weight.device.type == "cpu"
    halves = dtype in (torch.bfloat16, torch.int8) and is_bf16_fast("cpu") if on_cpu else dtype != torch.float32
    of_encoder = [module.attention for module in model.modules() if isinstance(module, EncoderLayer)]
    for module in list(model.modules()):
        if isinstance(module, nn.RNNBase) and not on_cpu:
            module.flatten_parameters()  # which copying has parted, and cuDNN would put together at each call
        if isinstance(module, Rnn) and on_cpu:
            for layer in module.decoder.layers:
                layer.add_module(READY, nn.ModuleList(_of_cells(layer)))  # type: ignore[arg-type]
        if isinstance(module, EncoderLayer):
            module.attention.ready(of_self=True)
        if isinstance(module, DecoderLayer):
            module.cross_attention.ready(of_self=False)
            if isinstance(module.self_attention, SelfAttention):
                module.self_attention.ready(of_self=True)
        if isinstance(module, FeedForward) and module.activation is F.relu:
            module.activation = _as_is
            module.add_module("up", _packed(module.up, dtype, relu=True))
            if isinstance(module.up, PackedLinear):
                module.up.rounds = True  # what comes out goes into another product, which would round it anyway
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, _packed(child, dtype))
        if halves and (not on_cpu or is_beam or module in of_encoder):
            for name in _rounding(module, on_cpu):
                module.get_submodule(name).rounds = True  # type: ignore[assignment]
    output = nn.Linear(1, 1)
    output.weight, output.bias = model.head.weight, model.head.bias
    model.head.product = _packed(output, dtype)
    return model


def _rounding(module: nn.Module, on_cpu: bool) -> set[str]:
    """The products in a module whose outputs are better of half the digits: other products read them, which would round them."""
    if on_cpu:
        is_wide = isinstance(module, Attention) and module.out.in_features >= _WIDE_HEAD * module.heads
        return {"q", "kv", "qkv"} & module._modules.keys() if is_wide else set()
    if not isinstance(module, Attention | FeedForward):
        return set()
    return {name for name, child in module.named_children() if isinstance(child, PackedLinear)}


def _of_cells(layer: nn.RNNBase) -> list[nn.Module]:
    """The products of a recurrent layer by its input and by its state, in fp32, as torch has them too: what is carried on for
    many positions is not rounded to less.
    """
    products: list[nn.Module] = []
    for name in ("ih", "hh"):
        weight, bias = getattr(layer, f"weight_{name}_l0"), getattr(layer, f"bias_{name}_l0")
        plain = nn.Linear(weight.shape[1], len(weight), device="meta")
        plain.weight, plain.bias = weight, bias
        products.append(PackedLinear(plain, torch.float32, relu=False))
    return products


def _as_is(x: Tensor) -> Tensor:
    return x


def _packed(linear: nn.Linear, dtype: torch.dtype, relu: bool = False) -> nn.Module:
    if dtype == torch.int8:
        if linear.weight.numel() >= _LARGE:
            return Int8Linear(linear, relu)
        dtype = torch.bfloat16 if is_bf16_fast("cpu") else torch.float32
    return PackedLinear(linear, dtype, relu)


@cache
def has_onednn() -> bool:
    """Whether oneDNN's products of packed weights work here: on x86 they do, on a Mac they do not.

    torch makes no promise of them, and may name or call them otherwise in another release: so they are tried.
    """
    plain = nn.Linear(32, 32)
    with torch.no_grad():
        x = torch.eye(32)
        wanted = plain(x)
        try:
            return all(
                torch.allclose(layer(plain, relu=False, packed=True)(x), wanted, atol=0.01)
                for layer in (partial(PackedLinear, dtype=torch.float32), Int8Linear)
            )
        except (AttributeError, RuntimeError, TypeError):
            return False


def few(num: int) -> int:
    """`num` rows; if many, so many more that few numbers are left, 16 from one power of two to the next.

    oneDNN compiles a product for each number of rows that it meets, and keeps the last thousand of them; and a product of
    one row may add up in another order than one of many.
    """
    if num <= _MANY:
        return max(num, 4)
    step = 1 << (num.bit_length() - 5)
    return -(-num // step) * step


class PackedLinear(nn.Module):
    """A linear layer, with ReLU after it if asked for, over a weight that oneDNN has laid out."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, relu: bool, packed: bool | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype, self.relu, self.rounds = dtype, relu, False
        self.weight = linear.weight.detach().to(dtype)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)
        packed = self.weight.device.type == "cpu" and has_onednn() if packed is None else packed
        self.is_packed = packed and dtype != torch.float16  # which few processors multiply
        if self.is_packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D'] in fp32, or with `rounds` in the type of the product."""
        x = x.to(self.dtype)
        if not self.is_packed:
            x = F.linear(x, self.weight, self.bias)
            x = x.relu_() if self.relu else x
            return x if self.rounds else x.float()
        rows, after = x.flatten(0, -2), "relu" if self.relu else "none"
        num = len(rows)
        y = torch.ops.mkldnn._linear_pointwise(_filled(rows), self.weight, self.bias, after, [], "")
        y = y[:num].view(*x.shape[:-1], -1)
        return y if self.rounds else y.float()


def _filled(rows: Tensor) -> Tensor:
    """rows [M, D], and rows of zeros up to `few(M)`."""
    extra = few(len(rows)) - len(rows)
    return F.pad(rows, (0, 0, 0, extra)) if extra else rows


class Int8Linear(nn.Module):
    """A linear layer whose weight is rounded to 8 bits, with a scale for each output, and whose input is, with one for each row.

    A row's scale depends on that row alone (Dettmers et al. 2022, section 3): what else is in the batch changes nothing.
    """

    def __init__(self, linear: nn.Linear, relu: bool, packed: bool | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        scale = weight.abs().amax(dim=1).clamp(min=_SMALLEST) / 127.0
        self.weight = (weight / scale[:, None]).round().to(torch.int8)
        self.bias = torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach()
        self.scale = scale / 127.0  # of weight and input together
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        self.rounder = torch.full(
            (linear.in_features,), _ROUNDER + 128
        )  # whole numbers from 1 to 255: this is the zero
        self.relu, self.rounds = relu, False
        self.is_packed = has_onednn() if packed is None else packed
        if self.is_packed:
            self.weight = torch.ops.onednn.qlinear_prepack(self.weight, None)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D'] in fp32, or with `rounds` in bf16."""
        rows = x.flatten(0, -2).float()
        largest = torch.maximum(rows.amax(dim=1, keepdim=True), -rows.amin(dim=1, keepdim=True)).clamp_(min=_SMALLEST)
        shifted = torch.addcmul(self.rounder, rows, 127.0 / largest).view(torch.int32).to(torch.uint8)
        if self.is_packed:
            y = torch.ops.onednn.qlinear_pointwise(
                _filled(shifted),
                1.0,
                128,
                self.weight,
                self.scale,
                self.zero,
                None,
                1.0,
                0,
                torch.float32,
                "none",
                [],
                "",
            )[: len(rows)]
        else:
            y = F.linear(shifted.float() - 128.0, self.weight.float()) * self.scale
        y = torch.addcmul(self.bias, y, largest, out=y)
        y = (y.relu_() if self.relu else y).view(*x.shape[:-1], -1)
        return y.bfloat16() if self.rounds else y
