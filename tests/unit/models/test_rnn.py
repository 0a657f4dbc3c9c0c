"""The recurrent family against torch's modules with the same weights, and against its papers' equations written out."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from s2s_cli.config import RnnSettings
from s2s_cli.models import recurrent
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.layers import VariationalDropout
from s2s_cli.models.recurrent import Stack
from s2s_cli.models.rnn import GlobalAttention, Rnn

TORCH = {"gru": nn.GRU, "lstm": nn.LSTM, "elman": nn.RNN}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)


def settings(**more) -> RnnSettings:
    return RnnSettings(**{"dim": 8, "emb_dim": 6, "dropout": 0.0} | more)


def built(**more) -> Rnn:
    model = build_model(settings(**more), Sizes(20, 20, True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def copy_layers(stack: Stack, into: nn.RNNBase) -> None:
    with torch.no_grad():
        for number, layer in enumerate(stack.layers):
            for name, weight in layer.named_parameters():
                getattr(into, name.replace("_l0", f"_l{number}")).copy_(weight)


@pytest.mark.parametrize(("cell", "two_ways"), [*product(TORCH, [False, True])])
def test_stacks_are_those_of_torch(cell, two_ways):
    """Ours with all options off, on padded sentences, and torch's of three layers, each sentence by itself."""
    stack, wanted = (
        Stack(settings(cell=cell), 6, 4, 3, two_ways),
        TORCH[cell](6, 4, 3, batch_first=True, bidirectional=two_ways),
    )
    copy_layers(stack, wanted)
    x, lengths = torch.randn(3, 5, 6), torch.tensor([5, 2, 4])
    states, cells = stack(x, lengths=lengths)
    for row, length in enumerate(lengths):
        own, last = wanted(x[row : row + 1, :length])
        torch.testing.assert_close(states[row, :length], own[0])
        last = last if isinstance(last, tuple) else (last,)
        for ours, theirs in zip(cells, last, strict=True):
            torch.testing.assert_close(ours[row].flatten(), theirs.flatten())
    if not two_ways:
        first = tuple(torch.randn(3, 3, 4) for _ in cells)
        before = tuple(cell.transpose(0, 1).contiguous() for cell in first)
        states, cells = stack(x, first)
        own, last = wanted(x, before if len(before) > 1 else before[0])
        torch.testing.assert_close(states, own)
        for ours, theirs in zip(cells, last if isinstance(last, tuple) else (last,), strict=True):
            torch.testing.assert_close(ours, theirs.transpose(0, 1))


def test_residual_sums_begin_at_the_third_layer_and_norms_come_first():
    stack = Stack(settings(residual=True, layer_norm=True, encoder_layers=4), 6, 8, 4, False)
    x = torch.randn(2, 5, 6)
    found, _ = stack(x)
    for number, (layer, layer_norm) in enumerate(zip(stack.layers, stack.norms, strict=True)):
        y = layer(layer_norm(x))[0]
        x = x + y if number in (2, 3) else y
    torch.testing.assert_close(found, x)


def test_variational_dropout_drops_the_same_at_all_positions():
    drop = VariationalDropout(0.5)
    kept = drop(torch.ones(50, 7, 40)).ne(0)
    assert (kept == kept[:, :1]).all()
    assert kept[:, 0].double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert drop.eval()(x := torch.randn(2, 3, 4)) is x


@pytest.mark.parametrize("input_feeding", [False, True])
def test_variational_dropout_is_the_same_position_by_position(input_feeding):
    """Whether the target is fed at once or one by one: where the dropped are zero, they are zero all along."""
    model = build_model(
        settings(decoder_layers=3, dropout=0.5, variational_dropout=True, input_feeding=input_feeding),
        Sizes(20, 20, True),
    )
    memory = model.encode(torch.tensor([[3, 4, 5, 2]] * 4), torch.full((4,), 4))
    hidden, _ = model.decode(torch.randint(3, 20, (4, 6)), memory)
    dropped = hidden == 0
    assert (dropped == dropped[:, :1]).all()
    assert 0.2 < dropped.double().mean() < 0.8


