import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s_cli.data.batching import Repeat, epoch_rows, plan_epoch, plan_in_order, repeats_of

LENGTHS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=200)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(pairs, np.int32)
    return both[:, 0], both[:, 1]


def captions(num: int = 29_000) -> tuple[np.ndarray, np.ndarray]:
    """Lengths like those of image captions in pieces: 14 on average, the sides alike but not equal."""
    rng = np.random.default_rng(1)
    src = np.clip(rng.lognormal(2.6, 0.33, num), 3, 60)
    return src.astype(np.int32), np.clip(src * rng.lognormal(0.0, 0.2, num), 2, 70).astype(np.int32)


@given(LENGTHS, st.integers(8, 300), st.integers(0, 5), st.integers(0, 5))
def test_each_pair_once_within_the_budget(pairs: list[tuple[int, int]], budget: int, seed: int, epoch: int) -> None:
    src, tgt = arrays(pairs)
    for plan in (plan_epoch(src, tgt, budget, seed, epoch), plan_in_order(src, tgt, budget)):
        assert sorted(np.concatenate(plan).tolist()) == list(range(len(pairs)))
        for batch in plan:
            longest = max(src[batch].max(), tgt[batch].max()) + 1
            assert len(batch) * longest <= budget or len(batch) == 1


@given(LENGTHS, st.integers(0, 5), st.integers(0, 5))
def test_the_plan_depends_on_its_arguments_alone(pairs: list[tuple[int, int]], seed: int, epoch: int) -> None:
    src, tgt = arrays(pairs)
    first, second = plan_epoch(src, tgt, 100, seed, epoch), plan_epoch(src, tgt, 100, seed, epoch)
    assert [b.tolist() for b in first] == [b.tolist() for b in second]


def test_epochs_and_seeds_give_other_batches_in_another_order() -> None:
    src, tgt = captions()
    plans = [plan_epoch(src, tgt, 4096, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    as_sets = [{frozenset(b.tolist()) for b in plan} for plan in plans]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert len(as_sets[i] & as_sets[j]) < len(as_sets[i]) / 4
    mean_lengths = np.array([tgt[b].mean() for b in plans[0]])
    assert abs(np.corrcoef(mean_lengths[:-1], mean_lengths[1:])[0, 1]) < 0.5  # not from short to long


def test_batches_are_full() -> None:
    src, tgt = captions()
    plan = plan_epoch(src, tgt, 4096, 1, 0)
    real = int((src + 1).sum() + (tgt + 1).sum())
    padded = sum(len(b) * int(src[b].max() + 1 + tgt[b].max() + 1) for b in plan)
    assert real / padded >= 0.95
    used = [len(b) * (max(src[b].max(), tgt[b].max()) + 1) / 4096 for b in plan]
    assert np.mean(used) > 0.95


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.5])), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_an_epoch_holds_each_corpus_as_often_as_said(parts: list[tuple[int, float]], epoch: int) -> None:
    repeats, start = [], 0
    for size, times in parts:
        repeats.append(Repeat(start, start + size, times))
        start += size
    rows = epoch_rows(start, repeats, np.random.default_rng(epoch))
    counts = np.bincount(rows % start, minlength=start) if start else np.zeros(0)
    assert len(set(rows.tolist())) == len(rows)
    assert all(
        k < counts[row] for k, row in zip(*np.divmod(rows, max(1, start)), strict=True)
    )  # the 0th, the 1st, … time
    for first, stop, times in repeats:
        part = counts[first:stop]
        rest = part.sum() - int(times) * (stop - first)
        assert abs(rest - (times - int(times)) * (stop - first)) < 1
        assert set(part.tolist()) <= {int(times), int(times) + 1}


def test_a_small_part_of_a_corpus_comes_in_some_epochs() -> None:
    seen = [len(epoch_rows(2, [Repeat(0, 2, 0.1)], np.random.default_rng(epoch))) for epoch in range(500)]
    assert set(seen) == {0, 1}
    assert 60 < sum(seen) < 140  # a fifth of a pair an epoch


def test_the_plan_follows_the_repeats() -> None:
    src, tgt = captions(100)
    plan = plan_epoch(src, tgt, 200, 1, 0, [Repeat(0, 40, 2.0), Repeat(40, 100, 1.0)])
    assert np.bincount(np.concatenate(plan) % 100).tolist() == [2] * 40 + [1] * 60


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [1.0, 3.0, 0.5]])
def test_temperature_raises_small_corpora(weights: list[float]) -> None:
    counts = [1000, 100, 10]
    assert repeats_of(counts, weights, 1.0) == pytest.approx(weights)
    mild, strong = repeats_of(counts, weights, 2.0), repeats_of(counts, weights, 1e9)
    assert mild[0] == strong[0] == weights[0]
    assert all(s > m > w for s, m, w in zip(strong[1:], mild[1:], weights[1:], strict=True))
    seen = [count * times for count, times in zip(counts, strong, strict=True)]
    assert seen == pytest.approx([seen[0]] * 3, rel=1e-6)  # all equal in the limit
    assert repeats_of([0, 5], [1.0, 1.0], 5.0)[1] == 1.0
