"""What a decoder layer does before its cache, and after it, as one program of `torch.compile` each."""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import decode
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prototypes.turns import case, cases, same, turns
from s2s_cli.models.cache import Cache
from s2s_cli.models.layers import attend, join_heads, split_heads
from s2s_cli.models.pack import pack
from s2s_cli.models.positions import Order
from s2s_cli.models.transformer import DecoderLayer, LayerOut, Transformer

_called: list[nn.Module] = []  # products of all layers: a program is given their places here, and so serves each layer
_library = torch.library.Library("s2s_benchmarks", "DEF")
_library.define("product(Tensor x, SymInt number, SymInt width, bool halves) -> Tensor")
_library.define("attend(Tensor q, Tensor k, Tensor v, Tensor bias) -> Tensor")
_library.impl("product", lambda x, number, width, halves: _called[number](x), "CPU")
_library.impl("attend", lambda q, k, v, bias: join_heads(attend(q, k, v, bias, None)[0]), "CPU")


@torch.library.register_fake("s2s_benchmarks::product")
def _(x: Tensor, number: int, width: int, halves: bool) -> Tensor:
    return x.new_empty(*x.shape[:-1], width, dtype=torch.bfloat16 if halves else torch.float32)


@torch.library.register_fake("s2s_benchmarks::attend")
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return v.new_empty(q.shape[0], q.shape[2], q.shape[1] * q.shape[3])


def before(x: Tensor, weight: Tensor, bias: Tensor, number: int, halves: bool) -> Tensor:
    """x [B, R, D] -> queries, keys and values [B, R, 3·D]; `number` is the place of the layer's first product."""
    product = torch.ops.s2s_benchmarks.product
    return product(F.layer_norm(x, x.shape[-1:], weight, bias), number, 3 * x.shape[-1], halves)


def after(
    x: Tensor, heads: tuple[Tensor, Tensor, Tensor], mask: Tensor, cross: tuple[Tensor, Tensor], cross_mask: Tensor,
    norms: list[Tensor], number: int, inner: int, halves: bool,
) -> Tensor:  # fmt: skip
    """What the layer gives [N, 1, D], of `x` and of its queries, and keys and values of all positions."""
    product, look = torch.ops.s2s_benchmarks.product, torch.ops.s2s_benchmarks.attend
    dim = x.shape[-1]
    x = x + product(look(*heads, mask), number + 1, dim, False).view(x.shape)
    y = F.layer_norm(x, (dim,), norms[0], norms[1]).view(cross[0].shape[0], -1, dim)
    q = split_heads(product(y, number + 2, dim, halves), heads[0].shape[1])
    x = x + product(look(q, *cross, cross_mask), number + 3, dim, False).view(x.shape)
    y = product(
        F.layer_norm(x, (dim,), norms[2], norms[3]), number + 4, inner, False
    )  # what type it has is nobody's matter
    return x + product(y, number + 5, dim, False)


def compile_decoder(model: Transformer) -> Transformer:
    """A packed model with programs in place of its decoder layers."""
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._inductor.config.force_disable_caches = True
    programs = torch.compile(before, dynamic=True), torch.compile(after, dynamic=True)
    for layer in model.decoder:
        layer.forward = partial(_compiled, layer, *programs, len(_called))
        of_self, cross, inner = layer.self_attention, layer.cross_attention, layer.feed_forward
        _called.extend((of_self.qkv, of_self.out, cross.q, cross.out, inner.up, inner.down))
    return model


def _compiled(
    layer: DecoderLayer, before: Callable[..., Tensor], after: Callable[..., Tensor], number: int, x: Tensor, cache: Cache,
    order: Order, cross: tuple[Tensor, Tensor], cross_mask: Tensor, *_: Any,
) -> LayerOut:  # fmt: skip
    residuals = layer.around_self_attention, layer.around_cross_attention, layer.around_feed_forward
    norms = [tensor for residual in residuals for tensor in (residual.norm.weight, residual.norm.bias)]
    halves = layer.cross_attention.q.rounds
    y = before(x.view(-1, cache.width, x.shape[2]), *norms[:2], number, halves)
    q, k, v = split_heads(y, 3 * layer.self_attention.heads).chunk(3, dim=1)
    cache = cache.append(k, v)
    inner = layer.feed_forward.up.out_features
    heads = (q, *cache.keys_values)
    return LayerOut(after(x, heads, order.bias, cross, cross_mask, norms[2:], number, inner, halves), cache, None, None)


def compiled(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Speed with and without, in each case."""
    rows = []
    for shape, beam, precision in cases(options):
        model, sources, *rest = decode.sentences(here := case(options, shape, beam, precision))
        theirs = decode.ours(model, here, *rest)
        torch._dynamo.reset()
        with patch.object(decode, "pack", lambda *arguments: compile_decoder(pack(*arguments))):
            ours = decode.ours(model, here, *rest)
        begun = time.perf_counter()
        ours(sources)
        first = round(time.perf_counter() - begun, 1)
        found, a, b = turns(partial(ours, sources), partial(theirs, sources), options.turns)
        rows.append({"lever": "compiled", "shape": shape, "beam": beam, "precision": precision} | found)
        rows[-1] |= {"first seconds": first, "same outputs": same(a, b), "sentences": len(sources)}
        print(rows[-1], flush=True)
    return rows
