#!/usr/bin/env python3
"""How many outputs rounding flips: the same lines in batches of other sizes, in another order, by other numbers of processes.

    python benchmarks/rounding.py --model RUN --src FILE [--ref FILE] [--lines 10000] [--beam 1 --beam 5] [--out FILE]

Every matrix product rounds, and may round otherwise at another shape; where two pieces are almost equally likely, that flips
the choice. For each arithmetic, FILE is translated by `translate`'s own path in one way, then in others, and the lines that
differ are counted. Beside them, those that differ from fp32, and BLEU, without case, of the lines that
FILE's reference has.
"""

import argparse
import json
import random
from pathlib import Path

from conditions import conditions

from s2s_cli.checkpoint.bundle import open_model
from s2s_cli.config import RuntimeSettings, ScoreSettings, SearchSettings
from s2s_cli.data.corpus import read_lines
from s2s_cli.evaluation.score import corpus_score
from s2s_cli.search.translator import Translator

# name: (threads, positions searched at once, if not as translate chooses, are lines shuffled, and is each searched alone)
WAYS: dict[str, tuple[int, int | None, bool, bool]] = {
    "2 processes": (2, None, False, False),
    "1 process": (1, None, False, False),
    "small batches": (2, 300, False, False),
    "large batches": (1, 20000, False, False),
    "shuffled": (2, None, True, False),
    "each alone": (1, None, False, True),
    "each alone, 2 threads": (2, None, False, True),
}


def translated(model: Path, beam: int, precision: str, lines: list[str], way: str) -> list[str]:
    """The lines' outputs, made in that way, in their own order."""
    threads, search_tokens, shuffled, alone = WAYS[way]
    runtime = RuntimeSettings(device="cpu", precision=precision, threads=threads)
    translator = Translator(model, search=SearchSettings(beam=beam, search_tokens=search_tokens), runtime=runtime)
    order = list(range(len(lines)))
    if shuffled:
        random.Random(1).shuffle(order)
    parts = [[i] for i in order] if alone else [order]
    found = {}
    for part in parts:
        found |= zip(part, translator.translate([lines[i] for i in part]), strict=True)
    translator.workers.close()
    return [found[i] for i in range(len(lines))]


def differing(ones: list[str], others: list[str]) -> int:
    """In how many lines."""
    return sum(a != b for a, b in zip(ones, others, strict=True))


def main() -> None:
    """Translate in all ways, print how many lines differ, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--src", type=Path, required=True)
    parser.add_argument("--ref", type=Path, help="references of as many lines of FILE, from the first on, as it has")
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--beam", type=int, action="append", help="may be given several times (1 and 5)")
    parser.add_argument("--precision", action="append", choices=("fp32", "bf16", "int8"), help="(all)")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    about = {"benchmark": "rounding"} | conditions(["s2s-cli", "torch"])
    lines = list(read_lines(options.src))[: options.lines]
    refs = list(read_lines(options.ref)) if options.ref else []
    shape = open_model(options.model).model
    model = f"{shape.family}, {shape.dim} wide"
    results = []
    for beam in options.beam or (1, 5):
        exact: list[str] = []
        for precision in options.precision or ("fp32", "bf16", "int8"):
            usual, *others = WAYS
            first = translated(options.model, beam, precision, lines, usual)
            exact = exact or first
            row = {"model": model, "beam": beam, "precision": precision, "lines": len(lines)}
            row["unlike fp32"] = differing(first, exact)
            row |= {
                f"flipped, {way}": differing(first, translated(options.model, beam, precision, lines, way))
                for way in others
            }
            if refs:
                row["bleu"] = corpus_score("bleu", first[: len(refs)], [refs], ScoreSettings(lowercase=True)).value
            print(row, flush=True)
            results.append(row)
    if options.out:
        ways = {
            name: dict(zip(("threads", "search_tokens", "shuffled", "alone"), way, strict=True))
            for name, way in WAYS.items()
        }
        result = about | {"ways": ways, "results": results}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
