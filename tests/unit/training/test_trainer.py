"""The loop: what an update is, and what a signal does to a validation."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from s2s_cli.config import Config, PreprocessSettings, RuntimeSettings, TransformerSettings
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import Batch, collate
from s2s_cli.data.preprocess import preprocess
from s2s_cli.errors import ConfigError, DataError, Interrupted
from s2s_cli.evaluation.score import corpus_score
from s2s_cli.runtime import Runtime, StopSignal
from s2s_cli.search.translator import Translator
from s2s_cli.training import trainer as trainer_module
from s2s_cli.training.checkpoints import Checkpoints
from s2s_cli.training.hold import hold_to
from s2s_cli.training.log import Log
from s2s_cli.training.state import Progress
from s2s_cli.training.train import _check_kernels, _fresh_learner, _with_source_cut, train
from s2s_cli.training.trainer import Trainer
from s2s_cli.training.update import Updater, positions
from s2s_cli.training.validate import Validation, samples

CPU = Runtime(torch.device("cpu"), torch.float32)


def config(home: Path, run: Path, **train: object) -> Config:
    model = {
        "family": "transformer",
        "encoder_layers": 1,
        "decoder_layers": 1,
        "dim": 16,
        "heads": 2,
        "ffn_dim": 24,
        "dropout": 0.0,
    }
    train = {"data": home / "data-bin", "run": run, "batch_tokens": 256, "warmup": 5, "max_updates": 12} | train
    return Config.model_validate(
        {
            "model": model,
            "train": train,
            "search": {"beam": 2, "max_len": 8},
            "runtime": {"device": "cpu", "precision": "fp32"},
        }
    )


@pytest.fixture
def dataset(home: Path) -> Dataset:
    return Dataset.open(home / "data-bin")


def make_trainer(settings: Config, dataset: Dataset) -> Trainer:
    settings.train.run.mkdir(exist_ok=True)
    learner = _fresh_learner(settings, dataset, CPU)
    learner.model.train()
    checkpoints = Checkpoints(settings.train.run, "bleu", 3, 3)
    return Trainer(settings, dataset, learner, checkpoints, Progress(), CPU, Log(settings.train.run))


@pytest.mark.parametrize("parts", [[4, 4], [1, 7], [1] * 8, [2, 3, 3]])
def test_accumulation_is_one_large_batch(parts: list[int], home: Path, dataset: Dataset, tmp_path: Path) -> None:
    """1 × 8 sentences and any split of them give the same gradient, whatever their lengths."""
    rows = np.argsort(dataset.train.tgt_len, kind="stable")[:: len(dataset.train) // 8][:8]
    loop = make_trainer(config(home, tmp_path / "run"), dataset)
    gradients = []
    for split in ([8], parts):
        batches = [collate(dataset.train, part, dataset.vocabs) for part in np.split(rows, np.cumsum(split)[:-1])]
        assert len({b.num_tokens / len(b.lines) for b in batches}) > 1 or len(batches) == 1
        total, nll, *_ = loop.updater.gradients(batches, sum(batch.num_tokens for batch in batches), 1).tolist()
        assert total > nll * 0.5 > 0
        gradients.append({n: p.grad.clone() for n, p in loop.learner.model.named_parameters()})
        loop.learner.optimizer.zero_grad()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradients[1][name], gradient, atol=1e-6), name


def test_signal_ends_a_validation_at_once_and_it_is_made_up_for(
    home: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint that the signal saves has no score yet; the next run begins with the validation that is due."""
    straight, stopped = config(home, tmp_path / "a", valid_every=6), config(home, tmp_path / "b", valid_every=6)
    train(straight)
    validate = trainer_module.validate

    def interrupted(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(*arguments)

    monkeypatch.setattr(trainer_module, "validate", interrupted)
    with pytest.raises(Interrupted, match="update 6") as caught:
        train(stopped)
    assert caught.value.signum == signal.SIGTERM
    last = Progress.read(tmp_path / "b" / "last" / "training" / "state.json")
    assert (last.update, last.history) == (6, [])
    assert not (tmp_path / "b" / "best").exists()
    monkeypatch.setattr(trainer_module, "validate", validate)
    train(stopped)
    for name in ("best", "last"):
        ours, theirs = tmp_path / "a" / name, tmp_path / "b" / name
        assert ours.resolve().name == theirs.resolve().name
        assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
        assert (ours / "config.json").read_bytes() == (theirs / "config.json").read_bytes()


@pytest.mark.parametrize("backwards", [False, True])
def test_signal_ends_an_update_at_once_and_it_is_made_up_for(
    backwards: bool, home: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long one takes: in the middle of a batch, on the way there or back."""
    straight, stopped = (config(home, tmp_path / run, valid_every=6) for run in "ab")
    train(straight)
    seen, numbers, update = [0], [], Updater.update

    def counted(self: Updater, batches: list[Batch], number: int, *rest: Any) -> object:
        numbers.append(number)
        return update(self, batches, number, *rest)

    def ended(_gradient: torch.Tensor | None = None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def hook(_module: torch.nn.Module, _given: object, out: object) -> None:
        if isinstance(out, torch.Tensor) and out.requires_grad:
            seen[0] += 1
            if seen[0] == 50:
                out.register_hook(ended) if backwards else ended()

    monkeypatch.setattr(Updater, "update", counted)
    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    try:
        with pytest.raises(Interrupted) as caught:
            train(stopped)
    finally:
        handle.remove()
    assert caught.value.signum == signal.SIGTERM
    assert backwards or seen[0] == 50
    last = Progress.read(tmp_path / "b" / "last" / "training" / "state.json")
    assert 0 < last.update == numbers[-1] - 1, "the update was not finished"
    train(stopped)
    ours, theirs = tmp_path / "a" / "last", tmp_path / "b" / "last"
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()


def test_a_run_that_has_split_batches_goes_on_splitting_them(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Else what dropout draws for those updates would be other than without the interruption."""
    memory, whole = [0], Updater._gradients

    def scarce(updater: Updater, batches: list[Batch], *arguments: Any) -> Tensor:
        """Too small for the fourth update and those before, and large enough from then on."""
        if arguments[1] <= 4 and any(len(batch.lines) > 8 for batch in batches):
            updater._at = max(batches, key=positions)
            memory[0] += 1
            raise torch.OutOfMemoryError
        return whole(updater, batches, *arguments)

    monkeypatch.setattr(Updater, "_gradients", scarce)
    straight, stopped = (with_dropout(config(home, tmp_path / run, valid_every=4, max_updates=8)) for run in ("a", "b"))
    train(straight)
    assert memory[0]
    train(with_dropout(config(home, tmp_path / "b", valid_every=4, max_updates=4)))
    state = Progress.read(tmp_path / "b" / "last" / "training" / "state.json")
    assert len(state.too_large) == 1
    assert state.too_large[0] > 0
    train(stopped)
    assert "going on after update 4" in capsys.readouterr().err
    ours, theirs = (tmp_path / run / "last" / "model.safetensors" for run in ("a", "b"))
    assert ours.read_bytes() == theirs.read_bytes()


def with_dropout(settings: Config) -> Config:
    return settings.model_copy(update={"model": settings.model.model_copy(update={"dropout": 0.3})})


@pytest.mark.parametrize(
    ("lower", "upper", "metric", "said"),
    [
        (True, True, "bleu", 1),
        (True, False, "bleu", 0),
        (False, True, "bleu", 0),
        (True, True, "rouge1", 0),
        (True, True, "ter", 0),
    ],
)
def test_scores_that_tell_case_apart_are_told_of_lower_case(
    lower: bool, upper: bool, metric: str, said: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Once, where it can be changed."""
    text = [f"{'A' if upper else 'a'} dog sees {name}" for name in ("cats", "rats", "bats", "birds") * 4]
    for name in ("train.src", "train.tgt", "valid.src", "valid.tgt"):
        (tmp_path / name).write_text("\n".join(text) + "\n")
    corpus = {"train_src": [tmp_path / "train.src"], "train_tgt": [tmp_path / "train.tgt"]}
    corpus |= {"valid_src": tmp_path / "valid.src", "valid_tgt": tmp_path / "valid.tgt"}
    preprocess(PreprocessSettings(**corpus, out=tmp_path / "data-bin", vocab_size=280, lowercase=lower))
    for updates in (1, 2):
        train(config(tmp_path, tmp_path / "run", max_updates=updates, warmup=1, valid_metric=metric))
    assert capsys.readouterr().err.count("score: {lowercase: true}") == said


class SlowValidation:
    """A clock by which each look at it takes some milliseconds, all lines of a validation `seconds`, and fewer as much less,
    once `then` validations are done.
    """

    tick = 0.004

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float, then: int = 0) -> None:
        self.sizes: list[int] = []
        self.now = 0.0
        validate = trainer_module.validate
        monkeypatch.setattr(trainer_module, "time", self)

        def slow(model: object, dataset: Dataset, *arguments: object) -> object:
            num_lines = arguments[-1] or len(dataset.valid_src)
            if len(self.sizes) >= then:
                self.now += seconds * num_lines / len(dataset.valid_src)
            self.sizes.append(num_lines)
            return validate(model, dataset, *arguments)

        monkeypatch.setattr(trainer_module, "validate", slow)

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now


def test_a_long_first_validation_ends_in_time(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """How long it takes is found on a part of it, before it is due; the rate has come down by then."""
    slow = SlowValidation(monkeypatch, 1.5)
    train(config(home, tmp_path / "run", max_time="4s", max_updates=100_000, valid_every=100_000, log_every=1))
    assert slow.sizes == [8, 8, 24]
    progress = Progress.read(tmp_path / "run" / "last" / "training" / "state.json")
    assert progress.seconds < 4.5
    assert "a validation may take about 0:00:02 of the 4s there are" in capsys.readouterr().err
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    rates = [line["lr"] for line in lines if line["kind"] == "train"]
    assert rates[-1] < 0.3 * max(rates)


def test_outputs_are_shown_where_the_loss_alone_is_wanted(home: Path, dataset: Dataset, tmp_path: Path) -> None:
    """And none of a model that has gone wrong: it is the loss that tells of that."""
    settings = config(home, tmp_path / "run", max_updates=4, valid_metric="loss")
    train(settings)
    assert (tmp_path / "run" / "train.log").read_text().count("  →  ") == 2
    learner = _fresh_learner(settings, dataset, CPU)
    found = Validation("fp32", 1.0, {}, dataset.valid_src, [])
    assert [src for src, _ in samples(found, learner.model, dataset.vocabs, settings.search, CPU)] == dataset.valid_src[
        :2
    ]
    for parameter in learner.model.parameters():
        parameter.data.fill_(float("nan"))
    assert samples(found, learner.model, dataset.vocabs, settings.search, CPU) == []
    assert learner.model.training


def test_what_is_left_is_reckoned_from_the_pace_since_the_run_went_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowValidation(monkeypatch, 0.0)
    slow.tick = 10_000.0
    train(config(home, tmp_path / "run", max_updates=4, log_every=1))
    slow.tick = 0.001
    train(config(home, tmp_path / "run", max_updates=8, log_every=1))
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    hours = [int(line.split(" ETA ")[1].split(":")[0]) for line in lines if " ETA " in line]
    assert len(hours) == 8
    assert all(hours[:3])
    assert not any(hours[4:])


def test_where_no_two_checkpoints_are_kept_the_want_of_an_average_is_told(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train(config(home, tmp_path / "run", max_time="1m", max_updates=6, valid_every=6))
    assert "there is no average: that takes two validated checkpoints" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints" / "averaged").exists()


def test_an_average_waits_for_the_next_command_if_the_time_is_up(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    settings = config(home, tmp_path / "run", max_time="2s", max_updates=100_000, valid_every=10)
    SlowValidation(monkeypatch, 2.0, then=2)
    train(settings)
    assert "no time was left to score an average of the best, the same command makes one" in capsys.readouterr().err
    averaged = tmp_path / "run" / "checkpoints" / "averaged"
    assert not averaged.exists()
    train(settings)
    assert averaged.is_dir()


def test_a_gradient_that_is_no_number_is_skipped_and_its_lines_named(
    home: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    loop = make_trainer(config(home, tmp_path / "run"), dataset)
    loop.checkpoints = type("None", (), {"costs": lambda self, history: []})()
    model = loop.learner.model
    forward = model.forward
    model.forward = lambda *arguments: (loss := forward(*arguments))._replace(total=loss.total * torch.nan)
    before = [p.clone() for p in model.parameters()]
    loop._update(StopSignal())
    loop.reader.read(loop.progress)
    assert loop.progress.skipped == loop.progress.update == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert "train.src:" in capsys.readouterr().err
    model.forward = forward
    loop._update(StopSignal())
    loop.reader.read(loop.progress)
    assert loop.progress.skipped == 1
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    loop.stream.close()


def test_where_all_updates_were_skipped_no_loss_is_told(
    home: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    loop = make_trainer(config(home, tmp_path / "run"), dataset)
    forward = loop.learner.model.forward
    loop.learner.model.forward = lambda *inputs: (loss := forward(*inputs))._replace(total=loss.total * torch.nan)
    loop._update(StopSignal())
    loop.reader.read(loop.progress)
    loop._report(SimpleNamespace(disable=True))
    loop.stream.close()
    assert "skipped" in (said := capsys.readouterr().err)
    assert "ppl" not in said
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("accumulate", [1, 2, 5, 40])
def test_an_epoch_is_validated_once_it_ends(accumulate: int, home: Path, dataset: Dataset, tmp_path: Path) -> None:
    """Without `valid_every`, validation is due after exactly those updates in which an epoch ended, and after the last."""
    loop = make_trainer(config(home, tmp_path / "run", accumulate=accumulate, max_updates=30), dataset)
    per_epoch = loop.stream.num_batches(0)
    for update in range(1, 31):
        epochs, batch = divmod(update * accumulate, per_epoch)
        loop.progress.update, loop.progress.position = update, (epochs, batch)
        ended = epochs > (update - 1) * accumulate // per_epoch
        assert loop._is_validation_due() == (ended or update == 30)
        loop.progress.history = [{"update": update}]
        assert not loop._is_validation_due()
        loop.progress.history = []


def test_validation_scores_as_the_score_section_says(home: Path, dataset: Dataset, tmp_path: Path) -> None:
    """The options of `score` hold for validation too, and metrics recorded beside the first are those of `corpus_score`."""
    settings = config(home, tmp_path / "run", max_updates=2, valid_also=["chrf", "ter"])
    settings = settings.model_copy(update={"score": settings.score.model_copy(update={"tokenize": "char"})})
    train(settings)
    record = Progress.read(tmp_path / "run" / "last" / "training" / "state.json").history[-1]
    assert "tok:char" in record["signature"]
    output = Translator(tmp_path / "run", runtime=RuntimeSettings(device="cpu")).translate(dataset.valid_src)
    for metric in ("bleu", "chrf", "ter"):
        assert record[metric] == corpus_score(metric, output, [dataset.valid_tgt], settings.score).value
    with pytest.raises(ConfigError, match=r"score\.tokenize: the run has 'char', now '13a'"):
        train(config(home, tmp_path / "run", max_updates=2, valid_also=["chrf", "ter"]))


def test_the_loss_is_of_sources_cut_as_search_cuts_them(
    home: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = config(home, tmp_path / "run", max_updates=2, valid_metric="loss")
    settings = settings.model_copy(update={"search": settings.search.model_copy(update={"max_src_len": 4})})
    train(settings)
    state = Progress.read(tmp_path / "run" / "last" / "training" / "state.json").history[-1]
    translator = Translator(tmp_path / "run", runtime=RuntimeSettings(device="cpu", precision="fp32"))
    assert translator.settings.max_src_len == 4
    forced = [found for found in translator.force(dataset.valid_src, dataset.valid_tgt) if found is not None]
    nll = -sum(found.logp for found in forced)
    assert state["loss"] == pytest.approx(nll / sum(len(found.logps) for found in forced), abs=1e-4)
    num_cut = int((dataset.valid.src_len > 4).sum())
    assert 0 < num_cut < len(dataset.valid)
    assert f"{num_cut} sources of the validation text are cut to 4 pieces (--max-src-len)" in capsys.readouterr().err


def test_sources_longer_than_search_takes_are_not_cut_where_training_reads_them(
    home: Path, dataset: Dataset, tmp_path: Path
) -> None:
    """Unless it is said that they are, or that training cuts them."""
    settings = config(home, tmp_path / "new")
    said = Config.model_validate(settings.model_dump() | {"search": {"max_src_len": 1024}})
    for limits, most in (({}, 1024), ({"max_len": 4000}, 4000), ({"max_len": 4000, "src_truncate": 30}, 30)):
        made = replace(dataset, manifest=dataset.manifest | {"settings": dataset.manifest["settings"] | limits})
        assert _with_source_cut(settings, made).search.max_src_len == most
        assert _with_source_cut(said, made).search.max_src_len == 1024
    run = tmp_path / "run"  # which was begun when nothing but src_truncate counted
    train(config(home, run, max_updates=1, warmup=1))
    made = replace(dataset, manifest=dataset.manifest | {"settings": dataset.manifest["settings"] | {"max_len": 4000}})
    assert _with_source_cut(config(home, run), made).search.max_src_len == 1024


def test_a_validation_that_a_limit_alone_brings_counts_for_no_patience(
    home: Path, dataset: Dataset, tmp_path: Path
) -> None:
    """Neither as one without a better score, nor as a better one."""
    loop = make_trainer(config(home, tmp_path / "run", patience=2, valid_every=4, max_updates=99), dataset)
    for bleu in (0.5, 3.0, 1.5):
        history = [{"update": 4, "loss": 1.0, "bleu": 2.0}, {"update": 8, "loss": 1.0, "bleu": 1.0}]
        history.append({"update": 10, "loss": 1.0, "bleu": bleu, "extra": True})
        loop.progress.history = history
        assert not loop.reason_to_stop()
        history.append({"update": 12, "loss": 1.0, "bleu": 1.0})
        assert "patience" in loop.reason_to_stop()


def test_a_log_takes_names_of_any_bytes(tmp_path: Path) -> None:
    Log(tmp_path).say("of tr\udcff.en:7", screen=False)
    assert "of tr\\udcff.en:7" in (tmp_path / "train.log").read_text(encoding="utf-8")


def test_a_run_notes_the_data_that_it_has_opened(home: Path, tmp_path: Path) -> None:
    """Not those that have taken their place since."""
    folder = tmp_path / "data-bin"
    shutil.copytree(home / "data-bin", folder)
    dataset, text = Dataset.open(folder), (folder / "dataset.json").read_bytes()
    (folder / "dataset.json").write_bytes(text + b" ")
    (tmp_path / "run").mkdir()
    hold_to(tmp_path / "run", config(home, tmp_path / "run"), dataset, CPU)
    noted = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["sha256"]
    assert noted == hashlib.sha256(text).hexdigest()


def test_a_subset_of_blank_lines_is_refused(home: Path, dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    text = [("a b", "c d")] * 20
    (tmp_path / "text").mkdir()
    for side, name in ((0, "src"), (1, "tgt")):
        lines = [pair[side] for pair in text]
        (tmp_path / f"train.{name}").write_text("".join(f"{line}\n" for line in lines))
        (tmp_path / f"valid.{name}").write_text("".join(f"{line}\n" for line in [*lines[:3], ""]))
    names = {f"{part}_{name}": tmp_path / f"{part}.{name}" for part in ("train", "valid") for name in ("src", "tgt")}
    preprocess(PreprocessSettings(**names, src_vocab=home / "data-bin", out=folder))
    with pytest.raises(DataError, match=r"each line that train\.valid_subset chooses has a blank side"):
        train(config(home, tmp_path / "run", data=folder, valid_subset=1))


def test_a_batch_smaller_than_sentences_is_told_of(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(config(home, tmp_path / "run", max_updates=1, batch_tokens=8, warmup=1))
    assert re.search(
        r"\d+ training pairs are longer than train\.batch_tokens \(8\): a batch each", capsys.readouterr().err
    )
    train(config(home, tmp_path / "large", max_updates=1, warmup=1))
    assert "a batch each" not in capsys.readouterr().err


def test_more_processes_than_tensors_that_learn_cannot_share_the_optimizer(home: Path, dataset: Dataset) -> None:
    settings = config(home, Path("run"), shard_optimizer=True)
    with pytest.raises(ConfigError, match="fewer tensors learn than there are processes"):
        _fresh_learner(settings, dataset, replace(CPU, world=999))


@pytest.mark.parametrize(
    ("device", "asked", "model", "refusal"),
    [
        ("cuda", {"deterministic": True}, {"head": "copy", "coverage": True}, "coverage and average attention"),
        ("cuda", {"deterministic": True}, {"autoregression": "aan"}, "coverage and average attention"),
        ("cuda", {"deterministic": True, "compile": True}, {}, "other kernels each time"),
        ("cuda", {"compile": True}, {}, "needs a C compiler"),
        ("cpu", {"compile": True}, {}, "is for CUDA devices"),
        ("cpu", {"deterministic": True}, {"autoregression": "aan"}, None),
        ("cuda", {"deterministic": True}, {}, None),
    ],
)
def test_kernels_that_are_not_there_are_refused(
    device: str, asked: dict, model: dict, refusal: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda _: None)
    settings = Config(model=TransformerSettings(**model), runtime=RuntimeSettings(**asked))
    with contextlib.nullcontext() if refusal is None else pytest.raises(ConfigError, match=refusal):
        _check_kernels(settings, Runtime(torch.device(device), torch.float32))
