#!/usr/bin/env python3
"""The tables of README.md and benchmarks/README.md that come from result files, written anew between their marks.

    python benchmarks/table.py [--check]

A mark is a line `<!-- NAME -->`, and `<!-- end -->` closes what belongs to it; NAME is a table below. With --check nothing is
written: the exit code tells whether a table differs from the results.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable

from conditions import ROOT
from tables.cells import Result
from tables.costs import growth, preprocess, saving, startup
from tables.decoding import (
    decode,
    decode_profile,
    decode_rows,
    levers,
    model_of,
    not_taken,
    rounding,
    translate,
    translate_ratios,
)
from tables.gpu import gpu_attention, gpu_decode, gpu_speed, gpu_train
from tables.training import loss, train, train_ratios
from train import OURS, ratios, summary

READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
RESULTS = ROOT / "benchmarks" / "results"
HEAD = 2  # lines of a table that say what its columns are


def speed(results: dict[str, Result]) -> list[str]:
    """Ours beside the best of the others, a row for each thing that was measured: what README.md says of speed."""
    lines = ["| what | s2s | beside | ratio |", "| --- | --- | --- | --- |"]

    def add(what: str, ours: float, beside: str, theirs: float) -> None:
        lines.append(f"| {what} | {ours:,.0f} | {beside} {theirs:,.0f} | {ours / theirs:.2f} |")

    key = "tgt_tokens_per_second"
    for name, result in results.items():
        engines = summary(result["rows"]) if result["benchmark"] == "train" else {}
        for engine, row in ratios(engines).items() if engines else []:
            what, beside = (
                f"training `{name.removeprefix('train_')}`, {engine.removeprefix(f'{OURS}:')}",
                row[key]["beside"],
            )
            add(what, engines[engine][key]["median"], beside.removesuffix(":fp32"), engines[beside][key]["median"])
    for model, row in decode_rows(results):
        speeds = [row["output tokens/s"][engine]["median"] for engine in ("s2s", "ctranslate2")]
        way = "greedy" if row["beam"] == 1 else f"beam {row['beam']}"
        add(f"decoding by {model}, {way}, {row['precision']}", speeds[0], "CTranslate2", speeds[1])
    for name, result in results.items():
        engines = (
            {(row["engine"], row["beam"]): row for row in result["engines"]}
            if result["benchmark"] == "translate"
            else {}
        )
        for row in result["ratios"] if engines else []:
            way = "greedy" if row["beam"] == 1 else f"beam {row['beam']}"
            ours, theirs = (
                engines[name, row["beam"]]["pieces_per_second"]["median"] for name in (row["engine"], row["beside"])
            )
            precision = row["engine"].removeprefix(f"{OURS}:")
            what = f"translating, `{model_of(name)}`, {way}, {precision}"
            add(what, ours, f"the best in PyTorch, {row['beside']},", theirs)
            if (engine := f"ctranslate2:{precision.replace('bf16', 'fp32')}", row["beam"]) in engines:
                add(what, ours, "CTranslate2", engines[engine, row["beam"]]["pieces_per_second"]["median"])
    return lines + gpu_speed(results)


# What makes each table, and the benchmarks whose conditions are told below it.
TABLES: dict[str, tuple[Callable[[dict[str, Result]], list[str]], tuple[str, ...]]] = {
    "speed": (speed, ()),
    "train": (train, ("train",)),
    "train-ratios": (train_ratios, ()),
    "loss": (loss, ("loss",)),
    "startup": (startup, ("startup", "translate_lines")),
    "growth": (growth, ("growth_length", "growth_batch", "growth_vocabulary", "growth_corpus", "growth_processes")),
    "decode": (decode, ("decode",)),
    "decode-profile": (decode_profile, ("decode_profile",)),
    "levers": (levers, ("levers",)),
    "not-taken": (not_taken, ("not_taken",)),
    "translate": (translate, ("translate",)),
    "translate-ratios": (translate_ratios, ()),
    "rounding": (rounding, ("rounding",)),
    "preprocess": (preprocess, ("preprocess",)),
    "saving": (saving, ("saving",)),
    "gpu-train": (gpu_train, ("gpu_train",)),
    "gpu-decode": (gpu_decode, ("gpu_decode",)),
    "gpu-attention": (gpu_attention, ("gpu_attention",)),
}


def made_by(results: dict[str, Result], benchmarks: tuple[str, ...]) -> str:
    """With which commit and on which processor the results of these benchmarks were made."""
    where: dict[str, list[str]] = {}
    for name, result in results.items():
        if result["benchmark"] in benchmarks and "commit" in result:
            files = where.setdefault(result["machine"]["cpu"], [])
            files.append(f"`{name}` at {result['commit'][:7]}{'+' * result['commit'].endswith('+')}")
    return "; ".join(f"{', '.join(files)} on {cpu}" for cpu, files in where.items())


def results() -> dict[str, Result]:
    """All result files that name their benchmark, by file name."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    return {name: result for name, result in found.items() if "benchmark" in result}


def filled(text: str, results: dict[str, Result]) -> str:
    """A text with its tables from these results. Raises KeyError for a mark that names no table."""

    def between(mark: re.Match[str]) -> str:
        make, benchmarks = TABLES[mark["name"]]
        lines = make(results)
        table = "\n".join(lines) if len(lines) > HEAD else "Not recorded yet."
        if len(lines) > HEAD and (made := made_by(results, benchmarks)):
            table += f"\n\n{made}."
        return f"<!-- {mark['name']} -->\n{table}\n<!-- end -->"

    return re.sub(r"<!-- (?P<name>[\w-]+) -->\n.*?<!-- end -->", between, text, flags=re.DOTALL)


def main() -> None:
    """Fill in the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for path in READMES:
        before = path.read_text(encoding="utf-8")
        after = filled(before, results())
        if after == before:
            continue
        if options.check:
            sys.exit(f"{path} differs from the results: run benchmarks/table.py")
        path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
