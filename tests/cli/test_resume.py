"""`s2s train`, killed as real processes are killed: the run ends with the bits of the uninterrupted one."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from samples import TINY
from zygote import Done, Zygote

# Dropout, noise, sampled pieces, a moving average, epochs that end inside updates, and patience that runs while the rest does.
OPTIONS = [
    *(
        *TINY,
        "--dropout",
        0.2,
        "--ema",
        0.9,
        "--src-word-dropout",
        0.1,
        "--subword-sampling",
        0.1,
        "--accumulate",
        2,
        "--patience",
        4,
        "--valid-metric",
        "chrf",
    ),
    *("--valid-every", 7, "--log-every", 5, "--keep-best", 2, "--keep-last", 2, "--schedule", "plateau"),
    *("--plateau-patience", 1),
]
UPDATES = 70


def command(home: Path, run: Path, *more: object) -> list[object]:
    return ["train", *OPTIONS, "--data", home / "data-bin", "--run", run, "--max-updates", UPDATES, *more]


def content(run: Path) -> dict[str, object]:
    """All that a run leaves, but for clocks."""
    found: dict[str, object] = {name: (run / name).resolve().name for name in ("best", "last")}
    for file in sorted((run / "checkpoints").rglob("*")):
        name = str(file.relative_to(run))
        if file.name == "state.json":
            found[name] = {
                k: v for k, v in json.loads(file.read_text()).items() if k not in ("seconds", "valid_seconds")
            }
        elif file.is_file() and not (file.name == "SHA256SUMS" and file.parent.name == "training"):
            found[name] = file.read_bytes()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("seconds", "tokens_per_second", "elapsed")
    found["metrics"] = [{k: v for k, v in r.items() if k not in clocks} for r in records]
    return found


@pytest.fixture(scope="module")
def straight(s2s: Zygote, home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("straight")
    done = s2s.run(*command(home, folder / "run"), cwd=folder)
    assert done.code == 0, done.err
    found = content(folder / "run")
    history = found[f"checkpoints/{found['last']}/training/state.json"]["history"]
    assert 4 < len(history) < UPDATES // 7, "a run that patience ends"
    return found


def wait_until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def interrupt(s2s: Zygote, arguments: list[object], cwd: Path, signum: int, after: float, **environment: str) -> Done:
    """Run a command, and kill it so many seconds after it has begun to train."""
    pid, stem = s2s.start(*arguments, cwd=cwd, **environment)
    log = stem.with_suffix(".err")
    wait_until(lambda: log.exists() and ("parameters;" in (text := log.read_text()) or "s2s:" in text))
    time.sleep(after)
    os.kill(pid, signum)
    return s2s.wait(pid, stem)


def test_killed_twenty_times_ends_the_same(s2s: Zygote, home: Path, tmp_path: Path, straight: dict) -> None:
    kill_again_and_again(20, 0.6, s2s, lambda run: command(home, run), tmp_path, straight)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_killed_on_a_gpu_ends_the_same(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """With kernels that give the same bits each time, and such as choose among these by shape."""
    gpu = {"CUDA_VISIBLE_DEVICES": "0"}
    arguments = lambda run: command(home, run, "--device", "cuda", "--deterministic")  # noqa: E731
    done = s2s.run(*arguments(tmp_path / "straight"), cwd=tmp_path, **gpu)
    assert done.code == 0, done.err
    kill_again_and_again(8, 2.0, s2s, arguments, tmp_path, content(tmp_path / "straight"), **gpu)


def kill_again_and_again(
    times: int,
    longest: float,
    s2s: Zygote,
    arguments: Callable[[Path], list[object]],
    tmp_path: Path,
    straight: dict[str, object],
    **environment: str,
) -> None:
    """A run that is done before the next signal comes counts for nothing: another one is killed then. `longest` is in seconds."""
    rng = random.Random(5)
    runs, killed = 0, []
    run = tmp_path / "run-0"
    while len(killed) < times:
        signum = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        after = longest * rng.choice([0.03, 0.33, 1.0]) * rng.random()
        done = interrupt(s2s, arguments(run), tmp_path, signum, after, **environment)
        assert done.code in (0, -signal.SIGKILL, 143, 130), done.err
        assert "Traceback" not in done.err
        if done.code == 0 or "nothing left to do" in done.err:
            runs += 1
            assert content(run) == straight
            run = tmp_path / f"run-{runs}"
            continue
        killed.append(done.code)
        if done.code == 143:
            assert "the same command goes on from here" in done.err
    done = s2s.run(*arguments(run), cwd=tmp_path, **environment)
    assert done.code == 0, done.err
    assert {-signal.SIGKILL, 143, 130} == set(killed)
    assert content(run) == straight


def test_a_full_disk_stops_it_and_harms_nothing(s2s: Zygote, home: Path, tmp_path: Path, straight: dict) -> None:
    arguments = command(home, tmp_path / "run")
    for _ in range(2):
        done = s2s.run(*arguments, cwd=tmp_path, file_limit=60_000)
        assert done.code == 2
        assert done.err.count("could not be written") == 1
        assert "Traceback" not in done.err
    assert s2s.run(*arguments, cwd=tmp_path).code == 0
    assert content(tmp_path / "run") == straight


def test_newest_checkpoint_torn(s2s: Zygote, home: Path, tmp_path: Path, straight: dict) -> None:
    run = tmp_path / "run"
    assert s2s.run(*command(home, run)[:-1], 28, cwd=tmp_path).code == 0
    newest = (run / "last").resolve()
    assert newest.name == "step-0000028"
    weights = newest / "training" / "optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text() + '{"kind": "train", "upd')
    done = s2s.run(*command(home, run), cwd=tmp_path)
    assert done.code == 0, done.err
    assert "passing over step-0000028" in done.err
    assert "going on after update 21" in done.err
    assert content(run) == straight


def test_a_checkpoint_is_saved_between_validations(s2s: Zygote, home: Path, tmp_path: Path, straight: dict) -> None:
    """So that what a power cut costs is minutes; whether they are saved, or gone on from, changes nothing else."""
    often = ["--save-every", "0.001s"]
    assert s2s.run(*command(home, tmp_path / "often", *often), cwd=tmp_path).code == 0
    assert content(tmp_path / "often") == straight
    rare = ["--valid-every", 200, "--max-updates", 200]
    assert s2s.run(*command(home, tmp_path / "whole", *rare), cwd=tmp_path).code == 0
    run = tmp_path / "killed"
    pid, stem = s2s.start(*command(home, run, *rare, *often), cwd=tmp_path)
    wait_until((run / "last").exists)
    os.kill(pid, signal.SIGKILL)
    assert s2s.wait(pid, stem).code == -signal.SIGKILL
    done = s2s.run(*command(home, run, *rare), cwd=tmp_path)
    assert done.code == 0
    assert re.search(r"going on after update \d+0, epoch", done.err)
    whole = content(tmp_path / "whole")
    # Until there are two validated ones, the one before the last stays, so that a torn file is not the end of the run.
    assert {name: what for name, what in content(run).items() if name in whole} == whole
    assert len(list((run / "checkpoints").iterdir())) == 2


def test_another_number_of_threads_is_told_of(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    arguments = ["train", *OPTIONS, "--data", home / "data-bin", "--run", tmp_path / "run"]
    assert s2s.run(*arguments, "--max-updates", 7, "--threads", 1, cwd=tmp_path).code == 0
    done = s2s.run(*arguments, "--max-updates", 8, "--threads", 1, cwd=tmp_path)
    assert "threads from here on" not in done.err
    done = s2s.run(*arguments, "--max-updates", 9, "--threads", 2, cwd=tmp_path)
    assert done.code == 0
    assert "2 threads from here on, where it was 1" in done.err


def test_other_kernels_and_another_device_are_told_of(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    arguments = ["train", *TINY, "--data", home / "data-bin", "--run", tmp_path / "run", "--valid-every", 2]
    assert s2s.run(*arguments, "--max-updates", 2, cwd=tmp_path).code == 0
    settings = tmp_path / "run" / "config.yaml"
    assert "  device: cpu\n" in settings.read_text()
    settings.write_text(settings.read_text().replace("  device: cpu\n", "  device: cuda\n"))
    done = s2s.run(*arguments, "--max-updates", 4, "--deterministic", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "deterministic was False and is True: sums are rounded otherwise from here on" in done.err
    assert "device was cuda and is cpu: sums are rounded otherwise from here on" in done.err
    done = s2s.run(*arguments, "--max-updates", 6, "--deterministic", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "rounded otherwise" not in done.err


def test_a_run_that_nobody_watches_any_more_goes_on(home: Path, tmp_path: Path, straight: dict) -> None:
    """As in `s2s train 2>&1 | head -1`: who reads its messages has gone."""
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "s2s_cli", *map(str, command(home, run))],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    process.stderr.readline()
    process.stderr.close()
    assert process.wait() == 0
    assert "done in" in (run / "train.log").read_text()
    assert content(run) == straight


def test_a_plateau_is_no_nearer_for_a_stop_between_validations(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """The validation at the end of a run counts for no drop of the rate when the run goes on."""
    options = ["--schedule", "plateau", "--plateau-patience", 1, "--warmup", 1, "--valid-every", 4, "--lr", 0.3]
    for run, ends in (("straight", [20]), ("stopped", [6, 20])):
        for end in ends:
            done = s2s.run("train", *TINY, *options, "--run", tmp_path / run, "--max-updates", end, cwd=home)
            assert done.code == 0, done.err
    ours, theirs = ((tmp_path / run / "last/model.safetensors").read_bytes() for run in ("straight", "stopped"))
    assert ours == theirs


def test_done_is_done(s2s: Zygote, home: Path, run: Path) -> None:
    before = content(run)
    options = ["--max-updates", 120, "--valid-every", 40, "--keep-best", 4, "--search-tokens", 300]
    done = s2s.run("train", *TINY, *options, cwd=home)  # no output depends on how many positions are searched at once
    assert done.code == 0
    assert "nothing left to do: 120 updates done (max_updates); raise that limit" in done.err
    assert content(run) == before


def test_changed_settings_are_named_and_refused(s2s: Zygote, home: Path, run: Path) -> None:
    before = content(run)
    options = [*TINY, "--max-updates", 120, "--valid-every", 40, "--keep-best", 4]
    done = s2s.run("train", *options, "--lr", 0.5, "--heads", 4, "--beam", 4, "--clip", 2, cwd=home)
    assert done.code == 2
    for difference in (
        "train.lr: the run has 0.01, now 0.5",
        "model.heads: the run has 2, now 4",
        "search.beam: ",
        "train.clip: ",
    ):
        assert difference in done.err
    assert done.err.count("the run has") == 4
    assert "Free to change: " in done.err
    assert "search_tokens" in done.err
    assert content(run) == before


def test_another_precision_of_another_machine_is_told_of(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    arguments = ["train", *OPTIONS, "--data", home / "data-bin", "--run", tmp_path / "run", "--precision", "auto"]
    assert s2s.run(*arguments, "--max-updates", 7, cwd=tmp_path).code == 0
    state = (tmp_path / "run/last").resolve() / "training/state.json"
    [precision] = {record["precision"] for record in json.loads(state.read_text())["history"]}
    other = "bf16" if precision == "fp32" else "fp32"
    state.write_text(state.read_text().replace(f'"{precision}"', f'"{other}"'))
    sums, digest = state.with_name("SHA256SUMS"), hashlib.sha256(state.read_bytes()).hexdigest()
    sums.write_text(re.sub("[0-9a-f]+  state.json", f"{digest}  state.json", sums.read_text()))
    done = s2s.run(*arguments, "--max-updates", 8, cwd=tmp_path)
    assert done.code == 0, done.err
    assert f"{precision} from here on, where it was {other}" in done.err


def test_a_dataset_made_anew_is_refused(s2s: Zygote, corpus: Path, run: Path, tmp_path: Path) -> None:
    done = s2s.run("preprocess", "--vocab-size", 300, "-o", tmp_path / "other", cwd=corpus)
    assert done.code == 0, done.err
    options = [*TINY, "--max-updates", 120, "--valid-every", 40, "--keep-best", 4]
    done = s2s.run("train", *options, "--data", tmp_path / "other", cwd=corpus)
    assert done.code == 2
    for difference in (
        "data.preprocess.vocab_size: the run has 400, now 300",
        "data.vocab.src_size: the run has 400, now 304",
        "data.train.tgt_tokens: the run has ",
        "data.files.train.src.bin: the run has '",
    ):
        assert difference in done.err
    for same in ("data.train.pairs", "data.files.valid.tgt.txt", "data.sha256", "  train."):
        assert same not in done.err


def test_the_same_counts_are_not_the_same_data(s2s: Zygote, home: Path, run: Path, tmp_path: Path) -> None:
    """Another text with as many pairs and pieces is told by its files; the same text under another manifest goes on."""
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    options = [
        "train",
        *TINY,
        "--max-updates",
        120,
        "--valid-every",
        40,
        "--keep-best",
        4,
        "--run",
        tmp_path / "run",
        "--data",
    ]
    other = tmp_path / "other"
    shutil.copytree(home / "data-bin", other)
    manifest = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps(manifest | {"made_by": "s2s 9.9"}))
    done = s2s.run(*options, other, cwd=home)
    assert done.code == 0, done.err
    ids = bytearray((other / "train.tgt.bin").read_bytes())
    ids[:4] = ids[2:4] + ids[:2]
    (other / "train.tgt.bin").write_bytes(ids)
    done = s2s.run(*options, other, cwd=home)
    assert done.code == 2
    assert "train.tgt.bin: torn or altered" in done.err
    sums = manifest["files"] | {"train.tgt.bin": hashlib.sha256(ids).hexdigest()}
    (other / "dataset.json").write_text(json.dumps(manifest | {"files": sums}))
    done = s2s.run(*options, other, cwd=home)
    assert done.code == 2
    assert done.err.count("the run has") == 1
    assert f"data.files.train.tgt.bin: the run has '{manifest['files']['train.tgt.bin'][:16]}'" in done.err


def test_a_run_on_data_without_checksums_goes_on(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """Such as an older version wrote; of a dataset made anew nobody can tell whether it is the same."""
    old, run = tmp_path / "old", tmp_path / "run"
    shutil.copytree(home / "data-bin", old)
    manifest = json.loads((old / "dataset.json").read_text())
    del manifest["files"]
    (old / "dataset.json").write_text(json.dumps(manifest))
    for data, limit, code in ((old, 2, 0), (old, 4, 0), (home / "data-bin", 6, 2)):
        done = s2s.run("train", *TINY, "--max-updates", limit, "--run", run, "--data", data, cwd=home)
        assert done.code == code, done.err
    assert (
        "cannot be told, since the run's notes or the dataset have no files.train.lines, files.train.src.bin"
        in done.err
    )


def test_second_process_on_a_run_is_refused(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    arguments = command(home, tmp_path / "run", "--max-updates", 100_000, "--patience", 0)
    first = s2s.start(*arguments, cwd=tmp_path)
    wait_until(lambda: (tmp_path / "run" / "train.log").exists())
    second = s2s.run(*arguments, cwd=tmp_path)
    wait_until(lambda: (tmp_path / "run" / "metrics.jsonl").exists())  # there is something to save
    os.kill(first[0], signal.SIGTERM)
    assert second.code == 2
    assert "in use by another process" in second.err
    done = s2s.wait(*first)
    assert done.code == 143
    assert "the same command goes on from here" in done.err
    assert (tmp_path / "run" / "last").exists()


def test_a_run_made_before_a_setting_came_goes_on(s2s: Zygote, home: Path, tmp_path: Path, straight: dict) -> None:
    run = tmp_path / "run"
    assert s2s.run(*command(home, run)[:-1], 21, cwd=tmp_path).code == 0
    settings = (run / "config.yaml").read_text().split("\n")
    older = [
        line for line in settings if line.split(":")[0].strip() not in ("freeze", "src_embeddings", "tgt_embeddings")
    ]
    assert len(older) == len(settings) - 3
    idle = [line.replace("momentum: 0.0", "momentum: 0.9") for line in older]  # beside Adam, when nobody minded
    assert idle != older
    (run / "config.yaml").write_text("\n".join(idle))
    done = s2s.run(*command(home, run), "--freeze", "encoder", cwd=tmp_path)
    assert "train.freeze: the run has [], now ['encoder']" in done.err
    assert s2s.run(*command(home, run), cwd=tmp_path).code == 0
    assert content(run) == straight


def test_a_command_begins_with_vectors_and_freezes_them(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """What is frozen is told at each start, where the vectors come from at the first."""
    (tmp_path / "de.vec").write_text(f"1 32\nHund {'0.5 -0.5 ' * 16}\n")
    options = ["--tgt-embeddings", "de.vec", "--freeze", "tgt-embedding", "--freeze", "encoder", "--tie", "target"]
    first, again = (
        s2s.run("train", *TINY, *options, "--data", home / "data-bin", "--max-updates", num, cwd=tmp_path)
        for num in (3, 6)
    )
    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert "of them frozen;" in first.err
    assert "of them frozen;" in again.err
    assert "target embedding from de.vec: 1 of " in first.err
    assert "de.vec" not in again.err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["importing", "reading flags"])
def test_a_signal_before_a_command_begins_ends_it_without_a_traceback(when: str, signum: int, tmp_path: Path) -> None:
    """The interpreter itself takes the first few milliseconds; from our first line on, nothing is interrupted loudly."""
    importing = (
        "import sys, os, signal, builtins\n"
        "plain = builtins.__import__\n"
        "def loud(name, *rest):\n"
        "    if name == 's2s_cli.cli': os.kill(os.getpid(), int(sys.argv[1]))\n"
        "    return plain(name, *rest)\n"
        "builtins.__import__ = loud\n"
        "from s2s_cli.__main__ import main\n"
        "main()\n"
    )
    reading_flags = (
        "import sys, os, signal\n"
        "from s2s_cli import cli\n"
        "from s2s_cli.__main__ import main\n"
        "cli.app = lambda: os.kill(os.getpid(), int(sys.argv[1]))\n"
        "main()\n"
    )
    script = {"importing": importing, "reading flags": reading_flags}[when]
    done = subprocess.run([sys.executable, "-c", script, str(int(signum))], cwd=tmp_path, capture_output=True)
    assert done.returncode == 128 + signum
    assert done.stderr == b""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_signal_ends_loading_and_validating_within_seconds(
    threads: int, s2s: Zygote, home: Path, tmp_path: Path
) -> None:
    """Loading has nothing to save; a validation is given up in the middle of a batch, be it that of another process, and its
    update is saved.
    """
    run = tmp_path / "run"
    # A first validation of minutes.
    slow = ["--max-len", 2000, "--max-len-ratio", 500, "--beam", 40, "--valid-every", 1, "--valid-metric", "bleu"]
    slow += ["--threads", threads]
    arguments = command(home, run, *slow)
    pid, stem = s2s.start(*arguments, cwd=tmp_path)
    wait_until(lambda: run.exists())
    os.kill(pid, signal.SIGTERM)
    done = s2s.wait(pid, stem)
    assert done.code == 143
    assert "the same command goes on from here" in done.err
    run = tmp_path / "other"
    pid, stem = s2s.start(*command(home, run, *slow), "--log-every", 1, cwd=tmp_path)
    log = run / "train.log"
    wait_until(lambda: log.exists() and "update 1/" in log.read_text())
    time.sleep(0.3)
    begun = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    done = s2s.wait(pid, stem)
    assert time.monotonic() - begun < 10
    assert done.code == 143
    assert "Traceback" not in done.err
    assert "stopped at update 1; the same command goes on from here" in done.err
    assert json.loads((run / "last" / "training" / "state.json").read_text())["history"] == []


def test_batch_tokens_auto_is_found_once(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    arguments = ["train", *TINY, "--data", home / "data-bin", "--batch-tokens", "auto", "--max-updates"]
    first = s2s.run(*arguments, 2, cwd=tmp_path)
    assert first.code == 0, first.err
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["batch_tokens"]
    assert isinstance(recorded, int)
    again = s2s.run(*arguments, 4, cwd=tmp_path)
    assert again.code == 0, again.err
    assert "going on after update 2" in again.err
    by_hand = s2s.run(*arguments[:-3], "--batch-tokens", recorded, "--max-updates", 6, cwd=tmp_path)
    assert by_hand.code == 0, by_hand.err
    other = s2s.run(*arguments[:-3], "--batch-tokens", recorded + 1, "--max-updates", 6, cwd=tmp_path)
    assert other.code == 2
    assert f"train.batch_tokens: the run has {recorded}, now {recorded + 1}" in other.err
    dry = s2s.run(*arguments, 2, "--dry-run", "--run", tmp_path / "other", cwd=tmp_path)
    assert dry.code == 0, dry.err


def test_fp16_goes_on_with_its_scale(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    arguments = ["train", *TINY, "--data", home / "data-bin", "--precision", "fp16", "--valid-every", 5]
    for run, limits in (("straight", [10]), ("resumed", [5, 10])):
        for limit in limits:
            done = s2s.run(*arguments, "--run", run, "--max-updates", limit, cwd=tmp_path)
            assert done.code == 0, done.err
            advised = "fp16 is for GPUs" in done.err  # while it can be followed
            assert advised == ((run, limit) != ("resumed", 10))
    dry = s2s.run(*arguments, "--dry-run", cwd=tmp_path)
    assert b"fp16 is for GPUs" in dry.out
    a, b = content(tmp_path / "straight"), content(tmp_path / "resumed")
    assert a == b
    scale, since = a["checkpoints/step-0000010/training/state.json"]["scaler"]
    assert scale > 1
    assert since > 0
