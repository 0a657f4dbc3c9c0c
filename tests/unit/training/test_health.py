"""Updates that go wrong: left out, named, and gone back from, alike in a run that was interrupted and in one that was not."""

import json
import math
from pathlib import Path

import pytest
import torch
from test_trainer import config

from s2s_cli.checkpoint.bundle import weights_of
from s2s_cli.config import Config
from s2s_cli.errors import Interrupted, S2SError
from s2s_cli.models.base import Loss, Seq2Seq
from s2s_cli.training import train as train_module
from s2s_cli.training import update as update_module
from s2s_cli.training.health import IN_A_ROW, READ_EVERY, judge
from s2s_cli.training.state import Health, Progress
from s2s_cli.training.train import train
from s2s_cli.training.trainer import Trainer

batch_loss = update_module.batch_loss


class Poison:
    """Spoils the losses, or their gradients, of the updates that are made with the n-th to m-th batch of the run."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, first: int, last: int, factor: float, grad: float = 1.0
    ) -> None:
        self.seen: list[int] = []
        trainers: list[Trainer] = []
        begin = train_module._begin

        def watched(*arguments: object) -> Trainer:
            trainers.append(begin(*arguments))
            return trainers[-1]

        def spoiled(model: Seq2Seq, batch: object, settings: object, number: int) -> Loss:
            loss = batch_loss(model, batch, settings, number)
            epoch, index = trainers[-1].stream.position
            position = epoch * trainers[-1].stream.num_batches(0) + index
            self.seen.append(number)
            if first <= position <= last:
                total = loss.total * factor
                total.register_hook(lambda gradient: gradient * grad)
                return loss._replace(total=total)
            return loss

        monkeypatch.setattr(train_module, "_begin", watched)
        monkeypatch.setattr(update_module, "batch_loss", spoiled)


def settings_of(home: Path, run: Path, **train: object) -> Config:
    options = {"max_updates": 160, "valid_every": 110, "valid_metric": "loss", "patience": 0, "log_every": 7}
    return config(home, run, **(options | train))


def outcome(run: Path) -> tuple[Progress, bytes]:
    last = run / "last"
    progress = Progress.read(last / "training" / "state.json")
    progress.seconds = progress.valid_seconds = 0.0
    return progress, (last / "model.safetensors").read_bytes()


def test_a_spike_is_left_out_and_its_lines_are_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    Poison(monkeypatch, 130, 131, 100.0)
    train(settings_of(home, tmp_path / "run"))
    progress, _ = outcome(tmp_path / "run")
    assert progress.skipped == 2
    said = [line for line in capsys.readouterr().err.split("\n") if "skipped" in line]
    assert [line.split(":")[0] for line in said] == ["update 130", "update 131"]
    assert all("a token, skipped; training lines train.src:" in line for line in said)


@pytest.mark.parametrize(("factor", "spike"), [(100.0, 4.0), (torch.nan, 0.0)])
def test_many_in_a_row_go_back_and_on_with_other_data(
    factor: float,
    spike: float,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Straight, and stopped in the middle of it, the run ends with the same bits."""
    poison = Poison(monkeypatch, 118, 118 + IN_A_ROW + 3, factor)
    straight = settings_of(home, tmp_path / "a", spike=spike)
    train(straight)
    assert "back to update 110, and on with the data that follow" in capsys.readouterr().err
    assert poison.seen.count(111) == 2
    assert poison.seen.index(130) < len(poison.seen) - 1
    progress, _ = outcome(tmp_path / "a")
    assert progress.update == 160
    stopped = settings_of(home, tmp_path / "b", spike=spike)
    update = Trainer._update

    def until(number: int):
        def limited(self: Trainer, stop: object) -> bool:
            if self.progress.update == number:
                stop.signum = 15
                return False
            return update(self, stop)

        return limited

    for number in (105, 121, 127):
        monkeypatch.setattr(Trainer, "_update", until(number))
        with pytest.raises(Interrupted):
            train(stopped)
    monkeypatch.setattr(Trainer, "_update", update)
    go_back, left = Trainer._go_back, []

    def watched(self: Trainer, bar: object) -> None:
        assert self.checkpoints.updates()[-1] == 127, "saved by the signal, and now given up"
        go_back(self, bar)
        left.append((self.checkpoints.updates()[-1], (tmp_path / "b" / "last").resolve().name))

    monkeypatch.setattr(Trainer, "_go_back", watched)
    train(stopped)
    assert left == [(110, "step-0000110")]
    assert outcome(tmp_path / "b") == outcome(tmp_path / "a")


