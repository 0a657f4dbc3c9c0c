"""The largest batch that fits: more memory, a larger batch; and never so large that an epoch has few updates."""

from pathlib import Path

import pytest
import torch
from test_trainer import CPU, config

from s2s_cli.data.batching import plan_in_order
from s2s_cli.data.dataset import Dataset
from s2s_cli.errors import ConfigError
from s2s_cli.training import fit
from s2s_cli.training.fit import _MORE, _SHARE, fitting, hardest, kept
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


def test_the_hardest_batches_are_full(home: Path) -> None:
    """Not what is left over when all pairs have been cut into batches; no batch of the plan needs more of either kind."""
    dataset = Dataset.open(home / "data-bin")
    store = dataset.train
    for size in (256, 512, 1024, 1500):
        longest, fullest = hardest(dataset, size)
        width = int(max(store.src_len.max(), store.tgt_len.max())) + 1
        assert max(longest.src.shape[1], longest.tgt_in.shape[1]) == width
        assert size - width < len(longest.lines) * width <= size
        for rows in plan_in_order(store.src_len, store.tgt_len, size):
            both = len(rows) * (int(store.src_len[rows].max()) + int(store.tgt_len[rows].max()) + 2)
            assert both <= len(fullest.lines) * (fullest.src.shape[1] + fullest.tgt_in.shape[1])


@pytest.mark.parametrize("memory", [2**22, 2**23, 3 * 2**22])
def test_what_fits_is_what_the_budget_holds(memory: int, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And twice that would not have been."""
    dataset = Dataset.open(home / "data-bin")
    settings = config(home, Path("run"), batch_tokens="auto")
    learner = _fresh_learner(settings, dataset, CPU)
    monkeypatch.setattr(fit, "_BATCHES", 1)
    monkeypatch.setattr(fit, "available_memory", lambda device: memory)
    size = fitting(settings, dataset, learner, CPU)
    budget = memory * _SHARE["cpu"] - sum(p.numel() * p.element_size() for p in learner.model.parameters())
    one, two = (kept(learner, hardest(dataset, n), settings.train, CPU) * _MORE for n in (size, 2 * size))
    assert one <= budget * 1.1 < two * 1.1


def test_what_is_too_large_to_be_measured_is_small(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object) -> int:
        raise torch.OutOfMemoryError

    dataset = Dataset.open(home / "data-bin")
    settings = config(home, Path("run"), batch_tokens="auto")
    monkeypatch.setattr(fit, "kept", short)
    longest = int(max(dataset.train.src_len.max(), dataset.train.tgt_len.max())) + 1
    assert longest <= fitting(settings, dataset, _fresh_learner(settings, dataset, CPU), CPU) <= max(4 * longest, 512)


def test_no_pair_is_longer_than_what_fits(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.open(home / "data-bin")
    settings = config(home, Path("run"), batch_tokens="auto")
    longest = int(max(dataset.train.src_len.max(), dataset.train.tgt_len.max())) + 1
    monkeypatch.setattr(fit, "available_memory", lambda device: 0)
    monkeypatch.setattr(fit, "_STEP", longest - 1)
    assert fitting(settings, dataset, _fresh_learner(settings, dataset, CPU), CPU) == longest


@pytest.mark.parametrize("text", ["train: {}", "train: {batch_tokens: auto}", "model: {}"])
def test_an_altered_record_of_the_size_is_a_mistake_with_a_message(text: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-0000001").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config.yaml cannot be read .* it is cut short"):
        recorded_batch_tokens(tmp_path)
    (tmp_path / "config.yaml").write_text(f"{text}\ndata: {{sha256: x}}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config.yaml cannot be read .* its batch_tokens is"):
        recorded_batch_tokens(tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"config.yaml is missing"):
        recorded_batch_tokens(tmp_path)
