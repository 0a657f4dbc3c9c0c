"""What holds for every model, whatever its options: the contract of `models/base.py`, tried over the grid."""

import copy
import math
import random
from itertools import combinations, product

import pytest
import torch
from grid import BOS, EOS, GRID, PAD, VOCAB, Case, batch_of, drawn_around, make, options, pad, sentences
from torch import Tensor

from s2s_cli.config import RnnSettings, SearchSettings, TransformerSettings
from s2s_cli.models import transformer
from s2s_cli.models.base import Seq2Seq
from s2s_cli.models.heads import Attended
from s2s_cli.models.layers import Dropout
from s2s_cli.models.rnn import Rnn
from s2s_cli.models.transformer import Transformer
from s2s_cli.search.logprobs import Ensemble
from s2s_cli.search.sampling import sample
from s2s_cli.search.strategies import Specials, beam_search, limits_for

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
EACH = pytest.mark.parametrize("case", GRID, ids=lambda case: case.name)
SRC, TGT = sentences(8, seed=1), sentences(8, seed=2)


@pytest.fixture(autouse=True)
def _no_grad(request):
    with torch.set_grad_enabled("learns" in request.node.name):
        yield


def tgt_in(rows: list[list[int]]) -> Tensor:
    return pad([[BOS, *row[:-1]] for row in rows])[0]


def parallel(model: Seq2Seq, src: list[list[int]], tgt: list[list[int]], extra: int = 0, fill: int = PAD) -> Tensor:
    """Log-probabilities [B, T, V] of all positions at once, with `extra` columns of `fill` behind the sources."""
    memory = model.encode(*pad(src, extra, fill))
    hidden, weights = model.decode(tgt_in(tgt), memory)
    if weights is None:
        return model.head.logp(hidden)
    pieces = memory.src[:, None].expand_as(weights).flatten(0, 1)
    logp = model.head.logp(hidden.flatten(0, 1), Attended(weights.flatten(0, 1), pieces))
    return logp.unflatten(0, hidden.shape[:2])


def stepwise(model: Seq2Seq, tokens: Tensor, memory, state) -> Tensor:
    """Log-probabilities [N, T, V] of tokens [N, T], one position after the other."""
    outs = []
    for column in tokens.unbind(1):
        logp, _, state = model.step(column, memory, state)
        outs.append(logp)
    return torch.stack(outs, dim=1)


@pytest.mark.parametrize("family", [TransformerSettings, RnnSettings])
def test_every_option_is_in_the_grid(family):
    wanted = {(name, value) for name, values in options(family).items() for value in values}
    there = {("shared", case.shared) for case in GRID if isinstance(case.settings, family)}
    there |= {item for case in GRID if isinstance(case.settings, family) for item in case.settings.model_dump().items()}
    assert wanted <= there
    assert make(family, {name: values[0] for name, values in options(family).items()}) in GRID


@pytest.mark.parametrize("family", [TransformerSettings, RnnSettings])
def test_two_values_that_no_model_has_together_are_refused_together(family):
    """Whatever the other options are: so each pair of values that a user may choose is in the grid."""
    values, chance = options(family), random.Random(2)
    chosen = [{**c.settings.model_dump(), "shared": c.shared} for c in GRID if isinstance(c.settings, family)]
    for a, b in combinations(values, 2):
        there = {(choice[a], choice[b]) for choice in chosen}
        for x, y in product(values[a], values[b]):
            if (x, y) not in there:
                drawn = (drawn_around({a: x, b: y}, values, chance) for _ in range(300))
                assert not any(make(family, choice) for choice in drawn), f"{a}={x} with {b}={y}"


@EACH
def test_step_is_the_parallel_pass(case: Case):
    model = case.build()
    memory = model.encode(*pad(SRC))
    steps = stepwise(model, tgt_in(TGT), memory, model.start(memory))
    torch.testing.assert_close(steps, parallel(model, SRC, TGT), **CLOSE)


@EACH
def test_probabilities_sum_to_one(case: Case):
    total = parallel(case.build(), SRC, TGT).exp().sum(dim=-1)
    torch.testing.assert_close(total, torch.ones_like(total), **CLOSE)


@EACH
def test_no_log_probability_is_above_zero(case: Case):
    """Not by rounding either, where everything speaks for one piece: search, and the penalty of repetition, count on it."""
    model = copy.deepcopy(case.build())
    model.head.bias[EOS] += 60.0
    memory = model.encode(*pad([[EOS]] * 100))
    logp = model.step(torch.arange(100) % VOCAB, memory, model.start(memory)).logp
    assert logp.max() <= 0.0
    assert logp.argmax(dim=1).eq(EOS).all()


