#!/usr/bin/env python3
"""Time of significance tests by metric, and of `s2s score` as a command.

    python benchmarks/score.py [--ref FILE --systems FILE ...] [--lines N] [--num-systems N] [--resamples N] [--json FILE]

Without --ref the text is made up: sentences of words whose frequencies fall as in natural text (Zipf), as references; and
systems that drop, replace and swap some of their words, each at another rate. With files, their lines are repeated or cut to
--lines, and --num-systems is as many as there are files. For each metric it measures, in this process,

- statistics: of every line of every system, computed once, the analysis of the references included;
- bootstrap: intervals of all systems, and p-values of all against the first;
- randomization: p-values of all systems against the first, by as many trials;

then `s2s score` as a command, start included, over one system and --command-lines lines: by BLEU, by all metrics, with
intervals, and with the analysis page. Times are seconds, the best of --repeats runs.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from conditions import ROOT, conditions

from s2s_cli.config import METRICS, ScoreSettings
from s2s_cli.data.corpus import read_lines
from s2s_cli.evaluation.compare import results
from s2s_cli.evaluation.metrics import Metric, build_metric

PACKAGES = ("numpy", "sacrebleu", "rouge-score", "regex")
Row = dict[str, float]


def made_up(num_lines: int, num_systems: int) -> tuple[list[str], dict[str, list[str]]]:
    """References of 5 to 30 words, and systems that are wrong about 10 % of the words and more."""
    rng = random.Random(1)
    words = sorted({"".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(8000)})
    rng.shuffle(words)
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    refs = [" ".join(rng.choices(words, cum_weights=weights, k=rng.randint(5, 30))) + "." for _ in range(num_lines)]
    systems = {}
    for number in range(num_systems):
        rate = 0.1 + 0.05 * number
        systems[f"system {number + 1}"] = [_wrong(line.split(" "), rate, words, rng) for line in refs]
    return refs, systems


def _wrong(line: list[str], rate: float, words: list[str], rng: random.Random) -> str:
    kept = [rng.choice(words) if rng.random() < rate else word for word in line if rng.random() > rate / 3]
    if len(kept) > 3 and rng.random() < rate:
        i = rng.randrange(len(kept) - 2)
        kept[i], kept[i + 2] = kept[i + 2], kept[i]
    return " ".join(kept)


def repeated(path: Path, num_lines: int) -> list[str]:
    """The first lines of a text; again from its beginning where it is shorter."""
    lines = list(read_lines(path))
    return [lines[i % len(lines)] for i in range(num_lines)]


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Wall-clock time of the fastest run."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return round(min(times), 3)


def time_tests(refs: list[str], systems: dict[str, list[str]], resamples: int, repeats: int) -> dict[str, Row]:
    """Seconds by metric and test."""
    print(f"{'metric':12}{'statistics':>15}{'bootstrap':>15}{'randomization':>15}")
    times: dict[str, Row] = {}
    for name in METRICS:
        metric, stats, row = time_statistics(name, refs, systems, repeats)
        for paired in ("bootstrap", "randomization"):
            options = ScoreSettings(paired=paired, resamples=resamples)
            row[paired] = seconds(partial(results, list(systems), metric, stats, options), repeats)
        times[name] = row
        print(f"{name:12}" + "".join(f"{value:15.2f}" for value in row.values()), flush=True)
    return times


def time_statistics(
    name: str, refs: list[str], systems: dict[str, list[str]], repeats: int
) -> tuple[Metric, list[np.ndarray], Row]:
    """The metric, its statistics of all systems, and the seconds that they took."""

    def compute() -> tuple[Metric, list[np.ndarray]]:
        metric = build_metric(name, [refs], ScoreSettings())
        return metric, [metric.statistics(hyps) for hyps in systems.values()]

    return *compute(), {"statistics": seconds(compute, repeats)}


def time_command(refs: list[str], hyps: list[str], repeats: int) -> Row:
    """Seconds of whole commands over one system."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in {"ref": refs, "hyp": hyps}.items():
            Path(folder, name).write_bytes("".join(line + "\n" for line in lines).encode())
        for flags in (["--bleu"], [], ["--confidence"], ["--analyze", "page.html"]):
            command = [sys.executable, "-m", "s2s_cli", "score", "-i", "hyp", "-r", "ref", *flags]
            shown = " ".join(["s2s score", *flags])
            run = partial(subprocess.run, command, cwd=folder, check=True, capture_output=True)
            times[shown] = seconds(run, repeats)
            print(f"{shown:32}{times[shown]:10.2f}", flush=True)
    return times


def main() -> None:
    """Measure, print a table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ref", type=Path, help="reference text")
    parser.add_argument("--systems", type=Path, nargs="+", help="outputs to score against it")
    parser.add_argument("--lines", type=int, default=3000)
    parser.add_argument("--num-systems", type=int, default=5, help="how many to make up")
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--command-lines", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "score.json")
    options = parser.parse_args()
    made = conditions(PACKAGES)
    if bool(options.ref) != bool(options.systems):
        parser.error("name --ref and --systems, or neither")
    most = max(options.lines, options.command_lines)
    if options.ref:
        refs = repeated(options.ref, most)
        systems = {str(path): repeated(path, most) for path in options.systems}
    else:
        refs, systems = made_up(most, options.num_systems)

    print(f"{options.resamples:,} resamples of {options.lines:,} lines, {len(systems)} systems; seconds")
    cut = {name: hyps[: options.lines] for name, hyps in systems.items()}
    tests = time_tests(refs[: options.lines], cut, options.resamples, options.repeats)
    print(f"\n{options.command_lines:,} lines, 1 system; seconds")
    num = options.command_lines
    commands = time_command(refs[:num], next(iter(systems.values()))[:num], options.repeats)
    result = {
        "benchmark": "score",
        **made,
        "text": "files" if options.ref else "made up",
        "resamples": options.resamples,
        "lines": options.lines,
        "systems": len(systems),
        "tests": tests,
        "command_lines": options.command_lines,
        "commands": commands,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
