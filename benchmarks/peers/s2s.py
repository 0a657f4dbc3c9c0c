"""Ours: `s2s train` itself, timed at each update like the others, and `s2s translate`."""

import json
import shutil
import sys
from pathlib import Path

from peers.clock import LABEL_SMOOTHING, PEAK_RATE, PIECES, Clock, Spent, Task, act, finish, lines

PACKAGE = "s2s-cli"
INSTALL = ()
FAMILIES = ("transformer", "lstm")
PRECISIONS = ("fp32", "bf16")


def config(task: Task) -> dict:
    """The content of s2s.yaml."""
    size = task.size
    model = {"encoder_layers": size.layers, "decoder_layers": size.layers, "dim": size.dim, "dropout": size.dropout}
    if size.family == "transformer":
        model |= {"family": "transformer", "heads": size.heads, "ffn_dim": size.ffn_dim}
        model["norm"] = "post" if task.loss_after else "pre"  # as MarianMTModel, whose loss it is compared with
    else:
        model |= {"family": "rnn", "cell": "lstm", "emb_dim": size.dim, "attention": "general", "input_feeding": True}
    train = {
        "data": str(Path(task.text) / "data-bin"),
        "run": str(task.file("run")),
        "batch_tokens": task.batch_tokens,
        "label_smoothing": LABEL_SMOOTHING,
        "seed": task.seed,
    }
    if task.loss_after:
        train |= {"max_updates": task.loss_after, "valid_every": task.loss_after, "valid_metric": "loss"}
        train |= {"lr": PEAK_RATE, "schedule": "constant", "warmup": task.warm_up}
    return {"model": model, "train": train, "runtime": {"precision": task.precision, "threads": task.threads}}


def raw(task: Task) -> Path:
    """The text that is translated, as people write it."""
    return Path(task.text) / "raw" / "test_2016_flickr.en"


def begin(task: Task) -> None:
    """A model of one update, validated in fp32."""
    from s2s_cli.__main__ import main

    shutil.rmtree(task.file("run"), ignore_errors=True)
    settings = config(task)
    settings["train"] |= {"max_updates": 1, "valid_metric": "loss"}
    sys.argv = ["s2s", "train", "-c", str(task.file("s2s.yaml", json.dumps(settings)))]
    main()


def translate(task: Task) -> None:
    """Its own command, from raw text to raw text; the time is of lines to outputs, pieces and processes that search included."""
    from s2s_cli.__main__ import main
    from s2s_cli.search.translator import Translator

    spent, output, pieces = Spent(), task.file("output"), []
    search = spent.around(Translator.search_lines)

    def noted(*args, **options):
        found = search(*args, **options)
        pieces.extend(outputs[0].pieces for outputs in found)
        return found

    Translator.search_lines = noted
    output.unlink(missing_ok=True)
    command = ["s2s", "translate", "-m", task.model or task.file("run"), "-i", raw(task), "-o", output]
    command += ["--beam", task.beam, "--precision", task.precision, "--threads", task.threads]
    if task.fixed:
        command += ["--min-len", PIECES, "--max-len", PIECES]
    sys.argv = [str(word) for word in command]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    assert len(lines(output)) == len(pieces)
    spent.finish(pieces)


def train(task: Task) -> None:
    """Its own command."""
    from safetensors.torch import save_file

    from s2s_cli.__main__ import main
    from s2s_cli.training.update import Updater

    clock, update = Clock(task), Updater.update

    def timed(self, batches, *args, **options):
        num_src = sum(int(batch.src_len.sum()) for batch in batches)
        clock.tick(num_src, sum(batch.num_tokens for batch in batches))
        return update(self, batches, *args, **options)

    def told(self, batches, *args, **options):
        if not told_to.tell():
            weights = {name: weight.clone() for name, weight in self.learner.model.state_dict().items()}
            save_file(weights, task.start("weights.safetensors"))
        told_to.write(json.dumps([int(line) for batch in batches for line in batch.lines]) + "\n")
        return update(self, batches, *args, **options)

    if task.loss_after:
        told_to = task.start("batches.jsonl").open("w", buffering=1)
    Updater.update = told if task.loss_after else timed
    run = task.file("run")
    shutil.rmtree(run, ignore_errors=True)
    sys.argv = ["s2s", "train", "-c", str(task.file("s2s.yaml", json.dumps(config(task))))]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().split("\n")[:-1]]
    finish(valid_loss=records[-1]["loss"], updates=records[-1]["update"])


if __name__ == "__main__":
    act(train, begin, translate)
