"""Seeds, signals, locks and logs."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Event

import pytest
import torch

from s2s_cli import runtime
from s2s_cli.config import RuntimeSettings
from s2s_cli.errors import ConfigError, Interrupted, S2SError
from s2s_cli.runtime import Background, Runtime, StopSignal, available_memory, has_screen, lock, seed_for, tell
from s2s_cli.training.log import Log
from s2s_cli.worker import threads


def draws(*numbers: int) -> list[float]:
    seed_for(*numbers)
    return torch.rand(4).tolist()


def test_seeds_are_functions_of_all_their_numbers() -> None:
    assert draws(1, 2) == draws(1, 2)
    different = [draws(1), draws(2), draws(1, 2), draws(2, 1), draws(1, 2, 0), draws(1, 2, 1), draws(0, 1, 2)]
    assert len(set(map(tuple, different))) == len(different)


def test_neighbouring_updates_draw_unrelated_numbers() -> None:
    first = torch.tensor([draws(7, update)[0] for update in range(2000)])
    assert abs(float(first.mean()) - 0.5) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([first[:-1], first[1:]]))[0, 1])) < 0.1


def test_signals_become_a_flag_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(Interrupted):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_end_of_the_terminal_is_a_signal_unless_it_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signum == signal.SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signum == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_log_goes_on_after_what_was_spoiled(tmp_path: Path) -> None:
    """A line cut short, bytes that are no text, and records of other shapes are left out when a run goes on."""
    log = Log(tmp_path)
    for update in (10, 20, 30):
        log.metrics("train", update, loss=1.0)
    file = tmp_path / "metrics.jsonl"
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(
        b"\n".join([lines[0], b"\xff\xfe\0", b"[1]", b'{"kind": "train"}', b"3", lines[1], lines[2], b'{"ki'])
    )
    log.rewind(20, 0)
    log.sync()
    assert file.read_bytes().split(b"\n") == [lines[0], lines[1], b""]


def test_a_screen_has_room_for_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """What has none, is no terminal, or is closed, gets plain lines, or nothing."""
    assert not has_screen()
    main, other = pty.openpty()
    for columns in (80, 0):
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with open(other, "w", closefd=False) as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            assert has_screen() == (columns > 0)
            tell("said")
            assert b"said" in os.read(main, 100)
    monkeypatch.setattr(sys, "stderr", None)
    tell("to nobody")
    assert capsys.readouterr().out == ""


def test_lock_is_of_one_process_and_of_none_that_it_forks(tmp_path: Path) -> None:
    other = f"from pathlib import Path; from s2s_cli.runtime import lock\nwith lock(Path({str(tmp_path)!r})): pass"
    with lock(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        refused = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
        assert "in use by another process" in refused.stderr
    try:
        assert subprocess.run([sys.executable, "-c", other]).returncode == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_log_forgets_what_will_be_written_again(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for update in (1, 2, 3):
        log.metrics("train", update, loss=0.5)
        log.metrics("valid", update, loss=0.25)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "tr')  # killed while writing
    Log(tmp_path).rewind(2, validated=1)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["update"]) for r in records] == [("train", 1), ("valid", 1), ("train", 2)]
    assert records[0] == {"kind": "train", "update": 1, "loss": 0.5}


def test_silent_log_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = Log(tmp_path, silent=True)
    log.say("hello")
    log.metrics("train", 1)
    log.rewind(0, 0)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_one_process_alone_needs_no_group() -> None:
    runtime = Runtime.start(RuntimeSettings(device="cpu", precision="fp32"), join=True)
    assert (runtime.rank, runtime.world, runtime.is_main) == (0, 1, True)
    assert runtime.all_sum(3) == 3
    assert runtime.share({"a": 1}) == {"a": 1}
    runtime.close()


def test_processes_wait_for_a_long_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group gives up after ten minutes with NCCL, thirty with gloo, unless it is told otherwise."""
    told: dict[str, timedelta] = {}
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda _backend, **options: told.update(options))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Runtime.start(RuntimeSettings(device="cpu", precision="fp32"), join=True).world == 2
    assert told["timeout"] > timedelta(hours=12)


def test_precision() -> None:
    """bf16 is asked of matrix products alone."""
    a = torch.randn(4, 4)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with Runtime.start(RuntimeSettings(device="cpu", precision=name)).autocast():
            assert (a @ a).dtype == dtype
            assert (a + a).dtype == torch.float32


