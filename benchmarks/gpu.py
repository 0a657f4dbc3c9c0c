#!/usr/bin/env python3
"""On one GPU: how fast training and decoding are beside transformers in PyTorch, and how much of the card training uses.

    python benchmarks/gpu.py train [--shape base …] [--batch-tokens 25000 …] [--engine s2s …] [--limit 150] [--out FILE]
    python benchmarks/gpu.py decode [--shape base …] [--batch 128 …] [--beam 5 …] [--engine s2s …] [--limit 150] [--out FILE]
    python benchmarks/gpu.py translate --model RUN --src FILE [--lines 1000 …] [--beam 5 …] [--engine s2s …] [--out FILE]
    python benchmarks/gpu.py attention [--out FILE]           # torch's kernels, forwards and back
    python benchmarks/gpu.py train --device cpu --smoke       # a tiny one, to see that it works

Options that stand for several are given several times. Ours and MarianMTModel have the same weights and read the same random ids:
no data, no network. Engines take turns in one process after a round (decoding: two) to warm up, which sees every batch; times
are those between two synchronizations. After `--limit` seconds nothing more is begun; `left_out` says what was not, and what
failed and why. Each case is written when it is done. `--commit` names the commit where there is no git.

Training: a vocabulary of 32,000, shared and tied, dropout 0.1, label smoothing 0.1, weights in fp32 and bf16 autocast, fused
Adam, clipping. Lengths are drawn to be like WMT's, 28 pieces in the mean and 100 at most; batches are ours, a few from short to
long out of the epoch of a large corpus; a turn is an update on each. Ours is `Updater.update`. Theirs is what a good practitioner
writes (sdpa, cross-entropy on the logits, fused AdamW), as it comes, and with model and loss compiled for shapes that vary.
Peak memory is that of an engine alone: what the others hold is subtracted. Tokens are real ones, without padding.

MFU is the share of the card's dense bf16 peak that goes into products which the model needs: 6 floating-point operations
for each multiplication of the forward pass (2 there, 4 on the way back), over real tokens, nothing for padding, for what is
computed again, or for embeddings. With L layers of width D on each side, F inside, V pieces, and S and T tokens of a pair, it is
6 · [L·S·(4D² + 2DF + 2D²) + L·T·(6D² + 2DF) + T·V·D + L·D·(2S² + T(T+1) + 2ST)]: the encoder's layers, and the keys and values
that each decoder layer makes of its output, by source token; the rest of the decoder's, and the output layer, by target token;
products of attention by pairs of positions, of which the decoder's own are those that a target position may see.

Decoding: every output has 32 pieces, for sources of about 28, in bf16. Ours, but for a plain greedy search, takes one step more,
for the end of the sentence that it is then made to say; theirs stops without. `same_fp32` is the share of outputs that are alike
in fp32; of the `others_fp32`, with a beam, ours should all be likelier with their end, and theirs without it.

Translating: a model of yours, the first lines of a file, outputs of their own length, text to text; `command` is the whole
command, a new process each time. `first_seconds` are those of the first time, in which the others record.
"""

import argparse
import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from conditions import ROOT, conditions
from on_gpu import attention, decode, train, translate
from on_gpu.turns import BEGUN, SHAPES, now

from s2s_cli.config import RuntimeSettings
from s2s_cli.runtime import Runtime

PARTS: dict[str, Any] = {"train": train, "decode": decode, "translate": translate, "attention": attention}


def ceiling(device: torch.device) -> float:
    """TFLOP/s of a product of two large square matrices in bf16."""
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    times = []
    for _ in range(6):
        begun = now(device)
        for _ in range(10):
            a @ b
        times.append((now(device) - begun) / 10)
    return round(2 * size**3 / min(times[1:]) / 1e12, 3)


def arguments() -> argparse.Namespace:
    """Those of the command; with `--smoke` all is tiny."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for part, module in PARTS.items():
        one = parts.add_parser(part)
        one.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
        one.add_argument("--smoke", action="store_true", help="see that it works")
        one.add_argument("--commit", default="", help="what is measured, where there is no git")
        one.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / f"gpu_{part}.json")
        if part == "attention":
            continue
        if part == "translate":
            one.add_argument("--model", type=Path, required=True, help="a run or bundle")
            one.add_argument("--src", type=Path, required=True, help="what it translates")
            one.add_argument("--lines", type=int, action="append")
        else:
            one.add_argument("--shape", choices=SHAPES, action="append")
        one.add_argument("--engine", choices=module.ENGINES, action="append")
        one.add_argument("--rounds", type=int, default=3)
        one.add_argument("--limit", type=float, default=150.0, help="seconds after which nothing more is begun")
        if part == "train":
            one.add_argument("--batch-tokens", type=int, action="append", help="positions of the longer side")
            one.add_argument("--updates", type=int, default=10, help="of a round, each on another batch")
        else:
            one.add_argument("--beam", type=int, action="append")
        if part == "decode":
            one.add_argument("--batch", type=int, action="append")
            one.add_argument("--sentences", type=int, default=6, help="of a round with batches of one")
    options = parser.parse_args()
    if options.part == "attention":
        return options
    options.engine = options.engine or PARTS[options.part].ENGINES
    if options.part == "translate":
        options.lines = [10] if options.smoke else options.lines or [1000, 10_000]
    else:
        options.shape = ["smoke"] if options.smoke else options.shape or ["base"]
    if options.part == "train":
        options.batch_tokens = [512] if options.smoke else options.batch_tokens or [8192, 25_000, 64_000]
    else:
        options.beam = options.beam or [1, 5]
    if options.part == "decode":
        options.batch = [4, 1] if options.smoke else options.batch or [128, 1]
    if options.smoke:
        options.rounds, options.updates, options.sentences = 1, 2, 2
    return options


def main() -> None:
    """Measure, print, write after each case."""
    options = arguments()
    device = torch.device(options.device)
    packages = [name for name in ("s2s-cli", "torch", "numpy", "transformers") if installed(name)]
    result: dict[str, Any] = {"benchmark": f"gpu_{options.part}"} | conditions(packages)
    result["commit"] = options.commit or result["commit"]
    options.runtime = Runtime.start(RuntimeSettings(device=options.device, precision="bf16"))
    options.card = torch.cuda.get_device_name() if device.type == "cuda" else result["machine"]["cpu"]
    result |= {
        "card": options.card,
        "cuda": torch.version.cuda,
        "product_tflops": ceiling(device),
        "rows": [],
        "left_out": [],
    }
    print(f"{options.card}: {result['product_tflops']} TFLOP/s in bf16 products", flush=True)
    for rows, left_out in PARTS[options.part].cases(options):
        result["rows"] += rows
        result["left_out"] += left_out
        result["seconds"] = round(time.monotonic() - BEGUN)
        for row in rows:
            told = {
                key: value["median"] if "median" in (value if isinstance(value, dict) else {}) else value
                for key, value in row.items()
            }
            print("  ".join(f"{key} {value}" for key, value in told.items()), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def installed(package: str) -> bool:
    """Whether a package is there; ours may be a folder that PYTHONPATH names."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    main()
