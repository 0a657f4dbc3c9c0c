"""What both parts share: shapes, models with the same weights, a clock that waits for the device, turns, and who falls out."""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peers.clock import Shape
from peers.transformers import PAD, START, UNK, begin_as_ours, build
from torch import Tensor

from s2s_cli.config import TransformerSettings
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.transformer import Transformer

SHAPES = {
    "base": Shape("transformer", 6, 512, 8, 2048, warm_up=0, updates=0, dropout=0.1),
    "big": Shape("transformer", 6, 1024, 16, 4096, warm_up=0, updates=0, dropout=0.1),
    "smoke": Shape("transformer", 2, 32, 4, 64, warm_up=0, updates=0, dropout=0.1),
}
VOCAB, MEAN, LONGEST = 32_000, 28, 100  # pieces; of a sentence, in the mean and at most
Row = dict[str, Any]
Ids = list[list[int]]
BEGUN = time.monotonic()


def first_model(shape: str) -> Transformer:
    """Ours with first weights, its norms where Marian's are, on the host. It never says what search forbids."""
    size = SHAPES[shape]
    settings = TransformerSettings(
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        dim=size.dim,
        heads=size.heads,
        ffn_dim=size.ffn_dim,
        dropout=size.dropout,
        norm="post",
    )
    torch.manual_seed(1)
    model = build_model(settings, Sizes(VOCAB, VOCAB, True))
    with torch.no_grad():
        model.head.bias[[PAD, UNK, START]] = -1e4
    return model


def marian(shape: str, model: Transformer, device: torch.device) -> torch.nn.Module:
    """MarianMTModel with the weights of ours."""
    theirs = build(SHAPES[shape], VOCAB)
    begin_as_ours(theirs, {name: weight.clone() for name, weight in model.state_dict().items()})
    assert theirs.config._attn_implementation == "sdpa"
    return theirs.to(device)


def padded(rows: Ids) -> Tensor:
    """Rows as one tensor."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def now(device: torch.device) -> float:
    """The time when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def spread(values: list[float], digits: int = 0) -> dict[str, float]:
    """As tables want it."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def all_made(make: Callable[[str], Any], options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """The engines by name, and why those that are missing are."""
    engines: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in options.engine:
        with noted(failed, name):
            engines[name] = make(name)
    return engines, failed


def in_turns(
    engines: dict[str, Any], turn: Callable[[str, bool], None], options: argparse.Namespace, warm_ups: int = 1
) -> dict[str, str]:
    """Call `turn` for each engine, round by round, first to warm up; why those that fell out did."""
    failed: dict[str, str] = {}
    for number in range(-warm_ups, options.rounds):
        for name in [name for name in engines if name not in failed]:
            with noted(failed, name):
                if number == -warm_ups and late(options):
                    raise TimeoutError("no time was left")
                begun = time.monotonic()
                turn(name, number < 0)
                what = f"round {number + 1}" if number >= 0 else "warm-up"  # of minutes, where much is compiled
                print(f"{name}, {what}: {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
            gc.collect()
        if number >= 0 and late(options):
            break
    return failed


@contextmanager
def noted(failed: dict[str, str], name: str) -> Iterator[None]:
    """What goes wrong in an engine ends it, and not the others."""
    try:
        yield
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {str(error).strip()[:300]}"
        print(f"{name}: {failed[name]}", file=sys.stderr, flush=True)


def late(options: argparse.Namespace) -> bool:
    """Whether no more is to be begun."""
    return time.monotonic() - BEGUN > options.limit
