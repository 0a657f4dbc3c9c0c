"""Where a dataset is written: beside its final name, which it takes only when it is whole, and by one process at a time."""

import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s2s_cli.data.dataset import MANIFEST
from s2s_cli.errors import DataError, Interrupted


@contextmanager
def tidy_end() -> Iterator[None]:
    """SIGTERM ends what is done in this context as Ctrl-C would, so that nothing half-made is left."""

    def stop(signum: int, frame: object) -> None:
        raise Interrupted(signum, "terminated")

    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def partial_folder(out: Path) -> Path:
    """Where `out`, or what it is a link to, is written before it is whole."""
    out = out.resolve()
    return out.with_name(f".{out.name}.partial")


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into. Left without an error it becomes `out`, else nothing has changed.

    DataError if `out` is something that is no dataset, or if another process is writing it.
    """
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out}: exists and is no dataset, so it is not overwritten; name another folder with -o")
    if out.resolve() == Path.cwd():
        raise DataError(f"{out}: the current folder, which cannot be replaced; name it from outside with -o")
    partial = partial_folder(out)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: no folder can be made there ({error.strerror}); name another one with -o") from None
    out = out.resolve()
    with _lock(out):
        shutil.rmtree(partial, ignore_errors=True)  # what an interrupted run left
        partial.mkdir()
        try:
            yield partial
            for path in [*partial.rglob("*"), partial]:
                sync(path)
            _replace(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder in `folder` for what does not belong to the result."""
    scratch = folder / ".scratch"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """One writer at a time; the system lets go of the lock when a process dies, however it dies."""
    path = out.with_name(f".{out.name}.lock")
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):  # deleted between our opening and locking
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            raise DataError(
                f"{out}: another preprocess is writing it; wait for it or name another folder with -o"
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk before anything else is done."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(new: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)
