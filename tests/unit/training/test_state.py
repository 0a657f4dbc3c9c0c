"""Checkpoints of a run: which are kept, which is best, which is last, and what going on from them restores."""

import errno
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import MODEL, random_model

from s2s_cli.checkpoint.bundle import open_bundle, weights_of, write_sums
from s2s_cli.config import SearchSettings, TrainSettings
from s2s_cli.data.vocab import Vocabs
from s2s_cli.errors import BundleError, S2SError
from s2s_cli.runtime import Runtime
from s2s_cli.training import checkpoints as module
from s2s_cli.training.checkpoints import Checkpoints
from s2s_cli.training.optim import Average, build_optimizer, moments_of
from s2s_cli.training.state import Learner, Progress, Tally

CPU = Runtime(torch.device("cpu"), torch.float32)


def learner(vocabs: Vocabs, seed: int = 1, ema: bool = False, **options: object) -> Learner:
    """Weights, average and moments that are all different."""
    model = random_model(vocabs, seed)
    optimizer = build_optimizer(model, TrainSettings(**options))
    average = Average(model, 0.9) if ema else None
    generator = torch.Generator().manual_seed(seed)
    for tensor in [*moments_of(model, optimizer).values(), *(average.weights.values() if average else [])]:
        tensor.copy_(torch.rand(tensor.shape, generator=generator))
    return Learner(model, optimizer, average)


def tensors(of: Learner) -> dict[str, torch.Tensor]:
    average = {f"average:{k}": v for k, v in of.average.weights.items()} if of.average else {}
    return weights_of(of.model) | moments_of(of.model, of.optimizer) | average


def same(a: Learner, b: Learner) -> bool:
    ours, theirs = tensors(a), tensors(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def checkpoints(run: Path, metric: str = "bleu", keep_last: int = 2, keep_best: int = 2) -> Checkpoints:
    return Checkpoints(run, metric, keep_last, keep_best)


def progress(update: int, scores: dict[int, float], metric: str = "bleu") -> Progress:
    history = [{"update": u, "epoch": 0, "loss": 9.0} | {metric: s} for u, s in scores.items() if u <= update]
    return Progress(update, (1, 2), 345, 6.5, history=history, tally=Tally(1.25, 1.0, 0.0, 33, 0.1, 3))


def save(
    at: Checkpoints, vocabs: Vocabs, update: int, scores: dict[int, float], metric: str = "bleu", **options: object
) -> Learner:
    made = learner(vocabs, update, **options)
    at.save(made.snapshot(CPU), progress(update, scores, metric), MODEL, SearchSettings(), vocabs)
    at.background.wait()
    return made


@pytest.mark.parametrize("options", [{}, {"ema": True}, {"optimizer": "adafactor", "lr": 0.01}, {"optimizer": "sgd"}])
def test_resume_restores_every_bit(tmp_path: Path, vocabs: Vocabs, options: dict) -> None:
    scores = {1: 2.0, 2: 1.0}
    at = checkpoints(tmp_path)
    save(at, vocabs, 1, scores, **options)
    made = save(at, vocabs, 2, scores, **options)
    fresh = learner(vocabs, 77, **options)
    assert not same(made, fresh)
    assert at.resume(fresh) == progress(2, scores)
    assert same(made, fresh)


def test_moving_average_is_what_a_bundle_gives(tmp_path: Path, vocabs: Vocabs) -> None:
    made = save(checkpoints(tmp_path), vocabs, 1, {1: 2.0}, ema=True)
    loaded = weights_of(open_bundle(tmp_path / "best").load_model(torch.device("cpu")))
    assert all(torch.equal(loaded[name], tensor) for name, tensor in made.average.weights.items())
    assert not torch.equal(loaded["head.bias"], weights_of(made.model)["head.bias"])


def test_nothing_there_is_a_fresh_start(tmp_path: Path, vocabs: Vocabs) -> None:
    assert checkpoints(tmp_path).resume(learner(vocabs)) == Progress()


def kept(at: Checkpoints) -> tuple[list[int], list[int]]:
    """Updates that have a bundle, and those that one can go on from."""
    return at.updates(), [u for u in at.updates() if (at.path(u) / "training").is_dir()]


def test_bundles_that_nothing_can_go_on_from_are_not_trained_over(tmp_path: Path, vocabs: Vocabs) -> None:
    """As where somebody has taken the moments away, to save room."""
    at = checkpoints(tmp_path)
    save(at, vocabs, 1, {1: 2.0})
    shutil.rmtree(at.path(1) / "training")
    with pytest.raises(BundleError, match="has the training/ folder that a run goes on from"):
        at.resume(learner(vocabs))
    assert at.updates() == [1]


def test_going_on_with_fewer_to_keep_deletes_nothing_yet(tmp_path: Path, vocabs: Vocabs) -> None:
    scores = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}
    at = checkpoints(tmp_path, keep_last=4, keep_best=4)
    for update in (1, 2, 3):
        save(at, vocabs, update, scores)
    fewer = checkpoints(tmp_path, keep_last=1, keep_best=1)
    fewer.resume(learner(vocabs))
    assert fewer.updates() == [1, 2, 3]
    save(fewer, vocabs, 4, {1: 1.0, 2: 2.0, 3: 3.0})  # by a signal, as of one who sees the mistake
    assert fewer.updates() == [1, 2, 3, 4]
    save(fewer, vocabs, 4, scores)
    assert fewer.updates() == [3, 4]


