"""Packed models: every model of the grid gives what its plain form gives, on a machine with oneDNN and on one without."""

import copy

import pytest
import torch
from grid import GRID, Case, pad, sentences
from torch import nn

from s2s_cli.config import RnnSettings, TransformerSettings
from s2s_cli.models import pack as room
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.pack import Int8Linear, PackedLinear, few, has_onednn, pack

EACH = pytest.mark.parametrize("case", GRID, ids=lambda case: case.name)
ONEDNN = pytest.mark.parametrize(
    "onednn", [pytest.param(True, marks=pytest.mark.skipif(not has_onednn(), reason="a torch without oneDNN")), False]
)
SRC = sentences(6, seed=1)


@pytest.fixture(autouse=True)
def _no_grad():
    torch.manual_seed(1)
    with torch.inference_mode():
        yield


def steps(model) -> torch.Tensor:
    """Log-probabilities of three steps, rows reordered on the way."""
    memory = model.encode(*pad(SRC))
    state, tokens, found = model.start(memory), torch.arange(3, 3 + len(SRC)), []
    for _ in range(3):
        out = model.step(tokens, memory, state)
        order = torch.arange(len(SRC)).roll(1)
        found.append(out.logp)
        memory, state = memory.select(order), out.state.select(order)
    return torch.stack(found)


@EACH
def test_a_packed_model_is_that_model(case: Case):
    plain = case.build()
    for dtype, close in ((torch.float32, 1e-4), (torch.bfloat16, 0.3), (torch.int8, 0.3)):
        torch.testing.assert_close(
            steps(pack(copy.deepcopy(plain), dtype)), steps(plain), atol=close, rtol=close, msg=f"{case.name} {dtype}"
        )


@ONEDNN
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_layers_compute_what_they_pack(onednn, relu, bias, monkeypatch):
    monkeypatch.setattr(room, "has_onednn", lambda: onednn)
    linear, x = nn.Linear(48, 33, bias=bias), torch.randn(2, 5, 48)
    wanted = linear(x).relu() if relu else linear(x)
    for layer, close in (
        (PackedLinear(linear, torch.float32, relu), 1e-5),
        (PackedLinear(linear, torch.bfloat16, relu), 0.02),
        (Int8Linear(linear, relu), 0.02),
    ):
        found = layer(x)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, atol=close, rtol=close)


@ONEDNN
def test_int8_rounds_a_row_by_itself(onednn, monkeypatch):
    """A row far larger than its neighbours takes nothing from their precision, and zeros stay zeros."""
    monkeypatch.setattr(room, "has_onednn", lambda: onednn)
    layer, x = Int8Linear(nn.Linear(16, 8), False), torch.randn(5, 16)
    alone = layer(x[1:2])
    x[0] *= 1e4
    x[2] = 0.0
    together = layer(x)
    assert torch.equal(together[1:2], alone)
    torch.testing.assert_close(together[2], layer.bias)


def test_int8_with_and_without_onednn_agree(monkeypatch):
    if not has_onednn():
        pytest.skip("a torch without oneDNN")
    linear, x = nn.Linear(64, 32), torch.randn(7, 64)
    fast = Int8Linear(linear, True)(x)
    monkeypatch.setattr(room, "has_onednn", lambda: False)
    torch.testing.assert_close(Int8Linear(linear, True)(x), fast, atol=1e-5, rtol=1e-5)


def test_what_is_large_enough_is_int8():
    model = build_model(TransformerSettings(encoder_layers=1, decoder_layers=1, dim=64), Sizes(9000, 9000, True)).eval()
    pack(model, torch.int8)
    kinds = {name: type(m) for name, m in model.named_modules() if isinstance(m, (Int8Linear, PackedLinear))}
    assert kinds["head.product"] is Int8Linear
    assert kinds["decoder.0.self_attention.qkv"] is PackedLinear
    assert not any(isinstance(module, nn.Linear) for module in model.modules())


@pytest.mark.skipif(not has_onednn(), reason="a torch without oneDNN")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("dim", [128, 512])
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("is_beam", [False, True])
@torch.inference_mode()
def test_to_a_sentence_the_others_of_its_batch_are_nothing(dtype: torch.dtype, positions: str, dim: int, is_beam: bool):
    """Not even by a bit: other sentences, longer ones, more of them change no rounding of a Transformer of usual size."""
    settings = TransformerSettings(
        encoder_layers=2, decoder_layers=2, dim=dim, heads=max(4, dim // 64), ffn_dim=2 * dim, positions=positions
    )
    assert_is_alone(pack(build_model(settings, Sizes(1030, 1030, True)).eval(), dtype, is_beam))


@pytest.mark.skipif(not has_onednn(), reason="a torch without oneDNN")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("dim", [128, 500])
@pytest.mark.parametrize(
    "options",
    [
        {"attention": "general", "input_feeding": True},
        {"attention": "additive", "attention_place": "before"},
        {"attention": "dot", "coverage": True, "head": "copy"},
        {"attention": "none"},
    ],
    ids=str,
)
@torch.inference_mode()
def test_to_an_lstm_too(dtype: torch.dtype, dim: int, options: dict):
    settings = RnnSettings(cell="lstm", dim=dim, emb_dim=dim, encoder_layers=2, decoder_layers=2, **options)
    assert_is_alone(pack(build_model(settings, Sizes(1030, 1030, True)).eval(), dtype))


def assert_is_alone(model) -> None:
    """The same bits in a batch and out of it."""
    ones = [list(range(3, 3 + num)) for num in (1, 4, 15, 16, 17, 31, 40)]
    batch = [*sentences(30, seed=2), list(range(3, 73)), *ones]
    together = walk(model, model.encode(*pad(batch)), len(batch))
    for number, src in enumerate(ones, start=len(batch) - len(ones)):
        assert torch.equal(walk(model, model.encode(*pad([src])), 1)[:, 0], together[:, number]), len(src)


def walk(model, memory, num: int) -> torch.Tensor:
    """Log-probabilities [T, num, K, V] of K hypotheses a sentence, which say the same in every sentence."""
    width, state, found = 2, model.start(memory), []
    state = state.select(torch.arange(num).repeat_interleave(width))
    for t in range(20):
        tokens = torch.arange(3, 3 + width).add(t % 5).repeat(num)
        out = model.step(tokens, memory, state)
        state = out.state
        found.append(out.logp.view(num, width, -1))
    return torch.stack(found)


def test_few_numbers_of_rows_for_many():
    numbers = [few(num) for num in range(1, 50000)]
    assert all(num <= shape <= max(4, num * 17 / 16) for num, shape in enumerate(numbers, start=1))
    assert len({shape for shape in numbers if shape > 1024}) <= 16 * 6
