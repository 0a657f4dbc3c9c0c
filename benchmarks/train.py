#!/usr/bin/env python3
"""Training beside other toolkits: target tokens a second and peak memory, on the same text, pieces, shape and machine.

    python benchmarks/train.py --shape tiny|base|lstm [--rounds 3] [--engines s2s s2s:bf16 transformers …] [--json FILE]
    python benchmarks/train.py --shape tiny --loss-after 150 [--no-dropout] --engines s2s s2s:bf16 transformers

An engine is a toolkit of `peers/`, and after a colon its precision (fp32 if none is named). Each is installed from PyPI into
an environment of its own, below the folder that --folder or the variable PEERS names. The text is Multi30k (fetched by
data/multi30k.py, or the local copy that S2S_DATA names) in the 8,000 pieces of one vocabulary. Every engine trains by its own
command, with batches of 4,096 tokens as it counts them, dropout 0.3, label smoothing 0.1 and tied embeddings. In each round
all engines train in turn, each in a fresh process: some updates to warm up, then those that are timed, from the beginning
of one to the beginning of the next. Tokens are real ones, without padding. Peak memory is resident memory of all processes. A
process that got less of the processor than others of its engine was disturbed, and counts in no median.

Where the result file is of the same commit, rounds are added to those in it, so that they may be run one by one. With
--loss-after, engines train so many updates with the same learning rates, and the loss of the validation text is written down:
ours comes first, and the others begin with its first weights and read its batches, so that they differ by dropout at most.
"""

import argparse
import json
import signal
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conditions import ROOT, conditions
from peers.clock import SHAPES, Task
from peers.environments import PEERS, default_folder, install, peer, run, versions
from peers.text import prepare

Row = dict[str, Any]
OURS = "s2s"
ALONE = 0.95  # of the processor time that an engine has had at best


def engines_for(shape: str, named: Sequence[str]) -> list[str]:
    """The engines named, or all that have this shape; ours in both precisions."""
    family = SHAPES[shape].family
    found = list(named) or [*(f"{OURS}:{precision}" for precision in peer(OURS).PRECISIONS), *PEERS[1:]]
    chosen = []
    for engine in found:
        name, _, precision = engine.partition(":")
        if name not in PEERS:
            raise SystemExit(f"{name} is none of {', '.join(PEERS)}")
        if (precision or "fp32") not in peer(name).PRECISIONS:
            raise SystemExit(f"{name} is measured in {', '.join(peer(name).PRECISIONS)}, not in {precision}")
        if family in peer(name).FAMILIES:
            chosen.append(f"{name}:{precision or 'fp32'}")
        elif named:
            raise SystemExit(f"{name} has no {family}")
    return chosen


def summary(rows: Iterable[Row]) -> dict[str, Row]:
    """Median and range of what each engine's undisturbed rows say, and of the tokens of both sides a second, where the source
    is counted: few batches may have longer sources, or longer targets, than the corpus has.
    """
    engines: dict[str, list[Row]] = {}
    for row in rows:
        if "src_tokens_per_update" in row:
            both = row["src_tokens_per_update"] + row["tgt_tokens_per_update"]
            row = row | {"tokens_per_second": round(both / row["seconds_per_update"], 1)}
        engines.setdefault(row["engine"], []).append(row)
    found: dict[str, Row] = {}
    for engine, of_it in engines.items():
        counted = undisturbed(of_it)
        found[engine] = {"rounds": len(counted), "disturbed": len(of_it) - len(counted)}
        for key in counted[0]:
            if key in ("engine", "round"):
                continue
            values = [row[key] for row in counted]
            found[engine][key] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return found


def undisturbed(rows: Sequence[Row]) -> list[Row]:
    """Those that had the processor as much to themselves as the best of them: others ran beside somebody's work."""
    most = max(row.get("cores_used", 0.0) for row in rows)
    return [row for row in rows if row.get("cores_used", 0.0) >= ALONE * most]


