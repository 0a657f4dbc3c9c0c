"""An update: the same gradient however memory is, the same step wherever it is decided, and fp16 with its scale."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_trainer import CPU, config

from s2s_cli.checkpoint.bundle import weights_of
from s2s_cli.config import Config
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import Batch, collate
from s2s_cli.errors import S2SError
from s2s_cli.runtime import Runtime
from s2s_cli.training.optim import moments_of
from s2s_cli.training.state import Learner
from s2s_cli.training.train import _fresh_learner
from s2s_cli.training.update import Updater, halves

FP16 = Runtime(torch.device("cpu"), torch.float16)
RATE = 0.01


@pytest.fixture
def dataset(home: Path) -> Dataset:
    return Dataset.open(home / "data-bin")


def batches_of(dataset: Dataset, *sizes: int) -> list[Batch]:
    rows = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return [collate(dataset.train, part, dataset.vocabs) for part in rows]


def updater(home: Path, dataset: Dataset, runtime: Runtime = CPU, **train: object) -> Updater:
    settings = config(home, Path("run"), **train)
    return Updater(_fresh_learner(settings, dataset, runtime), settings.train, runtime)


def state(learner: Learner) -> dict[str, torch.Tensor]:
    found = weights_of(learner.model) | moments_of(learner.model, learner.optimizer)
    return {name: tensor.clone() for name, tensor in found.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def fail_above(update: Updater, rows: int, where: str) -> list[int]:
    """Let memory be too small for batches of more rows, on the way there or on the way back; returns the rows tried."""
    model, tried = update.learner.model, []
    forward = model.forward

    def short(batch: Batch, *arguments: object) -> object:
        tried.append(len(batch.lines))
        loss = forward(batch, *arguments)
        if len(batch.lines) <= rows:
            return loss
        if where == "there":
            raise torch.OutOfMemoryError("CUDA out of memory")

        def burst(grad: torch.Tensor) -> None:
            loss.total.backward(grad)  # gradients have been added when it fails
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

        last = loss.total * 1.0
        last.register_hook(burst)
        return loss._replace(total=last)

    model.forward = short
    return tried


@pytest.mark.parametrize("where", ["there", "back"])
@pytest.mark.parametrize("rows", [7, 3, 1])
def test_where_memory_is_short_batches_are_split_and_the_gradient_stays(
    rows: int, where: str, home: Path, dataset: Dataset
) -> None:
    """Whatever a pass that failed had already added is forgotten, that of earlier batches of the update included."""
    batches = batches_of(dataset, 3, 8, 5)
    roomy, short = updater(home, dataset), updater(home, dataset)
    tried = fail_above(short, rows, where)
    num_tokens = sum(batch.num_tokens for batch in batches)
    sums = roomy.gradients(batches, num_tokens, 1)
    assert torch.allclose(short.gradients(batches, num_tokens, 1), sums, rtol=1e-5)
    assert tried[-1] <= rows < max(tried)
    for ours, theirs in zip(roomy.parameters, short.parameters, strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


def test_what_is_too_large_is_tried_once(home: Path, dataset: Dataset) -> None:
    """Later updates split such batches beforehand, and no others."""
    batches = batches_of(dataset, 3, 8, 5)
    update = updater(home, dataset)
    tried = fail_above(update, 3, "there")
    update.update(batches, 1, RATE)
    assert max(tried) > 3
    tried.clear()
    update.update(batches, 2, RATE)
    assert max(tried) == tried[0] == 3
    assert sum(tried) == 16


def test_what_others_found_too_large_is_not_forgotten(home: Path, dataset: Dataset) -> None:
    """A run that goes on in as many processes knows whose memory was too small; in another number, all take care."""
    settings = config(home, Path("run"))
    learner = _fresh_learner(settings, dataset, CPU)
    for world, found, known in (
        (2, [0, 48], [0, 48]),
        (2, [60, 48], [60, 48]),
        (1, [0, 48], [48]),
        (3, [0, 48], [48] * 3),
        (2, [], [0, 0]),
    ):
        ranks = [replace(CPU, rank=rank, world=world) for rank in range(world)]
        assert [Updater(learner, settings.train, rank, (), found).too_large for rank in ranks] == known


def test_a_pair_that_does_not_fit_is_the_end(home: Path, dataset: Dataset) -> None:
    update = updater(home, dataset)
    fail_above(update, 0, "there")
    with pytest.raises(S2SError, match=r"one pair of \d+ positions is too much for the memory"):
        update.update(batches_of(dataset, 4), 1, RATE)


def test_other_errors_are_no_lack_of_memory(home: Path, dataset: Dataset) -> None:
    update = updater(home, dataset)

    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    update.learner.model.forward = broken
    with pytest.raises(RuntimeError, match="mat1"):
        update.update(batches_of(dataset, 4), 1, RATE)


def test_halves_are_the_whole(dataset: Dataset) -> None:
    [batch] = batches_of(dataset, 7)
    parts = halves(batch)
    assert [len(part.lines) for part in parts] == [3, 4]
    assert np.concatenate([part.lines for part in parts]).tolist() == batch.lines.tolist()
    assert sum(part.num_tokens for part in parts) == batch.num_tokens
    for part in parts:
        again = collate(dataset.train, np.flatnonzero(np.isin(dataset.train.lines, part.lines)), dataset.vocabs)
        assert torch.equal(part.src, again.src)
        assert torch.equal(part.tgt_out, again.tgt_out)
    [one] = batches_of(dataset, 1)
    assert halves(one) == [one]


@pytest.mark.parametrize(
    "optimizer", [{}, {"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adafactor", "lr": 0.01}]
)
def test_a_step_that_is_left_out_has_not_been(optimizer: dict, home: Path, dataset: Dataset) -> None:
    """The updates after it are those of a run that never had it."""
    one, other = updater(home, dataset, **optimizer), updater(home, dataset, **optimizer)
    for number, limit in enumerate([None, 0.01, None, 1e6], start=1):
        before = state(one.learner)
        outcome = one.update(batches_of(dataset, 8), number, RATE, limit)
        assert same(before, state(one.learner)) == (limit == 0.01)
        assert outcome.sums[5] == (limit != 0.01)
        if limit != 0.01:
            other.update(batches_of(dataset, 8), number, RATE)
        assert same(state(one.learner), state(other.learner))


def test_fp16_is_unscaled_before_it_is_clipped(home: Path, dataset: Dataset) -> None:
    """Norm and step are those of any other scale, since a power of two changes no digit."""
    found = []
    for scale in (2.0**4, 2.0**10):
        update = updater(home, dataset, FP16, clip=0.05)
        update.scaler[0] = scale
        outcome = update.update(batches_of(dataset, 8), 1, RATE)
        assert outcome.sums[4] > 0.05, "nothing to clip"
        found.append((state(update.learner), float(outcome.sums[4])))
    plain = updater(home, dataset, clip=0.05).update(batches_of(dataset, 8), 1, RATE)
    assert found[0][1] == pytest.approx(found[1][1], rel=0.02)
    assert found[0][1] == pytest.approx(float(plain.sums[4]), rel=0.05)
    moments = [{n: t for n, t in state_.items() if n.startswith("exp_avg:")} for state_, _ in found]
    norms = [torch.cat([t.flatten() for t in part.values()]).norm() for part in moments]
    assert torch.allclose(norms[0], torch.tensor(0.1 * 0.05), rtol=0.01)
    assert torch.allclose(norms[0], norms[1], rtol=0.01)


def test_fp16_finds_its_scale_and_goes_on_with_it(home: Path, dataset: Dataset) -> None:
    update = updater(home, dataset, FP16)
    update.scaler[0] = 2.0**40  # overflows
    before = state(update.learner)
    outcome = update.update(batches_of(dataset, 8), 1, RATE)
    assert outcome.sums[5] == 0
    assert same(before, state(update.learner))
    assert update.scaler.tolist() == [2.0**39, 0]
    update.scaler = torch.tensor([2.0**8, 1998.0])
    for number, expected in ((2, [2.0**8, 1999.0]), (3, [2.0**9, 0.0]), (4, [2.0**9, 1.0])):
        assert update.update(batches_of(dataset, 8), number, RATE).sums[5] == 1
        assert update.scaler.tolist() == expected
    again = Updater(update.learner, update.settings, FP16, update.scaler.tolist())
    assert torch.equal(again.scaler, update.scaler)


def test_an_update_that_is_given_up_has_not_happened(home: Path, dataset: Dataset) -> None:
    update, calls = updater(home, dataset), []

    @contextmanager
    def within() -> Iterator[None]:
        yield
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    before = state(update.learner)
    with pytest.raises(KeyboardInterrupt):
        update.update(batches_of(dataset, 4, 4), 1, RATE, within=within)
    assert same(before, state(update.learner))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, {"optimizer": "adafactor", "lr": 0.01}, {"consistency": "rdrop"}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_update_waits_for_a_cuda_device(dtype: torch.dtype, options: dict, home: Path, dataset: Dataset) -> None:
    update = updater(home, dataset, replace(CPU, device=torch.device("cuda"), dtype=dtype), **options)
    batches = batches_of(dataset, 8)
    update.update(batches, 1, RATE)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcome = update.update(batches, 2, RATE, limit=100.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert outcome.sums[3] > 0


@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_recurrent_models_train_in_fp16(cell: str, home: Path, dataset: Dataset) -> None:
    """For which torch has no kernel of sequences on a CPU: they compute in fp32 there."""
    settings = config(home, Path("run"))
    model = {"family": "rnn", "cell": cell, "dim": 16, "emb_dim": 16, "dropout": 0.0}
    settings = Config.model_validate(settings.model_dump() | {"model": model})
    found = []
    for runtime in (FP16, CPU):
        update = Updater(_fresh_learner(settings, dataset, runtime), settings.train, runtime)
        outcome = update.update(batches_of(dataset, 6), 1, RATE)
        assert outcome.sums[5] == 1, "the step was taken"
        found.append(outcome.sums[:5].clone())
    torch.testing.assert_close(*found, rtol=1e-2, atol=1e-2)


def test_a_layer_that_was_left_out_has_a_gradient_of_zero(home: Path, dataset: Dataset) -> None:
    """So that its momentum moves it with one process, as it does where another process has kept the layer."""
    update = updater(home, dataset)
    first, *_ = update.parameters
    update.update(batches_of(dataset, 6), 1, RATE)
    before = first.detach().clone()
    gradients = update.gradients

    def without(*arguments: object) -> torch.Tensor:
        sums = gradients(*arguments)
        first.grad = None
        return sums

    update.gradients = without
    update.update(batches_of(dataset, 6), 2, RATE)
    assert not torch.equal(first, before)
