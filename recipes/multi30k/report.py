#!/usr/bin/env python3
"""Scores all outputs in the work folder: cased as they are, and lowercased and tokenized as the published numbers are.

python recipes/multi30k/report.py      (in the work folder; prints a table and writes results.json there)
"""

import os
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1]))

from results import run_facts, score, table, write

SRC = "test.en"
REF = "test.de"
TOK_REF = "test.lc.norm.tok.de"
PUBLISHED = 41.02  # Transformer-Tiny, lowercased tokenized BLEU: Wu et al. 2021, "Good for Misconceived Reasons"
LOWERCASED = ("lowercased", "wide", "rdrop", "regularised")  # their BLEU and chrF ignore case, as the signatures say
MODELS = ("rnn-basic", "rnn", "rnn-luong", "rnn-bahdanau", "transformer", *LOWERCASED)


def kinds(model: str) -> list[tuple[str, list[Path], list[Path]]]:
    """What rows a model has: their name, the outputs whose scores are averaged, and the runs behind them.

    The seeds' best checkpoints, their averages, and ensembles: of the seeds, of the regularised with the plain model, and of
    the wide one with both.
    """
    rows = []
    for name in ("best", "averaged"):
        outputs = sorted(Path(model).glob(f"seed*/{name}.hyp"))
        rows.append((name, outputs, [output.parent for output in outputs]))
    for output in sorted(Path(model).glob("ensemble-*.hyp")):
        rows.append(("ensemble", [output], [Path(model, f"seed{seed}") for seed in output.stem.split("-")[1:]]))
    for output in sorted(Path(model).glob("mixed-*.hyp")):
        seed = f"seed{output.stem.split('-')[1]}"
        others = ["lowercased", *(["regularised"] if model == "wide" else [])]
        rows.append((f"ensemble with {', '.join(others)}", [output], [Path(each, seed) for each in (*others, model)]))
    return [row for row in rows if row[1]]


def main() -> None:
    """Score what is there, print a row for each kind of output, write a record for each output."""
    systems, rows = [], []
    for model in MODELS:
        case = ["--lowercase"] if model in LOWERCASED else []
        found = kinds(model)
        every = [output for _, outputs, _ in found for output in outputs]
        if not every:
            continue
        cased = score([str(output) for output in every], [REF], "--bleu", "--chrf", *case)
        tokenized = score([f"{output}.tok" for output in every], [TOK_REF], "--bleu", "--tokenize", "none")
        scores = dict(zip(every, zip(cased, tokenized, strict=True), strict=True))
        for name, outputs, runs in found:
            for output in outputs:
                made = runs if len(outputs) == 1 else [output.parent]
                ours, theirs = scores[output]
                record = {"model": model, "checkpoint": name, "cased": ours, "lowercased_tokenized": theirs}
                systems.append(record | {"runs": [run_facts(run) for run in made]})
            values = zip(*([s["score"] for s in (*scores[o][0], *scores[o][1])] for o in outputs), strict=True)
            rows.append([model, name, len(runs), *map(mean, values)])
    print(f"Of {', '.join(LOWERCASED)}, BLEU and chrF ignore case.")
    table(["model", "checkpoint", "runs", "BLEU", "chrF", "BLEU lc tok"], rows)
    print(f"published Transformer-Tiny: BLEU lc tok {PUBLISHED}")
    # All that made what is here, whichever of it the last command named.
    names = dict.fromkeys([*(s["model"] for s in systems), *(str(run["seed"]) for s in systems for run in s["runs"])])
    smoke = ["--smoke"] if "--smoke" in os.environ.get("S2S_RECIPE", "") else []
    command = " ".join(["bash recipes/multi30k/run.sh", *smoke, *names])
    write(systems, [SRC, REF, TOK_REF], command=command, published_lowercased_tokenized_bleu=PUBLISHED)


main()
