from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_cli.data import duplicates
from s2s_cli.data.duplicates import Duplicates


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(0, 30)), max_size=10),
    st.sampled_from([1, 7, 1 << 16]),
)
def test_every_pair_but_the_first_of_its_kind_is_marked(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[list[int]], buffered: int
) -> None:
    spread = [[value * 0x0808_0808_0808_0808 for value in block] for block in blocks]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BUFFERED", buffered)
        folder = tmp_path_factory.mktemp("dup") / "buckets"
        with Duplicates(folder) as found:
            for block in spread:
                found.add(np.array(block, np.uint64))
            mask = found.mask().tolist()
    values = [value for block in spread for value in block]
    assert mask == [value in values[:i] for i, value in enumerate(values)]
    assert not folder.exists()


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape"), Duplicates(tmp_path / "buckets") as found:
        found.add(np.zeros((2, 2), np.uint64))
    assert not list(tmp_path.iterdir())