@EACH
def test_no_position_sees_a_later_one(case: Case):
    model = case.build()
    tgt = [row for row in TGT if len(row) > 2]
    other = [[*row[:1], *(3 + (piece + 1) % 20 for piece in row[1:])] for row in tgt]
    before, after = parallel(model, SRC[: len(tgt)], tgt), parallel(model, SRC[: len(tgt)], other)
    torch.testing.assert_close(before[:, :2], after[:, :2], **CLOSE)
    assert not torch.allclose(before[:, 2], after[:, 2], atol=1e-3)


@EACH
def test_padding_changes_nothing(case: Case):
    model = case.build()
    torch.testing.assert_close(parallel(model, SRC, TGT, extra=5, fill=7), parallel(model, SRC, TGT), **CLOSE)


@EACH
def test_a_batch_of_one_is_a_batch_of_eight(case: Case):
    model = case.build()
    together = parallel(model, SRC, TGT)
    for row, (src, tgt) in enumerate(zip(SRC, TGT, strict=True)):
        torch.testing.assert_close(parallel(model, [src], [tgt])[0], together[row, : len(tgt)], **CLOSE)


@EACH
def test_the_source_is_read(case: Case):
    model = case.build()
    assert not torch.allclose(parallel(model, SRC, TGT)[0], parallel(model, SRC[1:], TGT[:7])[0], atol=1e-3)


@EACH
def test_select_commutes_with_step(case: Case):
    model = case.build()
    memory = model.encode(*pad(SRC))
    tokens = tgt_in(TGT)[:, :3]
    state = model.start(memory)
    for column in tokens.unbind(1)[:2]:
        state = model.step(column, memory, state).state
    index = torch.tensor([5, 0, 5, 3])
    chosen = model.step(tokens[index, 2], memory.select(index), state.select(index))
    full = model.step(tokens[:, 2], memory, state)
    torch.testing.assert_close(chosen.logp, full.logp[index], **CLOSE)
    again = model.step(tokens[index, 1], memory.select(index), chosen.state)
    then = model.step(tokens[index, 1], memory.select(index), full.state.select(index))
    torch.testing.assert_close(again.logp, then.logp, **CLOSE)


@EACH
def test_hypotheses_share_a_memory(case: Case):
    """K hypotheses of each of B sentences on B memories are B·K sentences of their own."""
    model = case.build()
    num, beam = 3, 4
    memory = model.encode(*pad(SRC[:num]))
    rows = torch.arange(num).repeat_interleave(beam)
    tokens = torch.randint(3, VOCAB, (num * beam, 3), generator=torch.Generator().manual_seed(1))
    shared = stepwise(model, tokens, memory, model.start(memory).select(rows))
    own = memory.select(rows)
    torch.testing.assert_close(shared, stepwise(model, tokens, own, model.start(own)), **CLOSE)


@EACH
def test_attention_is_a_distribution_over_real_positions(case: Case):
    model = case.build()
    memory = model.encode(*pad(SRC))
    plain = model.step(tgt_in(TGT)[:, 0], memory, model.start(memory))
    out = model.step(tgt_in(TGT)[:, 0], memory, model.start(memory), attention=True)
    torch.testing.assert_close(out.logp, plain.logp, **CLOSE)
    assert plain.attention is None
    if getattr(case.settings, "attention", "") == "none":
        assert out.attention is None
        return
    torch.testing.assert_close(out.attention.sum(dim=1), torch.ones(len(SRC)), **CLOSE)
    assert not out.attention[~memory.mask].any()
    assert out.attention[memory.mask].all()


@EACH
def test_a_model_with_itself_is_that_model(case: Case):
    model = case.build()
    pair = Ensemble([model, model])
    memory, own = pair.encode(*pad(SRC)), model.encode(*pad(SRC))
    first, second = tgt_in(TGT)[:, 0], tgt_in(TGT)[:, 1]
    out, wanted = pair.step(first, memory, pair.start(memory)), model.step(first, own, model.start(own))
    torch.testing.assert_close(out.logp, wanted.logp, **CLOSE)
    index = torch.tensor([5, 0, 5, 3])
    out = pair.step(second[index], memory.select(index), out.state.select(index))
    wanted = model.step(second[index], own.select(index), wanted.state.select(index))
    torch.testing.assert_close(out.logp, wanted.logp, **CLOSE)


def test_an_ensemble_is_the_mean_of_probabilities():
    cases = [case for case in GRID if case.shared][::7]
    members = [case.build() for case in cases]
    mixed = Ensemble(members)
    memory = mixed.encode(*pad(SRC))
    out = mixed.step(tgt_in(TGT)[:, 0], memory, mixed.start(memory))
    own = [parallel(model, SRC, TGT)[:, 0].exp() for model in members]
    assert {type(model) for model in members} == {Rnn, Transformer}
    torch.testing.assert_close(out.logp.exp(), torch.stack(own).mean(dim=0), **CLOSE)


