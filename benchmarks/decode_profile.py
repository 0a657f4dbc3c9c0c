#!/usr/bin/env python3
"""Where the time of decoding on a CPU goes: one pass of `decode.py`'s search by one process, by parts of the model and of search.

    python benchmarks/decode_profile.py [--seconds 4] [--out FILE]
    python benchmarks/decode_profile.py --model RUN --src FILE [--patience 0 --patience 1] [--out FILE]

Parts are marked for torch's profiler, and each operator counts for the innermost mark around it; what passes between operators
is Python's, the profiler's own cost included. The softmax of the output layer is told apart. Sentences are as many as take
about `--seconds`, and fill a batch at least. *Steps* are those of search for which a sentence was in the batch; of the pieces of
its output there is one more, its end.
"""

import argparse
import functools
import json
import time
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import decode
import torch
from conditions import ROOT, conditions

from s2s_cli.models import cache, heads, layers, pack, transformer
from s2s_cli.runtime import keep_memory
from s2s_cli.search import rules, strategies
from s2s_cli.search.workers import at_once

MODEL = "its own lengths"
SHAPES = (*decode.SHAPES, MODEL)
WHOLE = ("encoder", "output layer")  # whose inner parts are not told apart
PARTS = [
    ("encoder", transformer.Transformer, "encode"),
    ("products of the decoder", pack.PackedLinear, "forward"),
    ("products of the decoder", pack.Int8Linear, "forward"),
    ("attention", layers, "attend"),
    ("norms", layers.LayerNorm, "forward"),
    ("caches", cache.Cache, "append"),
    ("caches", strategies._Live, "select"),
    ("caches", strategies._Live, "spread"),
    ("output layer", heads.SoftmaxHead, "logp"),
    ("choosing", strategies, "best_of_sums"),
    ("choosing", rules.Rules, "__call__"),
]
MARK, PYTHON, REST, SOFTMAX = "@", "Python", "the rest", "softmax"


class Counter(strategies._Alive):
    """Counts the sentences that stand in batches, at each step once more."""

    steps = 0

    def leaving(self, *arguments: Any, **named: Any) -> torch.Tensor | None:
        """See `_Alive`."""
        Counter.steps += len(self.numbers)
        return super().leaving(*arguments, **named)


def mark(label: str, owner: object, name: str, open_parts: list[str]) -> None:
    """Have the profiler see where a function is at work."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def marked(*args: object, **options: object) -> object:
        if open_parts and open_parts[0] in WHOLE:
            return function(*args, **options)
        open_parts.append(label)
        try:
            with torch.profiler.record_function(MARK + label):
                return function(*args, **options)
        finally:
            open_parts.pop()

    setattr(owner, name, marked)


def shares(profile: torch.profiler.profile) -> dict[str, float]:
    """The part of the time that each of the parts took in operators, and that passed between these."""
    spent: dict[str, float] = defaultdict(float)
    for event in profile.events():
        parent = event
        while parent is not None and not parent.name.startswith(MARK):
            parent = parent.cpu_parent
        label = REST if parent is None else parent.name.removeprefix(MARK)
        label = SOFTMAX if "log_softmax" in event.name else label
        spent[PYTHON if event is parent else label] += event.self_cpu_time_total
    total = sum(spent.values())
    return {label: round(micros / total, 4) for label, micros in sorted(spent.items(), key=lambda item: -item[1])}


def main() -> None:
    """Profile every case, print the shares, write them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--model", type=Path, help="a run or bundle in place of random weights")
    parser.add_argument("--src", type=Path, help="its source text")
    parser.add_argument("--patience", type=float, action="append", help="beam_patience, may be given several times (0)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "decode_profile.json")
    options = parser.parse_args()
    about = {"benchmark": "decode_profile"} | conditions(["s2s-cli", "torch"])
    torch.set_num_threads(1)
    keep_memory()
    open_parts: list[str] = []
    for label, owner, name in PARTS:
        mark(label, owner, name, open_parts)
    strategies._Alive = Counter
    rows = []
    for shape, beam, precision, patience in product(SHAPES, (1, 5), decode.DTYPES, options.patience or [0.0]):
        if (options.model is None) == (shape == MODEL) or (patience and beam == 1):
            continue
        case = argparse.Namespace(
            shape=shape, beam=beam, precision=precision, sentences=4000, threads=1, patience=patience
        )
        case.model, case.src = options.model, options.src
        model, sources, specials, settings = decode.sentences(case)
        run = decode.ours(model, case, specials, settings)
        some = sources[:: len(sources) // 100]
        run(some)
        begun = time.perf_counter()
        run(some)
        num = int(len(some) * options.seconds / (time.perf_counter() - begun))
        positions = sum(map(len, some)) / len(some) * beam
        num = max(num, int(at_once("cpu", beam > 1, model.settings.dim, decode.DTYPES[precision]) / positions) + 1)
        chosen = sources[:: max(1, len(sources) // num)]
        with torch.profiler.profile() as profile, torch.profiler.record_function(MARK + REST):
            Counter.steps = 0
            outputs = run(chosen)
        row = {"shape": shape, "beam": beam, "precision": precision, "patience": patience, "sentences": len(chosen)}
        row |= {
            "steps": round(Counter.steps / len(chosen), 2),
            "pieces": round(sum(map(len, outputs)) / len(chosen), 2),
        }
        rows.append(row | {"shares": shares(profile)})
        print(rows[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