@pytest.mark.parametrize("more", [{}, {"input_feeding": True}, {"attention_place": "before"}])
def test_variational_dropout_between_layers_is_the_same_position_by_position(more, monkeypatch):
    model = build_model(settings(decoder_layers=3, dropout=0.5, variational_dropout=True, **more), Sizes(20, 20, True))
    seen = {model.decoder.layers[number]: [] for number in (1, 2)}
    run_layer = recurrent._run_layer

    def note(module, x, *others):
        seen.get(module, []).append(x)
        return run_layer(module, x, *others)

    monkeypatch.setattr(recurrent, "_run_layer", note)
    memory = model.encode(torch.tensor([[3, 4, 5, 2]] * 4), torch.full((4,), 4))
    model.decode(torch.randint(3, 20, (4, 6)), memory)
    dropped = [torch.cat(entering, dim=1) == 0 for entering in seen.values()]
    for each in dropped:
        assert each.shape == (4, 6, 8)
        assert (each == each[:, :1]).all()
        assert each.any()
        assert not each.all()
    assert not torch.equal(*dropped)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("lengths", [[5, 1, 7, 3], [7, 7, 7, 7]])
def test_rows_that_end_together_are_the_packed_sequence(cell, bidirectional, layers, lengths, monkeypatch):
    """The kernels for equal lengths and those for unequal ones: states, cells and gradients, whatever stands in the padding."""
    stack = Stack(settings(cell=cell), 6, 8, layers, bidirectional)
    lengths, x = torch.tensor(lengths), torch.randn(4, 7, 6)
    found = []
    for most, padding in ((0, 0.0), (99, 9.0)):
        monkeypatch.setattr(recurrent, "_MANY", most)
        stack.zero_grad()
        given = torch.where((torch.arange(7) < lengths[:, None])[..., None], x, padding).requires_grad_()
        states, cells = stack(given, lengths=lengths)
        (states.square().sum() + sum(c.sin().sum() for c in cells)).backward()
        found.append([states, *cells, given.grad, *(weight.grad for weight in stack.parameters())])
    torch.testing.assert_close(*found)
    assert torch.equal(found[0][0] == 0, found[1][0] == 0), "padding alone is zero"


@pytest.mark.parametrize("cell", ["gru", "lstm", "elman"])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_position_after_another_is_the_sequence(cell, layers):
    """The functions of one position and the kernels of a sequence: states, cells and gradients."""
    stack = Stack(settings(cell=cell), 6, 8, layers, bidirectional=False)
    x, first = torch.randn(4, 5, 6), tuple(torch.randn(4, layers, 8) for _ in range(1 + (cell == "lstm")))
    found = []
    for one_by_one in (False, True):
        stack.zero_grad()
        if one_by_one:
            states, cells = [], first
            for t in range(5):
                state, cells = stack(x[:, t : t + 1], cells)
                states.append(state)
            states = torch.cat(states, dim=1)
        else:
            states, cells = stack(x, first)
        (states.square().sum() + sum(c.sum() for c in cells)).backward()
        found.append([states, *cells, *(weight.grad for weight in stack.parameters())])
    torch.testing.assert_close(found[0], found[1])


def gru_by_hand(x: Tensor, h: Tensor, gru: nn.GRU) -> Tensor:
    """h_t = f(x_t, h_{t-1}), Cho et al. 2014, with torch's place of the reset gate."""
    from_x = x @ gru.weight_ih_l0.T + gru.bias_ih_l0
    from_h = h @ gru.weight_hh_l0.T + gru.bias_hh_l0
    (xr, xz, xn), (hr, hz, hn) = from_x.chunk(3), from_h.chunk(3)
    update = torch.sigmoid(xz + hz)
    return update * h + (1 - update) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn)


@pytest.mark.parametrize("cell", TORCH)
def test_cells_begin_with_the_variance_of_what_they_read(cell):
    """The state goes on as it is long, the input comes in as large; a bias says nothing yet."""
    layer = Stack(settings(cell=cell), 300, 200, 1, False).layers[0]
    for gate in layer.weight_hh_l0.split(200):
        torch.testing.assert_close(gate @ gate.T, torch.eye(200), atol=1e-5, rtol=0)
    for gate in layer.weight_ih_l0.split(200):
        assert (gate @ torch.randn(300)).std().item() == pytest.approx(math.sqrt(2 * 300 / 500), abs=0.25)
    assert not layer.bias_ih_l0.any()
    assert not layer.bias_hh_l0.any()


@pytest.mark.parametrize(("tie", "src", "tgt"), [("none", 1.0, 1.0), ("target", 1.0, 0.1), ("all", 0.1, 0.1)])
def test_embeddings_that_are_no_output_layer_begin_large(tie, src, tgt):
    """A cell would hardly notice smaller ones; an output layer of such would be sure of itself before it has learned."""
    model = build_model(settings(tie=tie, emb_dim=100), Sizes(50, 50, tie == "all"))
    assert model.src_embedding.weight.std().item() == pytest.approx(src, rel=0.1)
    assert model.tgt_embedding.weight.std().item() == pytest.approx(tgt, rel=0.1)


