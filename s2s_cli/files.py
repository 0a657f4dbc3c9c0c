"""Acts on files: nothing stands half-written under its final name, and no two processes write the same.

What is written stands beside its place, goes to the disk, and takes its name last. This room knows no format, and no torch.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from s2s_cli.errors import S2SError

STDOUT = Path("-")
REPLACED = ".before"  # after the name of a folder that another is about to replace


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk before anything else is done."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written, and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # said of what cannot be synced, such as folders of some file systems
            raise
    finally:
        os.close(descriptor)


def put(file: IO[bytes], place: Path) -> None:
    """Bring an open file to the disk, then give it its final name."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(file.name, place)
    sync(place.parent)


def place_of(path: Path) -> Path:
    """Where an output is to be written: for a link to a file, where it points to; `-` for standard output by another name.

    Nothing takes the name of the latter, such as /dev/stdout: who has opened the file would go on with the old one.
    """
    with suppress(OSError, ValueError, AttributeError):  # there is nothing yet, or no standard output
        if os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno())):
            return STDOUT
    return Path(os.path.realpath(path)) if path.is_symlink() and is_regular(path) else path


def is_regular(path: Path) -> bool:
    """Whether an output is a file, there or to be made; standard output, devices and pipes are none, nor is a folder."""
    return path != STDOUT and (path.is_file() or not path.exists())


def beside(path: Path) -> Path:
    """Where `path`, or what it is a link to, is written before it is whole."""
    place = Path(os.path.realpath(path))
    return place.with_name(f".{place.name}.tmp")


@contextmanager
def told(name: object) -> Iterator[None]:
    """Within, an error of the system is the user's to know of: S2SError says that `name` could not be written."""
    try:
        yield
    except BrokenPipeError:
        raise  # who reads it has enough
    except OSError as error:
        what = "standard output" if str(name) == str(STDOUT) else name
        raise S2SError(f"{what} could not be written: {error.strerror or error}") from error


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the name `path` when it is whole. Left with an error, nothing has changed.

    Links are written through; standard output, devices and pipes are written as they are. S2SError if it cannot be written.
    """
    place = place_of(path)
    with told(path):
        if place == STDOUT:
            sys.stdout.flush()
            yield sys.stdout.buffer
            sys.stdout.flush()
        elif not is_regular(place):
            with open(place, "wb") as file:
                yield file
        else:
            try:
                with open(beside(place), "wb") as file:
                    yield file
                    put(file, place)
            finally:
                beside(place).unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `path` when it is whole; what stands there gives way last.

    Left with an error, nothing has changed. S2SError if it cannot be written.
    """
    place, folder = Path(os.path.realpath(path)), beside(path)
    before = place.with_name(f".{place.name}{REPLACED}")
    shutil.rmtree(folder, ignore_errors=True)  # what a killed process left
    try:
        with told(path):
            folder.mkdir(parents=True)
            yield folder
            for file in [*folder.rglob("*"), folder]:
                sync(file)
            if place.exists():
                step_aside(place, REPLACED)
            folder.rename(place)
            sync(place.parent)
    finally:
        if before.exists() and not place.exists():
            before.rename(place)
        for left in (folder, before):
            shutil.rmtree(left, ignore_errors=True)


def strangers(folder: Path, names: Collection[str], folders: Collection[str]) -> list[str]:
    """Files in a folder that are neither of these names nor in one of these folders: somebody put them there."""
    there = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    own = {*names, ".DS_Store"}  # which macOS's file manager leaves everywhere
    return sorted(str(path) for path in there if path.parts[0] not in folders and str(path) not in own)


def step_aside(path: Path, suffix: str) -> Path:
    """Give a folder a name that nobody looks for."""
    aside = path.with_name(f".{path.name}{suffix}")
    shutil.rmtree(aside, ignore_errors=True)
    return path.rename(aside)


def held(path: Path, refusal: str) -> IO[bytes]:
    """A file, open for appending, that this process alone has until it closes it, however it ends; S2SError if another has it.

    The process must not open it a second time: closing any of the two lets go of it.
    """
    file = open(path, "ab")  # noqa: SIM115 - whoever has it closes it
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which forked processes do not inherit
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):  # renamed between our opening and locking
            raise BlockingIOError
    except (BlockingIOError, PermissionError, FileNotFoundError):  # which of the first two, the system chooses
        file.close()
        raise S2SError(refusal) from None
    except OSError as error:
        file.close()
        raise S2SError(f"{path} cannot be locked ({error.strerror}): choose a folder on another disk") from None
    return file
