"""The parts of the models, against torch's own and against their definitions."""

import pytest
import torch

from s2s_cli.models.layers import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_dropout_has_the_rate_the_mean_and_the_gradient_of_dropout(rate):
    torch.manual_seed(1)
    drop = Dropout(rate)
    x = torch.ones(1000, 1001, requires_grad=True)
    y = drop(x)
    y.sum().backward()
    assert y.eq(0).double().mean().item() == pytest.approx(rate, abs=1 / 512 + 1e-3)  # a multiple of 1/256, and chance
    assert y.double().mean().item() == pytest.approx(1.0, abs=5e-3)
    assert y.unique().numel() == 2
    assert torch.equal(x.grad, y.detach())  # the same elements, with the same scale
    assert not torch.equal(y, drop(x))


def test_dropout_is_independent_of_place():
    torch.manual_seed(1)
    kept = Dropout(0.5)(torch.ones(512, 512)).ne(0).double()
    assert kept.mean(dim=0).std().item() == pytest.approx((0.25 / 512) ** 0.5, rel=0.2)
    assert kept.mean(dim=1).std().item() == pytest.approx((0.25 / 512) ** 0.5, rel=0.2)
    neighbours = torch.corrcoef(torch.stack([kept.flatten()[:-1], kept.flatten()[1:]]))[0, 1]
    assert abs(neighbours.item()) < 0.01


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 11)])
def test_dropout_takes_any_shape_and_type(shape):
    for dtype in (torch.float32, torch.bfloat16):
        y = Dropout(0.25)(torch.ones(shape, dtype=dtype))
        assert y.shape == shape
        assert y.dtype == dtype


def test_dropout_is_the_identity_when_translating():
    x = torch.randn(5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
