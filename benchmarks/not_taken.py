#!/usr/bin/env python3
"""What levers of search on a CPU would be worth that s2s does not have, by prototypes of them.

    python benchmarks/not_taken.py compiled [--shapes tiny base]
    python benchmarks/not_taken.py waiting --model RUN --src FILE
    python benchmarks/not_taken.py shortlist [--vocab 32000] [--shapes base]
    python benchmarks/not_taken.py shortlist --model RUN --src FILE --ref FILE --pairs SRC TGT [--size 256]

*compiled*: what a decoder layer does before its cache, and after it, as one program of `torch.compile` each, for all layers and
any number of rows and positions; they call products and attention as they are. The time of compiling is told apart.

*waiting*: sentences that wait enter a batch as others end. What it could gain at most: every step as fast, by sentence that is
not done, as the steps of its batch were while that was full, and no sentence carried on after its end.

*shortlist*: of each sentence the `--size` pieces that its own pieces are translated by most likely, by IBM model 1 (Brown et al.
1993) of the training pairs, are all that the output layer computes, for a beam in int8 in bf16, else in fp32. With a model,
quality is measured too (BLEU without case); without, which pieces they are is chance. Lists are made in the first turn, which
does not count: what they cost would come to it.

Turns alternate as in `levers.py`: with the prototype, as it is, and a ratio is the median of those of the turns.
"""

import argparse
import json
from pathlib import Path

import decode
import torch
from conditions import conditions
from prototypes.compiled import compiled
from prototypes.shortlist import shortlist
from prototypes.waiting import waiting

from s2s_cli.runtime import keep_memory


def main() -> None:
    """Measure a prototype in every case, print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lever", choices=("compiled", "waiting", "shortlist"))
    parser.add_argument("--model", type=Path, help="a run or bundle in place of random weights")
    parser.add_argument("--src", type=Path, help="its source text")
    parser.add_argument("--ref", type=Path, help="and its references")
    parser.add_argument("--pairs", type=Path, nargs=2, help="the training text that a shortlist is learned from")
    parser.add_argument("--size", type=int, default=256, help="pieces of a shortlist")
    parser.add_argument("--vocab", type=int, default=decode.VOCAB, help="pieces of random models")
    parser.add_argument("--shapes", nargs="+", choices=decode.SHAPES, default=list(decode.SHAPES))
    parser.add_argument("--precisions", nargs="+", choices=decode.DTYPES, default=["fp32", "int8"])
    parser.add_argument("--sentences", type=int, default=400, help="a quarter of them for base")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    if (options.lever == "waiting" and not options.model) or (options.model and not options.src):
        parser.error("this needs --model and --src")
    if options.lever == "shortlist" and options.model and not (options.ref and options.pairs):
        parser.error("a shortlist of a model needs --ref and --pairs")
    about = {"benchmark": "not_taken"} | conditions(["s2s-cli", "torch", "numpy"])
    torch.set_num_threads(1)
    keep_memory()
    rows = {"compiled": compiled, "waiting": waiting, "shortlist": shortlist}[options.lever](options)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
