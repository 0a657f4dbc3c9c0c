#!/usr/bin/env python3
"""What each lever of search on a CPU is worth: the speed with it over that without, all else as `translate` has it.

    python benchmarks/levers.py [--model RUN --src FILE] [--shapes tiny base] [--threads 1] [--turns 3] [--out FILE]

Random weights of `decode.py`'s shapes, 16 pieces of each output; with a model, its own outputs of FILE's lines, where sentences
end at different times. One engine has the lever, the other has not, and they take turns (A B A B ...): a ratio is the median of
those of the turns. Whether both find the same outputs is told too. *processes* compares two processes of one thread with one
process of two threads, and wants two cores.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import decode
import torch
from conditions import conditions
from torch import Tensor

from s2s_cli.config import TransformerSettings
from s2s_cli.models import cache, pack, products
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.transformer import DecoderLayer, Transformer, _filled
from s2s_cli.runtime import keep_memory
from s2s_cli.search import strategies
from s2s_cli.search.workers import _NARROW

Change = Callable[[], Any]  # a context in which a lever is not there


class Full(cache.Buffer):
    """A buffer that has no room: whoever goes on writes another."""

    used = property(lambda self: -1, lambda self, num: None)  # type: ignore[assignment]


def computed_each_time(advance: Callable[..., Any] = Transformer.advance) -> Any:
    """Keys and values of the encoder memory are made anew at each step."""

    def anew(model: Transformer, tokens: Tensor, memory: Any, *rest: Any) -> Any:
        cross = tuple(_filled(*layer.cross_attention.keys_values(memory.states)) for layer in model.decoder)
        return advance(model, tokens, replace(memory, cross=cross), *rest)

    return patch.object(Transformer, "advance", anew)


def read_by_each(forward: Callable[..., Any] = DecoderLayer.forward) -> Any:
    """Each hypothesis has a copy of the keys and values of its sentence, made when sentences begin or leave the batch."""

    known: dict[int, tuple[Any, ...]] = {}  # by layer: the tensors, and their copies

    def alone(layer: DecoderLayer, x: Tensor, past: Any, order: Any, cross: Any, bias: Tensor, *rest: Any) -> Any:
        num, (k, v) = x.shape[0] // cross[0].shape[0], cross
        if id(layer) not in known or known[id(layer)][0] is not k or known[id(layer)][1] != num:
            known[id(layer)] = (k, num, *(tensor.repeat_interleave(num, dim=0) for tensor in (k, v, bias)))
        k, v, bias = known[id(layer)][2:]
        return forward(layer, x, past, order, (k, v), bias, *rest)

    return patch.object(DecoderLayer, "forward", alone)


LEVERS: dict[str, Change] = {  # name -> what takes it away, for one process
    "weights packed for oneDNN": lambda: patch.object(decode, "pack", lambda model, *_: model),
    "attention of a beam and of the encoder by oneDNN": lambda: patch.object(
        products, "multiplies_batches", lambda: False
    ),
    "attention of a beam and of the encoder in bf16": lambda: patch.object(pack, "_WIDE_HEAD", math.inf),
    "cross-attention's keys and values computed once": computed_each_time,
    "cross-attention's keys and values shared by a beam": read_by_each,
    "caches with room for more": lambda: patch.object(cache, "Buffer", Full),
    "caches stay in place in a beam": lambda: patch.object(cache, "_WIDEST", 0),
    "top-k by chunks": lambda: patch.object(strategies, "_CHUNK", 0),
    "those that are done leave the batch": lambda: patch.object(strategies, "_FULL", 0.0),
    "more positions at once for a narrow beam": lambda: patch.object(decode, "at_once", lambda *_: 4096),
}
ONLY_FP32 = ("weights packed for oneDNN", "attention of a beam and of the encoder by oneDNN")
ONLY_INT8 = ("attention of a beam and of the encoder in bf16",)
ONLY_BEAM = (
    "cross-attention's keys and values shared by a beam",
    "caches stay in place in a beam",
    "more positions at once for a narrow beam",
)
ONLY_NARROW = ("more positions at once for a narrow beam",)
ONLY_OWN_LENGTHS = ("those that are done leave the batch",)


class Pair:
    """Two engines over the same sentences, of which the first has the lever."""

    def __init__(self, ours: decode.Engine, without: decode.Engine, change: Change | None, sources: decode.Batch):
        self.ours, self.without, self.change, self.sources = ours, without, change, sources

    def turn(self) -> tuple[float, float, float]:
        """Seconds with the lever and without it, and the part of the outputs that are the same."""
        begun = time.perf_counter()
        ours = self.ours(self.sources)
        between = time.perf_counter()
        with self.change() if self.change else ExitStack():
            theirs = self.without(self.sources)
        ended = time.perf_counter()
        same = sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours)
        return between - begun, ended - between, same


def pairs(options: argparse.Namespace) -> Iterator[tuple[str, Pair]]:
    """Every lever that there is for a case, by name."""
    model, sources, specials, settings = decode.sentences(options)
    engine = lambda: decode.ours(model, options, specials, settings)  # noqa: E731
    for name, change in LEVERS.items():
        if (name in ONLY_BEAM and options.beam == 1) or (name in ONLY_OWN_LENGTHS and options.model is None):
            continue
        if name in (ONLY_INT8 if options.precision == "fp32" else ONLY_FP32):
            continue
        if name in ONLY_NARROW and model.settings.dim > _NARROW:
            continue
        with change():
            without = engine()
        yield name, Pair(engine(), without, change, sources)
    if options.beam == 1:
        yield (
            "no softmax, and no end, where no score is asked for",
            Pair(engine(), decode.ours(model, options, specials, settings, scores=True), None, sources),
        )
    if options.model is None:
        of_ssru = TransformerSettings(**decode.SHAPES[options.shape], autoregression="ssru")
        ssru = build_model(of_ssru, Sizes(decode.VOCAB, decode.VOCAB, True)).eval()
        yield (
            "SSRU in place of self-attention (another model)",
            Pair(decode.ours(ssru, options, specials, settings), engine(), None, sources),
        )
    else:
        patient = settings.model_copy(update={"beam_patience": 1.0})
        if options.beam > 1:
            yield (
                "beam_patience 1 in place of the exact stop",
                Pair(decode.ours(model, options, specials, patient), engine(), None, sources),
            )


def processes(options: argparse.Namespace) -> Pair:
    """Two processes of one thread beside one process of two."""
    model, sources, specials, settings = decode.sentences(options)
    one, two = (argparse.Namespace(**{**vars(options), "threads": num}) for num in (1, 2))
    alone = decode.ours(model, one, specials, settings)

    def threads(batch: decode.Batch) -> list[list[int]]:
        torch.set_num_threads(2)
        try:
            return alone(batch)
        finally:
            torch.set_num_threads(1)

    return Pair(decode.ours(model, two, specials, settings), threads, None, sources)


def main() -> None:
    """Measure every lever in every case, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="a run or bundle in place of random weights")
    parser.add_argument("--src", type=Path, help="its source text")
    parser.add_argument("--shapes", nargs="+", choices=decode.SHAPES, default=list(decode.SHAPES))
    parser.add_argument("--threads", type=int, default=1, help="2: measure the processes too")
    parser.add_argument("--sentences", type=int, default=400, help="a quarter of them for base")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    about = {"benchmark": "levers"} | conditions(["s2s-cli", "torch"])
    torch.set_num_threads(1)
    keep_memory()
    rows = []
    for shape in ["model"] if options.model else options.shapes:
        for beam in (1, 5):
            for precision in ("fp32", "int8"):
                num = options.sentences // (4 if shape == "base" else 1)
                case = argparse.Namespace(
                    shape=shape, beam=beam, precision=precision, sentences=num, threads=1, patience=0.0,
                    model=options.model, src=options.src,
                )  # fmt: skip
                every = dict(pairs(case))
                if options.threads > 1:  # all sentences, since few are one batch, which no other process gets
                    case.sentences = options.sentences
                    every["processes rather than threads"] = processes(case)
                for name, pair in every.items():
                    turns = [pair.turn() for _ in range(options.turns + 1)][1:]
                    ratios = [without / ours for ours, without, _ in turns]
                    row = {"shape": shape, "beam": beam, "precision": precision, "lever": name}
                    row |= {"ratio": round(statistics.median(ratios), 3), "min": round(min(ratios), 3)}
                    row |= {"max": round(max(ratios), 3), "same outputs": turns[-1][2], "sentences": len(pair.sources)}
                    rows.append(row)
                    print(row, flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
