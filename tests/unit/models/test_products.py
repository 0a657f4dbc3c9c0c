"""Products by oneDNN give what torch's give, values and gradients, and stand aside for all that is not fp32 on a CPU."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from s2s_cli.config import RnnSettings
from s2s_cli.models import heads, products
from s2s_cli.models.heads import SoftmaxHead
from s2s_cli.models.pack import has_onednn
from s2s_cli.models.products import Linear, linear, matmul
from s2s_cli.models.recurrent import Stack
from s2s_cli.runtime import is_bf16_fast

ONEDNN = pytest.mark.skipif(not has_onednn(), reason="a torch without oneDNN")
SIZES = st.integers(1, 40)


@pytest.fixture(autouse=True)
def calls(monkeypatch) -> list[tuple[int, ...]]:
    """Products by oneDNN, whatever the processor and the size; their shapes are what this gives."""
    torch.manual_seed(1)
    found: list[tuple[int, ...]] = []
    product = products.product
    monkeypatch.setattr(products, "has_wide_onednn", lambda: True)
    monkeypatch.setattr(products, "_LARGE", 1)
    monkeypatch.setattr(products, "product", lambda x, *more: [found.append(tuple(x.shape)), product(x, *more)][1])
    return found


def both_ways(compute: Callable[[], Tensor], *of: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The value and the gradients by oneDNN, and by torch's own products."""
    ways = []
    for suits in (products.suits, lambda x, weight: False):
        with pytest.MonkeyPatch.context() as patch:
            for room in (products, heads, Stack.forward.__globals__):
                patch.setitem(room if isinstance(room, dict) else vars(room), "suits", suits)
            y = compute()
            weights = torch.linspace(-1, 1, y.numel()).view_as(y)
            ways.append([y.detach(), *torch.autograd.grad((y * weights).sum(), of)])
    return ways[0], ways[1]


@ONEDNN
@settings(deadline=None)
@given(st.lists(st.integers(1, 6), max_size=3), SIZES, SIZES, st.booleans())
@example([], 5, 7, True)
@example([64], 8, 300, True)
def test_a_linear_layer_is_that_of_torch(shape, inputs, outputs, bias):
    x, layer = torch.randn(*shape, inputs, requires_grad=True), Linear(inputs, outputs, bias=bias)
    ours, theirs = both_ways(lambda: layer(x), x, *layer.parameters())
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


@ONEDNN
def test_what_is_laid_out_otherwise_is_multiplied_as_well(calls):
    x, weight = torch.randn(6, 5, 4).transpose(0, 1), torch.randn(4, 7)
    torch.testing.assert_close(linear(x, weight.t()), x @ weight)
    y = torch.randn(3, 4, requires_grad=True)
    linear(y, weight.t()).sum().backward()  # its gradient is one number, expanded
    torch.testing.assert_close(y.grad, weight.sum(dim=1).expand(3, 4))
    assert calls == [(30, 4), (3, 4), (3, 7)]


@ONEDNN
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_a_position_of_a_recurrence_is_that_of_torch(cell, calls):
    stack, x = Stack(RnnSettings(cell=cell, dropout=0.0), 6, 8, 2, False), torch.randn(3, 1, 6, requires_grad=True)
    first = tuple(torch.randn(3, 2, 8, requires_grad=True) for _ in range(2 if cell == "lstm" else 1))

    def compute() -> Tensor:
        states, cells = stack(x, first)
        return torch.cat([states.flatten(), *(cell.flatten() for cell in cells)])

    ours, theirs = both_ways(compute, x, *first, *stack.parameters())
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    assert len(calls) == 2 * 2 * 3


@ONEDNN
def test_the_loss_in_chunks_has_the_same_gradients(monkeypatch, calls):
    monkeypatch.setattr(heads, "CHUNK", 100)
    head, hidden, targets = SoftmaxHead(nn.Embedding(20, 8)), torch.randn(13, 8, requires_grad=True), torch.arange(13)
    ours, theirs = both_ways(lambda: head.loss(hidden, None, targets, 0.1)[0][None], hidden, head.weight, head.bias)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    assert len(calls) == 3 * 3


