"""What several tests are made of: a toy language to translate, its corpus, and models that have learned nothing."""

import random
from pathlib import Path

import torch

from s2s_cli.checkpoint.bundle import sizes
from s2s_cli.config import TransformerSettings
from s2s_cli.data.vocab import Vocabs
from s2s_cli.models.base import Seq2Seq
from s2s_cli.models.build import build_model

WORDS = {
    **{"the": "der", "a": "ein", "dog": "Hund", "cat": "Kater", "man": "Mann", "sees": "sieht", "hears": "hört"},
    **{
        "knows": "kennt",
        "old": "alte",
        "young": "junge",
        "and": "und",
        "today": "heute",
        "here": "hier",
        "not": "nicht",
    },
}

# The least that a model needs to learn something in a few seconds.
TINY = [
    *("--encoder-layers", 1, "--decoder-layers", 1, "--dim", 32, "--heads", 2, "--ffn-dim", 48, "--preset", "tiny"),
    *(
        "--precision",
        "fp32",
        "--batch-tokens",
        256,
        "--lr",
        0.01,
        "--warmup",
        20,
        "--beam",
        3,
        "--max-len",
        24,
        "--patience",
        0,
    ),
]


def sentences(num: int, seed: int) -> list[tuple[str, str]]:
    """Pairs that are translated word by word."""
    rng = random.Random(seed)
    chosen = (rng.choices(list(WORDS), k=rng.randint(2, 8)) for _ in range(num))
    return [(" ".join(words) + ".", " ".join(WORDS[w] for w in words) + ".") for words in chosen]


def write_corpus(folder: Path, num_train: int = 300, num_valid: int = 24) -> Path:
    """train, valid and test text with the names that the bare commands look for."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, num) in enumerate({"train": num_train, "valid": num_valid, "test": num_valid}.items()):
        pairs = sentences(num, seed)
        for side, suffix in enumerate((".src", ".tgt")):
            (folder / (name + suffix)).write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
    return folder


MODEL = TransformerSettings(encoder_layers=1, decoder_layers=1, dim=16, heads=2, ffn_dim=24, dropout=0.0, tie="none")


def random_model(vocabs: Vocabs, seed: int = 1) -> Seq2Seq:
    """A model that has learned nothing, but says it with conviction, and something else for each sentence."""
    torch.manual_seed(seed)
    model = build_model(MODEL, sizes(vocabs)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("head.weight", "decoder")) and parameter.dim() > 1:
                parameter.mul_(3.0)
    return model