def test_what_somebody_put_into_a_checkpoint_outlives_it(tmp_path: Path, vocabs: Vocabs, capsys) -> None:
    scores = {1: 1.0, 2: 2.0, 3: 3.0}
    at = checkpoints(tmp_path, keep_last=1, keep_best=1)
    save(at, vocabs, 1, {})  # by a signal
    (tmp_path / "last" / "test.hyp").write_text("mine")
    (tmp_path / "found" / at.path(1).name).mkdir(parents=True)
    (tmp_path / "found" / at.path(1).name / "test.hyp").write_text("of before")
    save(at, vocabs, 1, scores)  # and validated after it
    found = tmp_path / "found" / at.path(1).name
    assert (found / "test.hyp").read_text() == "of before"
    assert (found / "test.hyp.1").read_text() == "mine"
    (at.path(1) / "notes").mkdir()
    (at.path(1) / "notes" / "a").write_text("mine")
    save(at, vocabs, 2, scores)
    assert at.updates() == [1, 2]
    save(at, vocabs, 3, scores)
    assert at.updates() == [2, 3]
    assert (found / "notes" / "a").read_text() == "mine"
    assert f"is in {found / 'notes' / 'a'} now" in capsys.readouterr().err


def test_a_copy_whose_links_became_folders_is_told(tmp_path: Path, vocabs: Vocabs) -> None:
    at = checkpoints(tmp_path / "run")
    save(at, vocabs, 1, {1: 1.0})
    shutil.copytree(tmp_path / "run", tmp_path / "copy")  # as `cp -rL`
    with pytest.raises(S2SError, match="copy/last is a folder where a link to a checkpoint should be"):
        checkpoints(tmp_path / "copy").resume(learner(vocabs, 1))
    assert not list((tmp_path / "copy").glob(".*"))


@settings(max_examples=12, deadline=None)
@given(
    values=st.lists(st.integers(0, 4), min_size=1, max_size=7),
    keep_last=st.integers(1, 3),
    keep_best=st.integers(1, 3),
    metric=st.sampled_from(["bleu", "loss"]),
)
def test_best_and_last_are_kept(
    values: list[int], keep_last: int, keep_best: int, metric: str, tmp_path_factory: pytest.TempPathFactory, vocabs
) -> None:
    """After each save: the last N or two, the best N, `best` the first of the best, `last` the newest, and nothing else."""
    run = tmp_path_factory.mktemp("run")
    at = checkpoints(run, metric, keep_last, keep_best)
    scores = dict(enumerate(map(float, values), start=1))
    for update in scores:
        save(at, vocabs, update, scores, metric)
        sign = 1 if metric == "loss" else -1
        best = sorted(range(1, update + 1), key=lambda u: (sign * scores[u], u))[:keep_best]
        last = list(range(max(1, update + 1 - max(2, keep_last)), update + 1))
        everything, resumable = kept(at)
        assert set(everything) == {*best, *last}
        assert resumable == last
        assert (run / "best").resolve() == at.path(best[0]).resolve()
        assert (run / "last").resolve() == at.path(update).resolve()
        assert not list(at.folder.glob(".*"))
    for update in at.updates():
        open_bundle(at.path(update))


def test_what_a_signal_saved_goes_when_a_newer_one_is_safe(tmp_path: Path, vocabs: Vocabs) -> None:
    """The set of checkpoints ends as it would without the interruption."""
    scores = {10: 1.0, 20: 3.0, 30: 2.0}
    at = checkpoints(tmp_path, keep_last=1, keep_best=1)
    for update in (10, 15, 20, 25, 30):
        save(at, vocabs, update, scores)
    assert kept(at) == ([20, 30], [20, 30])


