"""fairseq, in a fork on PyPI that runs on Python 3.11. Transformer with norms after each block, its default; LSTM with dot
attention, which feeds its output to the next step.
"""

from peers.clock import LABEL_SMOOTHING, PIECES, SENTENCES, Clock, Spent, Task, act, lines

PACKAGE = "fairseq-fixed"
INSTALL = (
    [
        "cython",
        "cffi",
        "hydra-core==1.3.2",
        "omegaconf==2.3.0",
        "regex",
        "tqdm",
        "bitarray",
        "scikit-learn",
        "packaging",
    ],
    ["sacrebleu", "setuptools", "wheel", "ninja"],
    ["--no-deps", "--no-build-isolation", "fairseq-fixed==0.12.3.1"],
)
FAMILIES = ("transformer", "lstm")
PRECISIONS = ("fp32",)


def binarized(task: Task) -> str:
    """The folder of its own form of the text."""
    import sys

    folder = task.file("../binary").resolve()
    if (folder / "test.en-de.en.bin").exists():
        return str(folder)
    from fairseq_cli.preprocess import cli_main

    vocabulary = task.file("vocabulary.txt", "".join(f"{piece} 1\n" for piece in task.vocabulary()))
    sys.argv = ["fairseq-preprocess", "-s", "en", "-t", "de", "--joined-dictionary", "--srcdict", str(vocabulary)]
    sys.argv += ["--trainpref", str(task.pieces("train")), "--validpref", str(task.pieces("valid"))]
    sys.argv += ["--testpref", str(task.pieces("test"))]
    sys.argv += ["--destdir", str(folder), "--workers", "1"]
    cli_main()
    return str(folder)


def architecture(task: Task) -> list[str]:
    """Flags of the model."""
    size, flags = task.size, ["--share-all-embeddings", "--dropout", task.size.dropout]
    if size.family == "lstm":
        flags += ["--arch", "lstm", "--encoder-layers", size.layers, "--decoder-layers", size.layers]
        flags += ["--encoder-bidirectional", "--encoder-hidden-size", size.dim // 2, "--decoder-hidden-size", size.dim]
        for name in ("encoder-embed-dim", "decoder-embed-dim", "decoder-out-embed-dim"):
            flags += [f"--{name}", size.dim]
        return flags
    flags += ["--arch", "transformer", "--attention-dropout", 0]
    for side in ("encoder", "decoder"):
        flags += [f"--{side}-layers", size.layers, f"--{side}-attention-heads", size.heads]
        flags += [f"--{side}-embed-dim", size.dim, f"--{side}-ffn-embed-dim", size.ffn_dim]
    return flags


def flags(task: Task) -> list:
    """Of its command that trains."""
    found = [binarized(task), *architecture(task), "--cpu", "--seed", task.seed]
    found += ["--optimizer", "adam", "--adam-betas", "(0.9,0.98)", "--clip-norm", 1.0, "--lr", 0.002]
    found += ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", 1000, "--num-workers", 0, "--log-format", "none"]
    found += ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", LABEL_SMOOTHING]
    return [*found, "--disable-validation", "--save-dir", task.file("model")]


def begin(task: Task) -> None:
    """A model of one update."""
    import sys

    from fairseq_cli.train import cli_main

    sys.argv = ["fairseq-train", *map(str, flags(task)), "--max-tokens", "256", "--max-update", "1"]
    sys.argv += ["--no-epoch-checkpoints"]
    cli_main()


def translate(task: Task) -> None:
    """Its own command, which sorts by length itself."""
    import sys

    import torch

    torch.set_num_threads(task.threads)
    load = torch.load
    torch.load = lambda *args, **options: load(*args, **{"weights_only": False, **options})  # its models are pickles
    data = binarized(task)
    from fairseq.tasks.translation import TranslationTask
    from fairseq_cli.generate import cli_main

    spent = Spent()
    TranslationTask.inference_step = spent.around(TranslationTask.inference_step)
    command = ["fairseq-generate", data, "--path", task.file("model/checkpoint_last.pt"), "--cpu", "--num-workers", 0]
    command += ["--beam", task.beam, "--batch-size", SENTENCES, "--required-batch-size-multiple", 1]
    command += ["--max-len-a", 0, "--max-len-b", PIECES, "--min-len", PIECES, "--results-path", task.file("outputs")]
    sys.argv = [str(word) for word in command]
    cli_main()
    told = lines(task.file("outputs/generate-test.txt"))
    spent.finish([line.split("\t")[2].split() for line in told if line.startswith("H-")])


def train(task: Task) -> None:
    """Its own command, timed at each update."""
    import sys

    import torch

    torch.set_num_threads(task.threads)
    command = flags(task)
    from fairseq.trainer import Trainer
    from fairseq_cli.train import cli_main

    clock, step = Clock(task), Trainer.train_step

    def timed(self, samples, *args, **options):
        num_src = sum(int(sample["net_input"]["src_lengths"].sum()) for sample in samples)
        clock.tick(num_src, sum(int(sample["ntokens"]) for sample in samples))
        return step(self, samples, *args, **options)

    Trainer.train_step = timed
    sys.argv = ["fairseq-train", *map(str, command), "--max-tokens", str(task.batch_tokens), "--no-save"]
    cli_main()


if __name__ == "__main__":
    act(train, begin, translate)
