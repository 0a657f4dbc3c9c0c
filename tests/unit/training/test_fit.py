"""The largest batch that fits: more memory, a larger batch; and never so large that an epoch has few updates."""

from pathlib import Path

import pytest
from test_trainer import CPU, config

from s2s_cli.data.dataset import Dataset
from s2s_cli.errors import ConfigError
from s2s_cli.training import fit
from s2s_cli.training.fit import _kept, _longest, fitting
from s2s_cli.training.hold import recorded_batch_tokens
from s2s_cli.training.train import _fresh_learner


def test_it_grows_with_memory_up_to_a_bound(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.open(home / "data-bin")
    settings = config(home, Path("run"), batch_tokens="auto")
    learner = _fresh_learner(settings, dataset, CPU)
    monkeypatch.setattr(fit, "_BATCHES", 1)
    sizes = []
    for memory in (2**20, *range(2**21, 2**24, 2**20), 2**40):
        monkeypatch.setattr(fit, "available_memory", lambda device, memory=memory: memory)
        sizes.append(fitting(settings, dataset, learner, CPU))
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 2
    longest = int(max(dataset.train.src_len.max(), dataset.train.tgt_len.max())) + 1
    assert sizes[0] >= longest
    whole = int((dataset.train.src_len + dataset.train.tgt_len).sum()) // 2 + len(dataset.train)
    assert whole - 256 < sizes[-1] <= whole
    monkeypatch.setattr(fit, "_BATCHES", 10)
    assert fitting(settings, dataset, learner, CPU) <= max(whole // 10, 256)


def test_what_a_pass_keeps_is_in_proportion_to_its_rows(home: Path) -> None:
    dataset = Dataset.open(home / "data-bin")
    settings = config(home, Path("run"))
    learner = _fresh_learner(settings, dataset, CPU)
    small, large = (_longest(dataset, size) for size in (512, 1024))
    ratio = _kept(learner, large, settings.train, CPU) / _kept(learner, small, settings.train, CPU)
    assert ratio == pytest.approx(large.src.numel() / small.src.numel(), rel=0.3)


@pytest.mark.parametrize("text", ["train: {}", "train: {batch_tokens: auto}", "model: {}"])
def test_an_altered_record_of_the_size_is_a_mistake_with_a_message(text: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-0000001").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config.yaml cannot be read .* its batch_tokens is"):
        recorded_batch_tokens(tmp_path)
