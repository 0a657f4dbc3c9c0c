#!/usr/bin/env python3
"""Matrix products in fp32 on this CPU: torch's own beside oneDNN's, forward and for both gradients, in GFLOP/s.

    python benchmarks/products.py [--threads 2] [--out benchmarks/results/products.json]

The shapes are rows of a batch by the layers of `tiny` and `base`, a chunk of logits, and a position of an LSTM. Each figure is
the best of five turns of ten products, the two libraries in turn.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from conditions import ROOT, conditions

from s2s_cli.models.products import product, weight_grad

SHAPES = ((4096, 128, 512), (4096, 512, 512), (4096, 512, 2048), (4096, 2048, 512), (512, 512, 8000), (64, 1024, 2048))


def best(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of one call of each."""
    found = dict.fromkeys(ways, float("inf"))
    for turn in range(6):  # the first one warms up
        for name, way in ways.items():
            begun = time.perf_counter()
            for _ in range(10):
                way()
            if turn:
                found[name] = min(found[name], (time.perf_counter() - begun) / 10)
    return found


def ways(num: int, inputs: int, outputs: int) -> dict[str, dict[str, Callable[[], object]]]:
    """Products of one layer with random numbers, by each library."""
    x, weight, grad = torch.randn(num, inputs), torch.randn(outputs, inputs), torch.randn(num, outputs)
    return {
        "forward": {"torch": lambda: F.linear(x, weight), "oneDNN": lambda: product(x, weight)},
        "gradient of the input": {"torch": lambda: grad @ weight, "oneDNN": lambda: product(grad, weight.t())},
        "gradient of the weight": {"torch": lambda: grad.t() @ x, "oneDNN": lambda: weight_grad(grad, x)},
    }


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "products.json")
    options = parser.parse_args()
    about = {"benchmark": "products"} | conditions(["s2s-cli", "torch"]) | {"threads": options.threads}
    torch.set_num_threads(options.threads)
    rows = []
    for num, inputs, outputs in SHAPES:
        for what, libraries in ways(num, inputs, outputs).items():
            rates = {name: round(2e-9 * num * inputs * outputs / seconds) for name, seconds in best(libraries).items()}
            rows.append({"rows": num, "inputs": inputs, "outputs": outputs, "what": what} | rates)
            told = "  ".join(f"{name} {rate:4}" for name, rate in rates.items())
            print(f"{num:5} x {inputs:4} x {outputs:4}  {what:22}  {told} GFLOP/s", flush=True)
    options.out.write_text(json.dumps(about | {"GFLOP/s": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
