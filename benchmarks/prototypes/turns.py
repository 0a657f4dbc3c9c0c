"""What all prototypes share: cases, turns with one and without, and how many outputs are the same."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any


def case(options: argparse.Namespace, shape: str, beam: int, precision: str) -> argparse.Namespace:
    """As `decode.py` has its options."""
    num = options.sentences // (4 if shape == "base" else 1)
    fields = {"shape": shape, "beam": beam, "precision": precision, "sentences": num, "threads": 1, "patience": 0.0}
    return argparse.Namespace(**fields, model=options.model, src=options.src)


def cases(options: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Shape, beam, precision."""
    shapes = ["model"] if options.model else options.shapes
    yield from product(shapes, (1, 5), options.precisions)


def turns(one: Callable[[], Any], other: Callable[[], Any], num: int) -> tuple[dict[str, float], Any, Any]:
    """Speed of `one` over that of `other`, in turns after a first of each to warm up; and what they returned last."""
    ratios = []
    for _ in range(num + 1):
        begun = time.perf_counter()
        ours = one()
        between = time.perf_counter()
        theirs = other()
        ratios.append((time.perf_counter() - between) / (between - begun))
    ratios = ratios[1:]
    median, low, high = (round(of(ratios), 3) for of in (statistics.median, min, max))
    return {"ratio": median, "min": low, "max": high}, ours, theirs


def same(ones: list[list[int]], others: list[list[int]]) -> float:
    """The part of the outputs that are the same."""
    return round(sum(a == b for a, b in zip(ones, others, strict=True)) / len(ones), 3)
