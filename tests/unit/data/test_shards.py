from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_cli.data.shards import Shard, ShardWriter
from s2s_cli.errors import DataError

ROWS = st.lists(st.lists(st.integers(0, 39), max_size=5), max_size=12)


def write(stem: Path, rows: list[list[int]], size: int, block: int = 3) -> None:
    with ShardWriter(stem, size) as writer:
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            writer.write(np.array([i for row in part for i in row], np.int32), np.array([len(row) for row in part]))


@settings(max_examples=40)
@given(rows=ROWS, size=st.sampled_from([40, 65536, 65537, 200_000]))
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], size: int) -> None:
    stem = tmp_path_factory.mktemp("shard") / "a"
    rows = [[i * (size - 1) // 39 for i in row] for row in rows]
    write(stem, rows, size)
    shard = Shard(stem)
    assert len(shard) == len(rows)
    assert shard.lengths.tolist() == [len(row) for row in rows]
    assert [shard[i].tolist() for i in range(len(rows))] == rows
    for start, stop in ((0, len(rows)), (1, max(1, len(rows) - 1))):
        if stop <= len(rows):
            ids, lengths = shard.slice(start, stop)
            assert ids.tolist() == [i for row in rows[start:stop] for i in row]
            assert lengths.tolist() == [len(row) for row in rows[start:stop]]
    assert shard.num_tokens == sum(map(len, rows))
    assert Path(f"{stem}.bin").stat().st_size == shard.num_tokens * (2 if size <= 65536 else 4)


@pytest.mark.parametrize(
    ("suffix", "damage", "message"),
    [
        ("bin", lambda b: b[:-1], "is torn"),
        ("bin", lambda b: b + b"\0", "is torn"),
        ("idx", lambda b: b[:-8], "is torn"),
        ("idx", lambda b: b"x" + b[1:], "not a shard index"),
        ("idx", lambda b: b[:10], "not a shard index"),
        ("idx", lambda b: b[:8] + b"\x09" + b[9:], "format version 9"),
    ],
)
def test_a_damaged_shard_is_refused(tmp_path: Path, suffix: str, damage: object, message: str) -> None:
    write(tmp_path / "a", [[1, 2], [3]], 40)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        Shard(tmp_path / "a")


def test_a_shard_that_was_not_finished_is_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "a", 40)
    writer.write(np.array([1]), np.array([1]))
    with pytest.raises(DataError):
        Shard(tmp_path / "a")
    writer.close()
    assert Shard(tmp_path / "a")[0].tolist() == [1]
    (tmp_path / "a.bin").unlink()
    with pytest.raises(DataError, match=r"a\.bin: cannot be read"):
        Shard(tmp_path / "a")
