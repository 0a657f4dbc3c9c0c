"""Files and folders take their names when whole, lead where links do, and belong to one process at a time."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import pytest

from s2s_cli.errors import S2SError
from s2s_cli.files import REPLACED, held, place_of, sync, whole_file, whole_folder

FULL = OSError(errno.ENOSPC, "No space left on device")
ERRORS = pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(2), S2SError("bad input"), FULL], ids=repr)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_file(path: Path, text: bytes, error: BaseException | None = None) -> None:
    with whole_file(path) as file:
        file.write(text)
        if error is not None:
            raise error


def write_folder(path: Path, text: bytes, error: BaseException | None = None) -> None:
    with whole_folder(path) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "file").write_bytes(text)
        if error is not None:
            raise error


Write = Callable[..., None]
EACH = pytest.mark.parametrize("write", [write_file, write_folder])


@EACH
@ERRORS
def test_whole_or_not_at_all(tmp_path: Path, write: Write, error: BaseException) -> None:
    for there in (False, True):
        if there:
            write(tmp_path / "out", b"old")
        before = content(tmp_path)
        told = "out could not be written: No space left" if error is FULL else None
        with pytest.raises(S2SError if error is FULL else type(error), match=told):
            write(tmp_path / "out", b"new", error)
        assert content(tmp_path) == before
        assert len(list(tmp_path.iterdir())) == there, "nor is anything left beside it"
    write(tmp_path / "out", b"new")
    assert [*content(tmp_path).values()] == [b"new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@EACH
def test_what_cannot_be_written_has_the_name_that_was_given(tmp_path: Path, write: Write) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(S2SError, match=f"^{tmp_path}/file/out could not be written: Not a directory$"):
        write(tmp_path / "file" / "out", b"new")


@EACH
def test_all_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    synced: set[int] = set()
    named: set[int] = set()

    def take(src: str, dst: Path) -> None:
        assert {os.stat(path).st_ino for path in [src, *Path(src).rglob("*")]} <= synced
        named.add(os.stat(src).st_ino)
        synced.clear()
        rename(src, dst)

    rename = os.rename
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, take)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    write(tmp_path / "out", b"new")
    assert named == {(tmp_path / "out").stat().st_ino}
    assert synced == {tmp_path.stat().st_ino}, "and the name"


@EACH
def test_links_stay_and_lead_to_the_output(tmp_path: Path, write: Write) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/out")
    for text in (b"first", b"second"):
        write(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert [*content(tmp_path / "disk").values()] == [text]
        assert [path.name for path in (tmp_path / "disk").iterdir()] == ["out"]


def test_standard_output_by_any_name_is_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `> out` with a link to /dev/stdout: who has opened it reads on in the same file, after what stands there."""
    (tmp_path / "link").symlink_to("out")
    with open(tmp_path / "out", "w+") as file:
        monkeypatch.setattr(sys, "stdout", file)
        for path in (tmp_path / "out", tmp_path / "link", Path("-")):
            print("scores")
            write_file(path, b"page\n")
        assert os.path.samestat(os.fstat(file.fileno()), os.stat(tmp_path / "out"))
        assert os.pread(file.fileno(), 99, 0) == b"scores\npage\n" * 3
        monkeypatch.setattr(sys, "stdout", None)  # a process that was started without
        assert place_of(tmp_path / "out") == tmp_path / "out"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]


def test_devices_and_pipes_are_written_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    write_file(tmp_path / "null", b"new")
    assert (tmp_path / "null").is_char_device()
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        write_file(tmp_path / "pipe", b"new")
        assert reader.communicate()[0] == b"new"
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "pipe"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_only_what_has_nothing_to_sync_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with nullcontext() if number == errno.EINVAL else pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path)


def test_a_folder_that_may_not_be_read_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only names can be made, whatever the system says of opening the folder itself."""
    opened = os.open

    def refuse(path: Path, *others: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *others)

    monkeypatch.setattr(os, "open", refuse)
    write_file(tmp_path / "out", b"text")
    assert content(tmp_path) == {"out": b"text"}


def test_what_had_stepped_aside_comes_back(tmp_path: Path) -> None:
    """A process died between two names; the next one gives the first back if it fails, and lets go of it if not."""
    aside = tmp_path / f".out{REPLACED}"
    write_folder(aside, b"old")
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", b"new", KeyboardInterrupt())
    assert content(tmp_path) == {"out/part/file": b"old"}
    (tmp_path / "out").rename(aside)
    write_folder(tmp_path / "out", b"new")
    assert content(tmp_path) == {"out/part/file": b"new"}


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: IO[bytes], how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", fail)
    with pytest.raises(S2SError, match=r"file cannot be locked \(No locks available\): choose"):
        held(tmp_path / "file", "refused")


OTHER = "import sys; from pathlib import Path; from s2s_cli.files import held; held(Path(sys.argv[1]), 'refused')"


def other(path: Path) -> str:
    """What another process says that wants the file."""
    return subprocess.run([sys.executable, "-c", OTHER, path], capture_output=True, text=True).stderr


def test_a_file_is_of_one_process_and_of_none_that_it_forks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with held(path, "refused"):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        assert "S2SError: refused" in other(path)
    try:
        assert other(path) == ""
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("anew", [False, True])
def test_a_file_that_is_gone_when_it_is_locked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    """Who had it has ended between our opening and locking, and a third one may have made it anew."""
    path, lock = tmp_path / "file", fcntl.lockf

    def late(file: IO[bytes], how: int) -> None:
        path.rename(tmp_path / "out")
        if anew:
            path.touch()
        lock(file, how)

    monkeypatch.setattr(fcntl, "lockf", late)
    with pytest.raises(S2SError, match="refused"):
        held(path, "refused")
