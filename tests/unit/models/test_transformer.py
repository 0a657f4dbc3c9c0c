"""The Transformer's parts against torch's layers with the same weights, and against the formulas of their papers."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from s2s_cli.config import TransformerSettings
from s2s_cli.models.autoregression import AverageAttention, Ssru
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.layers import (
    Attention,
    CoverageAttention,
    FeedForward,
    attend,
    causal_bias,
    norm,
    padding_bias,
    split_heads,
)
from s2s_cli.models.positions import Order, Positions, relative_bucket, rotate, rotation
from s2s_cli.models.transformer import DecoderLayer, EncoderLayer

D, H, INNER = 12, 3, 20
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)


def settings(**more) -> TransformerSettings:
    return TransformerSettings(
        **{"encoder_layers": 1, "decoder_layers": 1, "dim": D, "heads": H, "ffn_dim": INNER} | more
    )


def stir(module: nn.Module) -> None:
    """Move every parameter away from where initialisation leaves it."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)


def copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.kv.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())


@pytest.mark.parametrize("pre", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_are_those_of_torch(pre, activation):
    ours = settings(norm="pre" if pre else "post", activation=activation)
    options = {"activation": activation, "norm_first": pre, "batch_first": True, "dropout": 0.0}
    src, tgt = torch.randn(2, 5, D), torch.randn(2, 4, D)
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])

    encoder, reference = EncoderLayer(ours), nn.TransformerEncoderLayer(D, H, INNER, **options)
    stir(encoder)
    copy_attention(encoder.attention, reference.self_attn)
    reference.linear1.load_state_dict(encoder.feed_forward.up.state_dict())
    reference.linear2.load_state_dict(encoder.feed_forward.down.state_dict())
    reference.norm1.load_state_dict(encoder.around_attention.norm.state_dict())
    reference.norm2.load_state_dict(encoder.around_feed_forward.norm.state_dict())
    wanted = reference(src, src_key_padding_mask=~real)
    found = encoder.eval()(src, Order(padding_bias(real), None))
    torch.testing.assert_close(found[real], wanted[real], atol=1e-5, rtol=1e-4)

    decoder, reference = DecoderLayer(ours, coverage=False), nn.TransformerDecoderLayer(D, H, INNER, **options)
    stir(decoder)
    copy_attention(decoder.self_attention, reference.self_attn)
    copy_attention(decoder.cross_attention, reference.multihead_attn)
    reference.linear1.load_state_dict(decoder.feed_forward.up.state_dict())
    reference.linear2.load_state_dict(decoder.feed_forward.down.state_dict())
    reference.norm1.load_state_dict(decoder.around_self_attention.norm.state_dict())
    reference.norm2.load_state_dict(decoder.around_cross_attention.norm.state_dict())
    reference.norm3.load_state_dict(decoder.around_feed_forward.norm.state_dict())
    wanted = reference(
        tgt, src, tgt_mask=nn.Transformer.generate_square_subsequent_mask(4), memory_key_padding_mask=~real
    )
    cross = decoder.cross_attention.keys_values(src)
    order = Order(causal_bias(4, CPU), None)
    found = decoder.eval()(tgt, None, order, cross, padding_bias(real), attention=True)
    torch.testing.assert_close(found.x, wanted, atol=1e-5, rtol=1e-4)
    if not pre:  # then the query of the cross-attention is at hand, and so are torch's weights
        x = reference.norm1(tgt + reference.self_attn(tgt, tgt, tgt, attn_mask=order.bias, need_weights=False)[0])
        weights = reference.multihead_attn(x, src, src, key_padding_mask=~real)[1]
        torch.testing.assert_close(found.weights, weights, atol=1e-5, rtol=1e-4)


