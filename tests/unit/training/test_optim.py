"""Learning rates as curves, optimizers by what their state says, moving averages by their formula."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import random_model

from s2s_cli.config import TrainSettings
from s2s_cli.data.vocab import Vocabs
from s2s_cli.training.adafactor import Adafactor
from s2s_cli.training.optim import Average, build_optimizer, learning_rate, moments_of, plateau_drops, set_rate

SCHEDULES = ["inverse-sqrt", "noam", "cosine", "linear", "plateau", "constant"]
NUM = 400


def curve(schedule: str, drops: int = 0, **settings: object) -> list[float]:
    chosen = TrainSettings(schedule=schedule, lr=0.01, warmup=50, **settings)
    return [learning_rate(update, 512, chosen, NUM, drops) for update in range(1, NUM + 1)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rises_in_a_line_then_never_again(schedule: str) -> None:
    rates = curve(schedule)
    peak = rates[49]
    assert rates[:50] == pytest.approx([peak * u / 50 for u in range(1, 51)])
    assert all(later <= earlier for earlier, later in pairwise(rates[49:]))
    assert min(rates[:-1]) > 0


def test_shapes_after_warm_up() -> None:
    assert curve("constant")[399] == 0.01
    assert curve("inverse-sqrt")[199] == pytest.approx(0.01 / 2)
    noam, sqrt = curve("noam"), curve("inverse-sqrt")
    assert [n / s for n, s in zip(noam, sqrt, strict=True)] == pytest.approx([(512 * 50) ** -0.5] * NUM)
    assert noam[9] == pytest.approx(0.01 * 512**-0.5 * 10 * 50**-1.5), "as Vaswani et al. write it"
    assert curve("linear")[224] == pytest.approx(0.005)
    assert curve("cosine")[224] == pytest.approx(0.005)
    assert curve("cosine")[136] > curve("linear")[136]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_ends_where_it_is_told(schedule: str) -> None:
    assert curve(schedule)[-1] == pytest.approx(0.0, abs=1e-12)
    assert curve(schedule, min_lr=0.001)[-1] == pytest.approx(0.001)
    assert min(curve(schedule, min_lr=0.001)[49:]) >= 0.001


def test_plateau_falls_by_its_factor_to_its_floor() -> None:
    rates = [curve("plateau", drops, plateau_factor=0.5, min_lr=0.001)[-1] for drops in range(6)]
    assert rates == pytest.approx([0.01, 0.005, 0.0025, 0.00125, 0.001, 0.001])


def drops(values: list[float], patience: int) -> int:
    return plateau_drops([(value, 0.0) for value in values], patience)


def test_plateau_counts_validations() -> None:
    assert drops([], 2) == 0
    assert drops([5, 4, 3, 2, 1], 2) == 0
    assert drops([1, 2], 2) == 0
    assert drops([1, 2, 2], 2) == 1
    assert drops([1, 2, 2, 2], 2) == 1
    assert drops([1, 2, 2, 2, 2], 2) == 2
    assert drops([1, 2, 2, 2, 0.5, 2, 2], 2) == 2, "a new best begins the count anew"
    assert drops([math.inf, math.inf], 1) == 2, "what never was a number is no success"
    assert plateau_drops([(0.0, 5.0), (0.0, 4.0), (0.0, 3.0)], 1) == 0, "of equal scores the lower loss is better"


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 4))
def test_plateau_never_takes_a_drop_back(values: list[int], patience: int) -> None:
    found = [drops(values[:n], patience) for n in range(len(values) + 1)]
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(found))
    assert found[-1] <= len(values) / patience


OPTIMIZERS = [
    {"optimizer": "adam"},
    {"optimizer": "adam", "weight_decay": 0.1},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "adafactor", "lr": 0.01},
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.9},
]


def steps(vocabs: Vocabs, settings: TrainSettings, num: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = random_model(vocabs)
    optimizer = build_optimizer(model, settings)
    set_rate(optimizer, 0.01)
    for _ in range(num):
        for parameter in model.parameters():
            parameter.grad = parameter.detach().clone()  # of half the squared norm
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("options", OPTIMIZERS)
def test_building_an_optimizer_changes_no_weight_and_gives_it_zero_moments(options: dict, vocabs: Vocabs) -> None:
    before, (after, optimizer) = random_model(vocabs), steps(vocabs, TrainSettings(**options), 0)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in after.parameters())
    assert not any(tensor.any() for tensor in moments_of(after, optimizer).values())


@pytest.mark.parametrize("options", OPTIMIZERS)
def test_every_optimizer_descends(options: dict, vocabs: Vocabs) -> None:
    def norm(model: torch.nn.Module) -> float:
        return sum(float(p.detach().square().sum()) for p in model.parameters())

    settings = TrainSettings(**options)
    norms = [norm(steps(vocabs, settings, num)[0]) for num in (0, 5, 10)]
    assert norms[0] > norms[1] > norms[2]


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_adam_is_torch_adam_and_adamw_decays_by_itself(decay: float, vocabs: Vocabs) -> None:
    """The same steps as the plain optimizer of torch; AdamW shrinks the weights by the rate times its decay besides."""
    model = random_model(vocabs)
    theirs = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.9, 0.98), eps=1e-9, weight_decay=decay)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = parameter.detach().clone()
        theirs.step()
    ours, _ = steps(vocabs, TrainSettings(weight_decay=decay), 3)
    for a, b in zip(ours.parameters(), model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    start = random_model(vocabs)
    decayed, _ = steps(vocabs, TrainSettings(optimizer="adamw", weight_decay=0.5), 1)
    plain, _ = steps(vocabs, TrainSettings(), 1)
    for a, b, c in zip(decayed.parameters(), plain.parameters(), start.parameters(), strict=True):
        assert torch.allclose(a, b - 0.01 * 0.5 * c, atol=1e-6)


def some_parameters(device: str = "cpu") -> list[torch.nn.Parameter]:
    torch.manual_seed(1)
    shapes = [(), (7,), (5, 3), (4, 1), (2, 3, 4)]
    return [torch.nn.Parameter(torch.randn(shape, device=device) * 10 ** (n - 4)) for n, shape in enumerate(shapes)]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-6, 3)), min_size=1, max_size=6), st.sampled_from([0.0, 0.3]))
def test_adafactor_is_that_of_torch(updates: list[tuple[float, float]], decay: float) -> None:
    """At any rates, for gradients and parameters of any size."""
    ours, theirs = some_parameters(), some_parameters()
    optimizers = Adafactor(ours, weight_decay=decay), torch.optim.Adafactor(theirs, weight_decay=decay)
    for rate, size in updates:
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine) * 10**size
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            set_rate(optimizer, rate)
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
        for name, value in optimizers[1].state[other].items():
            torch.testing.assert_close(optimizers[0].state[mine][name], value, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("options", OPTIMIZERS)
def test_a_step_that_is_left_out_changes_nothing(options: dict, vocabs: Vocabs) -> None:
    """Not even with a gradient that is no number; and the step after it is as if it had never been."""
    settings = TrainSettings(**options)
    (model, optimizer), (other, _) = steps(vocabs, settings, 2), steps(vocabs, settings, 3)
    before = [p.detach().clone() for p in model.parameters()] + [
        m.clone() for m in moments_of(model, optimizer).values()
    ]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    after = [*model.parameters(), *moments_of(model, optimizer).values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for parameter in model.parameters():
        parameter.grad = parameter.detach().clone()
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_adafactor_asks_the_device_for_no_number() -> None:
    """Nothing can be read from the meta device, so that asking it fails where asking a GPU would wait for it."""
    parameters = some_parameters("meta")
    optimizer = Adafactor(parameters, weight_decay=0.1)
    for found in (None, torch.zeros((), device="meta")):
        optimizer.found_inf = found
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()


SCHEDULES = ["inverse-sqrt", "noam", "cosine", "linear", "plateau", "constant"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(update=st.integers(1, 300), used=st.floats(0, 1), low=st.sampled_from([0.0, 1e-4]))
def test_rate_reaches_its_end_when_the_time_is_up(schedule: str, update: int, used: float, low: float) -> None:
    """Whatever the schedule and however few the updates; without a time limit, and early in it, it is the plain one."""
    settings = TrainSettings(
        schedule=schedule, lr=1.0 if schedule == "noam" else 1e-3, min_lr=low, warmup=100, max_time="1h"
    )
    plain = learning_rate(update, 64, settings, 1000)
    rate = learning_rate(update, 64, settings, 1000, time_used=used)
    assert learning_rate(update, 64, settings, 1000, time_used=0.0) == plain
    assert min(plain, low) <= rate <= plain + 1e-12
    assert learning_rate(update, 64, settings, 1000, time_used=1.0) == pytest.approx(min(plain, low), abs=1e-12)
    assert learning_rate(update, 64, settings, 1000, time_used=(1 + used) / 2) <= rate + 1e-12
    if schedule not in ("cosine", "linear"):
        factor = min(1.0, 4 * (1 - used))
        assert rate == pytest.approx(min(plain, low) + (plain - min(plain, low)) * factor)


def test_adafactor_needs_less_memory(vocabs: Vocabs) -> None:
    def size(name: str) -> int:
        return sum(t.numel() for t in moments_of(*steps(vocabs, TrainSettings(optimizer=name, lr=0.01), 0)).values())

    assert size("adafactor") < size("adam") / 8


def test_average_follows_its_formula(vocabs: Vocabs) -> None:
    model = random_model(vocabs).requires_grad_(False)
    average = Average(model, 0.5)
    expected = {name: p.clone() for name, p in model.named_parameters()}
    for update in range(1, 30):
        decay = min(0.5, (1 + update) / (10 + update))
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter))
            expected[name] = decay * expected[name] + (1 - decay) * parameter
        average.update(model, update)
    for name, tensor in expected.items():
        assert torch.allclose(average.weights[name], tensor, atol=1e-5)


def test_swapping_twice_is_nothing(vocabs: Vocabs) -> None:
    model = random_model(vocabs).requires_grad_(False)
    average = Average(model, 0.9)
    for parameter in model.parameters():
        parameter.add_(1.0)
    raw = {name: p.clone() for name, p in model.named_parameters()}
    averaged = {name: t.clone() for name, t in average.weights.items()}
    places = [p.data_ptr() for p in model.parameters()]
    average.swap(model)
    assert [p.data_ptr() for p in model.parameters()] == places
    assert all(torch.equal(p, averaged[name]) for name, p in model.named_parameters())
    average.swap(model)
    assert all(torch.equal(p, raw[name]) for name, p in model.named_parameters())
    assert all(torch.equal(average.weights[name], averaged[name]) for name in averaged)
