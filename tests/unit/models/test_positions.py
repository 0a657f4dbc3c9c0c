"""Rotary and relative positions against those of transformers' Llama and T5; skipped where transformers is not installed."""

import pytest
import torch

from s2s_cli.models.positions import relative_bucket, rotate, rotation

pytest.importorskip("transformers")


@pytest.mark.parametrize("two_ways", [True, False])
def test_buckets_are_those_of_t5(two_ways):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-2000, 2001)
    wanted = T5Attention._relative_position_bucket(distance, two_ways, num_buckets=32, max_distance=128)
    assert torch.equal(relative_bucket(distance, two_ways), wanted)


def test_rotation_is_that_of_llama():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    torch.manual_seed(1)
    q, k = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    theirs = LlamaRotaryEmbedding(LlamaConfig(hidden_size=24, num_attention_heads=3, head_dim=8))
    wanted = apply_rotary_pos_emb(q, k, *theirs(q, torch.arange(7, 12)[None]))
    turn = rotation(7, 5, 8, torch.device("cpu"))
    torch.testing.assert_close((rotate(q, turn), rotate(k, turn)), wanted, atol=1e-5, rtol=1e-4)