@EACH
def test_the_loss_is_what_the_steps_say(case: Case):
    model = case.build()
    loss = model(batch_of(SRC, TGT), label_smoothing=0.1)
    nll = smooth = again = 0.0
    for src, tgt in zip(SRC, TGT, strict=True):
        memory = model.encode(*pad([src]))
        state, covered = model.start(memory), torch.zeros(len(src))
        for before, piece in zip([BOS, *tgt], tgt, strict=False):
            out = model.step(torch.tensor([before]), memory, state, attention=True)
            state = out.state
            nll -= float(out.logp[0, piece])
            smooth -= float(out.logp[0].mean())
            if case.settings.coverage_loss:
                again += float(torch.minimum(out.attention[0], covered).sum())
                covered += out.attention[0]
    assert loss.num_tokens == sum(map(len, TGT))
    assert math.isclose(float(loss.nll), nll, rel_tol=1e-4)
    wanted = 0.9 * nll + 0.1 * smooth + case.settings.coverage_loss * again
    assert math.isclose(float(loss.total), wanted, rel_tol=1e-4)


@EACH
def test_every_parameter_learns(case: Case):
    model = case.build()
    model.zero_grad()
    model(batch_of(SRC, TGT), label_smoothing=0.1).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("way", ["greedy", "beam", "sampling"])
@EACH
def test_search_scores_are_forced_scores(case: Case, way: str):
    """The log-probability of what search finds, with a model or an ensemble, is the sum over the parallel pass of it."""
    model = case.build()
    settings = SearchSettings(beam=1 if way == "greedy" else 3, length_penalty="none", max_len=4)
    limits, specials = limits_for([9] * 2, settings), Specials(bos=BOS, eos=EOS, banned=(PAD, BOS))
    for each in (model, Ensemble([model, model])):
        memory = each.encode(*pad(SRC[:2]))
        given = (each.step, memory, each.start(memory), limits, specials, settings)
        num = settings.beam
        found = (
            sample(*given, seeds=[1, 2], num_samples=num) if way == "sampling" else beam_search(*given, num_best=num)
        )
        for src, hypotheses in zip(SRC, found, strict=False):
            assert len(hypotheses) == num
            for hypothesis in hypotheses:
                tgt = [*hypothesis.ids, EOS]
                logp = parallel(model, [src], [tgt])[0]
                forced = float(logp[range(len(tgt)), tgt].sum())
                assert math.isclose(hypothesis.logp, forced, rel_tol=1e-3, abs_tol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@EACH
def test_cuda_gives_what_the_cpu_gives(case: Case):
    """Other kernels, the same function: the loss, and a step after a step."""
    model = case.build()
    there = copy.deepcopy(model).cuda()
    batch = batch_of(SRC, TGT)
    assert math.isclose(float(there(batch.to("cuda")).total), float(model(batch).total), rel_tol=1e-3)
    found = []
    for each, device in ((model, "cpu"), (there, "cuda")):
        memory = each.encode(batch.src.to(device), batch.src_len)
        found.append(stepwise(each, batch.tgt_in[:, :3].to(device), memory, each.start(memory)).cpu())
    torch.testing.assert_close(found[1], found[0], atol=5e-3, rtol=1e-2)


def held_in_bf16(case: Case, device: str) -> None:
    """Loss, and direction of its gradient, of the very pass that trains, to those of fp32 on a CPU."""
    batch, found = batch_of(SRC, TGT), []
    for where, halves in (("cpu", False), (device, True)):
        model = copy.deepcopy(case.build()).to(where).train()
        for module in model.modules():
            if isinstance(module, Dropout):
                module.rate = 0.0
        torch.manual_seed(1)  # by which layers are left out
        with torch.autocast(where, torch.bfloat16, enabled=halves):
            total = model(batch.to(where), 0.1).total
        total.backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        found.append((total.item(), torch.cat([grad.flatten().cpu() for grad in grads])))
    assert math.isclose(found[1][0], found[0][0], rel_tol=0.01)
    assert torch.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.95


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@EACH
def test_cuda_learns_in_bf16_what_the_cpu_learns(case: Case):
    held_in_bf16(case, "cuda")


@pytest.mark.parametrize("case", [c for c in GRID if isinstance(c.settings, TransformerSettings)], ids=lambda c: c.name)
def test_a_stream_in_bf16_learns_the_same(case: Case, monkeypatch):
    """What a GPU has between layers, here on a CPU: it is bf16 from the embeddings to the head."""
    read = []
    monkeypatch.setattr(transformer, "as_products", lambda x: x.bfloat16() if torch.is_autocast_enabled("cpu") else x)
    real = Transformer.real
    monkeypatch.setattr(Transformer, "real", lambda self, b, m, h, w: (read.append(h.dtype), real(self, b, m, h, w))[1])
    held_in_bf16(case, "cpu")
    assert read == [torch.float32, torch.bfloat16]
