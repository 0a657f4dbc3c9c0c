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
from typing import Any

from conditions import ROOT
from train import OURS, ratios, summary

READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
RESULTS = ROOT / "benchmarks" / "results"
HEAD = 2  # lines of a table that say what its columns are
Result = dict[str, Any]


def train(results: dict[str, Result]) -> list[str]:
    """Speed and memory of all engines, by shape."""
    lines = [
        "| shape | toolkit | target tokens/s | both sides' tokens/s | peak memory | cores used | rounds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        if result["benchmark"] != "train":
            continue
        engines = summary(result["rows"])
        order = sorted(engines, key=lambda engine: -engines[engine]["tgt_tokens_per_second"]["median"])
        for engine in order:
            row = engines[engine]
            shown = (
                engine.replace(":", ", ")
                if engine.startswith(OURS)
                else engine.removesuffix(":fp32").replace(":", ", ")
            )
            cores = f"{row['cores_used']['median']:.2f}" if "cores_used" in row else ""
            both = spread(row["tokens_per_second"]) if "tokens_per_second" in row else ""
            lines.append(
                f"| {name.removeprefix('train_')} | {shown} | {spread(row['tgt_tokens_per_second'])} | {both} | "
                f"{row['peak_mb']['median']:,.0f} MB | {cores} | {row['rounds']} |"
            )
    return lines


def train_ratios(results: dict[str, Result]) -> list[str]:
    """Ours beside the best of the others."""
    lines = [
        "| shape | ours | target tokens/s | both sides' tokens/s | peak memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        if result["benchmark"] == "train":
            for engine, row in ratios(summary(result["rows"])).items():
                cells = [f"{cell['ratio']:.2f} × {cell['beside'].removesuffix(':fp32')}" for cell in row.values()]
                shown = engine.removeprefix(f"{OURS}:")
                lines.append(f"| {name.removeprefix('train_')} | {shown} | {' | '.join(cells)} |")
    return lines


def loss(results: dict[str, Result]) -> list[str]:
    """Validation loss after as many updates."""
    lines = ["| shape | toolkit | updates | validation loss, nats a token | seeds |", "| --- | --- | --- | --- | --- |"]
    for name, result in results.items():
        if result["benchmark"] == "loss":
            shape = name.removeprefix("loss_").replace("_", " ")
            for engine, row in summary(result["rows"]).items():
                lines.append(
                    f"| {shape} | {engine.replace(':', ', ')} | {row['updates']['median']:.0f} | "
                    f"{spread(row['valid_loss'], '.3f')} | {row['rounds']} |"
                )
    return lines


def startup(results: dict[str, Result]) -> list[str]:
    """Seconds of small commands."""
    lines = ["| what | command | seconds |", "| --- | --- | --- |"]
    told = {"help": "its help", "score": "BLEU of 1,000 lines", "translate": "one line", "phases": "of one line, ours"}
    for group, rows in results.get("startup", {}).get("seconds", {}).items():
        mark = "" if group == "phases" else "`"
        lines += [f"| {told[group]} | {mark}{name}{mark} | {spread(row, '.2f')} |" for name, row in rows.items()]
    return lines


def growth(results: dict[str, Result]) -> list[str]:
    """First and last point of each curve, and all of the processes."""
    lines = ["| by | from … to | of | ms by 1,000 target tokens | peak memory, MB |", "| --- | --- | --- | --- | --- |"]
    for name, result in results.items():
        if not result["benchmark"].startswith("growth"):
            continue
        question = name.removeprefix("growth_")
        for task, rows in result["found"].items():
            ends = list(rows.items())
            if question != "processes":
                ends = [ends[0], ends[-1]]
            values = " … ".join(f"{int(value):,}" if value.isdecimal() else value for value, _ in ends)
            times = " … ".join(f"{row['ms_per_1000_tokens']:,.0f}" for _, row in ends)
            peaks = " … ".join(f"{row['peak_mb']:,}" for _, row in ends)
            lines.append(f"| {question} | {values} | {task} | {times} | {peaks} |")
    return lines


def decode_rows(results: dict[str, Result]) -> list[tuple[str, dict]]:
    """The rows of decoding on a CPU, each after what was translated by which model. A patience is nothing to greedy search.

    The pieces of our outputs count for both engines, since what is compared is the time for the same sentences.
    """
    found = []
    for row in [row for result in results.values() if result["benchmark"] == "decode" for row in result["results"]]:
        ours, theirs = (row["output tokens/s"][engine] for engine in ("s2s", "ctranslate2"))
        share = ours["pieces"] / theirs["pieces"]
        theirs = {key: theirs[key] * share for key in ("median", "min", "max")}
        row = row | {
            "output tokens/s": {"s2s": ours, "ctranslate2": theirs},
            "ratio": ours["median"] / theirs["median"],
        }
        patience = f", patience {row['patience']:g}" if row.get("patience") else ""
        if row["model"] in (None, "None"):
            found.append((f"`{row['shape']}`", row))
        elif not patience or row["beam"] > 1:
            found.append((f"`{row['model']}`, its own lengths{patience}", row))
    return found


def decode(results: dict[str, Result]) -> list[str]:
    """Both engines, and ours over theirs."""
    lines = [
        "| model | beam | precision | s2s, output tokens/s | CTranslate2 | ratio | same outputs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model, row in decode_rows(results):
        speeds = [spread(row["output tokens/s"][engine]) for engine in ("s2s", "ctranslate2")]
        same = f"{row['same outputs']:.1%}"
        cells = [model, str(row["beam"]), row["precision"], *speeds, f"{row['ratio']:.2f}", same]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def decode_profile(results: dict[str, Result]) -> list[str]:
    """Shares of the time of decoding by part, and how much faster it would be if a choice among all pieces cost nothing."""
    rows = [row for result in results.values() if result["benchmark"] == "decode_profile" for row in result["rows"]]
    parts = list(dict.fromkeys(part for row in rows for part in row["shares"]))
    lines = [f"| model | beam | precision | steps, pieces | {' | '.join(parts)} | without output layer and choosing |"]
    lines.append("| --- | --- | --- | --- |" + " --- |" * (len(parts) + 1))
    for row in rows:
        model = row["shape"] + (f", patience {row['patience']:g}" if row.get("patience") else "")
        steps = f"{row['steps']:.1f}, {row['pieces']:.1f}" if "steps" in row else ""
        found = row["shares"]
        cells = [model, str(row["beam"]), row["precision"], steps, *(f"{found.get(part, 0.0):.0%}" for part in parts)]
        faster = 1.0 / (1.0 - found.get("output layer", 0.0) - found.get("choosing", 0.0))
        lines.append(f"| {' | '.join(cells)} | {faster:.2f} × as fast |")
    return lines


def levers(results: dict[str, Result]) -> list[str]:
    """Speed with each lever of search over that without it, by case."""
    rows = [row for result in results.values() if result["benchmark"] == "levers" for row in result["rows"]]
    cases = list(dict.fromkeys((row["shape"], row["beam"], row["precision"]) for row in rows))
    shown = [f"{'own lengths' if shape == 'model' else shape}, beam {beam}, {kind}" for shape, beam, kind in cases]
    lines = [f"| lever | {' | '.join(shown)} |", "| --- |" + " --- |" * len(cases)]
    for lever in dict.fromkeys(row["lever"] for row in rows):
        found = {(row["shape"], row["beam"], row["precision"]): row["ratio"] for row in rows if row["lever"] == lever}
        lines.append(f"| {lever} | {' | '.join(f'{found[case]:.2f}' if case in found else '' for case in cases)} |")
    return lines


def translate(results: dict[str, Result]) -> list[str]:
    """Speed without load, whole commands, and memory, by shape and beam."""
    lines = [
        "| model | beam | toolkit | output tokens/s | whole command | peak memory | rounds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        for row in result["engines"] if result["benchmark"] == "translate" else []:
            engine = row["engine"].removesuffix(":fp32") if not row["engine"].startswith(OURS) else row["engine"]
            cells = [model_of(name), str(row["beam"]), engine.replace(":", ", "), spread(row["pieces_per_second"])]
            cells += [
                f"{spread(row['whole_seconds'], '.1f')} s",
                f"{row['peak_mb']['median']:,.0f} MB",
                str(row["rounds"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def translate_ratios(results: dict[str, Result]) -> list[str]:
    """Ours beside the best of the toolkits in PyTorch, and beside CTranslate2, whose fp32 stands for the bf16 that it lacks."""
    lines = [
        "| model | beam | ours | output tokens/s | whole command | tokens/s beside CTranslate2 | whole command |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        if result["benchmark"] != "translate":
            continue
        engines = {(row["engine"], row["beam"]): row for row in result["engines"]}
        for row in result["ratios"]:
            precision = row["engine"].removeprefix(f"{OURS}:")
            cells = [model_of(name), str(row["beam"]), precision]
            cells += [f"{row['speed']:.2f} × {row['beside']}", f"{row['whole']:.2f} × {row['whole_beside']}"]
            ours = engines[row["engine"], row["beam"]]
            theirs = engines.get((f"ctranslate2:{precision.replace('bf16', 'fp32')}", row["beam"]))
            for key, turned in (("pieces_per_second", 1), ("whole_seconds", -1)):
                ratio = (ours[key]["median"] / theirs[key]["median"]) ** turned if theirs else None
                cells.append("" if ratio is None else f"{ratio:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def model_of(name: str) -> str:
    """What a result file of translating is about."""
    return name.removeprefix("translate_").replace("model", "its own lengths")


def rounding(results: dict[str, Result]) -> list[str]:
    """Lines that differ from what the same arithmetic gives in other batches, and from fp32."""
    rows = [row for result in results.values() if result["benchmark"] == "rounding" for row in result["results"]]
    ways = list(dict.fromkeys(name for row in rows for name in row if name.startswith("flipped")))
    names = [
        "model",
        "beam",
        "precision",
        "lines",
        *(f"{way.removeprefix('flipped, ')}" for way in ways),
        "unlike fp32",
        "BLEU",
    ]
    lines = [f"| {' | '.join(names)} |", "| " + " | ".join("---" for _ in names) + " |"]
    for row in rows:
        cells = [
            row.get("model", ""),
            row["beam"],
            row["precision"],
            f"{row['lines']:,}",
            *(row.get(way, "") for way in ways),
        ]
        cells.append(row["unlike fp32"])
        lines.append(f"| {' | '.join(map(str, cells))} | {row['bleu']:.2f} |")
    return lines


def gpu_train(results: dict[str, Result]) -> list[str]:
    """Training on one GPU, each engine beside the best of transformers on the same batches."""
    lines = [
        "| card | shape | batch | engine | target tokens/s | both sides' tokens/s | ratio | peak memory | MFU |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for card, row, best in gpu_rows(results, "gpu_train", ("shape", "batch_tokens"), "tgt_tokens_per_second"):
        cells = [card, row["shape"], f"{row['batch_tokens']:,}", row["engine"], spread(row["tgt_tokens_per_second"])]
        cells += [spread(row["tokens_per_second"]), best, f"{row['peak_mb']['median'] / 1000:,.1f} GB"]
        lines.append(f"| {' | '.join(cells)} | {'' if row['mfu'] is None else format(row['mfu'], '.1%')} |")
    return lines


def gpu_decode(results: dict[str, Result]) -> list[str]:
    """Decoding on one GPU, each engine beside the best of transformers with the same weights."""
    lines = [
        "| card | shape | batch | beam | engine | output tokens/s | ratio | ms a step | ms a sentence | same in fp32 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for card, row, best in gpu_rows(results, "gpu_decode", ("shape", "batch", "beam"), "tokens_per_second"):
        cells = [
            card,
            row["shape"],
            str(row["batch"]),
            str(row["beam"]),
            row["engine"],
            spread(row["tokens_per_second"]),
        ]
        cells += [best, f"{row['ms_per_step']['median']:.2f}", f"{row['ms_per_sentence']['median']:,.1f}"]
        lines.append(f"| {' | '.join(cells)} | {row['same_fp32']:.1%} |")
    return lines


def gpu_attention(results: dict[str, Result]) -> list[str]:
    """Kernels of attention beside each other, forwards and back."""
    found = [result for result in results.values() if result["benchmark"] == "gpu_attention"]
    kernels = list(dict.fromkeys(row["kernel"] for result in found for row in result["rows"]))
    lines = [f"| card | sentences | heads | positions | hides | {' | '.join(f'{name}, ms' for name in kernels)} |"]
    lines.append("| --- | --- | --- | --- | --- |" + " --- |" * len(kernels))
    for result in found:
        times: dict[tuple, dict[str, str]] = {}
        for row in result["rows"]:
            case = (row["rows"], row["heads"], row["positions"], row["hides"])
            times.setdefault(case, {})[row["kernel"]] = f"{row['ms']:.2f}"
        for case, here in times.items():
            cells = [result["card"].removeprefix("NVIDIA "), *case, *(here.get(name, "") for name in kernels)]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def gpu_rows(results: dict[str, Result], part: str, case: tuple[str, ...], key: str) -> list[tuple[str, Result, str]]:
    """Card, row, and its speed over that of the fastest of transformers in the same case, if there is one."""
    found = []
    for result in results.values():
        for row in result["rows"] if result["benchmark"] == part else []:
            others = [
                other[key]["median"]
                for other in result["rows"]
                if other["engine"].startswith("transformers") and all(other[name] == row[name] for name in case)
            ]
            best = f"{row[key]['median'] / max(others):.2f}" if others else ""
            found.append((result["card"].removeprefix("NVIDIA "), row, best))
    return found


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


def gpu_speed(results: dict[str, Result]) -> list[str]:
    """Rows of `speed`: the faster of our ways on a GPU beside the faster of transformers'."""
    lines = []
    for part, case, key in (
        ("gpu_train", ("shape", "batch_tokens"), "tgt_tokens_per_second"),
        ("gpu_decode", ("shape", "batch", "beam"), "tokens_per_second"),
    ):
        fastest: dict[tuple, dict[bool, tuple[float, str]]] = {}
        for card, row, _ in gpu_rows(results, part, case, key):
            what = (card, *(row[name] for name in case))
            here = fastest.setdefault(what, {})
            is_ours = not row["engine"].startswith("transformers")
            here[is_ours] = max(here.get(is_ours, (0.0, "")), (row[key]["median"], row["engine"]))
        for (card, shape, *rest), here in fastest.items():
            if len(here) < 2:
                continue
            batch = f"{rest[0]:,} positions" if part == "gpu_train" else f"batch {rest[0]}, beam {rest[1]}"
            what = f"{'training' if part == 'gpu_train' else 'decoding'} `{shape}` on an {card}, {batch}, bf16"
            (ours, _), (theirs, name) = here[True], here[False]
            lines.append(f"| {what} | {ours:,.0f} | {name} {theirs:,.0f} | {ours / theirs:.2f} |")
    return lines


def preprocess(results: dict[str, Result]) -> list[str]:
    """Time and memory by the size of the corpus."""
    lines = [
        "| pairs | SentencePiece | `s2s preprocess`, vocabulary reused | ratio | its peak memory | training the vocabulary too |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in results.get("preprocess", {}).get("sizes", []):
        reuse, train = row["reuse"], row["train"]
        cells = [f"{row['pairs'] / 1e6:g} M", f"{row['encode']['seconds']:.1f} s", f"{reuse['seconds']:.1f} s"]
        cells += [f"{reuse['over_encode']:.2f}", f"{reuse['peak_mb']:.0f} MB"]
        lines.append(f"| {' | '.join(cells)} | {train['seconds']:.1f} s, {train['peak_mb']:.0f} MB |")
    return lines


def saving(results: dict[str, Result]) -> list[str]:
    """What a checkpoint costs."""
    lines = [
        "| model | files | held up, a save | written in | the disk alone | an update while writing, and else |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in results.get("saving", {}).get("rows", []):
        held, written, busy, free = (
            spread(row[key], ".2f") for key in ("held up", "written", "update, while writing", "update")
        )
        cells = [
            f"`{row['shape']}`",
            f"{row['megabytes']} MB",
            f"{held} s",
            f"{written} s",
            f"{spread(row['plain'], '.2f')} s",
        ]
        lines.append(f"| {' | '.join(cells)} | {busy} s, {free} s |")
    return lines


def not_taken(results: dict[str, Result]) -> list[str]:
    """What prototypes of levers that ours does not have are worth, by case."""
    rows = [row for result in results.values() if result["benchmark"] == "not_taken" for row in result["rows"]]
    lines = ["| lever | model | beam | precision | speed | besides |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        shape, vocab, besides = row.get("shape", "model"), row.get("vocab"), []
        model = "own lengths" if shape == "model" else f"`{shape}`" + (f", {vocab:,} pieces" if vocab else "")
        if "first seconds" in row:
            besides.append(f"the first pass took {row['first seconds']:.0f} s")
        if "bleu" in row:
            besides.append(f"BLEU {row['bleu']:.2f}, without {row['bleu without']:.2f}")
        if "bleu" in row or row.get("same outputs", 1.0) < 1.0:
            besides.append(f"{row['same outputs']:.1%} of the outputs are the same")
        speed = f"{row['ratio']:.2f}" if "ratio" in row else f"at most {row['at most']:.2f}"
        cells = [row["lever"], model, str(row["beam"]), row["precision"], speed, "; ".join(besides)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


# What makes each table, and the benchmarks whose conditions are told below it.
TABLES: dict[str, tuple[Callable[[dict[str, Result]], list[str]], tuple[str, ...]]] = {
    "speed": (speed, ()),
    "train": (train, ("train",)),
    "train-ratios": (train_ratios, ()),
    "loss": (loss, ("loss",)),
    "startup": (startup, ("startup",)),
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


def spread(row: dict[str, float], form: str = ",.0f") -> str:
    """Median, and range if there is one."""
    median, low, high = (f"{row[key]:{form}}" for key in ("median", "min", "max"))
    return median if low == high else f"{median} ({low} to {high})"


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
