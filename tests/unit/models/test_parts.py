"""The parts of the models, against torch's own and against their definitions."""

from collections import Counter
from itertools import product

import pytest
import torch
from torch import nn

from s2s_cli.config import RnnSettings, TransformerSettings
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.layers import Dropout, norm
from s2s_cli.models.recurrent import Stack


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_dropout_has_the_rate_the_mean_and_the_gradient_of_dropout(rate):
    torch.manual_seed(1)
    drop = Dropout(rate)
    x = torch.ones(1000, 1001, requires_grad=True)
    y = drop(x)
    y.sum().backward()
    assert y.eq(0).double().mean().item() == pytest.approx(rate, abs=1 / 512 + 1e-3)  # a multiple of 1/256, and chance
    assert y.double().mean().item() == pytest.approx(1.0, abs=5e-3)
    assert y.unique().numel() == 2
    assert torch.equal(x.grad, y.detach())  # the same elements, with the same scale
    assert not torch.equal(y, drop(x))


def test_dropout_is_independent_of_place():
    torch.manual_seed(1)
    kept = Dropout(0.5)(torch.ones(512, 512)).ne(0).double()
    assert kept.mean(dim=0).std().item() == pytest.approx((0.25 / 512) ** 0.5, rel=0.2)
    assert kept.mean(dim=1).std().item() == pytest.approx((0.25 / 512) ** 0.5, rel=0.2)
    neighbours = torch.corrcoef(torch.stack([kept.flatten()[:-1], kept.flatten()[1:]]))[0, 1]
    assert abs(neighbours.item()) < 0.01


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 11)])
def test_dropout_takes_any_shape_and_type(shape):
    for dtype in (torch.float32, torch.bfloat16):
        y = Dropout(0.25)(torch.ones(shape, dtype=dtype))
        assert y.shape == shape
        assert y.dtype == dtype


def test_dropout_is_the_identity_when_translating():
    x = torch.randn(5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def rates_met(settings: TransformerSettings | RnnSettings, monkeypatch: pytest.MonkeyPatch) -> Counter[float]:
    """How often a training pass over two target positions meets dropout of each rate."""
    met: Counter[float] = Counter()
    model = build_model(settings, Sizes(9, 9, True)).train()
    monkeypatch.setattr(Dropout, "forward", lambda self, x: (met.update([self.rate]), x)[1])
    memory = model.encode(torch.tensor([[3, 4, 2]]), torch.tensor([3]))
    model.decode(torch.tensor([[1, 5]]), memory)
    return +Counter({rate: times for rate, times in met.items() if rate})


@pytest.mark.parametrize(("autoregression", "attends"), [("attention", 3), ("ssru", 2), ("aan", 2)])
def test_each_rate_of_the_transformer_is_met_where_it_says(autoregression, attends, monkeypatch):
    """Two embeddings and five blocks in layers of one and one; three attentions; the feed-forward blocks and that of aan."""
    settings = TransformerSettings(
        encoder_layers=1,
        decoder_layers=1,
        dim=8,
        heads=2,
        ffn_dim=8,
        dropout=0.1,
        attention_dropout=0.2,
        activation_dropout=0.3,
        autoregression=autoregression,
    )
    found = rates_met(settings, monkeypatch)
    assert found == {0.1: 7, 0.2: attends, 0.3: 3 if autoregression == "aan" else 2}


@pytest.mark.parametrize(
    ("more", "times"),
    [
        ({}, 4),  # both embeddings, the keys of attention, what the output layer gets
        ({"attention": "none"}, 3),
        ({"input_feeding": True}, 5),  # the output at each of the two positions
        ({"layer_norm": True, "encoder_layers": 3, "decoder_layers": 2}, 7),
    ],
)
def test_the_rate_of_the_rnn_is_met_where_it_says(more, times, monkeypatch):
    assert rates_met(RnnSettings(dim=8, emb_dim=8, dropout=0.2, **more), monkeypatch) == {0.2: times}


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_a_norm_gives_the_type_it_gets_and_computes_in_fp32(kind):
    torch.manual_seed(1)
    there, x = norm(kind, 64), torch.randn(30, 64) * 30
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.copy_(torch.randn(64).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        y = there(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), there(x.bfloat16().float()), atol=0.01, rtol=2**-7)
    assert there(x).dtype == torch.float32


def test_recurrent_layers_have_dropout_between_them():
    stack = Stack(RnnSettings(dropout=0.5), 4, 8, layers=2, bidirectional=False)
    x = torch.randn(3, 5, 4)
    assert not torch.equal(stack(x)[0], stack(x)[0])
    assert torch.equal(stack.eval()(x)[0], stack(x)[0])


@pytest.mark.parametrize("family", [TransformerSettings, RnnSettings])
@pytest.mark.parametrize(("tie", "shared"), [*product([None, "none", "target"], [True, False]), ("all", True)])
def test_what_is_tied_is_one_table_and_the_rest_are_tables_of_their_own(family, tie, shared):
    small = {"heads": 2, "ffn_dim": 8} if family is TransformerSettings else {"emb_dim": 6}
    sizes = Sizes(9, 9 if shared else 11, shared)
    model = build_model(family(encoder_layers=1, decoder_layers=1, dim=8, tie=tie, **small), sizes)
    tables = [model.src_embedding.weight, model.tgt_embedding.weight, model.head.weight]
    tied = tie or ("all" if shared else "target")
    assert (tables[1] is tables[2]) == (tied != "none")
    assert (tables[0] is tables[1]) == (tied == "all")
    assert len({id(p) for p in model.parameters()} & {id(table) for table in tables}) == len({id(t) for t in tables})


def weights_of_layers(model: Seq2Seq) -> list[tuple[int, str, nn.Parameter]]:
    """Number of the layer, from 1 on, name, matrix."""
    stacks = ("encoder", "decoder")
    return [
        (int(name.split(".")[1]) + 1, name, p)
        for name, p in model.named_parameters()
        if name.startswith(stacks) and p.dim() == 2
    ]


@pytest.mark.parametrize("init", ["xavier", "depth"])
@pytest.mark.parametrize("autoregression", ["attention", "ssru", "aan"])
def test_first_weights_are_glorots(init, autoregression):
    """Uniform within √(6 / (inputs + outputs)) (Glorot and Bengio 2010), over √l in layer l where depth counts.

    Keys and values, and the two halves of swiglu, are maps of their own that are stored as one.
    """
    torch.manual_seed(1)
    settings = TransformerSettings(
        encoder_layers=3,
        decoder_layers=3,
        dim=32,
        heads=4,
        kv_heads=2,
        ffn_dim=48,
        activation="swiglu",
        init=init,
        autoregression=autoregression,
    )
    model = build_model(settings, Sizes(50, 50, True))
    for layer, name, matrix in weights_of_layers(model):
        maps = matrix.chunk(2) if name.endswith(("kv.weight", "up.weight")) else [matrix]
        for each in maps:
            bound = (6 / sum(each.shape)) ** 0.5 / (layer**0.5 if init == "depth" else 1)
            assert 0.97 * bound < float(each.detach().abs().max()) <= bound, name
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert biases
    assert not any(bias.any() for bias in biases)


def test_rows_of_embeddings_have_length_one_or_so():
    settings = TransformerSettings(encoder_layers=1, decoder_layers=1, dim=64, tie="none", positions="learned")
    model = build_model(settings, Sizes(500, 500, True))
    for table in (model.src_embedding.weight, model.tgt_embedding.weight, model.head.weight):
        assert float(table.detach().norm(dim=1).mean()) == pytest.approx(1.0, abs=0.05)
