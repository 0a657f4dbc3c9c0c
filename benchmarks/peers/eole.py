"""eole, the successor of OpenNMT-py, with the same models."""

from peers.clock import LABEL_SMOOTHING, Clock, Task

PACKAGE = "eole"
INSTALL = (
    ["--no-deps", "eole==0.6.4", "torch-optimi", "fasttext-wheel"],
    [
        "configargparse",
        "ctranslate2==4.8.5",
        "fastapi",
        "huggingface_hub",
        "datasets",
        "pandas",
        "protobuf",
        "six",
        "spacy",
    ],
    [
        "pyahocorasick",
        "pyonmttok",
        "rapidfuzz",
        "rich",
        "safetensors",
        "subword-nmt",
        "tensorboard",
        "tokenizers",
        "aiohttp",
    ],
    ["uvicorn", "waitress", "pydantic", "sacrebleu", "sentencepiece", "setuptools", "psutil"],
)
FAMILIES = ("transformer", "lstm")
PRECISIONS = ("fp32",)


def config(task: Task) -> dict:
    """The content of its file of settings."""
    size = task.size
    vocabulary = task.file("vocabulary.txt", "".join(f"{piece}\t1\n" for piece in task.vocabulary()))
    corpora = {
        name: {"path_src": str(task.pieces(f"{part}.en")), "path_tgt": str(task.pieces(f"{part}.de")), "transforms": []}
        for name, part in (("corpus", "train"), ("valid", "valid"))
    }
    training = {
        "model_path": str(task.file("model")),
        "world_size": 1,
        "gpu_ranks": [],
        "num_workers": 0,
        "batch_type": "tokens",
        "batch_size": task.batch_tokens,
        "normalization": "tokens",
        "bucket_size": 32768,
        "dropout": [size.dropout],
        "attention_dropout": [0.0],
        "compute_dtype": "fp32",
        "use_amp": False,
        "optim": "adam",
        "adam_beta2": 0.998,
        "label_smoothing": LABEL_SMOOTHING,
        "train_steps": 10**6,
        "valid_steps": 10**6,
        "save_checkpoint_steps": 10**6,
    }
    model = {
        "hidden_size": size.dim,
        "layers": size.layers,
        "share_embeddings": True,
        "share_decoder_embeddings": True,
        "embeddings": {"word_vec_size": size.dim},
    }
    if size.family == "lstm":
        training |= {"learning_rate": 0.001, "decay_method": "none", "max_grad_norm": 5}
        model |= {"architecture": "rnn", "rnn_type": "LSTM"}
        model["encoder"] = {"encoder_type": "brnn", "layers": size.layers, "hidden_size": size.dim}
        model["decoder"] = {"decoder_type": "rnn", "layers": size.layers, "hidden_size": size.dim}
        model["decoder"]["global_attention"] = "general"
    else:
        training |= {"learning_rate": 2.0, "decay_method": "noam", "warmup_steps": 1000, "max_grad_norm": 0}
        training["param_init_method"] = "xavier_uniform"
        model |= {"architecture": "transformer", "heads": size.heads, "transformer_ff": size.ffn_dim}
        model["embeddings"]["position_encoding_type"] = "SinusoidalInterleaved"
    return {
        "data": corpora,
        "save_data": str(task.file("data")),
        "overwrite": True,
        "src_vocab": str(vocabulary),
        "tgt_vocab": str(vocabulary),
        "share_vocab": True,
        "seed": task.seed,
        "report_every": 1,
        "training": training,
        "model": model,
    }


def train(task: Task) -> None:
    """Its own command, timed at each update."""
    import sys

    import torch
    import yaml

    torch.set_num_threads(task.threads)
    from eole.bin.main import main
    from eole.trainer import Trainer

    clock, step = Clock(task), Trainer._train_step

    def timed(self, batches, *args, **options):
        num_src = sum(int(batch["srclen"].sum()) for batch in batches)
        clock.tick(num_src, sum(int((batch["tgtlen"] - 1).sum()) for batch in batches))
        return step(self, batches, *args, **options)

    Trainer._train_step = timed
    sys.argv = ["eole", "train", "-config", str(task.file("train.yaml", yaml.safe_dump(config(task))))]
    main()


if __name__ == "__main__":
    train(Task.given())
