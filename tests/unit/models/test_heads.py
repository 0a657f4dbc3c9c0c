"""The output layer and its loss, against torch's cross-entropy with autograd."""

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_cli.models import heads
from s2s_cli.models.heads import Attended, CopyHead, SoftmaxHead, coverage_loss
from s2s_cli.models.layers import embedding


def problem(rows: int, dim: int, vocab: int, seed: int = 1):
    """A head with a bias, hidden vectors and targets."""
    torch.manual_seed(seed)
    head = SoftmaxHead(embedding(vocab, dim))
    torch.nn.init.normal_(head.bias)
    return head, torch.randn(rows, dim, requires_grad=True), torch.randint(vocab, (rows,))


def gradients(loss, *of):
    return torch.autograd.grad(loss, of)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 30),
    dim=st.integers(1, 9),
    vocab=st.integers(2, 40),
    smoothing=st.sampled_from([0.0, 0.1, 0.7]),
    chunk=st.integers(1, 200),
)
def test_loss_and_gradient_are_those_of_torch(rows, dim, vocab, smoothing, chunk):
    head, hidden, targets = problem(rows, dim, vocab)
    with patch.object(heads, "CHUNK", chunk):
        total, nll = head.loss(hidden, None, targets, smoothing)
        found = gradients(3.0 * total, hidden, head.weight, head.bias)
    logits = F.linear(hidden, head.weight, head.bias)
    wanted = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(total, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(nll, F.cross_entropy(logits, targets, reduction="sum"), rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(found, gradients(3.0 * wanted, hidden, head.weight, head.bias), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_under_bf16_autocast(smoothing):
    head, hidden, targets = problem(300, 32, 100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = head.loss(hidden, None, targets, smoothing)
    wanted = F.cross_entropy(
        F.linear(hidden, head.weight, head.bias), targets, label_smoothing=smoothing, reduction="sum"
    )
    torch.testing.assert_close(total, wanted, rtol=1e-2, atol=0)
    found = gradients(total, hidden, head.weight, head.bias)
    for ours, theirs in zip(found, gradients(wanted, hidden, head.weight, head.bias), strict=True):
        assert ours.dtype == theirs.dtype == torch.float32
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999
        torch.testing.assert_close(ours.norm(), theirs.norm(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("frozen", ["weight", "bias", "hidden"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(frozen):
    head, hidden, targets = problem(12, 6, 20)
    parts = {"weight": head.weight, "bias": head.bias, "hidden": hidden}
    wanted = dict(zip(parts, gradients(head.loss(hidden, None, targets, 0.1)[0], *parts.values()), strict=True))
    parts[frozen].requires_grad_(False)
    head.loss(hidden, None, targets, 0.1)[0].backward()
    for name, tensor in parts.items():
        if name == frozen:
            assert tensor.grad is None
        else:
            torch.testing.assert_close(tensor.grad, wanted[name])


def test_no_gradient_is_made_where_none_is_wanted():
    head, hidden, targets = problem(12, 6, 20)
    with torch.no_grad():
        total, nll = head.loss(hidden, None, targets, 0.0)
    assert not total.requires_grad
    assert total == nll


def test_the_logits_of_a_batch_are_never_held_at_once():
    """The largest tensor that loss and gradient make has the size of the weights or of a chunk."""
    rows, vocab = 640, 512
    head, hidden, targets = problem(rows, 8, vocab)
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor))
            return out

    with patch.object(heads, "CHUNK", 64 * vocab), Watch():
        head.loss(hidden, None, targets, 0.1)[0].backward()
    assert max(sizes) == 64 * vocab


def copy_problem(rows: int = 7, dim: int = 5, vocab: int = 11, places: int = 4):
    """A copy head, hidden vectors, where they look (the last place is padding), and targets."""
    torch.manual_seed(1)
    head = CopyHead(embedding(vocab, dim), coverage_loss=0.0)
    torch.nn.init.normal_(head.bias)
    weights = torch.randn(rows, places)
    weights[:, -1] = -torch.inf
    attended = Attended(weights.softmax(dim=1).requires_grad_(), torch.randint(3, vocab, (rows, places)))
    return head, torch.randn(rows, dim, requires_grad=True), attended, torch.randint(3, vocab, (rows,))


def test_the_copy_head_is_its_formula():
    """See et al. 2017, eq. 9: P(w) = g · P_vocab(w) + (1 - g) · Σ over the places of w of their attention."""
    head, hidden, attended, _ = copy_problem()
    attended.pieces[:, 1] = attended.pieces[:, 0]  # a piece that stands twice
    found = head.logp(hidden, attended).exp()
    for row in range(len(hidden)):
        g = torch.sigmoid(head.generate.weight[0] @ hidden[row] + head.generate.bias[0])
        wanted = g * (head.weight @ hidden[row] + head.bias).softmax(dim=0)
        for piece, weight in zip(attended.pieces[row].tolist(), attended.weights[row], strict=True):
            wanted[piece] = wanted[piece] + (1 - g) * weight
        torch.testing.assert_close(found[row], wanted)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 30, 10_000])
def test_the_copy_loss_in_chunks_is_the_loss_at_once(smoothing, chunk):
    head, hidden, attended, targets = copy_problem()
    leaves = [hidden, attended.weights, *head.parameters()]
    with patch.object(heads, "CHUNK", chunk):
        total, nll = head.loss(hidden, attended, targets, smoothing)
        found = gradients(total, *leaves)
    wanted = F.nll_loss(logp := head.logp(hidden, attended), targets, reduction="sum")
    torch.testing.assert_close(nll, wanted)
    wanted = (1 - smoothing) * wanted - smoothing * logp.mean(dim=1).sum()
    torch.testing.assert_close(total, wanted)
    for ours, theirs in zip(found, gradients(wanted, *leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        assert ours.isfinite().all()


def test_a_copy_head_that_only_copies_gives_the_attention():
    head, hidden, attended, _ = copy_problem()
    with torch.no_grad():
        head.generate.bias.fill_(-50.0)
        head.generate.weight.zero_()
    wanted = torch.zeros(len(hidden), 11).scatter_add(1, attended.pieces, attended.weights)
    torch.testing.assert_close(head.logp(hidden, attended).exp(), wanted)


def test_coverage_loss_is_its_formula():
    """See et al. 2017, eq. 12: Σᵢ min(aᵢ, cᵢ), c the sum of the attention at all positions before."""
    weights = torch.rand(2, 4, 5).softmax(dim=2)
    found = coverage_loss(weights)
    for row in range(2):
        covered = torch.zeros(5)
        for t in range(4):
            wanted = sum(min(float(a), float(c)) for a, c in zip(weights[row, t], covered, strict=True))
            assert float(found[row, t]) == pytest.approx(wanted, abs=1e-6)
            covered = covered + weights[row, t]


def test_the_copy_loss_keeps_no_distribution_and_makes_them_by_chunks():
    """Nothing as wide as the vocabulary waits for the way back, and no tensor is larger than the weights or a chunk."""
    rows, vocab = 96, 512
    head, hidden, attended, targets = copy_problem(rows, vocab=vocab)
    kept, made = [], []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made.extend(t.numel() for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor))
            return out

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    with (
        patch.object(heads, "CHUNK", 8 * vocab),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        Watch(),
    ):
        total = head.loss(hidden, attended, targets, 0.1)[0]
        waiting = [*kept]
        total.backward()
    assert not [shape for shape in waiting if shape and shape[-1] == vocab]
    assert max(made) == 8 * vocab
