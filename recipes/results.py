#!/usr/bin/env python3
"""What a recipe writes down of a full run: scores with signatures, and what someone needs to make them again.

    python recipes/results.py --src TEXT --refs TEXT... --flags '--bleu --chrf' NAME=OUTPUT[,RUN...] ...

scores the outputs with `s2s score`, prints a table, and writes results.json (or `--output`). `NAME` is what the table calls a
system, `RUN` a run folder that it was made by. Paired tests are against the first system; `--pairs NAME:BASELINE ...` makes more
of them, of those whose outputs are there. Recipes whose table is another one import the functions.
"""

import argparse
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml


def score(outputs: Sequence[str], refs: Sequence[str], *flags: str) -> list[list[dict[str, Any]]]:
    """What `s2s score --json` says of each output: a list of scores, each with name, score and signature."""
    named = [*(f for path in outputs for f in ("-i", path)), *(f for path in refs for f in ("-r", path))]
    done = subprocess.run(["s2s", "score", "--json", *named, *flags], stdout=subprocess.PIPE, check=True)
    systems = {system["system"]: system["scores"] for system in json.loads(done.stdout)["systems"]}
    return [systems[path] for path in outputs]


def paired(pairs: Sequence[str], outputs: dict[str, str], refs: Sequence[str], *flags: str) -> list[dict[str, Any]]:
    """How far a system is from another, with p-values of a paired test of the two, for each NAME:BASELINE that is there."""
    found = []
    for name, _, baseline in (pair.partition(":") for pair in pairs):
        if name in outputs and baseline in outputs:
            before, after = score([outputs[baseline], outputs[name]], refs, *flags)
            scores = [
                {
                    "name": b["name"],
                    "difference": b["score"] - a["score"],
                    "p_value": b["p_value"],
                    "signature": b["signature"],
                }
                for a, b in zip(before, after, strict=True)
            ]
            found.append({"system": name, "baseline": baseline, "scores": scores})
    return found


def text_facts(paths: Iterable[str]) -> dict[str, Any]:
    """Where the recipe had its text from, and which text was scored: lines and sha256 of sources and references."""
    files = {path: Path(path).read_bytes() for path in paths}
    return {
        "from": os.environ.get("S2S_ORIGIN", ""),
        "test": {
            path: {"lines": text.count(b"\n"), "sha256": hashlib.sha256(text).hexdigest()}
            for path, text in files.items()
        },
    }


def _trained_on(settings: dict[str, Any]) -> dict[str, Any]:
    """The dataset of a run: its folder, the sha256 of its manifest, and the pairs that `s2s preprocess` dropped, by reason."""
    data, drops, count = settings["data"], "train.drops.", ".count"
    return {
        "folder": settings["train"]["data"],
        "sha256": data["sha256"],
        "pairs": data["train.pairs"],
        "kept": data["train.kept"],
        "dropped": {
            key.removeprefix(drops).removesuffix(count): value
            for key, value in data.items()
            if key.startswith(drops) and key.endswith(count)
        },
    }


def run_facts(run: Path) -> dict[str, Any]:
    """How long a run was trained and on what, where its best checkpoint was, and with which settings."""
    origin = json.loads((run / "best" / "config.json").read_text())["origin"]
    state = json.loads((run / "last" / "training" / "state.json").read_text())
    settings = yaml.safe_load((run / "config.yaml").read_text())
    begun = run / "commit"
    return {
        "run": str(run),
        **({"commit": begun.read_text().strip()} if begun.exists() else {}),
        "seed": settings["train"]["seed"],
        "updates": state["update"],
        "epochs": state["position"][0],
        "target_tokens": state["num_tokens"],
        "seconds": round(state["seconds"]),
        "best": {key: value for key, value in origin.items() if key != "metric"},
        "data": _trained_on(settings),
        "settings": {key: value for key, value in settings.items() if key in ("model", "train", "noise", "search")},
    }


def machine() -> str:
    """The processor's name and its number of cores, and the graphics card if training may have used one."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n") if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
    try:
        cards = _said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    except (OSError, subprocess.CalledProcessError):
        return cores
    return "; ".join([cores, *cards.split("\n")])


def commit() -> str:
    """The commit of the checkout, marked where files have changed since; empty outside a checkout."""
    here = str(Path(__file__).parent)
    try:
        changed = _said("git", "-C", here, "status", "--porcelain", "--untracked-files=no")
        return _said("git", "-C", here, "rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def write(systems: list[dict[str, Any]], texts: Iterable[str], path: Path = Path("results.json"), **more: Any) -> None:
    """Write the file: how it was made and of which test `texts`, then `more`, then a record a system."""
    made = {
        "command": os.environ.get("S2S_RECIPE", shlex.join(sys.argv)),
        "commit": commit(),
        "machine": machine(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "data": text_facts(texts),
    }
    path.write_text(json.dumps(made | more | {"systems": systems}, indent=1, ensure_ascii=False) + "\n")
    print(f"written to {path.resolve()}", file=sys.stderr)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows as Markdown, numbers with two digits."""
    cells = [headers] + [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(headers))]
    for n, row in enumerate(cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if n == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def difference(found: dict[str, Any]) -> str:
    """A difference as a table shows it: with its p-value."""
    return f"{found['difference']:+.2f} (p {found['p_value']:.4f})"


def cell(score: dict[str, Any]) -> str:
    """A score as a table shows it: with half its interval, and a star where it differs from the first row's."""
    shown = f"{score['score']:.2f}"
    if "interval" in score:
        shown += f" ± {score['interval']['half']:.2f}"
    return shown + ("*" if score.get("significant") else "")


def main() -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser(description="Score outputs, print a table, write results.json.")
    parser.add_argument("systems", nargs="+", metavar="NAME=OUTPUT[,RUN...]")
    parser.add_argument("--src", required=True, help="source text, which results.json has the sha256 of")
    parser.add_argument("--refs", nargs="+", required=True, help="reference texts")
    parser.add_argument("--flags", default="", help="flags of s2s score, in one argument")
    parser.add_argument("--pairs", nargs="+", default=[], metavar="NAME:BASELINE", help="more paired tests")
    parser.add_argument("--output", type=Path, default=Path("results.json"), help="the file to write")
    args = parser.parse_args()
    named = [system.partition("=")[::2] for system in args.systems]
    files = [files.split(",") for _, files in named]
    flags = shlex.split(args.flags)
    if args.pairs and "--paired" not in flags:
        parser.error("--pairs need --paired in --flags")
    scores = score([output for output, *_ in files], args.refs, *flags)
    table(
        ["system", *(s["name"] for s in scores[0])],
        [[name, *map(cell, row)] for (name, _), row in zip(named, scores, strict=True)],
    )
    outputs = {name: output for (name, _), (output, *_) in zip(named, files, strict=True)}
    pairs = paired(args.pairs, outputs, args.refs, *flags)
    if pairs:
        print()
        table(
            ["system", "against", *(s["name"] for s in pairs[0]["scores"])],
            [[pair["system"], pair["baseline"], *map(difference, pair["scores"])] for pair in pairs],
        )
    write(
        [
            {"system": name, "output": output, "scores": row, "runs": [run_facts(Path(run)) for run in runs]}
            for (name, _), (output, *runs), row in zip(named, files, scores, strict=True)
        ],
        [args.src, *args.refs],
        args.output,
        **({"paired": pairs} if args.pairs else {}),
    )


if __name__ == "__main__":
    main()
