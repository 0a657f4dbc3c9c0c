#!/usr/bin/env python3
"""Scores the outputs in a work folder with `s2s score`, prints a table, and writes results.json there.

python recipes/multi30k/report.py WORK_DIR MODEL...
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import yaml

REF = "text/test_2016_flickr.de"
TOK_REF = "text/test_2016_flickr.lc.norm.tok.de"
PUBLISHED = 41.02  # Transformer-Tiny, lowercased tokenized BLEU: Wu et al. 2021, "Good for Misconceived Reasons"


def score(work: Path, *arguments: str) -> list[dict]:
    """What `s2s score --json` says."""
    done = subprocess.run(["s2s", "score", "--json", *arguments], cwd=work, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["systems"][0]["scores"]


def machine() -> str:
    """The processor's name and its number of cores."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().split("\n") if line.startswith("model name")]
        if info.exists()
        else []
    )
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def run_facts(run: Path) -> dict:
    """Where a run ended, from its last checkpoint and its log."""
    origin = json.loads((run / "best" / "config.json").read_text())["origin"]
    state = json.loads((run / "last" / "training" / "state.json").read_text())
    return {
        "updates": state["update"],
        "epochs": state["position"][0],
        "target_tokens": state["num_tokens"],
        "seconds": round(state["seconds"]),
        "settings": yaml.safe_load((run / "config.yaml").read_text()),
        "best": {key: origin[key] for key in ("update", "loss", "bleu", "signature")},
    }


def main() -> None:
    """Print the table, write the file."""
    work, models = Path(sys.argv[1]), sys.argv[2:]
    results = {"machine": machine(), "python": platform.python_version(), "published": PUBLISHED, "runs": []}
    print(f"{'model':<24}{'BLEU':>8}{'chrF':>8}{'BLEU lc tok':>13}   (published Transformer-Tiny: lc tok {PUBLISHED})")
    for model in models:
        for name in ("best", "averaged"):
            hyp = f"{model}/{name}.test.de"
            cased = score(work, "--bleu", "--chrf", "-i", hyp, "-r", REF)
            tokenized = score(work, "--bleu", "--tokenize", "none", "-i", f"{hyp}.tok", "-r", TOK_REF)
            values = [item["score"] for item in (*cased, *tokenized)]
            print(f"{model + ', ' + name:<24}{values[0]:8.2f}{values[1]:8.2f}{values[2]:13.2f}")
            results["runs"].append(
                {
                    "model": model,
                    "checkpoint": name,
                    "cased": cased,
                    "lowercased_tokenized": tokenized,
                    **run_facts(work / model),
                }
            )
    (work / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {(work / 'results.json').resolve()}")


main()
