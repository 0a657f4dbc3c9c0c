"""`torchrun -m s2s_cli train`: several processes make the updates that one makes of the same batches."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from samples import TINY
from test_resume import wait_until
from zygote import Done, Zygote

from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import TrainStream
from s2s_cli.runtime import lock


def start(
    s2s: Zygote, home: Path, run: Path, *options: object, world: int = 2, second: Sequence[object] = ()
) -> list[tuple[int, Path]]:
    """What torchrun does: as many processes, told of each other by their environment; the `second` one may have more options."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    arguments = ["train", *TINY, "--dropout", 0, "--data", home / "data-bin", "--run", run, *options]
    return [
        s2s.start(*arguments, *(second if rank == 1 else ()), cwd=home, RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank in range(world)
    ]


def finish(s2s: Zygote, processes: list[tuple[int, Path]]) -> list[Done]:
    return [s2s.wait(*process) for process in processes]


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / f"checkpoints/step-{step:07d}/model.safetensors")


def test_two_processes_are_one_with_both_batches(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """The same update; and an uneven last batch, a validation and the end of an epoch leave nobody waiting."""
    options = ["--max-updates", 12, "--valid-every", 3, "--keep-last", 9]
    options += ["--optimizer", "sgd"]  # Adam makes steps of full length of gradients that are rounding alone
    ours = start(s2s, home, tmp_path / "two", *options)
    one = s2s.run(*["train", *TINY, "--dropout", 0, "--run", tmp_path / "one", "--accumulate", 2, *options], cwd=home)
    assert one.code == 0, one.err
    main, other = finish(s2s, ours)
    assert (main.code, other.code) == (0, 0), main.err + other.err
    again = finish(s2s, start(s2s, home, tmp_path / "two", "-c", tmp_path / "two" / "config.yaml", *options))
    assert [done.code for done in again] == [0, 0], "its own settings, of as many processes"
    assert "nothing left to do" in again[0].err
    assert "2 × CPU" in main.err
    assert other.err == other.out.decode() == ""
    a, b = weights(tmp_path / "one", 3), weights(tmp_path / "two", 3)
    for name, tensor in a.items():
        assert torch.allclose(tensor, b[name], atol=1e-6), name
    state = json.loads((tmp_path / "two/last/training/state.json").read_text())
    assert state["update"] == 12
    assert state["position"][0] > 0, "an epoch ended on the way"


def test_two_processes_that_accumulate_are_one_with_all_batches(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """Two batches of each of two processes make the update of four of one; and the optimizer may be shared between them."""
    options = ["--max-updates", 4, "--valid-every", 4, "--lr", 0.001, "--optimizer", "sgd"]
    one = s2s.run(*["train", *TINY, "--dropout", 0, "--run", tmp_path / "one", "--accumulate", 4, *options], cwd=home)
    assert one.code == 0, one.err
    for more in ([], ["--shard-optimizer"]):
        run = tmp_path / f"two{len(more)}"
        both = finish(s2s, start(s2s, home, run, "--accumulate", 2, *options, *more))
        assert [done.code for done in both] == [0, 0], both[0].err
        a, b = weights(tmp_path / "one", 4), weights(run, 4)
        assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_a_signal_to_one_stops_both_and_they_go_on(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """The process that does not write is told to stop; what is saved is resumed, and ends as if nothing had been."""
    options = ["--valid-every", 8, "--patience", 0, "--keep-last", 9]
    assert [d.code for d in finish(s2s, start(s2s, home, tmp_path / "a", "--max-updates", 32, *options))] == [0, 0]
    processes = start(s2s, home, tmp_path / "b", "--max-updates", 100_000, *options)
    wait_until(lambda: (tmp_path / "b" / "last").exists())
    os.kill(processes[1][0], signal.SIGTERM)
    assert [done.code for done in finish(s2s, processes)] == [143, 143]
    if json.loads((tmp_path / "b/last/training/state.json").read_text())["update"] > 32:
        return  # a fast machine: that both stopped is all that was to be seen
    again = finish(s2s, start(s2s, home, tmp_path / "b", "--max-updates", 32, *options))
    assert [done.code for done in again] == [0, 0], again[0].err
    a, b = weights(tmp_path / "a", 32), weights(tmp_path / "b", 32)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_process_that_is_killed_ends_the_other_with_a_message(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """And the same command goes on to what would have been without that."""
    options = ["--valid-every", 8, "--patience", 0, "--keep-last", 9]
    processes = start(s2s, home, tmp_path / "run", "--max-updates", 100_000, *options)
    wait_until(lambda: (tmp_path / "run" / "last").exists())
    os.kill(processes[1][0], signal.SIGKILL)
    main, other = finish(s2s, processes)
    assert (main.code, other.code) == (2, -signal.SIGKILL)
    assert main.err.count("another process has ended, and this one cannot go on without it") == 1
    assert "Traceback" not in main.err
    limit = 8 * (json.loads((tmp_path / "run/last/training/state.json").read_text())["update"] // 8 + 1)
    for run in ("run", "straight"):
        done = finish(s2s, start(s2s, home, tmp_path / run, "--max-updates", limit, *options))
        assert [one.code for one in done] == [0, 0], done[0].err
    a, b = (weights(tmp_path / run, limit) for run in ("run", "straight"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_all_begin_with_the_weights_and_the_data_of_the_first(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """A run that is trained meanwhile may have another best model when the second process looks, a dataset be made anew."""
    for seed in (1, 2):
        done = s2s.run("train", *TINY, "--seed", seed, "--max-updates", 1, "--run", tmp_path / f"from-{seed}", cwd=home)
        assert done.code == 0, done.err
    options = ["--max-updates", 2, "--valid-every", 2, "--optimizer", "sgd", "--init-from"]
    for name, other in (("same", "from-1"), ("others", "from-2")):
        second = ["--init-from", tmp_path / other]
        both = finish(s2s, start(s2s, home, tmp_path / name, *options, tmp_path / "from-1", second=second))
        assert [done.code for done in both] == [0, 0], both[0].err
    one, two = (weights(tmp_path / name, 2) for name in ("same", "others"))
    assert all(torch.equal(one[name], two[name]) for name in one)

    shutil.copytree(home / "data-bin", tmp_path / "data-bin")
    manifest = tmp_path / "data-bin" / "dataset.json"
    manifest.write_text(manifest.read_text() + " ")
    second = ["--data", tmp_path / "data-bin"]
    main, other_one = finish(s2s, start(s2s, home, tmp_path / "run", *options[:-1], second=second))
    assert (main.code, other_one.code) == (2, 2)
    assert "is not the same for all processes" in main.err + other_one.err


def test_a_mistake_ends_all_and_is_told_once(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """The main process alone looks into the run folder; the other neither waits for it nor shows a traceback."""
    options = ["--max-updates", 2, "--valid-every", 2, "--keep-last", 9]
    assert [d.code for d in finish(s2s, start(s2s, home, tmp_path / "run", *options))] == [0, 0]
    main, other = finish(s2s, start(s2s, home, tmp_path / "run", *options, "--lr", 0.5))
    assert (main.code, other.code) == (2, 2)
    assert "train.lr: the run has" in main.err
    assert other.err == ""
    with lock(tmp_path / "run"):
        main, other = finish(s2s, start(s2s, home, tmp_path / "run", *options))
    assert (main.code, other.code) == (2, 2)
    assert "in use by another process" in main.err
    assert other.err == ""
    for number, spoil in enumerate(
        [".lock", "checkpoints"]
    ):  # the second is found out by the writer, at the first save
        run = tmp_path / str(number)
        run.mkdir()
        (run / spoil).mkdir() if spoil == ".lock" else (run / spoil).touch()
        main, other = finish(s2s, start(s2s, home, run, *options))
        assert (main.code, other.code) == (2, 2)
        assert str(run) in main.err
        assert "Traceback" not in main.err + other.err


ONE_IS_SHORT = """
import os, torch
from s2s_cli.__main__ import main
from s2s_cli.models.base import Seq2Seq
def short(*_):
    raise torch.OutOfMemoryError
if os.environ["RANK"] == "1":
    Seq2Seq.forward = short
main()
"""


def test_what_ends_an_update_of_one_ends_all(home: Path, tmp_path: Path) -> None:
    """Memory is too small for a single pair in the second process alone: the first does not wait for its gradient."""
    command = [
        sys.executable,
        "-c",
        ONE_IS_SHORT,
        "train",
        *map(str, TINY),
        "--data",
        home / "data-bin",
        "--run",
        "run",
    ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            command, cwd=tmp_path, env=common | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    main, other = (process.communicate(timeout=120)[1] for process in processes)
    assert [process.returncode for process in processes] == [2, 2], main + other
    assert "is too much for the memory" in other
    assert "Traceback" not in main + other


def test_the_lines_of_all_processes_are_named(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """A loss above the mean by next to nothing is a spike here; the log has every line of both batches, the screen a few."""
    run = tmp_path / "run"
    done = finish(s2s, start(s2s, home, run, "--max-updates", 130, "--valid-every", 130, "--spike", 1e-3, "--lr", 1e-6))
    assert [d.code for d in done] == [0, 0], done[0].err
    log = (run / "train.log").read_text()
    number, first, count = re.search(r"update (\d+): .* skipped; training lines (.*), … \((\d+)\)", log).groups()
    named = re.search(rf"update {number} read (.*)", log)[1]
    assert named.startswith("train.src:")
    found = sorted(map(int, named.removeprefix("train.src:").split(",")))
    dataset = Dataset.open(home / "data-bin")
    stream = TrainStream(dataset.train, dataset.vocabs, 256, 1)
    batches = [stream.next().lines.tolist() for _ in range(2 * int(number))][-2:]
    stream.close()
    assert found == sorted(batches[0] + batches[1])
    assert int(count) == len(found)
    assert first == ", ".join(f"train.src:{line}" for line in batches[0][:5])
    assert f"update {number} read" not in done[0].err


def test_torchrun_hands_a_signal_on(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """SIGTERM to the launcher alone: its processes save and end with 143, and the command goes on, as it is documented."""
    run = tmp_path / "run"
    heard = 'trap : TERM; "$0" -m s2s_cli "$@"; echo "ended with $?" >&2'
    launch = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        2,
        "--no-python",
        "--",
        "sh",
        "-c",
        heard,
        sys.executable,
    ]
    options = ["--dropout", 0, "--run", run, "--valid-every", 50, "--max-updates", 100_000]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *map(str, [*launch, "train", *TINY, *options])]
    torchrun = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        wait_until(lambda: (run / "last").exists())
    finally:
        torchrun.terminate()
        err = torchrun.communicate()[1]
    assert err.count("the same command goes on from here") == 2, err
    assert err.count("ended with 143") == 2
    update = json.loads((run / "last/training/state.json").read_text())["update"]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "-m", "--", "s2s_cli", "train"]
    command = [sys.executable, *map(str, [*launch, *TINY, *options[:-1], update + 1])]
    again = subprocess.run(command, cwd=home, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count(f"going on after update {update}") == 1
    assert "2 × CPU" in again.stderr


def test_other_numbers_of_processes_need_the_same_global_batch(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    options = ["--max-updates", 4, "--valid-every", 2]
    assert finish(s2s, start(s2s, home, tmp_path / "run", *options))[0].code == 0
    alone = ["train", *TINY, "--dropout", 0, "--run", tmp_path / "run", *options]
    refused = s2s.run(*alone, cwd=home)
    assert refused.code == 2
    assert "train.accumulate (times processes): the run has 2, now 1" in refused.err
    done = s2s.run(*alone, "--accumulate", 2, "--max-updates", 6, cwd=home)
    assert done.code == 0, done.err
    assert "going on after update 4" in done.err


def test_settings_of_several_processes_are_those_of_one(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """The file follows the last command: it has its limits, and the batches of an update, whoever shares them."""
    run = tmp_path / "run"
    assert finish(s2s, start(s2s, home, run, "--max-updates", 2, "--valid-every", 2))[0].code == 0
    done = s2s.run("train", "-c", run / "config.yaml", "--max-updates", 4, cwd=home)
    assert done.code == 0, done.err
    assert "going on after update 2" in done.err
    done = s2s.run("train", "-c", run / "config.yaml", cwd=home)
    assert (done.code, "nothing left to do: 4 updates done" in done.err) == (0, True), done.err
    done = s2s.run("train", "-c", run / "config.yaml", "--run", tmp_path / "again", cwd=home)
    assert done.code == 0, done.err
    one, other = (weights(path, 4) for path in (run, tmp_path / "again"))
    # A bias of keys changes no attention: its gradient is of rounding alone, of which Adam makes whole steps.
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one if not name.endswith("kv.bias"))


def moments(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / f"checkpoints/step-{step:07d}/training/optimizer.safetensors")


def test_a_sharded_optimizer_makes_the_same_bits(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """Its checkpoint is that of an unsharded one, and goes on in one process, which then hands it back to two."""
    options = ["--valid-every", 4, "--keep-last", 9, "--ema", 0.9]
    whole = start(s2s, home, tmp_path / "whole", *options, "--max-updates", 12)
    parts = start(s2s, home, tmp_path / "parts", *options, "--max-updates", 4, "--shard-optimizer")
    assert [done.code for done in finish(s2s, [*whole, *parts])] == [0] * 4
    for read in (weights, moments):
        a, b = read(tmp_path / "whole", 4), read(tmp_path / "parts", 4)
        assert a.keys() == b.keys()
        assert not [(name, float((a[name] - b[name]).abs().max())) for name in a if not torch.equal(a[name], b[name])]
    again = finish(s2s, start(s2s, home, tmp_path / "parts", *options, "--max-updates", 12, "--shard-optimizer"))
    assert [done.code for done in again] == [0, 0], again[0].err
    for read in (weights, moments):
        a, b = read(tmp_path / "whole", 12), read(tmp_path / "parts", 12)
        assert not [(name, float((a[name] - b[name]).abs().max())) for name in a if not torch.equal(a[name], b[name])]
    alone = ["train", *TINY, "--dropout", 0, "--run", tmp_path / "parts", "--accumulate", 2, *options]
    done = s2s.run(*alone, "--max-updates", 16, "--shard-optimizer", cwd=home)
    assert done.code == 0, done.err
    back = finish(s2s, start(s2s, home, tmp_path / "parts", *options, "--max-updates", 20, "--shard-optimizer"))
    assert [done.code for done in back] == [0, 0], back[0].err
    assert "going on after update 16" in back[0].err


def test_another_number_of_processes_sees_the_same_data(s2s: Zygote, home: Path, tmp_path: Path) -> None:
    """Two processes, then one, then two: the weights of one process all along, over epochs whose last batch has no partner."""
    options = ["--valid-every", 4, "--optimizer", "sgd", "--lr", 0.5, "--keep-last", 9]
    alone = ["train", *TINY, "--dropout", 0, "--accumulate", 2, *options]
    assert s2s.run(*alone, "--run", tmp_path / "one", "--max-updates", 12, cwd=home).code == 0
    for world, limit in ((2, 4), (1, 8), (2, 12)):
        if world == 1:
            codes = [s2s.run(*alone, "--run", tmp_path / "mixed", "--max-updates", limit, cwd=home).code]
        else:
            processes = start(s2s, home, tmp_path / "mixed", *options, "--max-updates", limit)
            codes = [done.code for done in finish(s2s, processes)]
        assert codes == [0] * world
    states = [
        json.loads((tmp_path / run / "last/training/state.json").read_text())["position"] for run in ("one", "mixed")
    ]
    assert states[0] == states[1]
    a, b = weights(tmp_path / "one", 12), weights(tmp_path / "mixed", 12)
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)
