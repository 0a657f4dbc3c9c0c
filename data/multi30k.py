#!/usr/bin/env python3
"""Puts the English-German part of Multi30k (task 1, raw text) into a folder as plain text, every file verified.

    python data/multi30k.py OUT_DIR [--from DIR]

writes train, val and test_2016_flickr (.en and .de) and `test_2016_flickr.lc.norm.tok.de`, the lowercased, normalized
and tokenized reference that published scores are computed on. The text comes from a local copy, which `--from` or the
variable S2S_DATA names, or else from the public repository multi30k/dataset. A file gets its name only when its text
has the known sha256 and line count, so whatever stands in OUT_DIR is whole; what is there already is not fetched again.

Multi30k is derived from Flickr30K and is for non-commercial research and education only. Cite Elliott et al. 2016,
"Multi30K: Multilingual English-German Image Descriptions", https://aclanthology.org/W16-3210.
"""

import argparse
import gzip
import hashlib
import os
import sys
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1"
FOLDER = "multi30k-en-de"  # what a local copy is called inside the folder that S2S_DATA names
TIMEOUT = 60  # seconds without a byte before a download is given up

# file in OUT_DIR: path below URL, lines, sha256 of the text
FILES = {
    "train.en": ("raw/train.en.gz", 29000, "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
    "train.de": ("raw/train.de.gz", 29000, "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72"),
    "val.en": ("raw/val.en.gz", 1014, "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227"),
    "val.de": ("raw/val.de.gz", 1014, "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660"),
    "test_2016_flickr.en": (
        "raw/test_2016_flickr.en.gz",
        1000,
        "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    ),
    "test_2016_flickr.de": (
        "raw/test_2016_flickr.de.gz",
        1000,
        "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    ),
    "test_2016_flickr.lc.norm.tok.de": (
        "tok/test_2016_flickr.lc.norm.tok.de",
        1000,
        "c6a33d39d48f9f510de147651316cd9d918e09ad0219df734a2f16b6baccacc4",
    ),
}


class FetchError(Exception):
    """A file could not be had, or is not what it should be; the message says which, from where, and what to do."""


def fetch(out: Path, local: Path | None, url: str = URL, files: dict[str, tuple[str, int, str]] = FILES) -> list[str]:
    """Bring all `files` into `out`, from the folder `local` or else from `url`; return the names newly written.

    A file that is there and right is kept, a torn or altered one replaced. FetchError when one cannot be had.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (path, num_lines, sha256) in files.items():
        tgt = out / name
        if tgt.exists() and _fault(tgt.read_bytes(), num_lines, sha256) is None:
            continue
        source = f"{url}/{path}" if local is None else str(_local_file(local, name))
        try:
            data = _download(source) if local is None else Path(source).read_bytes()
            text = gzip.decompress(data) if source.endswith(".gz") else data
        except (OSError, EOFError, ValueError, zlib.error, HTTPException) as error:
            fault: str | None = str(error) or type(error).__name__
        else:
            fault = _fault(text, num_lines, sha256)
        if fault is not None:
            raise FetchError(
                f"{name}: cannot use {source}: {fault}\n"
                f"Get {URL}/{path} by other means, put it{', unpacked,' if path.endswith('.gz') else ''} at {tgt} "
                f"and run this again, or name a folder that holds {name} or {name}.gz with --from."
            )
        _write(tgt, text)
        written.append(name)
    return written


def find_local(folder: Path) -> Path:
    """Return the folder with the files: `folder` or the `multi30k-en-de` in it. FetchError when neither has them."""
    for place in (folder / FOLDER, folder):
        if any((place / name).is_file() for name in ("train.en", "train.en.gz")):
            return place
    raise FetchError(
        f"{folder}: neither it nor {folder / FOLDER} holds train.en or train.en.gz; correct --from or S2S_DATA"
    )


def _local_file(folder: Path, name: str) -> Path:
    """Where a local copy keeps a file; the likeliest place, for the message, when it is nowhere."""
    places = [folder / sub / (name + end) for sub in ("", "tok") for end in ("", ".gz")]
    return next((place for place in places if place.is_file()), folder / f"{name}.gz")


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        data: bytes = answer.read()  # raises IncompleteRead when the connection breaks off
    return data


def _fault(text: bytes, num_lines: int, sha256: str) -> str | None:
    """What is wrong with a file's text, or None."""
    found_lines = text.count(b"\n")
    if found_lines != num_lines:
        return f"{found_lines} lines instead of {num_lines}"
    found = hashlib.sha256(text).hexdigest()
    return None if found == sha256 else f"its text has sha256 {found} instead of {sha256}"


def _write(path: Path, text: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def main() -> int:
    """Fetch what is missing; 2 and one message when that fails."""
    parser = argparse.ArgumentParser(description="Put Multi30k English-German into a folder as verified plain text.")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument(
        "--from",
        dest="local",
        type=Path,
        metavar="DIR",
        help=f"local copy: a folder of the files, .gz or plain, or one that holds {FOLDER}/ (default: $S2S_DATA)",
    )
    parser.add_argument(
        "--url", default=URL, help="download from here when there is no local copy (default: %(default)s)"
    )
    args = parser.parse_args()
    local = args.local or (Path(os.environ["S2S_DATA"]) if os.environ.get("S2S_DATA") else None)
    try:
        written = fetch(args.out_dir, find_local(local) if local else None, args.url.rstrip("/"))
    except (FetchError, OSError) as error:
        print(f"multi30k.py: {error}", file=sys.stderr)
        return 2
    print(f"multi30k: {len(FILES)} files in {args.out_dir}, {len(written)} written, all verified", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
