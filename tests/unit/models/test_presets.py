"""Every preset makes the model that it promises."""

import pytest
import torch

from s2s_cli import configio
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model, num_parameters

SIZES = {"tiny": 2.4e6, "small": 13e6, "base": 48e6, "big": 185e6, "rnn": 4.8e6, "rnn-basic": 4.8e6}
SIZES |= {"rnn-luong": 21.5e6, "rnn-bahdanau": 34.8e6}  # weights with a joint vocabulary of 8,000 pieces, about


@pytest.mark.parametrize("name", configio.presets())
def test_a_preset_builds(name):
    config = configio.build(configio.with_preset(configio.Values(), name))
    with torch.device("meta"):
        model = build_model(config.model, Sizes(8000, 8000, True))
    assert num_parameters(model) == pytest.approx(SIZES[name], rel=0.1)
