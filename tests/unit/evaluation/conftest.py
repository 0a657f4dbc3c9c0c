"""Text to score: references, and systems that are wrong about them to a known degree."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

_TEXT = (
    "the a small old red house dog cat runs sleeps under over near table river it's well-known 3.5 (see) Berlin Café "
    'über Straße 中国 の говорит , ; "quoted" &amp; e.g. ,000 U.S.'
)
_WORDS = _TEXT.split()


@pytest.fixture(scope="session")
def refs() -> list[str]:
    """Seventy lines with marks, scripts and numbers on which tokenizers disagree; one line is empty."""
    rng = random.Random(5)
    lines = [" ".join(rng.choices(_WORDS, k=rng.randint(1, 18))) + rng.choice([".", " !", "?", ""]) for _ in range(70)]
    lines[7] = ""
    return lines


@pytest.fixture(scope="session")
def noisy(refs: list[str]) -> Callable[[float, int], list[str]]:
    """A function (rate of errors, seed) that gives a system's output; some of its lines are empty."""

    def make(rate: float, seed: int) -> list[str]:
        rng = random.Random(seed)
        out = []
        for line in refs:
            words = []
            for word in line.split():
                if rng.random() >= rate:
                    words.append(word)
                elif rng.random() < 0.6:
                    words.append(rng.choice(_WORDS).title())
            if rng.random() < rate and len(words) > 2:
                words[0], words[-1] = words[-1], words[0]
            out.append(" ".join(words))
        out[3] = out[7] = ""
        return out

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, list[str]], str]:
    """Write lines to a file of this name and return its path."""

    def put(name: str, lines: list[str]) -> str:
        (tmp_path / name).write_bytes("".join(line + "\n" for line in lines).encode())
        return str(tmp_path / name)

    return put