def test_a_job_in_the_background_is_waited_for_and_heard_of() -> None:
    background, done, may_go = Background(), [], Event()

    def slow(number: int) -> None:
        may_go.wait()
        if number == 2:
            assert done == [1], "the next waits for the one before"
        done.append(number)

    background.run(lambda: slow(1))
    assert not done
    background.check()
    may_go.set()
    background.run(lambda: slow(2))
    assert 1 in done
    background.wait()
    assert done == [1, 2]

    def fail() -> None:
        raise S2SError("no space left")

    background.run(fail)
    background.join()
    with pytest.raises(S2SError, match="no space left"):
        background.check()
    background.check()
    background.run(fail)
    with pytest.raises(S2SError, match="no space left"):
        background.run(lambda: slow(3))
    assert done == [1, 2]


def test_who_no_longer_waits_for_a_job_may_wait_again() -> None:
    """A second Ctrl-C ends the waiting; the job is not forgotten, and whoever must see its end does."""
    background, begun, done = Background(), Event(), []

    def slow() -> None:
        begun.wait()
        done.append(1)

    background.run(slow)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            background.wait()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert not done
    begun.set()
    background.join()
    assert done == [1]


def test_a_signal_in_a_finalizer_makes_no_noise(capsys: pytest.CaptureFixture) -> None:
    """Python cannot raise there; what asks next hears of it."""

    class Last:
        def __init__(self, ended: Callable[[], None]) -> None:
            self.ended = ended

        def __del__(self) -> None:
            self.ended()

    with StopSignal() as stop:
        with stop.at_once("given up"):
            Last(lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted), stop.at_once("given up"):
            pytest.fail("it came before")
    assert capsys.readouterr().err == ""


def test_a_second_signal_does_not_end_what_clears_away() -> None:
    with StopSignal() as stop, pytest.raises(Interrupted, match="given up"), stop.at_once("given up"):  # noqa: PT012
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)
            cleared = True
    assert cleared
    assert stop.signum == signal.SIGHUP


def test_at_once_is_at_once_and_within_only() -> None:
    with StopSignal() as stop:
        with pytest.raises(Interrupted, match="given up") as caught, stop.at_once("given up"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.signum == stop.signum == signal.SIGTERM
    with StopSignal() as stop:
        with stop.at_once("given up"):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM
        with pytest.raises(Interrupted), stop.at_once("given up"):
            pytest.fail("it came before")
    with StopSignal() as stop:
        with stop.at_once("given up", inside=False):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted), stop.at_once("given up", inside=False):
            pytest.fail("it came before")


def test_what_a_progress_bar_shows_is_in_the_log_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = Log(tmp_path)
    log.say("loud")
    log.say("update 7", screen=False)
    assert "update 7" not in capsys.readouterr().err
    assert [line[20:] for line in (tmp_path / "train.log").read_text().split("\n")[:2]] == ["loud", "update 7"]


def test_deterministic_kernels_are_asked_for_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    asked = RuntimeSettings(device="cpu", deterministic=True)
    try:
        Runtime.start(asked)
        assert not torch.are_deterministic_algorithms_enabled()
        Runtime.start(asked, join=True)
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_was_read_and_can_be_forgotten_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    group = {
        "memory.max": "16000",
        "memory.current": "15600",
        "memory.stat": "anon 2600\ninactive_file 12000\nfile 13000\n",
    }
    read = Path.read_text

    def faked(path: Path, *arguments: object, **options: object) -> str:
        return group[path.name] if path.parent == Path("/sys/fs/cgroup") else read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", faked)
    assert available_memory(torch.device("cpu")) == 12_400


def test_each_process_has_a_gpu_or_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for number in "012":
        monkeypatch.setenv("LOCAL_RANK", number)
        Runtime.start(RuntimeSettings(device="cpu"))
        if number < "2":
            Runtime.start(RuntimeSettings(precision="fp32"))
            continue
        with pytest.raises(ConfigError, match="process 2 finds 2 CUDA devices"):
            Runtime.start(RuntimeSettings(precision="fp32"))
    assert taken == [1]


@pytest.mark.parametrize(
    ("asked", "several", "given", "expected"),
    [(3, 2, "1", 3), (0, 2, "1", 4), (0, 16, "1", 1), (0, 2, "2", 0), (0, 2, None, 0), (0, 1, "1", 0)],
)
def test_processes_of_torchrun_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, asked: int, several: int, given: str | None, expected: int
) -> None:
    """Unless told by --threads or OMP_NUM_THREADS; its 1 is what torchrun says to all."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(several))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert threads(asked) == expected


def test_what_is_wrong_with_this_process_is_not_said_of_another() -> None:
    def fails(error: RuntimeError) -> None:
        raise error

    for error in (RuntimeError("Connection closed by peer\nand more"), RuntimeError("")):
        with pytest.raises(S2SError, match="another process has ended"):
            runtime._together(fails, error)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: device-side assert triggered"),
    ):
        with pytest.raises(type(error), match="CUDA"):
            runtime._together(fails, error)
