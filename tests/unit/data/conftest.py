"""Small corpora that the tests of this room make for themselves."""

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from corpora import sentences, write

from s2s_cli.config import PreprocessSettings

hypothesis.settings.register_profile("s2s", deadline=None)  # machines are busy now and then
hypothesis.settings.load_profile("s2s")


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., PreprocessSettings]:
    """Settings for a parallel corpus written to the test's folder; text and settings may be given."""

    def make(
        src: list[str] | None = None,
        tgt: list[str] | None = None,
        valid_src: list[str] | None = None,
        valid_tgt: list[str] | None = None,
        **settings: object,
    ) -> PreprocessSettings:
        src = sentences(300, 1) if src is None else src
        tgt = sentences(len(src), 2) if tgt is None else tgt
        valid_src = ["the dog sees the cat", "a house"] if valid_src is None else valid_src
        valid_tgt = ["the cat sees the dog", "a tree"] if valid_tgt is None else valid_tgt
        defaults = {
            "train_src": [write(tmp_path / "train.src", src)],
            "train_tgt": [write(tmp_path / "train.tgt", tgt)],
            "valid_src": [write(tmp_path / "valid.src", valid_src)],
            "valid_tgt": [write(tmp_path / "valid.tgt", valid_tgt)],
            "out": tmp_path / "data-bin",
            "vocab_size": 400,
            "max_ratio": 100.0,
            "workers": 1,
        }
        if settings.get("tsv") or settings.get("jsonl"):
            defaults = {name: value for name, value in defaults.items() if not name.endswith(("_src", "_tgt"))}
        return PreprocessSettings(**{**defaults, **settings})

    return make
