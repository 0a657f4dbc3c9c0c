"""What the scripts that fetch corpora share: files from a local copy or a download, verified, whole or not there at all.

A file gets its name only when its text is what it should be, so whatever stands under a final name is whole; a file that
is there and right is not fetched again. A fetch that fails says what to put where.
"""

import argparse
import gzip
import hashlib
import os
import shutil
import sys
import tarfile
import urllib.request
import zlib
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

ORIGIN = "origin.txt"  # beside the texts of a corpus: where they are from
TIMEOUT = 60  # seconds without a byte before a download is given up


class FetchError(Exception):
    """A file could not be had, or is not what it should be; the message says which, from where, and what to do."""


class Text(NamedTuple):
    """A text of a corpus, as it shall be in the end; None where nobody can know."""

    path: str
    """Where it is below the address of the corpus."""
    num_lines: int | None = None
    sha256: str | None = None


def fetch_texts(
    out: Path, local: Path | None, url: str, files: dict[str, Text], folders: tuple[str, ...] = ("",)
) -> list[str]:
    """Bring all `files` into `out`, from the folder `local` (or those in it) or else from `url`; the names newly written.

    A file that is there and right is kept, a torn or altered one replaced. FetchError when one cannot be had.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, wanted in files.items():
        tgt = out / name
        if tgt.exists() and fault_of(tgt.read_bytes(), wanted) is None:
            continue
        source = f"{url}/{wanted.path}" if local is None else str(_local_file(local, name, folders))
        try:
            text = read_bytes(source) if local is None else read_local(Path(source))
        except (OSError, EOFError, ValueError, zlib.error, HTTPException) as error:
            fault: str | None = str(error) or type(error).__name__
        else:
            fault = fault_of(text, wanted)
        if fault is not None:
            advice = (
                f"Get {source} by other means, put it{', unpacked,' if wanted.path.endswith('.gz') else ''} "
                f"at {tgt} and run this again, or name a folder that holds {name} or {name}.gz with --from (run.sh: --data)."
                if local is None
                else f"Complete {local}, or name no folder by --from (run.sh: --data) or S2S_DATA, and the text is downloaded."
            )
            raise FetchError(f"{name}: cannot use {source}: {fault}\n{advice}")
        write_whole(tgt, text)
        written.append(name)
    return written


def find_local(root: Path | None, folder: str, probe: str) -> Path | None:
    """The folder that holds `probe` (or `probe`.gz): `folder` in `root`, or `root`; FetchError when neither does.

    Without `root`, the one that S2S_DATA names, if it has this corpus among others; else None.
    """
    named = root or (Path(os.environ["S2S_DATA"]) if os.environ.get("S2S_DATA") else None)
    if named is None:
        return None
    for place in (named / folder, named):
        if (place / probe).is_file() or (place / f"{probe}.gz").is_file():
            return place
    if root is None:
        print(f"S2S_DATA is {named}, which has no {folder}: it is fetched", file=sys.stderr)
        return None
    raise FetchError(
        f"{root}: neither it nor {root / folder} holds {probe} or {probe}.gz; correct --from (run.sh: --data)"
    )


def read_local(path: Path) -> bytes:
    """The text of a file, or of its .gz."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def read_bytes(url: str) -> bytes:
    """The text behind an address, unpacked if its name ends in .gz."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        data: bytes = answer.read()  # raises IncompleteRead when the connection breaks off
    return gzip.decompress(data) if url.endswith(".gz") else data


def download(url: str, path: Path, advice: str = "") -> Path:
    """A large file, as it is, kept under `path`; one that is there is not fetched again. FetchError when it cannot be had."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    print(f"fetching {url}", file=sys.stderr)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, open(part, "wb") as file:
            expected = int(answer.headers.get("Content-Length") or 0)
            while block := answer.read(1 << 20):
                file.write(block)
            if expected and file.tell() != expected:
                raise OSError(f"{file.tell():,} bytes instead of {expected:,}")
    except (OSError, ValueError, HTTPException) as error:
        part.unlink(missing_ok=True)
        raise FetchError(
            f"cannot fetch {url}: {error}\nGet it by other means, put it at {path} and run this again. {advice}".rstrip()
        ) from None
    part.replace(path)
    return path


def archive_of(url: str, path: Path, local: Path | None) -> Path:
    """Where a large file is: in the folder `local`, where one is given, or else downloaded to `path`."""
    if local is None:
        return download(url, path)
    if not (local / path.name).is_file():
        raise FetchError(
            f"{local} has no {path.name}: put it there ({url}), or name no folder by --from "
            "(run.sh: --data) or S2S_DATA"
        )
    return local / path.name


def unpack(archive: Path, members: dict[str, Path]) -> None:
    """Write files of a tar archive, by their names in it, under other names. FetchError for a torn archive or a missing file."""
    wanted = {name: path for name, path in members.items() if not path.exists()}
    if not wanted:
        return
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if name in wanted and (file := tar.extractfile(member)):
                    path = wanted.pop(name)
                    part = path.with_name(path.name + ".part")
                    with open(part, "wb") as out:
                        shutil.copyfileobj(file, out)
                    part.replace(path)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FetchError(f"{archive} cannot be unpacked: {error}; remove it and run this again") from None
    if wanted:
        raise FetchError(f"{archive} has no {', '.join(wanted)}: it is not the archive that is known")


def fault_of(text: bytes, wanted: Text) -> str | None:
    """What is wrong with a text, or None."""
    found_lines = text.count(b"\n")
    if wanted.num_lines is not None and found_lines != wanted.num_lines:
        return f"{found_lines} lines instead of {wanted.num_lines}"
    found = hashlib.sha256(text).hexdigest()
    if wanted.sha256 is not None and found != wanted.sha256:
        return f"its text has sha256 {found} instead of {wanted.sha256}"
    return None


def write_whole(path: Path, text: bytes) -> None:
    """Write beside, then rename."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def note_origin(out: Path, local: Path | None, otherwise: str = "fetched") -> None:
    """Say in a file of the corpus where it is from, for the results of recipes; not of which folder, which is this machine's."""
    write_whole(out / ORIGIN, f"{'local copy' if local else otherwise}\n".encode())


def one_line(text: str) -> str:
    """A text without line ends and other runs of white space."""
    return " ".join(text.split())


def _local_file(folder: Path, name: str, folders: tuple[str, ...]) -> Path:
    """Where a local copy keeps a file; the likeliest place, for the message, when it is nowhere."""
    places = [folder / sub / (name + end) for sub in folders for end in ("", ".gz")]
    return next((place for place in places if place.is_file()), folder / f"{name}.gz")


def parser(description: str, folder: str, url: str) -> argparse.ArgumentParser:
    """The arguments that every such script takes: OUT_DIR, --from DIR, --url URL."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    made.add_argument(
        "--from",
        dest="local",
        type=Path,
        metavar="DIR",
        help=f"local copy: a folder of the files, .gz or plain, or one that holds {folder}/ (default: $S2S_DATA, if it does)",
    )
    made.add_argument(
        "--url", default=url, help="download from here when there is no local copy (default: %(default)s)"
    )
    return made


def command(name: str, work: Callable[[], str]) -> int:
    """Do it and say what was done; 2 and one message when it fails."""
    try:
        done = work()
    except (FetchError, OSError) as error:
        print(f"{name}.py: {error}", file=sys.stderr)
        return 2
    print(f"{name}: {done}", file=sys.stderr)
    return 0
