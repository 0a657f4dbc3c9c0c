"""Marian, the C++ toolkit, through the wheel pymarian, which holds its trainer. Norms after each block, as in its task
transformer-base. Timed by its own log, which tells seconds and target labels of each update; source tokens are not in it.
"""

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from peers.clock import LABEL_SMOOTHING, Task, finish, rates

PACKAGE = "pymarian"
INSTALL = (["pymarian==1.12.42"],)
FAMILIES = ("transformer", "lstm")
PRECISIONS = ("fp32",)
UPDATE = re.compile(r"Up\. \d+ : .* \* ([\d,]+) @ .* : Time ([\d.]+)s")


def architecture(task: Task) -> list:
    """Flags of the model."""
    size, flags = task.size, ["--enc-depth", task.size.layers, "--dec-depth", task.size.layers, "--tied-embeddings-all"]
    flags += ["--dim-emb", size.dim]
    if size.family == "lstm":
        flags += ["--type", "s2s", "--enc-type", "bidirectional", "--enc-cell", "lstm", "--dec-cell", "lstm"]
        return flags + ["--dec-cell-base-depth", 2, "--dim-rnn", size.dim, "--dropout-rnn", size.dropout]
    flags += ["--type", "transformer", "--transformer-heads", size.heads, "--transformer-dim-ffn", size.ffn_dim]
    flags += ["--transformer-ffn-activation", "relu", "--transformer-postprocess", "dan"]
    return flags + ["--transformer-dropout", size.dropout]


def train(task: Task) -> None:
    """Its own command."""
    entries = enumerate(["</s>", "<unk>", *task.vocabulary()])
    vocab = task.file("vocab.yml", "".join(f"{json.dumps(p, ensure_ascii=False)}: {i}\n" for i, p in entries))
    for path in Path(task.work).glob("model*"):
        path.unlink()
    size, log = task.size, task.file("train.log")
    log.unlink(missing_ok=True)
    flags = [*architecture(task), "--train-sets", task.pieces("train.en"), task.pieces("train.de")]
    flags += ["--vocabs", vocab, vocab, "--model", task.file("model.npz"), "--log", log, "--seed", task.seed]
    flags += ["--mini-batch-words", task.batch_tokens, "--mini-batch", 1000, "--maxi-batch", 1000, "--max-length", 256]
    flags += ["--cpu-threads", task.threads, "--sync-sgd", "--workspace", 2000, "--mini-batch-round-up", "false"]
    flags += ["--label-smoothing", LABEL_SMOOTHING, "--cost-type", "ce-sum", "--clip-norm", 1, "--learn-rate", 0.002]
    flags += ["--lr-warmup", 1000, "--lr-decay-inv-sqrt", 1000, "--optimizer-params", 0.9, 0.98, 1e-9]
    flags += ["--shuffle-in-ram", "--overwrite", "--disp-freq", "1u", "--disp-label-counts", "true"]
    flags += ["--save-freq", "100000u", "--valid-freq", "100000u", "--after", f"{size.warm_up + size.updates}u"]
    program = Path(sys.executable).parent / "pymarian"
    begun = time.perf_counter()
    subprocess.run([program, "train", *map(str, flags)], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = (used.ru_utime + used.ru_stime) / (time.perf_counter() - begun)  # of the whole command, its start included
    found = UPDATE.findall(log.read_text(encoding="utf-8"))[size.warm_up :]
    num_tgt = sum(int(labels.replace(",", "")) for labels, _ in found)
    result = rates(len(found), sum(float(seconds) for _, seconds in found), 0, num_tgt)
    del result["src_tokens_per_update"]
    finish(**result, cores_used=round(cores, 2))


if __name__ == "__main__":
    train(Task.given())