def test_other_types_go_to_torch(calls):
    x, layer = torch.randn(3, 4), Linear(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    wide = layer.to(torch.float64)
    torch.testing.assert_close(wide(x.double()), F.linear(x.double(), wide.weight, wide.bias))
    assert linear(torch.empty(0, 4), torch.randn(5, 4)).shape == (0, 5)
    bias = torch.tensor([2.0]).expand(5)  # oneDNN would read five numbers in a row
    torch.testing.assert_close(linear(x, torch.zeros(5, 4), bias), bias.expand(3, 5))
    assert calls == []


@ONEDNN
def test_small_products_go_to_torch(calls, monkeypatch):
    monkeypatch.setattr(products, "_LARGE", 100)
    linear(torch.randn(3, 2, 4), torch.randn(4, 4))
    assert calls == []
    linear(torch.randn(3, 3, 4), torch.randn(4, 4))
    assert calls == [(9, 4)]


@ONEDNN
def test_what_is_frozen_is_not_kept_for_its_gradient(calls):
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: [kept.append(x.numel()), x][1], lambda x: x):
        layer, x = Linear(4, 5).requires_grad_(False), torch.randn(3, 4, requires_grad=True)
        layer(x).relu_().sum().backward()
    assert x.numel() not in kept
    assert calls == [(3, 4), (3, 5)]


BATCHES = pytest.mark.skipif(not products.multiplies_batches(), reason="no products of batches by oneDNN in fp32")
HALVES = pytest.mark.skipif(not is_bf16_fast("cpu"), reason="a processor slow at bf16")
DTYPES = pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=BATCHES), pytest.param(torch.bfloat16, marks=HALVES)], ids=str
)


@DTYPES
@torch.inference_mode()
@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=2), SIZES, st.integers(1, 700), st.integers(1, 700))
def test_a_product_of_batches_is_that_of_torch(dtype, batch, rows, inner, outputs):
    a, b = torch.randn(*batch, rows, inner).to(dtype), torch.randn(*batch, outputs, inner).to(dtype).transpose(-2, -1)
    wanted = (a.double() @ b.double()).to(dtype)
    torch.testing.assert_close(
        matmul(a, b),
        wanted,
        atol=1e-4 if dtype == torch.float32 else 0.3,
        rtol=1e-4 if dtype == torch.float32 else 0.02,
    )


@DTYPES
@torch.inference_mode()
@settings(deadline=None)
@given(st.integers(1, 50), st.sampled_from([1, 4, 8]), st.integers(2, 20), st.sampled_from([32, 64]), st.data())
def test_others_in_a_batch_change_no_bit_of_attention(dtype, num, heads, queries, dim, data):
    """Nor do more keys whose weight is nothing: of scores, and of the sum of values."""
    keys = data.draw(st.integers(1, 64)) * 16
    more = data.draw(st.integers(0, 64 - keys // 16)) * 16
    q, k, v = (torch.randn(num, heads, n, dim).to(dtype) for n in (queries, keys, keys))
    weights = torch.randn(num, heads, queries, keys).softmax(dim=-1).to(dtype)
    scores, sums, one = matmul(q, k.transpose(-2, -1)), matmul(weights, v), data.draw(st.integers(0, num - 1))
    alone = slice(one, one + 1)
    longer = [F.pad(x[alone], (0, 0, 0, more)) for x in (k, v)]
    assert torch.equal(matmul(q[alone], longer[0].transpose(-2, -1))[..., :keys], scores[alone])
    assert torch.equal(matmul(F.pad(weights[alone], (0, more)), longer[1]), sums[alone])


def products_of_batches(num: int) -> None:
    a = torch.randn(40, 8, 64)
    with torch.inference_mode():
        for _ in range(num):
            matmul(a, a.transpose(1, 2))


@BATCHES
def test_no_precision_of_torch_is_left_changed():
    """Neither by what goes wrong, nor by a signal, nor by threads; and who has set it himself keeps it."""
    precision, a = torch.backends.mkldnn.matmul, torch.randn(40, 8, 64)
    plain = a @ a.transpose(1, 2)
    with torch.inference_mode(), pytest.raises(RuntimeError):
        matmul(a, a)
    assert precision.fp32_precision == "none"
    before = signal.signal(signal.SIGALRM, lambda *_: next(iter(())))  # which raises
    try:
        for number in range(300):
            signal.setitimer(signal.ITIMER_REAL, 1e-3 + number * 1e-6)
            with pytest.raises(StopIteration):
                products_of_batches(10**6)
            assert precision.fp32_precision == "none"
    finally:
        signal.signal(signal.SIGALRM, before)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(products_of_batches, [200] * 3))
    assert precision.fp32_precision == "none"
    assert torch.equal(a @ a.transpose(1, 2), plain)
    precision.fp32_precision = "ieee"
    try:
        products_of_batches(1)
        assert precision.fp32_precision == "ieee"
    finally:
        precision.fp32_precision = "none"


def test_without_leave_torch_multiplies(monkeypatch):
    monkeypatch.delattr(torch._C, "_set_fp32_precision_setter", raising=False)
    assert not products.multiplies_batches.__wrapped__()
    monkeypatch.setattr(products, "multiplies_batches", lambda: False)
    products_of_batches(1)
