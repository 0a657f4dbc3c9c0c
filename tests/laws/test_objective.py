"""What training minimizes: two passes that should agree, and targets that the model reads from itself."""

import contextlib
import copy
import math
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from grid import BOS, GRID, PAD, VOCAB, Case, batch_of, sentences
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_cli.config import RnnSettings, TrainSettings, TransformerSettings
from s2s_cli.data.loader import Batch
from s2s_cli.models import heads
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.consistency import Pull, pair_loss, plain_pair_loss
from s2s_cli.models.heads import SoftmaxHead
from s2s_cli.runtime import seed_for
from s2s_cli.training.objective import batch_loss, sampling_rate

COPY: dict[str, Any] = {"head": "copy", "coverage": True, "coverage_loss": 0.3}
TRANSFORMER: dict[str, Any] = {"encoder_layers": 1, "decoder_layers": 2, "dim": 16, "heads": 2, "ffn_dim": 24}
RNN: dict[str, Any] = {"emb_dim": 12, "dim": 16}
KINDS = {
    "transformer": TransformerSettings(**TRANSFORMER),
    "transformer, copy": TransformerSettings(**TRANSFORMER, **COPY),
    "transformer, average": TransformerSettings(**TRANSFORMER, autoregression="aan"),
    "rnn": RnnSettings(**RNN),
    "rnn, copy": RnnSettings(**RNN, **COPY, attention_place="before", cell="lstm"),
    "rnn, no attention": RnnSettings(**RNN, attention="none"),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_pull = pytest.mark.parametrize("name", ["rdrop", "simcut"])


def model_of(kind: str, dropout: float) -> Seq2Seq:
    torch.manual_seed(1)
    shared = KINDS[kind].head == "copy"
    model = build_model(KINDS[kind].model_copy(update={"dropout": dropout}), Sizes(VOCAB, VOCAB, shared))
    with torch.no_grad():
        for parameter in model.parameters():  # away from where initialisation leaves it, the coverage above all
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.train()


def a_batch(num: int = 5) -> Batch:
    return batch_of(sentences(num), sentences(num, seed=2))


def gradients(model: Seq2Seq, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@each_kind
@each_pull
def test_two_like_passes_are_one(kind: str, name: str) -> None:
    """Without dropout and without cut tokens nothing is apart, and loss and gradients are the plain ones."""
    model, batch = model_of(kind, 0.0), a_batch()
    ours = batch_loss(model, batch, TrainSettings(consistency=name, cutoff=0.0 if name == "simcut" else 0.05), 1)
    plain = batch_loss(model, batch, TrainSettings(), 1)
    assert ours.divergence is not None
    assert abs(float(ours.divergence.detach())) < 1e-3
    assert torch.allclose(ours.total, plain.total, rtol=1e-5)
    assert torch.allclose(ours.nll, plain.nll, rtol=1e-5)
    expected = gradients(model, plain.total)
    for key, gradient in gradients(model, ours.total).items():
        assert torch.allclose(gradient, expected[key], atol=2e-4), key


@pytest.mark.parametrize("case", GRID, ids=lambda case: case.name)
def test_no_loss_asks_the_device_for_a_number(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be read from the meta device, so that asking it fails where asking a GPU would wait for it."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # torch's autocast knows no such device
    monkeypatch.setattr(torch, "autocast", lambda device, enabled: contextlib.nullcontext())
    model, batch = copy.deepcopy(case.build()).train().to("meta"), a_batch().to("meta")
    for name, rate in product(("none", "rdrop", "simcut"), (0.0, 0.3)):
        model.zero_grad()
        batch_loss(model, batch, TrainSettings(consistency=name, scheduled_sampling=rate), 1).total.backward()
        assert all(p.grad is not None for p in model.head.parameters())


@each_kind
@each_pull
def test_loss_and_gradient_are_those_of_the_formulas(kind: str, name: str) -> None:
    """With dropout: what autograd finds for the distributions of the doubled batch, all held at once."""
    model, batch = model_of(kind, 0.3), a_batch()
    options = TrainSettings(consistency=name, consistency_weight=2.5, cutoff=0.4 if name == "simcut" else 0.05)
    twice = batch_of(sentences(5) * 2, sentences(5, seed=2) * 2)
    pull = Pull(1.25 if name == "rdrop" else 2.5, name == "rdrop")

    seed_for(7)
    ours = batch_loss(model, batch, options, 1)
    found = gradients(model, ours.total)
    seed_for(7)
    hooks = cut_by_hand(model, 0.4) if name == "simcut" else []
    memory = model.encode(twice.src, twice.src_len)
    real = model.real(twice, memory, *model.decode(twice.tgt_in, memory))
    for hook in hooks:
        hook.remove()
    plain = plain_pair_loss(model.head.logp(real.hidden, real.attended), real.targets.chunk(2)[0], 0.1, pull)
    total = plain.total
    if real.repeated is not None:
        parts = real.repeated.chunk(2)
        total = total + 0.3 * ((parts[0].sum() + parts[1].sum()) / 2 if name == "rdrop" else parts[0].sum())
    assert float(plain.divergence.detach()) > 0.01
    assert torch.allclose(ours.divergence, plain.divergence, rtol=1e-4)
    assert torch.allclose(ours.total, total, rtol=1e-5)
    assert torch.allclose(ours.nll, plain.nll, rtol=1e-5)
    for key, gradient in gradients(model, total).items():
        assert torch.allclose(gradient, found[key], rtol=1e-3, atol=2e-4), key


def cut_by_hand(model: Seq2Seq, rate: float) -> list[Any]:
    def cut(_module: Any, ids: Any, vectors: torch.Tensor) -> torch.Tensor:
        gone = torch.rand(ids[0].shape) < rate
        gone[: len(gone) // 2] = False
        return vectors.masked_fill(gone[:, :, None], 0.0)

    return [table.register_forward_hook(cut) for table in {model.src_embedding, model.tgt_embedding}]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(2, 30),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.booleans(),
    st.sampled_from([1, 37, 400]),
)
def test_chunks_are_the_whole(num: int, vocab: int, smoothing: float, both: bool, chunk: int) -> None:
    """The hand-written gradient in chunks of any size is autograd's of the formulas, and those are torch's own."""
    torch.manual_seed(num * vocab)
    head = SoftmaxHead(torch.nn.Embedding(vocab, 6))
    hidden, targets = torch.randn(2 * num, 6, requires_grad=True), torch.randint(vocab, (num,))
    pull, leaves = Pull(3.0, both), [hidden, head.weight, head.bias]
    before, heads.CHUNK = heads.CHUNK, chunk
    try:
        ours = pair_loss(head, hidden, None, targets, smoothing, pull)
    finally:
        heads.CHUNK = before
    logp = head.logp(hidden)
    p, q = logp.chunk(2)
    plain = plain_pair_loss(logp, targets, smoothing, pull)
    apart = F.kl_div(q, p, log_target=True, reduction="sum")
    back = F.kl_div(p, q, log_target=True, reduction="sum")
    assert torch.allclose(plain.divergence, (apart + back) / 2 if both else apart, rtol=1e-4, atol=1e-5)
    cross = [F.nll_loss(x, targets, reduction="sum") for x in (p, q)]
    assert torch.allclose(plain.nll, sum(cross) / 2 if both else cross[0])
    for a, b in zip(ours, plain, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)
    for a, b in zip(
        torch.autograd.grad(2 * ours.total, leaves), torch.autograd.grad(2 * plain.total, leaves), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["transformer", "transformer, copy"])
def test_no_logits_of_a_whole_batch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is kept for the way back is as large as the logits of all positions would be."""
    monkeypatch.setattr(heads, "CHUNK", 20 * VOCAB)
    model, batch = model_of(kind, 0.1), a_batch(60)
    kept: list[int] = []
    seen = lambda tensor: kept.append(tensor.numel()) or tensor  # noqa: E731
    memory = model.encode(batch.src.repeat(2, 1), batch.src_len.repeat(2))
    hidden, weights = model.decode(batch.tgt_in.repeat(2, 1), memory)
    twice = batch_of(sentences(60) * 2, sentences(60, seed=2) * 2)
    real = model.real(twice, memory, hidden, weights)
    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        pair_loss(model.head, real.hidden, real.attended, real.targets.chunk(2)[0], 0.1, Pull(1.0, True))
    assert max(kept) < len(real.hidden) * VOCAB
    assert math.isfinite(max(kept))


@each_kind
def test_a_full_rate_reads_what_the_model_writes(kind: str) -> None:
    """Recurrent models then read their own greedy output; others what they write after the reference."""
    model, batch = model_of(kind, 0.0), a_batch()
    options = TrainSettings(scheduled_sampling=0.999999, sampling_ramp=1)
    read: list[torch.Tensor] = []
    decode = model.decode
    model.decode = lambda tgt_in, memory: (read.append(tgt_in), decode(tgt_in, memory))[1]  # type: ignore[method-assign]
    seed_for(3)
    batch_loss(model, batch, options, 1)
    with torch.no_grad():
        memory = model.encode(batch.src, batch.src_len)
        state, tokens = model.start(memory), batch.tgt_in[:, 0]
        for t in range(batch.tgt_in.shape[1]):
            real = t < batch.tgt_len
            assert torch.equal(read[-1][:, t][real], tokens[real])
            out = model.step(tokens if model.recurrent else batch.tgt_in[:, t], memory, state)
            state, tokens = out.state, out.logp.argmax(dim=1)
    assert (read[-1][:, 0] == BOS).all()


@pytest.mark.parametrize(("kind", "name"), list(product(KINDS, ["none", "rdrop", "simcut"])))
def test_a_loss_is_a_function_of_the_seed(kind: str, name: str) -> None:
    """Everything that is drawn comes from the generators that an update seeds; and draws at a rate of 0 change nothing."""
    model, batch = model_of(kind, 0.2), a_batch()
    options = TrainSettings(consistency=name, scheduled_sampling=0.5, sampling_ramp=10)
    losses = []
    for seed in (1, 1, 2):
        seed_for(seed)
        losses.append(float(batch_loss(model, batch, options, 10).total.detach()))
    assert losses[0] == losses[1] != losses[2]
    assert not any(table._forward_hooks for table in (model.src_embedding, model.tgt_embedding))


@each_kind
def test_bf16_gradients_reach_every_weight(kind: str) -> None:
    """What a pass without gradients has cast to bf16 is not what the next one uses."""
    model, batch = model_of(kind, 0.0), a_batch()
    options = TrainSettings(consistency="rdrop", scheduled_sampling=0.5, sampling_ramp=1)
    seed_for(1)
    plain = gradients(model, batch_loss(model, batch, options, 1).total)
    seed_for(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = batch_loss(model, batch, options, 1)
    found = gradients(model, loss.total)
    assert found.keys() == plain.keys()
    for key, gradient in plain.items():
        if gradient.norm() > 1e-2:
            assert F.cosine_similarity(gradient.flatten(), found[key].flatten(), dim=0) > 0.9, key


def test_the_rate_rises_in_a_line() -> None:
    options = TrainSettings(scheduled_sampling=0.4, sampling_ramp=8)
    rates = [sampling_rate(number, options) for number in range(1, 20)]
    assert rates[3] == pytest.approx(0.2)
    assert rates == sorted(rates)
    assert set(rates[7:]) == {0.4}
    assert sampling_rate(5, TrainSettings()) == 0.0


def test_padding_changes_no_loss() -> None:
    model = model_of("transformer", 0.0)
    batch, options = a_batch(), TrainSettings(consistency="rdrop")
    wider = {name: F.pad(getattr(batch, name), (0, 3), value=PAD) for name in ("src", "tgt_in", "tgt_out")}
    padded = Batch(**(vars(batch) | wider))
    first, second = (batch_loss(model, b, options, 1).total for b in (batch, padded))
    assert torch.allclose(first, second, rtol=1e-5)