def test_there_are_two_to_go_on_from_as_soon_as_there_can_be(tmp_path: Path, vocabs: Vocabs) -> None:
    """Before the first validation too: one torn file is not the end of a run."""
    at = checkpoints(tmp_path, keep_last=1, keep_best=1)
    found = []
    for update in (5, 10, 15, 20, 25, 30):
        save(at, vocabs, update, {20: 1.0, 30: 2.0})
        found.append(kept(at)[1])
    assert found == [[5], [5, 10], [10, 15], [15, 20], [20, 25], [20, 30]]


@pytest.mark.parametrize("scored", [True, False])
def test_an_old_checkpoint_goes_after_the_new_one_is_safe(
    scored: bool, tmp_path: Path, vocabs: Vocabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full while one is written takes none away; and while one is written, all others are there."""
    at = checkpoints(tmp_path, keep_last=1, keep_best=1)
    scores = {1: 1.0, 2: 2.0, 3: 3.0} if scored else {}
    for update in (1, 2):
        save(at, vocabs, update, scores)

    def full(*_: object) -> None:
        assert kept(at) == ([1, 2], [1, 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_bundle", full)
    with pytest.raises(OSError, match="No space left"):
        save(at, vocabs, 3, scores)
    assert kept(at) == ([1, 2], [1, 2])
    assert (tmp_path / "last").resolve() == at.path(2).resolve()
    monkeypatch.undo()
    save(at, vocabs, 3, scores)
    assert kept(at) == ([2, 3], [2, 3])


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda step: tear(step / "model.safetensors"), True),
        (lambda step: tear(step / "training" / "optimizer.safetensors"), True),
        (lambda step: tear(step / "training" / "state.json"), True),
        (lambda step: (step / "training" / "state.json").unlink(), True),
        (lambda step: (step / "training" / "SHA256SUMS").write_text(""), True),
        (lambda step: (step / "SHA256SUMS").unlink(), True),
        (lambda step: shutil.rmtree(step / "training"), False),
    ],
)
def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, vocabs: Vocabs, spoil, told: bool, capsys) -> None:
    scores = {1: 2.0, 2: 3.0}
    at = checkpoints(tmp_path)
    first = save(at, vocabs, 1, scores)
    save(at, vocabs, 2, scores)
    (at.folder / ".step-0000003.tmp").mkdir()
    (at.path(1) / ".training.gone").mkdir()
    spoil(at.path(2))
    fresh = learner(vocabs, 77)
    at.tidy()
    assert at.resume(fresh) == progress(1, scores)
    assert same(first, fresh)
    assert at.updates() == [1], "later ones are made anew"
    assert not list(at.path(1).glob(".*"))
    assert (tmp_path / "best").resolve() == (tmp_path / "last").resolve() == at.path(1).resolve()
    assert not list(at.folder.glob(".*"))
    assert ("passing over step-0000002" in capsys.readouterr().err) == told


@pytest.mark.parametrize("file", ["config.json", "training/state.json"])
def test_a_checkpoint_of_a_newer_version_stays(tmp_path: Path, vocabs: Vocabs, file: str) -> None:
    """Whole, but not understood: it is not torn, and nothing is deleted for it."""
    at = checkpoints(tmp_path)
    for update in (1, 2):
        save(at, vocabs, update, {1: 2.0, 2: 3.0})
    path = at.path(2) / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2, "news": 1}))
    sums = path.parent / "SHA256SUMS"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sums.write_text(re.sub(f"[0-9a-f]+  {path.name}", f"{digest}  {path.name}", sums.read_text()))
    with pytest.raises(BundleError, match=r"format 2|unknown keys"):
        at.resume(learner(vocabs))
    assert at.updates() == [1, 2]
    if file == "config.json":  # whose files may have other names
        (at.path(2) / "model.safetensors").rename(at.path(2) / "model-1.safetensors")
        with pytest.raises(BundleError, match="format 2"):
            at.resume(learner(vocabs))
        assert at.updates() == [1, 2]


def test_a_checkpoint_that_was_to_be_replaced_comes_back(tmp_path: Path, vocabs: Vocabs) -> None:
    """The process died after the old one had stepped aside, and before the new one was in its place."""
    at = checkpoints(tmp_path)
    made = save(at, vocabs, 1, {1: 2.0})
    at.path(1).rename(at.folder / ".step-0000001.before")
    fresh = learner(vocabs, 77)
    at.tidy()
    assert at.resume(fresh).update == 1
    assert same(made, fresh)
    save(at, vocabs, 1, {1: 2.0})
    shutil.copytree(at.path(1), at.folder / ".step-0000001.before")
    at.tidy()
    assert at.resume(fresh).update == 1
    assert not list(at.folder.glob(".*"))


def test_no_whole_checkpoint_of_several_is_an_error(tmp_path: Path, vocabs: Vocabs) -> None:
    at = checkpoints(tmp_path)
    for update in (1, 2):
        save(at, vocabs, update, {1: 2.0, 2: 1.0})
        tear(at.path(update) / "model.safetensors")
    with pytest.raises(BundleError, match=r"no checkpoint in .* is whole"):
        at.resume(learner(vocabs))
    assert at.updates() == [1, 2]


def test_without_another_than_a_torn_one_a_run_begins_anew(tmp_path: Path, vocabs: Vocabs, capsys) -> None:
    at = checkpoints(tmp_path)
    save(at, vocabs, 3, {})
    tear(at.path(3) / "training" / "state.json")
    assert at.resume(learner(vocabs)) == Progress()
    assert at.updates() == []
    assert (tmp_path / "found" / at.path(3).name / "model.safetensors").is_file()
    assert "the run begins anew" in capsys.readouterr().err
    save(at, vocabs, 3, {3: 1.0})
    tear(at.path(3) / "training" / "state.json")
    with pytest.raises(BundleError, match=r"no checkpoint in .* is whole"):  # what was worth validating is not given up
        at.resume(learner(vocabs))


def test_a_folder_of_nearly_the_name_is_no_checkpoint(tmp_path: Path, vocabs: Vocabs) -> None:
    at = checkpoints(tmp_path)
    made = save(at, vocabs, 3, {3: 1.0})
    shutil.copytree(at.path(3), at.folder / "step-4")
    fresh = learner(vocabs, 77)
    assert at.resume(fresh).update == 3
    assert same(made, fresh)
    assert (at.folder / "step-4").is_dir()


def test_another_optimizer_is_refused_by_name(tmp_path: Path, vocabs: Vocabs) -> None:
    at = checkpoints(tmp_path)
    save(at, vocabs, 1, {1: 2.0})
    with pytest.raises(BundleError, match=r"optimizer\.safetensors and its settings disagree about these tensors"):
        at.resume(learner(vocabs, optimizer="adafactor", lr=0.01))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"update": -1}, "greater than or equal to 0"),
        ({"update": 7}, "not the state of update 1, but of 7"),
        ({"position": [0, -4]}, "greater than or equal to 0"),
        ({"position": "x"}, "is not the state of a run"),
        ({"history": [{"update": 1, "epoch": 0, "loss": 9.0}]}, "without its update, its loss or its bleu"),
        ({"history": [{"update": 1, "epoch": 0, "bleu": 9.0}]}, "without its update, its loss or its bleu"),
        ({"history": [{"update": 1.0, "loss": 1.0, "bleu": 9.0}]}, "without its update, its loss or its bleu"),
        ({"seconds": "nan"}, "finite number"),
        ({"time_used": -1.0}, "greater than or equal to 0"),
        ({"history": [{"update": "x", "loss": 1.0, "bleu": 9.0}]}, "without its update, its loss or its bleu"),
        ({"history": [3]}, "is not the state of a run"),
    ],
)
def test_a_state_that_no_run_has_is_refused(change: dict, message: str, tmp_path: Path, vocabs: Vocabs) -> None:
    """With sums that fit it."""
    at = checkpoints(tmp_path)
    save(at, vocabs, 1, {1: 2.0})
    state = at.path(1) / "training" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | change))
    write_sums_anew(state.parent)
    with pytest.raises(BundleError, match=message):
        at.resume(learner(vocabs))
    assert at.updates() == [1]


def write_sums_anew(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    write_sums(folder)


def test_a_state_of_an_older_version_is_read(tmp_path: Path) -> None:
    """Fields that came later have defaults."""
    old = {"update": 3, "position": [0, 3], "num_tokens": 5, "seconds": 1.0, "skipped": 0, "history": []}
    (tmp_path / "state.json").write_text(json.dumps(old))
    assert Progress.read(tmp_path / "state.json") == Progress(3, (0, 3), 5, 1.0)
    for wrong in (
        {"position": 3},
        {"update": "three"},
        {"history": [3]},
        {"health": {"count": []}},
        {"scaler": "a"},
        {"more": 1},
    ):
        (tmp_path / "state.json").write_text(json.dumps(old | wrong))
        with pytest.raises(BundleError, match="not the state of a run"):
            Progress.read(tmp_path / "state.json")


def test_no_number_is_the_worst_score(tmp_path: Path) -> None:
    history = progress(3, {1: float("nan"), 2: 1.0, 3: float("nan")}).history
    assert checkpoints(tmp_path).ranked(history) == [2, 1, 3]
