"""A whole Transformer against transformers' MarianMTModel with copied weights; skipped where transformers is not installed.

Marian models are post-norm, with sinusoidal positions as halves of sines and cosines, one shared table and an output bias.
"""

import pytest
import torch

from s2s_cli.config import TransformerSettings
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model

transformers = pytest.importorskip("transformers")

VOCAB, DIM, HEADS, INNER, LAYERS = 50, 16, 4, 24, 2


def renamed(name: str) -> list[str]:
    """The names in a Marian model of one of our parameters; several where ours is their concatenation."""
    if name == "head.bias":
        return ["final_logits_bias"]
    if name == "tgt_embedding.weight":
        return ["model.shared.weight"]
    stack, layer, *rest, kind = name.split(".")
    place = {
        "attention": "self_attn",
        "self_attention": "self_attn",
        "cross_attention": "encoder_attn",
        "around_attention": "self_attn_layer_norm",
        "around_self_attention": "self_attn_layer_norm",
        "around_cross_attention": "encoder_attn_layer_norm",
        "around_feed_forward": "final_layer_norm",
    }
    parts = {"q": ["q_proj"], "kv": ["k_proj", "v_proj"], "out": ["out_proj"], "up": ["fc1"], "down": ["fc2"]}
    prefix = f"model.{stack}.layers.{layer}"
    if rest[1] == "norm":
        return [f"{prefix}.{place[rest[0]]}.{kind}"]
    inner = [place[rest[0]] + "."] if rest[0] in place else [""]
    return [f"{prefix}.{inner[0]}{part}.{kind}" for part in parts[rest[1]]]


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@torch.no_grad()
def test_logits_are_those_of_marian(activation):
    torch.manual_seed(1)
    config = transformers.MarianConfig(
        vocab_size=VOCAB,
        d_model=DIM,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=INNER,
        decoder_ffn_dim=INNER,
        activation_function=activation,
        scale_embedding=True,
        dropout=0.0,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    theirs = transformers.MarianMTModel(config).eval()
    settings = TransformerSettings(
        dim=DIM,
        heads=HEADS,
        ffn_dim=INNER,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        norm="post",
        activation=activation,
    )
    ours = build_model(settings, Sizes(VOCAB, VOCAB, True)).eval()
    weights = theirs.state_dict()
    weights["model.shared.weight"][0] = torch.randn(DIM)  # the padding piece: nowhere read
    for name, parameter in ours.named_parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.2)
        copies = renamed(name)
        for copy, value in zip(copies, parameter.chunk(len(copies)), strict=True):
            weights[copy].copy_(value.view_as(weights[copy]))
    src = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]])
    tgt_in = torch.tensor([[1, 11, 12, 13], [1, 14, 15, 16]])
    wanted = theirs(input_ids=src, attention_mask=src.ne(0), decoder_input_ids=tgt_in).logits
    found = ours.head.logp(ours.decode(tgt_in, ours.encode(src, torch.tensor([5, 3])))[0])
    torch.testing.assert_close(found, wanted.log_softmax(dim=-1), atol=1e-5, rtol=1e-4)