@pytest.mark.parametrize("score", ["scaled", "general", "additive"])
def test_attention_begins_by_looking_everywhere(score):
    attention = GlobalAttention(256, score, coverage=False)
    states, queries = 0.5 * torch.randn(4, 20, 256), 0.5 * torch.randn(4, 3, 256)
    weights = attention(queries, attention.keys(states), states, torch.ones(4, 20, dtype=torch.bool), None)[1]
    assert weights.max() < 0.5


def test_the_textbook_encoder_decoder():
    """Two equations: h_t = f(x_t, h_{t-1}) reads and writes, y_t = g(h_t, y_{t-1}) speaks; one vector stands between."""
    model = built(attention="none", bidirectional=False, tie="none")
    src, tgt_in = [3, 4, 5, 2], [1, 7, 8, 9]
    h = torch.zeros(8)
    for piece in src:
        h = gru_by_hand(model.src_embedding.weight[piece], h, model.encoder.layers[0])
    h = torch.tanh(model.bridge[0].weight @ h + model.bridge[0].bias)
    memory = model.encode(torch.tensor([src]), torch.tensor([4]))
    found = model.head.logp(model.decode(torch.tensor([tgt_in]), memory)[0])[0]
    for t, piece in enumerate(tgt_in):
        h = gru_by_hand(model.tgt_embedding.weight[piece], h, model.decoder.layers[0])
        logits = model.head.weight @ torch.tanh(model.out.weight @ h + model.out.bias) + model.head.bias
        torch.testing.assert_close(found[t], logits.log_softmax(dim=0))


def score_by_hand(score: str, h: Tensor, s: Tensor, attention: GlobalAttention) -> Tensor:
    if score == "dot":
        return h @ s
    if score == "scaled":
        return h @ s / math.sqrt(len(h))
    if score == "general":
        return h @ attention.key.weight @ s
    return attention.energy.weight[0] @ torch.tanh(
        attention.query.weight @ h + attention.query.bias + attention.key.weight @ s
    )


@pytest.mark.parametrize("score", ["dot", "scaled", "general", "additive"])
def test_scores_are_their_formulas(score):
    attention = GlobalAttention(8, score, coverage=False)
    h, states = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    real = torch.tensor([[True] * 4 + [False]])
    context, weights = attention(h, attention.keys(states), states, real, None)
    for t in range(3):
        scores = torch.stack([score_by_hand(score, h[0, t], s, attention) for s in states[0, :4]])
        torch.testing.assert_close(weights[0, t, :4], scores.softmax(dim=0))
        assert weights[0, t, 4] == 0
        torch.testing.assert_close(context[0, t], scores.softmax(dim=0) @ states[0, :4])


def test_attention_after_the_cell_is_luongs():
    """Luong et al. 2015, eq. 5: h̃_t = tanh(W[c_t; h_t]), fed with the next input."""
    model = built(input_feeding=True, attention="dot", bridge="copy", bidirectional=False, tie="none")
    memory = model.encode(torch.tensor([[3, 4, 5, 2]]), torch.tensor([4]))
    hidden, _ = model.decode(torch.tensor([[1, 7, 8]]), memory)
    h, fed = memory.states[0, -1], torch.zeros(8)
    for t, piece in enumerate([1, 7, 8]):
        h = gru_by_hand(torch.cat([model.tgt_embedding.weight[piece], fed]), h, model.decoder.layers[0])
        context = (memory.states[0] @ h).softmax(dim=0) @ memory.states[0]
        fed = torch.tanh(model.out.weight @ torch.cat([h, context]) + model.out.bias)
        torch.testing.assert_close(hidden[0, t], fed)


def test_attention_before_the_cell_is_bahdanaus():
    """Bahdanau et al. 2015, A.1.2: c_t from s_{t-1}, s_t = f(s_{t-1}, y_{t-1}, c_t), and a deep output of s_t, c_t, y_{t-1}."""
    model = built(attention="additive", attention_place="before", bridge="zero", tie="none")
    memory = model.encode(torch.tensor([[3, 4, 5, 2]]), torch.tensor([4]))
    hidden, weights = model.decode(torch.tensor([[1, 7, 8]]), memory)
    state = torch.zeros(8)
    for t, piece in enumerate([1, 7, 8]):
        energies = [score_by_hand("additive", state, s, model.attention) for s in memory.states[0]]
        align = torch.stack(energies).softmax(dim=0)
        context, y = align @ memory.states[0], model.tgt_embedding.weight[piece]
        state = gru_by_hand(torch.cat([y, context]), state, model.decoder.layers[0])
        wanted = torch.tanh(model.out.weight @ torch.cat([state, context, y]) + model.out.bias)
        torch.testing.assert_close(hidden[0, t], wanted)
        torch.testing.assert_close(weights[0, t], align)


