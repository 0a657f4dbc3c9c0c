"""eole, the successor of OpenNMT-py, with the same models and most of its settings."""

from peers import opennmt
from peers.clock import SENTENCES, Clock, Spent, Task, act, lines

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
    training = opennmt.training(task) | {"model_path": str(task.file("model")), "gpu_ranks": []}
    training |= {"attention_dropout": [0.0], "compute_dtype": "fp32", "use_amp": False}
    model = {
        "hidden_size": size.dim,
        "layers": size.layers,
        "share_embeddings": True,
        "share_decoder_embeddings": True,
        "embeddings": {"word_vec_size": size.dim},
    }
    if size.family == "lstm":
        model |= {"architecture": "rnn", "rnn_type": "LSTM"}
        model["encoder"] = {"encoder_type": "brnn", "layers": size.layers, "hidden_size": size.dim}
        model["decoder"] = {"decoder_type": "rnn", "layers": size.layers, "hidden_size": size.dim}
        model["decoder"]["global_attention"] = "general"
    else:
        training["param_init_method"] = "xavier_uniform"
        model |= {"architecture": "transformer", "heads": size.heads, "transformer_ff": size.ffn_dim}
        model["embeddings"]["position_encoding_type"] = "SinusoidalInterleaved"
    return opennmt.text(task) | {"training": training, "model": model}


def begin(task: Task) -> None:
    """A model of one update."""
    import sys

    import yaml
    from eole.bin.main import main

    settings = config(task)
    settings["training"] |= opennmt.ONE_UPDATE
    sys.argv = ["eole", "train", "-config", str(task.file("train.yaml", yaml.safe_dump(settings)))]
    main()


def translate(task: Task) -> None:
    """Its own command."""
    import sys

    import torch
    import yaml

    torch.set_num_threads(task.threads)
    from eole.bin.main import main
    from eole.predict.inference import Inference

    spent, output = Spent(), task.file("output")
    Inference._predict = spent.around(Inference._predict)
    settings = {
        "model_path": [str(task.file("model"))],
        "src": str(task.sources()),
        "output": str(output),
        "beam_size": task.beam,
        "batch_size": SENTENCES,
        "batch_type": "sents",
        "world_size": 1,
        "gpu_ranks": [],
        "compute_dtype": "fp32",
    }
    settings |= opennmt.FIXED
    sys.argv = ["eole", "predict", "-config", str(task.file("predict.yaml", yaml.safe_dump(settings)))]
    main()
    spent.finish([line.split() for line in lines(output)])


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
    act(train, begin, translate)
