"""Text, files and folders that the tests of this room make and compare."""

import random
from pathlib import Path

from s2s_cli.config import PreprocessSettings

WORDS = [
    "the",
    "a",
    "dog",
    "cat",
    "sees",
    "hears",
    "house",
    "tree",
    "green",
    "small",
    "old",
    "runs",
    "sleeps",
    "and",
    "but",
    "über",
    "Straße",
    "naïve",
    "犬",
    "🙂",
]


def sentences(num: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(num)]


def write(path: Path, lines: list[str]) -> Path:
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return path


def content(folder: Path) -> dict[str, bytes]:
    """All files but the two that name the settings."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def beside(settings: PreprocessSettings) -> set[str]:
    return {path.name for path in settings.out.parent.iterdir()} - {
        f"{s}.{t}" for s in ("train", "valid") for t in ("src", "tgt")
    }
