#!/usr/bin/env python3
"""Talk to a model in the terminal: it sees the last three turns, as it did in training. An empty line begins anew.

python recipes/dialogue/chat.py RUN [--top-p P] [--temperature T] [--seed N]

Answers are drawn from the model's likely words; `--top-p 0` gives the likeliest answer by beam search.
"""

import argparse
import sys
from collections import deque

from s2s_cli import Translator
from s2s_cli.config import SearchSettings, TranslateSettings

TURNS = 3


def main() -> None:
    """Read a line, answer, until the input ends."""
    parser = argparse.ArgumentParser(description="Talk to a model of the dialogue recipe.")
    parser.add_argument("run", help="a run folder or bundle")
    parser.add_argument(
        "--top-p", type=float, default=0.9, help="draw from the likeliest words of this share (default: 0.9)"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 closer to what is likeliest, above 1 more varied"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other answers")
    args = parser.parse_args()
    sampling = {"top_p": args.top_p, "temperature": args.temperature} if args.top_p else {}
    model = Translator(args.run, search=SearchSettings(**sampling))
    turns: deque[str] = deque(maxlen=TURNS)
    number = args.seed
    prompt = sys.stdin.isatty()
    while True:
        if prompt:
            print("user: ", end="", flush=True)
        said = sys.stdin.readline()
        if not said:
            break
        if not said.strip():
            turns.clear()
            continue
        turns.append(f"user: {' '.join(said.split())}")
        number += 1  # or the same words would be drawn for every answer
        drawn = TranslateSettings(samples=1, seed=number) if args.top_p else TranslateSettings()
        [[answer, *_]] = model.search([" ".join(turns)], drawn)
        print(f"system: {answer.text}", flush=True)
        turns.append(f"system: {answer.text}")


main()