def ratios(engines: dict[str, Row]) -> dict[str, Row]:
    """Each precision of ours beside the best of the others in fp32: in target tokens a second, in tokens of both sides, and in
    peak memory, where only those in PyTorch count.
    """
    others = {name: row for name, row in engines.items() if not name.startswith(f"{OURS}:") and name.endswith(":fp32")}
    in_torch = {name: row for name, row in others.items() if not name.startswith("marian")}
    found: dict[str, Row] = {}
    for name, row in engines.items():
        if not name.startswith(f"{OURS}:"):
            continue
        for key, group, best in (
            ("tgt_tokens_per_second", others, max),
            ("tokens_per_second", in_torch, max),
            ("peak_mb", in_torch, min),
        ):
            medians = {other: numbers[key]["median"] for other, numbers in group.items()}
            if medians:
                first = best(medians, key=medians.__getitem__)
                ratio = round(row[key]["median"] / medians[first], 2)
                found.setdefault(name, {})[key] = {"ratio": ratio, "beside": first}
    return found


def main() -> None:
    """Install, measure round by round, and write the result after each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--engines", nargs="+", default=[], metavar="PEER[:PRECISION]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loss-after", type=int, default=0, metavar="UPDATES")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one process for each, with --loss-after")
    parser.add_argument("--no-dropout", action="store_true", help="with --loss-after: nothing is left to chance")
    parser.add_argument("--limit", type=float, default=900, help="seconds that one process may take")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="environments, text, files of toolkits")
    parser.add_argument("--install-only", action="store_true")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/train_SHAPE.json, or loss_SHAPE.json")
    options = parser.parse_args()
    if options.no_dropout and not options.loss_after:
        parser.error("--no-dropout is for --loss-after: what is timed has dropout")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it has begun ends with it
    made = conditions(["s2s-cli", "torch", "numpy"])
    engines = engines_for(options.shape, options.engines)
    if options.loss_after and not engines[0].startswith(f"{OURS}:"):
        parser.error(f"--loss-after needs {OURS} first: the others begin with its weights and read its batches")
    for engine in engines:
        install(options.folder, engine.partition(":")[0])
    text = prepare(options.folder)
    if options.install_only:
        return
    kind = "loss" if options.loss_after else "train"
    name = f"{kind}_{options.shape}{'_no_dropout' if options.no_dropout else ''}.json"
    path = options.json or ROOT / "benchmarks" / "results" / name
    rows, commands = earlier(path, made["commit"])
    commands.append(made.pop("command"))
    for seed in options.seeds if options.loss_after else [1] * options.rounds:
        for engine in engines:
            name, _, precision = engine.partition(":")
            number = 1 + sum(row["engine"] == engine for row in rows)
            task = Task(
                peer=name,
                shape=options.shape,
                text=str(text.resolve()),
                work=str((options.folder / "work" / name / options.shape).resolve()),
                threads=options.threads,
                precision=precision,
                seed=seed,
                loss_after=options.loss_after,
                dropout=not options.no_dropout,
            )
            rows.append({"engine": engine, "round": number, **run(options.folder, task, options.limit)})
            print(json.dumps(rows[-1]), flush=True)
        names = sorted({row["engine"].partition(":")[0] for row in rows})
        found = summary(rows)
        result = {
            "benchmark": kind,
            "commands": commands,
            **made,
            "shape": asdict(task.size),
            "threads": options.threads,
            "toolkits": {name: versions(options.folder, name) for name in names},
            "engines": found,
            "ratios": {} if options.loss_after else ratios(found),
            "rows": rows,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for engine, row in result["engines"].items():
        told = "  ".join(f"{key} {value['median']}" for key, value in row.items() if isinstance(value, dict))
        print(f"{engine:20} {told}", file=sys.stderr)
    print(result["ratios"], file=sys.stderr)


def earlier(path: Path, commit: str) -> tuple[list[Row], list[str]]:
    """The rows of a result file of this commit, and the commands that made them."""
    if not path.exists():
        return [], []
    result = json.loads(path.read_text(encoding="utf-8"))
    return (result["rows"], result["commands"]) if result["commit"] == commit else ([], [])


if __name__ == "__main__":
    main()
