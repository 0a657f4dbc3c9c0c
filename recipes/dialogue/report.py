#!/usr/bin/env python3
"""Perplexity of the real answers, and for each way to answer BLEU, distinct-1 and -2, and mean length; with a few examples.

python recipes/dialogue/report.py TEXT_DIR MODEL...      (in the work folder; prints tables and writes results.json there)

Perplexity is that of the reference answers given the turns before: by piece, and by word, which models with other
vocabularies can be compared by. Distinct-n (Li et al. 2016, https://aclanthology.org/N16-1014) is the share of different
n-grams among all n-grams of the output: low where a model gives everyone the same answer.
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from results import run_facts, score, table, write

WAYS = {
    "beam": "beam search",
    "mbr": "16 samples, MBR by chrF",
    "top-p": "sampled, top-p 0.9",
    "sampled": "sampled",
}


def lines(path: Path) -> list[str]:
    """The lines of a text."""
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def distinct(answers: list[str], n: int) -> float:
    """Different n-grams over all n-grams, in percent; words are what spaces separate, without regard to case."""
    words = [answer.lower().split() for answer in answers]
    grams = [tuple(said[k : k + n]) for said in words for k in range(len(said) - n + 1)]
    return 100.0 * len(set(grams)) / max(1, len(grams))


def perplexities(forced: Path, refs: list[str]) -> dict[str, float]:
    """By piece and by word, ends of answers counted, from the rows of `translate --force`: line, logp, pieces, …"""
    rows = [row.split("\t") for row in lines(forced)]
    logp, num_pieces = sum(float(row[1]) for row in rows), sum(int(row[2]) for row in rows)
    num_words = sum(len(ref.split()) + 1 for ref in refs)
    return {"piece": math.exp(-logp / num_pieces), "word": math.exp(-logp / num_words)}


def show(name: str, answers: list[str], bleu: float | None = None) -> list[object]:
    """A row of the table."""
    length = sum(len(answer.split()) for answer in answers) / len(answers)
    return [name, "" if bleu is None else f"{bleu:.2f}", distinct(answers, 1), distinct(answers, 2), length]


def main() -> None:
    """Score, print, write."""
    text, models = Path(sys.argv[1]), sys.argv[2:]
    refs = lines(text / "test.tgt")
    systems, rows = [], [show("the real answers", refs)]
    for model in models:
        outputs = [f"{model}/{way}.hyp" for way in WAYS]
        perplexity = perplexities(Path(model, "forced.tsv"), refs)
        print(
            f"{model}: perplexity {perplexity['piece']:.2f} a piece, {perplexity['word']:.2f} a word", file=sys.stderr
        )
        ways = []
        for way, output, scores in zip(WAYS, outputs, score(outputs, [str(text / "test.tgt")], "--bleu"), strict=True):
            answers = lines(Path(output))
            rows.append(show(f"{model}, {WAYS[way]}", answers, scores[0]["score"]))
            ways.append({"by": WAYS[way], "scores": scores, "distinct": {n: distinct(answers, n) for n in (1, 2)}})
        systems.append({"model": model, "perplexity": perplexity, "answers": ways, "run": run_facts(Path(model))})
    table(["answers", "BLEU", "distinct-1", "distinct-2", "words"], rows)
    turns, every = lines(text / "test.src"), {way: lines(Path(models[-1], f"{way}.hyp")) for way in WAYS}
    for k in range(0, len(turns), max(1, len(turns) // 3)):
        print(f"\n{turns[k]}\n  real: {refs[k]}")
        for way, answers in every.items():
            print(f"  {WAYS[way]}: {answers[k]}")
    write(systems, [str(text / f"test.{side}") for side in ("src", "tgt")])


main()
