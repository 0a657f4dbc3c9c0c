#!/usr/bin/env python3
"""Translating beside other toolkits: pieces a second without load, and the time of the whole command with it.

    python benchmarks/translate.py [--shape tiny|base] [--beams 1 5] [--rounds 3] [--engines s2s:bf16 fairseq …] [--json FILE]
    python benchmarks/translate.py --model RUN [--beams 1 5] [--rounds 3]
    python benchmarks/translate.py --lines 1 --beams 5      # how long a start takes

An engine is one below, after a colon its precision (the others are in fp32). Environments and text are those of train.py: the
1,000 captions of Multi30k's test set, or with --lines the first of them. Models know nothing, and are made to write 16 pieces a
line; every engine loads its own, of the same shape. With --model, ours and CTranslate2 translate by that run, with outputs of
their own length. In each round all translate in turn, each in a fresh process with two threads, batches of 64 sentences of like
length where the engine asks for a size, or for CTranslate2 those that decode.py found fastest. The time of the whole command is
the wall clock's, from start to end. Of it, what passes in search counts for the speed; for ours and CTranslate2, as for some of
the others, splitting text into pieces and joining them is a part of it.
"""

import argparse
import json
import shutil
import signal
import statistics
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from conditions import ROOT, conditions
from peers.clock import SHAPES, Task
from peers.environments import OURS, default_folder, install, run, versions
from peers.text import prepare

ENGINES = (*(f"s2s:{precision}" for precision in ("fp32", "bf16", "int8")), "ctranslate2:fp32", "ctranslate2:int8")
ENGINES += ("fairseq", "opennmt", "eole", "transformers")
Row = dict[str, Any]


def cut(text: Path, num: int) -> Path:
    """A copy of the text whose test part is so many lines."""
    found = text.with_name(f"{text.name}-{num}")
    shutil.rmtree(found, ignore_errors=True)
    shutil.copytree(text, found, ignore=shutil.ignore_patterns("start"))
    for path in (*found.glob("raw/test_*"), *found.glob("pieces/test.*")):
        with open(path, "r+", encoding="utf-8", newline="") as file:
            kept = "".join(islice(file, num))
            file.seek(0)
            file.write(kept)
            file.truncate()
    return found


def task_of(engine: str, options: argparse.Namespace, text: Path, **fields: Any) -> Task:
    """What a process of an engine is to do."""
    name, _, precision = engine.partition(":")
    shape = "model" if options.model else options.shape
    work = (options.folder / "work" / "translate" / f"{shape}{options.lines or ''}").resolve()
    return Task(
        peer=name,
        shape=options.shape,
        text=str(text.resolve()),
        work=str(work / name),
        threads=options.threads,
        precision=precision or "fp32",
        model=str(options.model.resolve() if options.model else work / "s2s" / "run") if name in OURS else "",
        fixed=options.model is None,
        **fields,
    )


def summary(rows: list[Row]) -> list[Row]:
    """Median and range of each engine at each beam."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["engine"], row["beam"]), []).append(row)
    found = []
    for (engine, beam), of_it in sorted(groups.items(), key=lambda item: (item[0][1], ENGINES.index(item[0][0]))):
        summed: Row = {"engine": engine, "beam": beam, "rounds": len(of_it)}
        for key in ("pieces_per_second", "whole_seconds", "peak_mb"):
            values = [row[key] for row in of_it]
            summed[key] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        found.append(summed)
    return found


def ratios(engines: list[Row]) -> list[Row]:
    """Ours at each precision and beam beside the best of the toolkits in PyTorch: in pieces a second, and in whole commands."""
    found = []
    for row in engines:
        others = [
            other for other in engines if other["beam"] == row["beam"] and other["engine"].partition(":")[0] not in OURS
        ]
        if row["engine"].startswith("s2s:") and others:
            fast = max(others, key=lambda other: other["pieces_per_second"]["median"])
            short = min(others, key=lambda other: other["whole_seconds"]["median"])
            speed = row["pieces_per_second"]["median"] / fast["pieces_per_second"]["median"]
            whole = short["whole_seconds"]["median"] / row["whole_seconds"]["median"]
            found.append(
                {"engine": row["engine"], "beam": row["beam"], "speed": round(speed, 2), "beside": fast["engine"]}
            )
            found[-1] |= {"whole": round(whole, 2), "whole_beside": short["engine"]}
    return found


def main() -> None:
    """Install, make models, measure round by round, and write the result after each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[name for name, shape in SHAPES.items() if shape.heads], default="tiny")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, metavar="ENGINE", help=", ".join(ENGINES))
    parser.add_argument("--model", type=Path, help="a run of ours, or a bundle, in place of models that know nothing")
    parser.add_argument("--lines", type=int, help="of the test text (all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=900, help="seconds that one process may take")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="environments, text, files of toolkits")
    parser.add_argument(
        "--json",
        type=Path,
        help="default: benchmarks/results/translate_SHAPE.json, or translate_model.json, and the lines",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it has begun ends with it
    made = conditions(["s2s-cli", "torch", "numpy", "ctranslate2"])
    engines = options.engines or [e for e in ENGINES if options.model is None or e.partition(":")[0] in OURS]
    names = dict.fromkeys(engine.partition(":")[0] for engine in engines)
    for name in names:
        install(options.folder, name)
    text = prepare(options.folder)
    if options.lines:
        text = cut(text, options.lines)
    for name in dict.fromkeys(["s2s", *names]):  # ours first: CTranslate2 has its weights
        if name != "s2s" or options.model is None:
            task = task_of(name, options, text, begin=True)
            shutil.rmtree(task.work, ignore_errors=True)
            run(options.folder, task, options.limit)
    name = f"translate_{'model' if options.model else options.shape}{f'_{options.lines}' if options.lines else ''}.json"
    path, rows = options.json or ROOT / "benchmarks" / "results" / name, []
    for number in range(1, options.rounds + 1):
        for beam in options.beams:
            for engine in engines:
                found = run(options.folder, task_of(engine, options, text, beam=beam), options.limit)
                speed = round(found["pieces"] / found["seconds"], 1)
                rows.append({"engine": engine, "beam": beam, "round": number, **found, "pieces_per_second": speed})
                print(json.dumps(rows[-1]), flush=True)
        summed = summary(rows)
        result = {
            "benchmark": "translate_lines" if options.lines else "translate",
            **made,
            "shape": "its own lengths" if options.model else asdict(SHAPES[options.shape]),
            "threads": options.threads,
            "lines": options.lines,
            "toolkits": {name: versions(options.folder, name) for name in names},
            "engines": summed,
            "ratios": ratios(summed),
            "rows": rows,
        }
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in result["ratios"]:
        print(row, file=sys.stderr)


if __name__ == "__main__":
    main()
