"""What tests share: a corpus small enough to learn in seconds, its dataset, a run trained on it, and whole commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from samples import MODEL, TINY, random_model, sentences, write_corpus
from zygote import Zygote

from s2s_cli.checkpoint.bundle import save_bundle, weights_of
from s2s_cli.config import SearchSettings
from s2s_cli.data.vocab import Vocab, Vocabs

torch.set_num_threads(1)


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


@pytest.fixture
def bundle(tmp_path: Path, vocabs: Vocabs) -> Path:
    """A bundle of such a model, for the test to read or to spoil."""
    path = tmp_path / "bundle"
    search = SearchSettings(beam=3, max_len=12)
    save_bundle(path, weights_of(random_model(vocabs)), MODEL, search, vocabs, {"update": 7})
    return path
