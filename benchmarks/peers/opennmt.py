"""OpenNMT-py. It asks for an older torch; it trains on a new one as it is. Transformer with norms before each block; LSTM
with general attention, which feeds its output to the next step.
"""

from peers.clock import LABEL_SMOOTHING, PIECES, SENTENCES, Clock, Spent, Task, act, lines

PACKAGE = "OpenNMT-py"
INSTALL = (
    ["--no-deps", "OpenNMT-py==3.5.1", "fasttext-wheel"],
    [
        "configargparse",
        "ctranslate2==4.8.5",
        "pyonmttok",
        "sacrebleu",
        "sentencepiece",
        "tensorboard",
        "flask",
        "waitress",
    ],
    ["rapidfuzz", "pyahocorasick", "spacy", "six", "setuptools"],
)
FAMILIES = ("transformer", "lstm")
PRECISIONS = ("fp32",)
PAD = 1
ONE_UPDATE = {"train_steps": 1, "save_checkpoint_steps": 1, "batch_size": 256}  # a model that knows nothing
FIXED = {"min_length": PIECES, "max_length": PIECES, "max_length_ratio": 0}


def text(task: Task) -> dict:
    """What its file of settings says of the text; eole's too."""
    vocabulary = task.file("vocabulary.txt", "".join(f"{piece}\t1\n" for piece in task.vocabulary()))
    corpora = {
        name: {"path_src": str(task.pieces(f"{part}.en")), "path_tgt": str(task.pieces(f"{part}.de")), "transforms": []}
        for name, part in (("corpus", "train"), ("valid", "valid"))
    }
    return {
        "data": corpora,
        "save_data": str(task.file("data")),
        "overwrite": True,
        "src_vocab": str(vocabulary),
        "tgt_vocab": str(vocabulary),
        "share_vocab": True,
        "seed": task.seed,
        "report_every": 1,
    }


def training(task: Task) -> dict:
    """What it says of batches and updates; eole's too."""
    size = task.size
    found = {
        "world_size": 1,
        "num_workers": 0,
        "batch_type": "tokens",
        "batch_size": task.batch_tokens,
        "normalization": "tokens",
        "bucket_size": 32768,
        "dropout": [size.dropout],
        "optim": "adam",
        "adam_beta2": 0.998,
        "label_smoothing": LABEL_SMOOTHING,
        "train_steps": 10**6,
        "valid_steps": 10**6,
        "save_checkpoint_steps": 10**6,
    }
    if size.family == "lstm":
        return found | {"learning_rate": 0.001, "decay_method": "none", "max_grad_norm": 5}
    return found | {"learning_rate": 2.0, "decay_method": "noam", "warmup_steps": 1000, "max_grad_norm": 0}


def config(task: Task) -> dict:
    """The content of its file of settings."""
    size = task.size
    found = text(task) | training(task)
    found |= {"save_model": str(task.file("model")), "share_embeddings": True, "share_decoder_embeddings": True}
    found |= {"hidden_size": size.dim, "word_vec_size": size.dim, "layers": size.layers}
    if size.family == "lstm":
        return found | {
            "encoder_type": "brnn",
            "decoder_type": "rnn",
            "rnn_type": "LSTM",
            "global_attention": "general",
        }
    found |= {"encoder_type": "transformer", "decoder_type": "transformer", "heads": size.heads}
    found |= {"transformer_ff": size.ffn_dim, "attention_dropout": [0.0], "position_encoding": True}
    return found | {"param_init": 0, "param_init_glorot": True, "max_relative_positions": 0}


def begin(task: Task) -> None:
    """A model of one update."""
    import sys

    import yaml
    from onmt.bin.train import main

    sys.argv = ["onmt_train", "-config", str(task.file("train.yaml", yaml.safe_dump(config(task) | ONE_UPDATE)))]
    main()


def translate(task: Task) -> None:
    """Its own command."""
    import sys

    import torch

    torch.set_num_threads(task.threads)
    load = torch.load
    torch.load = lambda *args, **options: load(*args, **{"weights_only": False, **options})  # its models are pickles
    from onmt.bin.translate import main
    from onmt.translate.translator import Inference

    spent, output = Spent(), task.file("output")
    Inference._translate = spent.around(Inference._translate)
    command = ["onmt_translate", "-model", task.file("model_step_1.pt"), "-src", task.sources(), "-output", output]
    command += ["-beam_size", task.beam, "-batch_size", SENTENCES, "-gpu", -1]
    command += [word for name, value in FIXED.items() for word in (f"-{name}", value)]
    sys.argv = [str(word) for word in command]
    main()
    spent.finish([line.split() for line in lines(output)])


def train(task: Task) -> None:
    """Its own command, timed at each update."""
    import sys

    import torch
    import yaml

    torch.set_num_threads(task.threads)
    from onmt.bin.train import main
    from onmt.trainer import Trainer

    clock, step = Clock(task), Trainer._gradient_accumulation

    def timed(self, batches, *args, **options):
        num_src = sum(int(batch["srclen"].sum()) for batch in batches)
        clock.tick(num_src, sum(int((batch["tgt"][:, 1:, 0] != PAD).sum()) for batch in batches))
        return step(self, batches, *args, **options)

    Trainer._gradient_accumulation = timed
    sys.argv = ["onmt_train", "-config", str(task.file("train.yaml", yaml.safe_dump(config(task))))]
    main()


if __name__ == "__main__":
    act(train, begin, translate)
