"""Layers and loss that torch has compiled compute what they computed: traced on a CPU, and in full on CUDA."""

import copy
from functools import partial
from unittest import mock

import pytest
import torch
from grid import VOCAB, batch_of, sentences
from torch import Tensor, nn

from s2s_cli.config import RnnSettings, TransformerSettings
from s2s_cli.data.loader import Batch
from s2s_cli.errors import ConfigError
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.build import build_model

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SMALL = {"dim": 16, "heads": 2, "ffn_dim": 32, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}


def model_of(**options: object) -> Seq2Seq:
    torch.manual_seed(1)
    return build_model(TransformerSettings(**SMALL | options), Sizes(VOCAB, VOCAB, True)).train()


def learned(model: Seq2Seq, batch: Batch) -> list[Tensor]:
    """The loss and all gradients."""
    model.zero_grad()
    loss = model(batch, 0.1)
    loss.total.backward()
    return [loss.total.detach(), loss.nll.detach(), *(p.grad.clone() for p in model.parameters())]


def held(model: Seq2Seq, device: str) -> None:
    """Over batches of other shapes."""
    plain, compiled = copy.deepcopy(model).to(device), model.to(device)
    compiled.compile_layers()
    for number in range(2):
        batch = batch_of(sentences(5 + number, seed=number), sentences(5 + number, seed=7 + number)).to(device)
        for mine, theirs in zip(learned(compiled, batch), learned(plain, batch), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_a_traced_model_computes_the_same() -> None:
    """Without the code that a compiler would make of the trace, which takes a minute."""
    compile_module = nn.Module.compile
    with (
        mock.patch.object(torch, "compile", partial(torch.compile, backend="aot_eager")),
        mock.patch.object(nn.Module, "compile", lambda self, **more: compile_module(self, backend="aot_eager", **more)),
    ):
        held(model_of(norm="post", kv_heads=1), "cpu")


@CUDA
@pytest.mark.parametrize("options", [{}, {"head": "copy"}, {"positions": "relative"}, {"positions": "rotary"}], ids=str)
def test_a_compiled_model_computes_the_same(options: dict[str, object]) -> None:
    held(model_of(**options), "cuda")


@torch.no_grad()
def test_training_alone_is_compiled() -> None:
    model, batch = model_of(), batch_of(sentences(3, seed=1), sentences(3, seed=2))
    wanted = float(model.eval()(batch).total)
    model.compile_layers()
    for layer in (*model.encoder, *model.decoder):
        layer._compiled_call_impl = mock.Mock(side_effect=AssertionError)
    assert float(model(batch).total) == wanted
    with pytest.raises(AssertionError):
        model.train()(batch)


def test_what_would_gain_nothing_is_not_compiled() -> None:
    with pytest.raises(ConfigError, match="is for Transformers"):
        build_model(RnnSettings(dim=8, emb_dim=8), Sizes(VOCAB, VOCAB, True)).compile_layers()
    with pytest.raises(ConfigError, match="simple recurrent unit"):
        model_of(autoregression="ssru").compile_layers()
