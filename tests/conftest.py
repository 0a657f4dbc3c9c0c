"""What tests share: a corpus small enough to learn in seconds, its dataset, a run trained on it, and whole commands."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from zygote import Zygote

from s2s_cli.checkpoint.bundle import save_bundle, sizes, weights_of
from s2s_cli.config import SearchSettings, TransformerSettings
from s2s_cli.data.vocab import Vocab, Vocabs
from s2s_cli.models.base import Seq2Seq
from s2s_cli.models.build import build_model

torch.set_num_threads(1)

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


@pytest.fixture(scope="session")
def s2s(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Runs commands: `s2s.run("translate", "-i", path, cwd=folder)`."""
    zygote = Zygote(tmp_path_factory.mktemp("output"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of text."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def home(s2s: Zygote, corpus: Path) -> Path:
    """The folder of text, with `data-bin` made of it."""
    done = s2s.run("preprocess", "--vocab-size", 400, cwd=corpus)
    assert done.code == 0, done.err
    return corpus


@pytest.fixture(scope="session")
def run(s2s: Zygote, home: Path) -> Path:
    """A run trained on it until it knows most words; tests read it and leave it as it is."""
    done = s2s.run("train", *TINY, "--max-updates", 120, "--valid-every", 40, "--keep-best", 4, cwd=home)
    assert done.code == 0, done.err
    return home / "run"


@pytest.fixture(scope="session")
def vocabs() -> Vocabs:
    """One small vocabulary for both sides."""
    vocab = Vocab.train([text for pair in sentences(200, seed=9) for text in pair], size=400)
    return Vocabs(vocab, vocab)


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


@pytest.fixture
def bundle(tmp_path: Path, vocabs: Vocabs) -> Path:
    """A bundle of such a model, for the test to read or to spoil."""
    path = tmp_path / "bundle"
    search = SearchSettings(beam=3, max_len=12)
    save_bundle(path, weights_of(random_model(vocabs)), MODEL, search, vocabs, {"update": 7})
    return path