def test_of_several_layers_the_top_one_asks_before_the_cell():
    model = built(attention="dot", attention_place="before", decoder_layers=2)
    memory = model.encode(torch.tensor([[3, 4, 5, 2]]), torch.tensor([4]))
    state = model.start(memory)
    found = model.step(torch.tensor([1]), memory, state, attention=True).attention[0]
    torch.testing.assert_close(found, (memory.states[0] @ state.cells[0][0, -1]).softmax(dim=0))


def test_coverage_is_see_and_others_formula():
    """See et al. 2017, eq. 10 and 11: c_t is the sum of the weights so far, and eᵢ = vᵀtanh(Wsᵢ + Uh_t + w·c_tᵢ + b)."""
    attention = GlobalAttention(8, "additive", coverage=True)
    nn.init.normal_(attention.coverage)
    h, states, covered = torch.randn(1, 1, 8), torch.randn(1, 5, 8), torch.rand(1, 1, 5)
    _, weights = attention(h, attention.keys(states), states, torch.ones(1, 5, dtype=torch.bool), covered)
    energies = [
        attention.energy.weight[0]
        @ torch.tanh(
            attention.query.weight @ h[0, 0]
            + attention.query.bias
            + attention.key.weight @ states[0, i]
            + attention.coverage * covered[0, 0, i]
        )
        for i in range(5)
    ]
    torch.testing.assert_close(weights[0, 0], torch.stack(energies).softmax(dim=0))


@pytest.mark.parametrize("score", ["dot", "scaled", "general"])
def test_coverage_adds_to_what_is_scored(score):
    attention = GlobalAttention(8, score, coverage=True)
    nn.init.normal_(attention.coverage)
    h, states, covered = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.rand(2, 3, 5)
    real = torch.ones(2, 5, dtype=torch.bool)
    keys = attention.keys(states)
    _, weights = attention(h, keys, states, real, covered)
    for t in range(3):
        raised = keys + covered[:, t, :, None] * attention.coverage
        plain = attention(h[:, t : t + 1], raised, states, real, None)[1]
        torch.testing.assert_close(weights[:, t : t + 1], plain)


def test_the_states_of_a_model_add_up_to_its_coverage():
    model = built(head="copy", coverage=True)
    memory = model.encode(torch.tensor([[3, 4, 5, 2]]), torch.tensor([4]))
    state, total = model.start(memory), torch.zeros(1, 4)
    for piece in [1, 7, 8]:
        out = model.step(torch.tensor([piece]), memory, state, attention=True)
        state, total = out.state, total + out.attention
        torch.testing.assert_close(state.coverage, total)


@pytest.mark.parametrize("cell", TORCH)
def test_bridges(cell):
    src, length = torch.tensor([[3, 4, 5, 2]]), torch.tensor([4])
    more = {"cell": cell, "encoder_layers": 2, "decoder_layers": 2}
    copied = built(bridge="copy", **more)
    first = copied.start(copied.encode(src, length)).cells
    _, last = copied.encoder(copied.src_embedding(src))
    torch.testing.assert_close(first, last)
    zero = built(bridge="zero", **more)
    assert not any(cell.any() for cell in zero.start(zero.encode(src, length)).cells)


@pytest.mark.parametrize("cell", TORCH)
@pytest.mark.parametrize("two_ways", [False, True])
def test_the_linear_bridge_maps_the_last_top_state_to_every_layer(cell, two_ways):
    """For the cell state of an LSTM as for its hidden state, with a map of its own."""
    model = built(cell=cell, bidirectional=two_ways, encoder_layers=3, decoder_layers=2)
    src, lengths = torch.tensor([[3, 4, 5, 2], [6, 2, 0, 0]]), torch.tensor([4, 2])
    first = model.start(model.encode(src, lengths)).cells
    assert len(first) == len(model.bridge) == (2 if cell == "lstm" else 1)
    for row, length in enumerate(lengths):
        _, last = model.encoder(model.src_embedding(src[row : row + 1, :length]))
        for ours, theirs, bridge in zip(first, last, model.bridge, strict=True):
            torch.testing.assert_close(ours[row].flatten(), torch.tanh(bridge.weight @ theirs[0, -1] + bridge.bias))
