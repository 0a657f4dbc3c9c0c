"""Options of `train` as whole commands: objectives that draw by chance, a time limit, a validation subset, event files."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from samples import TINY, write_corpus
from test_many_processes import finish, start
from zygote import Zygote

CONSISTENCY = {
    "rdrop": ["--consistency", "rdrop", "--scheduled-sampling", 0.4, "--sampling-ramp", 6],
    "simcut": ["--consistency", "simcut", "--cutoff", 0.2, "--ema", 0.9],
}
RNN = [
    *("--preset", "rnn", "--family", "rnn", "--emb-dim", 16, "--dim", 16, "--head", "copy", "--coverage"),
    *("--batch-tokens", 256, "--warmup", 20, "--beam", 2, "--max-len", 24, "--patience", 0, "--precision", "bf16"),
]


def metrics(run: Path, kind: str) -> list[dict]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


@pytest.mark.parametrize("name", CONSISTENCY)
@pytest.mark.parametrize("model", [TINY, RNN], ids=["transformer", "rnn, copy, bf16"])
def test_a_stopped_run_goes_on_to_the_same_bits(
    model: list[object], name: str, s2s: Zygote, home: Path, tmp_path: Path
) -> None:
    """All that a chance decides is a function of seed and update; the curves hold how far both readings are apart. On a CPU all
    kernels are deterministic, and asking for such ones changes nothing.
    """
    options = ["train", *model, *CONSISTENCY[name], "--valid-every", 5, "--log-every", 2, "--accumulate", 2]
    for run, ends in (("straight", [10]), ("stopped", [5, 10])):
        for end in ends:
            more = ["--deterministic"] if run == "stopped" else []
            done = s2s.run(*options, "--run", tmp_path / run, "--max-updates", end, *more, cwd=home)
            assert done.code == 0, done.err
    ours, theirs = (tmp_path / run / "last" for run in ("straight", "stopped"))
    for file in ("model.safetensors", "training/optimizer.safetensors"):
        assert (ours / file).read_bytes() == (theirs / file).read_bytes()
    apart = [[record["consistency"] for record in metrics(tmp_path / run, "train")] for run in ("straight", "stopped")]
    assert apart[0] == apart[1]
    assert all(value > 0 for value in apart[0])


def test_two_processes_read_twice(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """With a dropout that drops nothing, R-Drop in two processes makes the updates of one with both batches."""
    options = ["--consistency", "rdrop", "--activation-dropout", 1e-9, "--optimizer", "sgd"]
    options += ["--max-updates", 3, "--valid-every", 3]
    both = finish(s2s, start(s2s, home, tmp_path / "two", *options))
    assert [done.code for done in both] == [0, 0], both[0].err
    more = ["--dropout", 0, "--accumulate", 2, "--run", tmp_path / "one"]
    done = s2s.run("train", *TINY, *options, *more, cwd=home)
    assert done.code == 0, done.err
    one, two = (load_file(tmp_path / run / "last/model.safetensors") for run in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_a_run_ends_in_time_with_an_average(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """The rate has come to its end, the average is scored like any checkpoint, and the best of all is `best`."""
    run = tmp_path / "run"
    options = ["train", *TINY, "--run", run, "--max-time", "5s", "--valid-every", 12, "--log-every", 1]
    done = s2s.run(*options, cwd=home)
    assert done.code == 0, done.err
    assert "5s are used up (max_time)" in done.err
    if "no time was left to score an average" in done.err:  # on a busy machine: then the same command makes one
        assert s2s.run(*options, cwd=home).code == 0
    train, valid, (average,) = (metrics(run, kind) for kind in ("train", "valid", "average"))
    assert 2.0 < valid[-1]["elapsed"] < 6.5, "a busy machine may take longer over the last update"
    rates = [record["lr"] for record in train]
    assert rates[-1] < 0.3 * max(rates)
    assert train[-1]["update"] == valid[-1]["update"] == average["update"]
    best = json.loads((run / "best" / "config.json").read_text())["origin"]
    key = lambda record: (-record["bleu"], record["loss"])  # noqa: E731
    assert key(best) == min(map(key, [*valid, average]))
    averaged = json.loads((run / "checkpoints/averaged/config.json").read_text())["origin"]
    kept = sorted((record for record in valid), key=key)[:3]
    assert [part["bundle"] for part in averaged["averaged"]] == [f"step-{record['update']:07d}" for record in kept]

    out = s2s.run(
        "translate", "-m", run / "checkpoints/averaged", "-i", "valid.src", "--precision", "fp32", cwd=home
    ).out
    scored = s2s.run("score", "--bleu", "--json", "-r", "valid.tgt", cwd=home, stdin=out).out.decode()
    assert json.dumps(average["bleu"]) in scored

    # The same command again: nothing is left to do, but what an interruption has left undone.
    weights = (run / "checkpoints/averaged/model.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints/averaged")
    again = s2s.run(*options, cwd=home)
    assert again.code == 0, again.err
    assert "nothing left to do: 5s are used up (max_time); begin another run with --init-from" in again.err
    assert (run / "checkpoints/averaged/model.safetensors").read_bytes() == weights
    assert json.loads((run / "best" / "config.json").read_text())["origin"]["bleu"] == best["bleu"]
    # Killed before the numbers of the average were written, they are written by the next command, once.
    numbers = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in numbers if '"average"' not in line))
    for _ in range(2):
        assert s2s.run(*options, cwd=home).code == 0
        assert metrics(run, "average") == [average]
    # What is torn is not averaged, and an average that is torn is made anew.
    parts = [part["bundle"] for part in averaged["averaged"]]
    spoiled = run / "checkpoints" / min(parts)  # not the newest, which the run goes on from
    weights = bytearray((spoiled / "model.safetensors").read_bytes())
    weights[-8:] = bytes(8)
    (spoiled / "model.safetensors").write_bytes(weights)
    os.truncate(run / "checkpoints/averaged/model.safetensors", 1000)
    again = s2s.run(*options, cwd=home)
    assert again.code == 0, again.err
    assert f"not averaged: {spoiled / 'model.safetensors'} is torn or was altered" in again.err
    made_of = json.loads((run / "checkpoints/averaged/config.json").read_text())["origin"]["averaged"]
    assert [part["bundle"] for part in made_of] == [part for part in parts if part != spoiled.name]
    (average,) = metrics(run, "average")[-1:]
    best = json.loads((run / "best" / "config.json").read_text())["origin"]
    assert key(best) == min(map(key, [*valid, average]))
    refused = s2s.run(*options[:-6], "--max-time", "10m", "--valid-every", 12, cwd=home)
    assert refused.code == 2
    assert "train.max_time: the run has '5s', now '10m'" in refused.err


@pytest.mark.parametrize("num", [1, 7, 23])
def test_validation_on_a_subset_is_translate_and_score_on_it(num: int, s2s: Zygote, home: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--max-updates", 30, "--valid-every", 30, "--valid-subset", num, "--valid-also", "chrf"]
    done = s2s.run("train", *TINY, *options, "--run", run, cwd=home)
    assert done.code == 0, done.err
    assert f"{num} for validation" in done.err
    record = metrics(run, "valid")[0]

    def subset(name: str) -> bytes:
        lines = (home / name).read_bytes().splitlines(keepends=True)
        taken = [line for i, line in enumerate(lines, 1) if i * num // len(lines) > (i - 1) * num // len(lines)]
        assert len(taken) == num
        return b"".join(taken)

    (tmp_path / "tgt").write_bytes(subset("valid.tgt"))
    out = s2s.run("translate", "-m", run, "--precision", "fp32", cwd=home, stdin=subset("valid.src")).out
    scored = s2s.run("score", "--bleu", "--chrf", "--json", "-r", tmp_path / "tgt", cwd=home, stdin=out).out.decode()
    assert json.dumps(record["bleu"]) in scored
    assert json.dumps(record["chrf"]) in scored


def test_sources_are_cut_in_validation_and_translation_as_in_training(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """Where `preprocess` cut them, unless `max_src_len` says otherwise; and the score is that of `translate | score`."""
    folder = write_corpus(tmp_path)
    vocab = ["--src-vocab", home / "data-bin" / "vocab" / "joint.model"]
    done = s2s.run("preprocess", *vocab, "--src-truncate", 3, cwd=folder)
    assert done.code == 0, done.err
    options = [*TINY, "--max-updates", 30, "--valid-every", 30]
    for name, given, most in (("cut", [], 3), ("whole", ["--max-src-len", 64], 64)):
        done = s2s.run("train", *options, *given, "--run", name, cwd=folder)
        assert done.code == 0, done.err
        config = json.loads((folder / name / "best" / "config.json").read_text())
        assert config["search"]["max_src_len"] == most
        done = s2s.run("translate", "-m", name, "-i", "valid.src", "--precision", "fp32", cwd=folder)
        assert ("lines were cut to 3 pieces" in done.err) == (most == 3)
        scored = s2s.run("score", "--bleu", "--json", "-r", "valid.tgt", cwd=folder, stdin=done.out).out.decode()
        assert json.dumps(metrics(folder / name, "valid")[0]["bleu"]) in scored
    again = s2s.run("train", *options, "--run", "cut", cwd=folder)
    assert (again.code, "nothing left to do" in again.err) == (0, True), again.err
    other = s2s.run("train", *options, "--max-src-len", 64, "--run", "cut", cwd=folder)
    assert "search.max_src_len: the run has 3, now 64" in other.err


def test_event_files_are_the_metrics_each_number_once(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """However often a run was stopped, and from the first update even if TensorBoard was asked for later."""
    run = tmp_path / "run"
    options = ["train", *TINY, "--run", run, "--valid-every", 8, "--log-every", 3]
    for more in ([], ["--tensorboard"], ["--tensorboard"]):
        updates = 10 * (1 + len(list(run.glob("checkpoints/step-*"))))
        done = s2s.run(*options, *more, "--max-updates", updates, cwd=home)
        assert done.code == 0, done.err
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"train/loss", "train/lr", "train/tokens_per_second", "valid/bleu", "valid/loss"} <= found.keys()
    for tag, points in found.items():
        kind, _, name = tag.partition("/")
        expected = [(r["update"], r[name]) for r in records if r["kind"] == kind]
        assert points == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]
    times = [e.wall_time for e in events.Scalars("train/loss")]
    assert times == sorted(times)


def test_a_rate_that_never_falls_is_told_of(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    options = ["train", *TINY, "--max-updates", 3, "--valid-every", 3]
    for warmup, told in ((2, False), (3, True)):
        done = s2s.run(*options, "--warmup", warmup, "--run", tmp_path / str(warmup), cwd=home)
        assert done.code == 0, done.err
        assert ("its learning rate never falls" in done.err) == told
