"""Where a dataset is written: beside its final name, which it takes only when it is whole, and by one process at a time."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s2s_cli.data.dataset import MANIFEST, NAMES
from s2s_cli.errors import DataError
from s2s_cli.files import held, strangers, told, whole_folder


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into. Left without an error it becomes `out`, else nothing has changed.

    DataError if `out` is something that is no dataset, or holds what is not of one, S2SError if another process is writing it or
    the disk is full.
    """
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out}: exists and is no dataset, so it is not overwritten; name another folder with -o")
    if (out / MANIFEST).is_file() and (others := strangers(out, NAMES, ["vocab"])):
        raise DataError(
            f"{out}: holds {', '.join(others[:3])}{' …' if others[3:] else ''}, which would be lost with the old dataset: "
            "move it away, or name another folder with -o"
        )
    place = out.resolve()
    if place == Path.cwd():
        raise DataError(f"{out}: the current folder, which cannot be replaced; name it from outside with -o")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: no folder can be made there ({error.strerror}); name another one with -o") from None
    lock = place.with_name(f".{place.name}.lock")
    refusal = f"{out}: another preprocess is writing it; wait for it or name another folder with -o"
    with told(out), held(lock, refusal):
        try:
            with whole_folder(out) as folder:
                yield folder
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder in `folder` for what does not belong to the result."""
    scratch = folder / ".scratch"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)
