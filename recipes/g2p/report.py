#!/usr/bin/env python3
"""Word and phone error rates of each language, its seeds and their ensemble; prints a table and writes results.json.

python recipes/g2p/report.py LANGUAGE... --seeds SEED...      (in the work folder)

The shared task's word error rate is the share of words with any wrong phone, which is 100 minus exact match; its phone
error rate is edits over phones, which is what `s2s score` calls WER, since a token is what spaces separate.
"""

import argparse
import sys
from pathlib import Path
from statistics import mean, stdev

sys.path.insert(0, str(Path(__file__).parents[1]))

from results import run_facts, score, table, write

# Gorman et al. 2020, trained on each language's 3,600 words, WER macro-averaged over all fifteen languages
PUBLISHED = {"LSTM": 16.84, "Transformer": 17.51, "best submission": 13.81}


def main() -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("languages", nargs="+")
    parser.add_argument("--seeds", nargs="+", required=True)
    args = parser.parse_args()
    systems, rows = [], []
    for language in args.languages:
        runs = [f"{language}/seed{seed}" for seed in args.seeds]
        outputs = [*(f"{run}/test.hyp" for run in runs), f"{language}/ensemble.hyp"]
        scores = score(outputs, [f"text/test.{language}.tgt"], "--exact", "--wer")
        by_name = [{s["name"]: s["score"] for s in each} for each in scores]
        words, phones = [100 - each["Exact"] for each in by_name], [each["WER"] for each in by_name]
        facts = [run_facts(Path(run)) for run in runs]
        rows.append([language, words[:-1], phones[:-1], words[-1], phones[-1], mean(f["seconds"] for f in facts)])
        systems += [
            {
                "language": language,
                "output": output,
                "word_error_rate": w,
                "phone_error_rate": p,
                "scores": each,
                "runs": made,
            }
            for output, w, p, each, made in zip(
                outputs, words, phones, scores, [*([f] for f in facts), [f["run"] for f in facts]], strict=True
            )
        ]
    average = ["mean"] + [[mean(column) for column in zip(*(row[k] for row in rows), strict=True)] for k in (1, 2)]
    rows.append(average + [mean(row[k] for row in rows) for k in (3, 4, 5)])
    table(
        ["language", f"WER, mean of {len(args.seeds)} seeds", "PER", "WER, ensemble", "PER", "seconds a seed"],
        [[row[0], spread(row[1]), spread(row[2]), *row[3:5], f"{row[5]:.0f}"] for row in rows],
    )
    texts = [f"text/test.{language}.{side}" for language in args.languages for side in ("src", "tgt")]
    write(systems, texts, published_wer_of_fifteen_languages=PUBLISHED)


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


main()
