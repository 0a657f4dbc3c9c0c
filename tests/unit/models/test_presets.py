"""Every preset makes the model that it promises, with the settings of the publication that it names."""

from typing import Any

import pytest
import torch

from s2s_cli import configio
from s2s_cli.config import Config
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model, num_parameters

SIZES = {"tiny": 2.4e6, "small": 13e6, "base": 48e6, "big": 185e6, "rnn": 4.8e6, "rnn-basic": 4.8e6}
SIZES |= {"rnn-luong": 21.5e6, "rnn-bahdanau": 34.8e6}  # weights with a joint vocabulary of 8,000 pieces, about


def preset(name: str) -> Config:
    return configio.build(configio.with_preset(configio.Values(), name))


@pytest.mark.parametrize("name", configio.presets())
def test_a_preset_builds(name):
    with torch.device("meta"):
        model = build_model(preset(name).model, Sizes(8000, 8000, True))
    assert num_parameters(model) == pytest.approx(SIZES[name], rel=0.1)


def layers(num: int, dim: int, ffn_dim: int, heads: int, dropout: float) -> dict[str, Any]:
    """A Transformer's row in the table of a paper."""
    shape = {"encoder_layers": num, "decoder_layers": num, "dim": dim, "ffn_dim": ffn_dim, "heads": heads}
    return shape | {"dropout": dropout}


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("tiny", layers(4, 128, 256, 4, 0.3)),  # Wu et al. 2021, Transformer-Tiny
        ("base", layers(6, 512, 2048, 8, 0.1)),  # Vaswani et al. 2017, table 3
        ("big", layers(6, 1024, 4096, 16, 0.3)),  # the same
        ("rnn-basic", {"cell": "gru", "attention": "none", "bidirectional": False, "encoder_layers": 1}),
        # OpenNMT's classic (Klein et al. 2017)
        ("rnn-luong", {"cell": "lstm", "encoder_layers": 2, "decoder_layers": 2, "emb_dim": 500, "dim": 500}),
        ("rnn-luong", {"attention": "general", "input_feeding": True, "bridge": "copy", "dropout": 0.3, "tie": "none"}),
        # Bahdanau et al. 2015, appendix A.2
        ("rnn-bahdanau", {"cell": "gru", "emb_dim": 620, "dim": 1000, "bidirectional": True, "encoder_layers": 1}),
        ("rnn-bahdanau", {"attention": "additive", "attention_place": "before", "tie": "none"}),
    ],
)
def test_a_preset_is_what_was_published(name, published):
    found = preset(name).model.model_dump()
    assert {key: found[key] for key in published} == published


@pytest.mark.parametrize("name", ["base", "big"])
def test_the_rate_of_the_large_ones_is_that_of_the_original(name):
    """Vaswani et al. 2017, eq. 3 at its peak, and batches of about 25,000 tokens."""
    model, train = preset(name).model, preset(name).train
    assert train.warmup == 4000
    assert train.lr == pytest.approx((model.dim * train.warmup) ** -0.5, rel=0.05)
    assert train.batch_tokens * train.accumulate >= 24_000


def test_larger_corpora_get_larger_models():
    chosen = [configio.preset_for(num, "transformer") for num in (1, 10**5, 10**6, 10**9)]
    with torch.device("meta"):
        sizes = [num_parameters(build_model(preset(name).model, Sizes(8000, 8000, True))) for name in chosen]
    assert sizes == sorted(sizes)
    assert len(set(chosen)) == 3
    assert configio.preset_for(10**9, "rnn") == "rnn"