def test_plain_attention_is_the_fused_kernel():
    q, k, v = torch.randn(2, H, 4, 8), torch.randn(2, H, 5, 8), torch.randn(2, H, 5, 8)
    bias = torch.randn(2, 1, 4, 5)
    wanted = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
    torch.testing.assert_close(attend(q, k, v, bias, None)[0], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_grouped_queries_are_many_heads_with_copied_keys(kv_heads):
    q, k, v = torch.randn(2, 6, 4, 8), torch.randn(2, kv_heads, 5, 8), torch.randn(2, kv_heads, 5, 8)
    bias = torch.randn(1, 6, 4, 5)
    wanted = attend(q, *(x.repeat_interleave(6 // kv_heads, dim=1) for x in (k, v)), bias, None)
    torch.testing.assert_close(attend(q, k, v, bias, None), wanted, atol=1e-6, rtol=1e-5)


def test_every_attention_of_a_model_has_so_many_heads_of_keys_and_values():
    model = build_model(settings(kv_heads=1), Sizes(9, 9, True)).eval()
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    assert len(attentions) == 3
    assert all(each.kv.weight.shape == (2 * D // H, D) for each in attentions)
    memory = model.encode(torch.tensor([[3, 4, 2]]), torch.tensor([3]))
    past = model.step(torch.tensor([1]), memory, model.start(memory)).state.past
    assert [keys.shape[1] for keys in (memory.cross[0][0], past[0].keys_values[0])] == [1, 1]


def test_rms_norm_divides_by_the_root_mean_square():
    layer, x = norm("rms", D), torch.randn(3, D)
    stir(layer)
    wanted = x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * layer.weight
    torch.testing.assert_close(layer(x), wanted)


def test_swiglu_gates_a_linear_map():
    block, x = FeedForward(D, INNER, "swiglu", 0.0), torch.randn(3, D)
    stir(block)
    gate, up = (x @ block.up.weight.T + block.up.bias).split(INNER, dim=1)
    wanted = (gate * torch.sigmoid(gate) * up) @ block.down.weight.T + block.down.bias
    torch.testing.assert_close(block(x), wanted)


def test_rotary_positions_turn_complex_numbers():
    """Su et al. 2021, eq. 14 and 34: a pair of elements as x + iy, times exp(i · m · 10000^(-2j/d))."""
    start, num, dim = 3, 6, 8
    x = torch.randn(2, H, num, dim)
    turned = torch.complex(*rotate(x, rotation(start, num, dim, CPU)).chunk(2, dim=-1))
    for position in range(num):
        for j in range(dim // 2):
            angle = (start + position) * 10000 ** (-2 * j / dim)
            wanted = torch.complex(x[..., position, j], x[..., position, j + dim // 2]) * complex(
                math.cos(angle), math.sin(angle)
            )
            torch.testing.assert_close(turned[..., position, j], wanted, atol=1e-5, rtol=1e-4)


def test_rotary_scores_depend_on_distance_alone():
    q, k = torch.randn(8), torch.randn(8)

    def score(m: int, n: int) -> float:
        return float(rotate(q[None], rotation(m, 1, 8, CPU)) @ rotate(k[None], rotation(n, 1, 8, CPU)).T)

    assert score(7, 4) == pytest.approx(score(103, 100), abs=1e-3)
    assert score(7, 4) != pytest.approx(score(4, 7), abs=1e-3)


def test_relative_buckets_are_those_of_t5():
    """Raffel et al. 2020, section 2.1: exact up to a quarter (half) of the buckets, then logarithmic up to distance 128."""
    two_ways = [int(relative_bucket(torch.tensor(d), True)) for d in range(-300, 301)]
    assert two_ways[300:309] == [0, *range(17, 25)]
    assert two_ways[300:290:-1] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert two_ways[:300] == sorted(two_ways[:300], reverse=True)
    assert [n - 16 for n in two_ways[301:]] == two_ways[299::-1]
    assert set(two_ways) == set(range(32)) - {16}  # 16 would be distance 0 to the right
    assert (
        min(d for d in range(300) if two_ways[300 - d] == 15)
        <= 128
        <= max(d for d in range(300) if two_ways[300 - d] == 15)
    )
    one_way = [int(relative_bucket(torch.tensor(-d), False)) for d in range(300)]
    assert one_way[:17] == [*range(17)]
    for d in range(16, 128):
        assert one_way[d] == min(31, 16 + int(math.log(d / 16) / math.log(128 / 16) * 16 + 1e-6))
    assert one_way[128:] == [31] * 172
    assert not relative_bucket(torch.arange(1, 20), False).any()


def test_relative_positions_add_a_bias_of_the_distance():
    positions = Positions(settings(positions="relative"), two_ways=True)
    bias = positions.order(0, 9, CPU, None).bias
    assert bias.shape == (H, 9, 9)
    for distance in range(-8, 9):
        assert (bias.diagonal(distance, 1, 2) == bias.diagonal(distance, 1, 2)[:, :1]).all()
    assert len(bias[0].flatten().unique()) == 17  # every distance of at most 8 has a bias of its own
    torch.testing.assert_close(positions.order(5, 4, CPU, None).bias, bias[:, 5:])


def test_learned_positions_end_with_one_for_all_that_follow():
    positions = Positions(settings(positions="learned", max_positions=4), two_ways=True)
    vectors = positions.vectors(2, 5, CPU)
    torch.testing.assert_close(vectors[:2], positions.table.weight[2:4])
    assert (vectors[2:] == positions.table.weight[3]).all()


def test_ssru_is_its_formula():
    unit, x = Ssru(D), torch.randn(2, 5, D)
    stir(unit)
    found, _ = unit(x, None, Order(None, None))
    cell = torch.zeros(2, D)
    for t in range(5):
        f = torch.sigmoid(x[:, t] @ unit.gate.weight.T + unit.gate.bias)
        cell = f * cell + (1 - f) * (x[:, t] @ unit.value.weight.T)
        torch.testing.assert_close(found[:, t], torch.relu(cell), atol=1e-6, rtol=1e-5)


def test_average_attention_is_its_formula():
    block, x = AverageAttention(D, INNER, "relu", 0.0), torch.randn(2, 5, D)
    stir(block)
    found, _ = block(x, None, Order(None, None))
    for t in range(5):
        mean = x[:, : t + 1].mean(dim=1)
        g = torch.relu(mean @ block.feed_forward.up.weight.T + block.feed_forward.up.bias)
        g = g @ block.feed_forward.down.weight.T + block.feed_forward.down.bias
        i, f = torch.sigmoid(torch.cat([x[:, t], g], dim=1) @ block.gates.weight.T + block.gates.bias).chunk(2, dim=1)
        torch.testing.assert_close(found[:, t], i * x[:, t] + f * g, atol=1e-5, rtol=1e-4)


def test_coverage_attention_adds_a_vector_times_coverage_to_each_key():
    block = CoverageAttention(D, H, 0.0)
    stir(block)
    q, kv = split_heads(torch.randn(2, 4, D), H), block.keys_values(torch.randn(2, 5, D))
    bias = torch.zeros(2, 1, 1, 5)
    _, weights, after = block.attend_with_coverage(q, kv, bias, None)
    coverage = torch.zeros(2, 5)
    for t in range(4):
        query, keys = block.scaled(q)[:, :, t : t + 1], kv[0]
        wanted = attend(query, keys + coverage[:, None, :, None] * block.coverage, kv[1], None, None)[1].mean(dim=1)
        torch.testing.assert_close(weights[:, t : t + 1], wanted)
        coverage = coverage + attend(query, *kv, None, None)[1].mean(dim=1)[:, 0]
        torch.testing.assert_close(after[:, t], coverage)
    assert not torch.allclose(weights, attend(block.scaled(q), *kv, None, None)[1].mean(dim=1), atol=1e-3)


def test_layers_are_left_out_at_their_rate_in_training_alone():
    model = build_model(settings(encoder_layers=6, layer_drop=0.25, dropout=0.0), Sizes(9, 9, True))
    left_out, calls = 0, []
    for layer in model.encoder:
        layer.register_forward_hook(lambda *_: calls.append(1))
    src, length = torch.tensor([[3, 4, 2]]), torch.tensor([3])
    for _ in range(200):
        calls.clear()
        model.encode(src, length)
        left_out += 6 - len(calls)
    assert left_out / 1200 == pytest.approx(0.25, abs=0.05)
    calls.clear()
    model.eval().encode(src, length)
    assert len(calls) == 6


def test_the_layer_whose_attention_is_copied_from_is_never_left_out():
    model = build_model(settings(decoder_layers=2, layer_drop=0.9, head="copy"), Sizes(9, 9, True))
    memory = model.encode(torch.tensor([[3, 4, 2]]), torch.tensor([3]))
    assert all(model.decode(torch.tensor([[1, 5]]), memory)[1] is not None for _ in range(30))


def test_initialisation_by_depth_keeps_the_gradient_of_deep_models():
    """In a post-norm stack the gradient of the first layer fades with depth; smaller weights above keep it."""

    def ratio(init: str) -> float:
        torch.manual_seed(1)
        deep = settings(dim=32, heads=4, ffn_dim=64, encoder_layers=16, norm="post", init=init, dropout=0.0)
        model = build_model(deep, Sizes(50, 50, True))
        memory = model.encode(torch.randint(3, 50, (4, 9)), torch.full((4,), 9))
        (memory.states * torch.randn_like(memory.states)).sum().backward()
        first, last = (model.encoder[n].feed_forward.up.weight.grad.norm() for n in (0, -1))
        return float(first / last)

    assert ratio("depth") > 3 * ratio("xavier")
    model = build_model(settings(encoder_layers=4, dim=64, heads=2, init="depth"), Sizes(9, 9, True))
    first, last = (layer.attention.q.weight.detach().std() for layer in (model.encoder[0], model.encoder[3]))
    assert float(first / last) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_what_leaves_encoder_and_decoder_is_normed(place, kind):
    """As nn.Transformer has it too: before each block, and so once more at the end; after each block, and so no more."""
    model = build_model(settings(norm=place, normalization=kind, encoder_layers=2, decoder_layers=2), Sizes(9, 9, True))
    memory = model.eval().encode(torch.tensor([[3, 4, 2]]), torch.tensor([3]))
    for x in (memory.states, model.decode(torch.tensor([[1, 5]]), memory)[0]):
        scale = x.std(dim=-1, correction=0) if kind == "layer" else x.square().mean(dim=-1).sqrt()
        torch.testing.assert_close(scale, torch.ones_like(scale), atol=1e-3, rtol=0)
    # Two norms a layer of the encoder, three of the decoder, and two at the end where the last block leaves a bare sum.
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)]
    assert len(norms) == 2 * 2 + 2 * 3 + 2 * (place == "pre")


def test_embeddings_are_scaled_and_positions_added():
    """Vaswani et al. 2017, section 3.4 and 3.5: √D · E[piece] + (sin, cos)(position / 10000^(2i/D)), the halves side by side."""
    model = build_model(settings(), Sizes(9, 9, True)).eval()
    seen = []
    model.encoder[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.encode(torch.tensor([[3, 4, 2]]), torch.tensor([3]))
    for position, piece in enumerate([3, 4, 2]):
        angles = [position / 10000 ** (2 * i / D) for i in range(D // 2)]
        signal = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)])
        wanted = math.sqrt(D) * model.src_embedding.weight[piece] + signal
        torch.testing.assert_close(seen[0][0, position], wanted, atol=1e-5, rtol=1e-4)


def test_layers_of_the_decoder_are_left_out_in_training_too():
    model = build_model(settings(decoder_layers=6, layer_drop=0.25, dropout=0.0), Sizes(9, 9, True))
    calls = []
    for layer in model.decoder:
        layer.register_forward_hook(lambda *_: calls.append(1))
    memory = model.encode(torch.tensor([[3, 4, 2]]), torch.tensor([3]))
    for _ in range(200):
        model.decode(torch.tensor([[1, 5]]), memory)
    assert len(calls) / 1200 == pytest.approx(0.75, abs=0.05)


@torch.no_grad()
def test_the_last_layer_alone_attends_with_coverage_and_the_states_add_it_up():
    """The coverage after a position is the sum of what that layer's attention would be without it."""
    model = build_model(settings(decoder_layers=2, head="copy", coverage=True), Sizes(9, 9, True)).eval()
    stir(model)
    first, last = (layer.cross_attention for layer in model.decoder)
    assert type(first) is Attention
    assert type(last) is CoverageAttention
    memory = model.encode(torch.tensor([[3, 4, 5, 2]]), torch.tensor([4]))
    state = model.start(memory)
    for number, piece in enumerate([1, 7, 8], start=1):
        before = state
        out = model.step(torch.tensor([piece]), memory, state, attention=True)
        state = out.state
        assert float(state.coverage.sum()) == pytest.approx(number, abs=1e-5)
        blind = model.step(
            torch.tensor([piece]), memory, replace(before, coverage=torch.zeros_like(before.coverage)), attention=True
        )
        assert torch.equal(out.attention, blind.attention) == (number == 1)
        torch.testing.assert_close(state.coverage - before.coverage, blind.state.coverage)


def test_an_encoder_tells_right_from_left_and_a_decoder_has_no_right():
    model = build_model(settings(positions="relative"), Sizes(9, 9, True))
    src = model.src_positions.order(0, 5, CPU, None).bias
    assert len(src[0, 2].unique()) == 5
    tgt = model.tgt_positions.order(0, 40, CPU, None).bias
    assert len(tgt[0, 39].unique()) > 20  # so many distances to the left: no bucket is kept for the right
    assert model.src_positions.table is not model.tgt_positions.table
