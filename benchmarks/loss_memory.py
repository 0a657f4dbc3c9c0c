#!/usr/bin/env python3
"""Peak memory and time of output layer and loss: in chunks, as models do it, and in one piece, as torch does it.

    python benchmarks/loss_memory.py [--rows 4096] [--vocab 32000] [--dim 512] [--out benchmarks/results]

Each way runs in a process of its own, which makes hidden vectors, weights and targets, notes its memory, and then computes
loss and gradients three times. What is reported is how far the peak of resident memory rose above the note, and the time
of the last round. The copy head is measured against softmax and scatter over all rows. Writes loss_memory.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from conditions import conditions
from torch import Tensor

from s2s_cli.models.heads import Attended, CopyHead, SoftmaxHead
from s2s_cli.models.layers import embedding

PLACES = 32  # source positions that the copy head may look at
WAYS = ("softmax, in chunks", "softmax, in one piece", "copy, in chunks", "copy, in one piece")


def peak_mib() -> float:
    """The most resident memory that this process has had."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def loss_of(way: str, head: SoftmaxHead, hidden: Tensor, attended: Attended, targets: Tensor) -> Tensor:
    """The label-smoothed loss of all rows."""
    if way.endswith("chunks"):
        return head.loss(hidden, attended, targets, 0.1)[0]
    if isinstance(head, CopyHead):
        logp = head.logp(hidden, attended)
        return 0.9 * F.nll_loss(logp, targets, reduction="sum") - 0.1 * logp.mean(dim=1).sum()
    return F.cross_entropy(F.linear(hidden, head.weight, head.bias), targets, label_smoothing=0.1, reduction="sum")


def measure(way: str, rows: int, vocab: int, dim: int) -> dict[str, float]:
    """MiB above the start, seconds of the third round, and the loss, which is the same for both ways."""
    torch.manual_seed(1)
    table = embedding(vocab, dim)
    head = CopyHead(table, 0.0) if way.startswith("copy") else SoftmaxHead(table)
    hidden = torch.randn(rows, dim, requires_grad=True)
    attended = Attended(torch.randn(rows, PLACES).softmax(dim=1), torch.randint(vocab, (rows, PLACES)))
    targets = torch.randint(vocab, (rows,))
    for tensor in (hidden, *head.parameters()):
        tensor.grad = torch.zeros_like(tensor)
    before = peak_mib()
    for _ in range(3):
        begun = time.perf_counter()
        loss = loss_of(way, head, hidden, attended, targets)
        loss.backward()
        seconds = time.perf_counter() - begun
    return {"mib": round(peak_mib() - before), "seconds": round(seconds, 3), "loss": float(loss.detach()) / rows}


def main() -> None:
    """Run each way in a process, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=4096, help="target tokens of a batch")
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.way:
        print(json.dumps(measure(options.way, options.rows, options.vocab, options.dim)))
        return
    result: dict = {
        "benchmark": "loss_memory",
        **conditions(["s2s-cli", "torch"]),
        "options": {name: getattr(options, name) for name in ("rows", "vocab", "dim", "threads")},
        "ways": {},
    }
    for way in WAYS:
        command = [sys.executable, *sys.argv, "--way", way]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        result["ways"][way] = found
        print(f"{way:22} {found['mib']:6} MiB  {found['seconds']:7.3f} s  loss {found['loss']:.4f}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "loss_memory.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
