"""The cache of search against lists: each hypothesis reads the keys and values of its own path, however it came about."""

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_cli.models.cache import Cache, Paths, room, select


def seen(paths: Paths, cache: Cache) -> list[list[tuple[float, float]]]:
    """What each hypothesis reads, key and value; every position that a product goes over is written or zero."""
    keys, values = cache.keys_values
    bias = paths.bias(None)
    assert keys.shape == values.shape
    assert bias.shape[3] == keys.shape[2] == room(paths.length * paths.width)
    assert (keys[:, :, paths.length * paths.width :] == 0).all()
    rows = bias.expand(len(keys), 1, -1, -1)
    return [
        [(float(keys[b, 0, at, 0]), float(values[b, 0, at, 0])) for at in (rows[b, 0, r] == 0).nonzero().flatten()]
        for b in range(len(keys))
        for r in range(paths.width)
    ]


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 3), st.integers(1, 9), st.integers(20, 70))
def test_each_hypothesis_reads_its_own_path(chance: random.Random, num_groups: int, width: int, steps: int) -> None:
    paths = Paths.first(num_groups * width, width, torch.device("cpu"))
    width = paths.width
    num_rows = num_groups * width
    cache = Cache(None, 0, width)
    expected: list[list[tuple[float, float]]] = [[] for _ in range(num_rows)]
    for _ in range(steps):
        new = torch.rand(2, num_rows, 1)
        paths = paths.append()
        cache = cache.append(*new.view(2, -1, 1, paths.width, 1))
        expected = [[*path, (float(k), float(v))] for path, k, v in zip(expected, *new[:, :, 0], strict=True)]
        assert seen(paths, cache) == expected
        groups = list(range(num_rows // paths.width))
        what = chance.random()
        if what < 0.1 and len(groups) > 1:  # one sentence is done
            groups.remove(chance.choice(groups))
        if what > 0.98:  # hypotheses of several groups mixed
            index = [chance.randrange(num_rows) for _ in range(chance.randint(1, num_rows))]
        else:
            index = [g * paths.width + chance.randrange(paths.width) for g in groups for _ in range(paths.width)]
        stay = [i // paths.width for i in index] == [row // paths.width for row in range(num_rows)]
        paths, (cache,) = select(paths, (cache,), torch.tensor(index), stay and chance.random() < 0.5)
        expected = [expected[i] for i in index]
        num_rows = len(index)


def test_room_is_for_all_an_eighth_more_for_many_and_the_same_until_it_is_full() -> None:
    for num in range(1, 3000):
        assert num <= room(num) <= max(num * 9 / 8, num + 15)
        assert room(num) % 16 == 0
        assert room(room(num)) == room(num)
    cache, buffers = Cache(None, 0, 5), []
    for _ in range(200):
        cache = cache.append(*torch.rand(2, 1, 1, 5, 1))
        assert cache.buffer is not None
        assert cache.buffer.tensor.shape[3] == room(cache.length * 5)
        buffers.append(cache.buffer)
    assert len(set(map(id, buffers))) == len({room(num * 5) for num in range(1, 201)})
