#!/usr/bin/env python3
"""Scores all outputs in the work folder: cased as they are, and lowercased and tokenized as the published numbers are.

python recipes/multi30k/report.py      (in the work folder; prints a table and writes results.json there)
"""

import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1]))

from results import run_facts, score, table, write

REF = "test.de"
TOK_REF = "test.lc.norm.tok.de"
PUBLISHED = 41.02  # Transformer-Tiny, lowercased tokenized BLEU: Wu et al. 2021, "Good for Misconceived Reasons"
MODELS = ("rnn-basic", "rnn", "rnn-luong", "rnn-bahdanau", "transformer", "lowercased", "regularised")


def kinds(model: str) -> list[list[Path]]:
    """The outputs of a model that share a row: the seeds' best checkpoints, their averages, each ensemble."""
    seeds = [sorted(Path(model).glob(f"seed*/{name}.hyp")) for name in ("best", "averaged")]
    return [
        outputs for outputs in [*seeds, *([path] for path in sorted(Path(model).glob("ensemble-*.hyp")))] if outputs
    ]


def main() -> None:
    """Score what is there, print a row for each kind of output, write a record for each output."""
    systems, rows = [], []
    for model in MODELS:
        for outputs in kinds(model):
            name, *members = outputs[0].stem.split("-")
            cased = score([str(output) for output in outputs], [REF], "--bleu", "--chrf")
            tokenized = score([f"{output}.tok" for output in outputs], [TOK_REF], "--bleu", "--tokenize", "none")
            for output, ours, theirs in zip(outputs, cased, tokenized, strict=True):
                made = [Path(model, f"seed{seed}") for seed in members] or [output.parent]
                record = {"model": model, "checkpoint": name, "cased": ours, "lowercased_tokenized": theirs}
                systems.append(record | {"runs": [run_facts(run) for run in made]})
            values = zip(*([s["score"] for s in (*a, *b)] for a, b in zip(cased, tokenized, strict=True)), strict=True)
            rows.append([model, name, len(members) or len(outputs), *map(mean, values)])
    table(["model", "checkpoint", "seeds", "BLEU", "chrF", "BLEU lc tok"], rows)
    print(f"published Transformer-Tiny: BLEU lc tok {PUBLISHED}")
    write(systems, published_lowercased_tokenized_bleu=PUBLISHED)


main()