@pytest.mark.parametrize("altered", [[100], [50, 100]])
def test_it_goes_back_to_no_checkpoint_that_was_altered(
    altered: list[int], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    Poison(monkeypatch, 118, 118 + IN_A_ROW + 3, torch.nan)
    go_back = Trainer._go_back

    def spoiled(self: Trainer, bar: object) -> None:
        for update in altered:
            path = self.checkpoints.path(update) / "model.safetensors"
            path.write_bytes(path.read_bytes()[:-8] + bytes(8))
        go_back(self, bar)

    monkeypatch.setattr(Trainer, "_go_back", spoiled)
    settings = settings_of(home, tmp_path / "run", valid_every=50)
    if len(altered) == 2:
        with pytest.raises(S2SError, match="10 updates in a row went wrong, and no validated checkpoint is whole"):
            train(settings)
        return
    train(settings)
    said = capsys.readouterr().err
    assert "passing over step-0000100: " in said
    assert "back to update 50, and on with the data that follow" in said
    assert "passing over step-0000100: " in (tmp_path / "run" / "train.log").read_text()
    assert [record["update"] for record in outcome(tmp_path / "run")[0].history] == [50, 100, 150, 160]


@pytest.mark.parametrize("first", [0, 112])
def test_fp16_whose_gradient_is_never_finite_ends_with_advice(
    first: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The scale falls in silence as far as it can; then such updates count as going wrong, like any others."""
    poison = Poison(monkeypatch, first, 10_000, 1.0, grad=torch.inf)
    settings = settings_of(home, tmp_path / "run", max_updates=1000, valid_every=110)
    settings = settings.model_copy(update={"runtime": settings.runtime.model_copy(update={"precision": "fp16"})})
    wrong = r"updates in a row went wrong, up to 30" if not first else r"after update 110 it went wrong 4 times"
    with pytest.raises(S2SError, match=rf"{wrong}: set runtime\.precision to bf16 or fp32"):
        train(settings)
    said = [line for line in capsys.readouterr().err.split("\n") if "the gradient is not finite, skipped" in line]
    halvings = 16
    if not first:
        assert [line.split(":")[0] for line in said] == [f"update {n}" for n in range(halvings + 1, 31)]
        assert "training lines train.src:" in said[0]
    assert not (poison.seen[-1] > 110 + 4 * (halvings + IN_A_ROW + READ_EVERY))


def test_without_a_checkpoint_or_with_no_end_it_is_an_error(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Poison(monkeypatch, 0, 10_000, torch.nan)
    with pytest.raises(S2SError, match=r"10 updates in a row went wrong, up to 10: lower train\.lr"):
        train(settings_of(home, tmp_path / "a"))
    monkeypatch.undo()
    Poison(monkeypatch, 111, 10_000, torch.nan)
    with pytest.raises(S2SError, match=r"after update 110 it went wrong 4 times"):
        train(settings_of(home, tmp_path / "b"))
    assert weights_are_finite(tmp_path / "b" / "last")


def weights_are_finite(bundle: Path) -> bool:
    from s2s_cli.checkpoint.bundle import open_bundle

    model = open_bundle(bundle).load_model(torch.device("cpu"))
    return all(bool(tensor.isfinite().all()) for tensor in weights_of(model).values())


def test_no_loss_is_a_spike_before_there_is_a_mean() -> None:
    for count, limit in ((0, None), (99, None), (100, 7.0)):
        progress = Progress(health=Health(count=count, mean=3.0))
        assert not judge(progress, 4.0)
        assert progress.health.limit == limit
    progress = Progress(health=Health(count=500, mean=3.0, streak=IN_A_ROW))
    assert judge(progress, 0.0)
    assert progress.health.limit is None
    assert READ_EVERY <= IN_A_ROW


def test_event_files_forget_what_a_run_went_back_from(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Poison(monkeypatch, 118, 118 + IN_A_ROW + 3, math.nan)
    train(settings_of(home, tmp_path / "a", tensorboard=True, log_every=5))
    events = EventAccumulator(str(tmp_path / "a"), size_guidance={"scalars": 0})
    events.Reload()
    steps = [event.step for event in events.Scalars("train/loss")]
    assert steps == sorted(set(steps))
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    assert steps == [record["update"] for record in map(json.loads, lines) if record["kind"] == "train"]
