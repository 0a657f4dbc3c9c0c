"""JoeyNMT, with norms before each block as in its examples. Its batches of tokens mix sentences of all lengths, so that much
of them is padding.
"""

from peers.clock import LABEL_SMOOTHING, Clock, Task

PACKAGE = "joeynmt"
INSTALL = (
    ["--no-deps", "joeynmt==2.3.0"],
    ["protobuf<3.21", "tensorboard", "sacremoses", "subword-nmt", "matplotlib", "seaborn", "six", "wrapt", "datasets"],
    [
        "packaging",
        "plotly",
        "pandas",
        "future",
        "pillow",
        "importlib_metadata",
        "sacrebleu",
        "sentencepiece",
        "setuptools",
    ],
)
FAMILIES = ("transformer", "lstm")
PRECISIONS = ("fp32",)


def config(task: Task) -> dict:
    """The content of its file of settings."""
    size = task.size
    vocabulary = task.file("vocabulary.txt", "".join(f"{piece}\n" for piece in task.vocabulary()))
    side = {"level": "word", "max_length": 256, "lowercase": False, "normalize": False, "tokenizer_type": "none"}
    side |= {"voc_min_freq": 0, "voc_file": str(vocabulary)}
    specials = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    specials |= {"unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3}
    embeddings = {"embedding_dim": size.dim, "scale": size.family == "transformer", "dropout": 0.0}
    if size.family == "transformer":
        encoder = {"type": "transformer", "num_layers": size.layers, "num_heads": size.heads, "hidden_size": size.dim}
        encoder |= {"ff_size": size.ffn_dim, "dropout": size.dropout, "embeddings": embeddings}
        encoder |= {"layer_norm": "pre", "activation": "relu"}
        decoder = dict(encoder)
    else:
        encoder = {"type": "recurrent", "rnn_type": "lstm", "num_layers": size.layers, "dropout": size.dropout}
        encoder["embeddings"] = embeddings
        decoder = encoder | {"hidden_size": size.dim, "hidden_dropout": 0.0, "init_hidden": "bridge"}
        decoder |= {"input_feeding": True, "attention": "luong"}
        encoder |= {"hidden_size": size.dim // 2, "bidirectional": True}
    training = {
        "optimizer": "adam",
        "adam_betas": [0.9, 0.998],
        "learning_rate": 0.001,
        "learning_rate_warmup": 1000,
        "learning_rate_min": 1e-9,
        "scheduling": "warmupinversesquareroot",
        "clip_grad_norm": 5.0,
        "normalization": "tokens",
        "label_smoothing": LABEL_SMOOTHING,
        "loss": "crossentropy",
        "batch_size": task.batch_tokens,
        "batch_type": "token",
        "early_stopping_metric": "loss",
        "epochs": 1000,
        "validation_freq": 10**6,
        "logging_freq": 10**6,
        "overwrite": True,
    }
    return {
        "name": "benchmark",
        "joeynmt_version": "2.3.0",
        "model_dir": str(task.file("model")),
        "use_cuda": False,
        "fp16": False,
        "random_seed": task.seed,
        "num_workers": 0,
        "data": {
            "train": str(task.pieces("train")),
            "dev": str(task.pieces("valid")),
            "dataset_type": "plain",
            "src": side | {"lang": "en"},
            "trg": side | {"lang": "de"},
            "special_symbols": specials,
        },
        "testing": {
            "n_best": 1,
            "beam_size": 5,
            "beam_alpha": 1.0,
            "batch_size": 64,
            "batch_type": "sentence",
            "eval_metrics": [],
        },
        "training": training,
        "model": {
            "initializer": "xavier_uniform",
            "bias_initializer": "zeros",
            "embed_initializer": "xavier_uniform",
            "tied_embeddings": True,
            "tied_softmax": True,
            "encoder": encoder,
            "decoder": decoder,
        },
    }


def train(task: Task) -> None:
    """Its own command, timed at each update."""
    import sys

    import torch
    import yaml

    torch.set_num_threads(task.threads)
    from joeynmt.__main__ import main
    from joeynmt.training import TrainManager

    clock, step = Clock(task), TrainManager._train_step

    def timed(self, batch):
        clock.tick(int(batch.src_length.sum()), int(batch.ntokens))
        return step(self, batch)

    TrainManager._train_step = timed
    sys.argv = ["joeynmt", "train", str(task.file("train.yaml", yaml.safe_dump(config(task)))), "--skip-test"]
    main()


if __name__ == "__main__":
    train(Task.given())
