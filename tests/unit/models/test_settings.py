"""What does not go together is refused before a model is made, in words that say what to do."""

import pytest

from s2s_cli import configio
from s2s_cli.errors import ConfigError
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import check

REFUSED = [
    ({"coverage": True}, "coverage is for the copy head: set head to copy"),
    ({"head": "copy", "coverage_loss": 1.0}, "coverage_loss needs coverage on"),
    ({"family": "rnn", "coverage": True}, "coverage is for the copy head: set head to copy"),
    ({"dim": 20, "heads": 8}, "dim (20) must be even and a multiple of heads (8)"),
    ({"dim": 9, "heads": 3}, "dim (9) must be even and a multiple of heads (3)"),
    ({"heads": 8, "kv_heads": 3}, "heads (8) must be a multiple of kv_heads (3)"),
    ({"heads": 8, "kv_heads": 16}, "heads (8) must be a multiple of kv_heads (16)"),
    ({"dim": 24, "heads": 8, "positions": "rotary"}, "heads of even width, dim / heads is 3"),
    ({"max_positions": 512}, "max_positions is for learned positions"),
    ({"autoregression": "aan", "positions": "rotary"}, "an average has no rotary positions"),
    ({"autoregression": "aan", "positions": "relative"}, "an average has no relative positions"),
    ({"family": "rnn", "dim": 33}, "dim (33) must be even for a bidirectional encoder"),
    ({"family": "rnn", "attention": "none", "input_feeding": True}, "input_feeding needs attention: set attention to"),
    ({"family": "rnn", "attention": "none", "attention_place": "before"}, "attention_place before needs attention"),
    ({"family": "rnn", "attention": "none", "bridge": "zero"}, "bridge zero needs attention"),
    ({"family": "rnn", "attention": "none", "head": "copy"}, "the copy head needs attention"),
    (
        {"family": "rnn", "attention_place": "before", "input_feeding": True},
        "input_feeding is for attention_place after",
    ),
    ({"family": "rnn", "bridge": "copy", "encoder_layers": 2}, "as many decoder_layers (1) as encoder_layers (2)"),
    ({"family": "rnn", "residual": True, "encoder_layers": 2}, "residual begins at the third layer"),
    ({"family": "rnn", "variational_dropout": True, "dropout": 0.0}, "variational_dropout needs a dropout above 0"),
    ({"dropout": 1.0}, "dropout = 1.0"),
    ({"encoder_layers": 0}, "encoder_layers = 0"),
    ({"positions": "alibi"}, "'sinusoidal', 'learned', 'rotary' or 'relative'"),
    ({"family": "rnn", "cell": "sru"}, "'gru', 'lstm' or 'elman'"),
]


@pytest.mark.parametrize(("model", "message"), REFUSED, ids=lambda part: part if isinstance(part, str) else "")
def test_settings_that_do_not_go_together_are_told(model, message):
    values = configio.gather({"model": model}, [], None)
    with pytest.raises(ConfigError) as caught:
        configio.build(values)
    assert message in str(caught.value)
    assert str(caught.value).startswith("model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"tie": "all"}, "model.tie is all, but source and target have vocabularies of their own"),
        ({"head": "copy"}, "model.head is copy, but source and target have vocabularies of their own"),
        ({"family": "rnn", "tie": "all"}, "set it to target or none"),
        ({"family": "rnn", "head": "copy"}, "preprocess with shared_vocab"),
    ],
)
def test_vocabularies_apart_refuse_what_needs_one(model, message):
    settings = configio.build(configio.gather({"model": model}, [], None)).model
    check(settings, Sizes(20, 20, shared=True))
    with pytest.raises(ConfigError, match=message):
        check(settings, Sizes(20, 20, shared=False))
