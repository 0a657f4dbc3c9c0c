"""Sockeye. It asks for an older torch and numpy. Transformer with norms before each block; its batches are of sentences of
like length, padded to a multiple of 8.
"""

import json

from peers.clock import LABEL_SMOOTHING, SPECIALS, Clock, Task

PACKAGE = "sockeye"
INSTALL = (["--no-deps", "sockeye==3.1.34"], ["numpy<2", "sacrebleu", "setuptools"])
FAMILIES = ("transformer",)
PRECISIONS = ("fp32",)


def train(task: Task) -> None:
    """Its own command, timed at each update."""
    import sys

    import torch

    torch.set_num_threads(task.threads)
    import sockeye.train
    from sockeye.training import EarlyStoppingTrainer

    pieces = ["<pad>", "<unk>", "<s>", "</s>", *task.vocabulary()]
    assert len(pieces) - len(task.vocabulary()) == SPECIALS
    vocabulary = task.file("vocab.json", json.dumps({piece: i for i, piece in enumerate(pieces)}, ensure_ascii=False))
    clock, step = Clock(task), EarlyStoppingTrainer._step

    def timed(self, batch):
        num_src = int((batch.source[:, :, 0] != 0).sum())
        clock.tick(num_src, int((batch.labels["target_label"] != 0).sum()))
        return step(self, batch)

    EarlyStoppingTrainer._step = timed
    size, flags = task.size, ["--output", task.file("model"), "--overwrite-output", "--use-cpu", "--seed", task.seed]
    for side, language in (("source", "en"), ("target", "de")):
        flags += [f"--{side}", task.pieces(f"train.{language}"), f"--{side}-vocab", vocabulary]
        flags += [f"--validation-{side}", task.pieces(f"valid.{language}")]
    flags += ["--shared-vocab", "--weight-tying-type", "src_trg_softmax", "--label-smoothing", LABEL_SMOOTHING]
    flags += ["--num-layers", size.layers, "--transformer-model-size", size.dim, "--num-embed", size.dim]
    flags += ["--transformer-attention-heads", size.heads, "--transformer-feed-forward-num-hidden", size.ffn_dim]
    flags += ["--transformer-dropout-prepost", size.dropout, "--transformer-dropout-attention", 0]
    flags += ["--transformer-dropout-act", 0, "--batch-type", "word", "--batch-size", task.batch_tokens]
    flags += ["--max-seq-len", 95, "--optimizer", "adam", "--initial-learning-rate", 0.002, "--quiet"]
    flags += ["--checkpoint-interval", 10**6, "--max-updates", 10**6, "--decode-and-evaluate", 0]
    sys.argv = ["sockeye-train", *map(str, flags)]
    sockeye.train.main()


if __name__ == "__main__":
    train(Task.given())
