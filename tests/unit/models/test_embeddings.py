"""Word vectors from files: who gets which, at what scale, and what a faulty file is told."""

import gzip

import pytest
import torch

from s2s_cli.config import RnnSettings
from s2s_cli.data.vocab import Vocab
from s2s_cli.errors import ConfigError, DataError
from s2s_cli.models.base import Sizes
from s2s_cli.models.build import build_model
from s2s_cli.models.embeddings import load_embeddings, set_embeddings

WORDS = ["the", "dog", "sees", "a", "Cat"]
VECTORS = {"the": [1.0, 2.0, 3.0], "dog": [-1.0, 0.5, 0.0], "cat": [4.0, 4.0, -4.0], "unicorn": [9.0, 9.0, 9.0]}
LINES = [f"{word} {' '.join(map(str, vector))}" for word, vector in VECTORS.items()]


@pytest.fixture(scope="module")
def vocab() -> Vocab:
    return Vocab.train([" ".join(WORDS)] * 20, size=64, kind="word", byte_fallback=False)


def write(path, lines: list[str]):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(matrix, vocab: Vocab, word: str):
    return matrix[vocab.id("▁" + word)]


@pytest.mark.parametrize("kind", ["glove", "word2vec", "fasttext", "gz"])
def test_every_format_gives_the_same_vectors(tmp_path, vocab, kind):
    path = tmp_path / "vectors.txt"
    header = [] if kind in ("glove", "gz") else [f"{len(LINES)} 3"]
    write(path, header + [line + (" " if kind == "fasttext" else "") for line in LINES])
    if kind == "gz":
        path = tmp_path / "vectors.gz"
        path.write_bytes(gzip.compress("\n".join(LINES).encode()))
    matrix, report = load_embeddings(path, vocab)
    assert matrix.shape == (len(vocab), 3)
    for word, theirs in {"the": "the", "dog": "dog", "Cat": "cat"}.items():
        vector = torch.tensor(VECTORS[theirs])
        ours = row(matrix, vocab, word)
        torch.testing.assert_close(ours / ours.norm(), vector / vector.norm())
    assert (report.as_piece, report.as_word, report.as_lowercase) == (0, 2, 1)
    assert set(report.missing) == {"▁sees", "▁a"}
    assert "3 of 5 pieces (60.0%)" in str(report)


def test_a_piece_prefers_its_own_spelling_and_case(tmp_path, vocab):
    lines = ["the 1 0 0", "▁the 0 1 0", "cat 1 0 0", "Cat 0 0 1", "dog 1 0 0", "dog 0 1 0"]
    matrix, report = load_embeddings(write(tmp_path / "v", lines), vocab)
    assert row(matrix, vocab, "the").argmax() == 1
    assert row(matrix, vocab, "Cat").argmax() == 2
    assert row(matrix, vocab, "dog").argmax() == 0  # the first of two
    assert (report.as_piece, report.as_word, report.as_lowercase) == (1, 2, 0)


def test_vectors_have_the_scale_of_fresh_weights_and_keep_their_proportions(tmp_path, vocab):
    matrix, _ = load_embeddings(write(tmp_path / "v", LINES), vocab)
    found = torch.stack([row(matrix, vocab, word) for word in ("the", "dog", "Cat")])
    assert float(found.square().mean()) == pytest.approx(1 / 3)
    assert float(found[0].norm() / found[1].norm()) == pytest.approx((14.0 / 1.25) ** 0.5)
    others = [i for i in range(len(vocab)) if i not in {vocab.id(f"▁{word}") for word in ("the", "dog", "Cat")}]
    assert matrix[others].std() == pytest.approx(3**-0.5, rel=0.5)


def test_half_a_word_takes_no_vector_of_a_word(tmp_path):
    """Of "running," in characters, i stands within a word; the comma is as good as a word."""
    vocab = Vocab.train(["running, running"] * 20, size=32, kind="char", byte_fallback=False)
    words, pieces = ["i 1 0 0", ", 0 1 0"], ["▁ 1 1 1", "i 1 0 0", ", 0 1 0"]
    _, of_words = load_embeddings(write(tmp_path / "words", words), vocab)
    assert "i" in of_words.missing
    assert "," not in of_words.missing
    _, of_pieces = load_embeddings(write(tmp_path / "pieces", pieces), vocab)
    assert not {"i", ","} & set(of_pieces.missing)


def test_words_with_spaces_do_not_shift_the_numbers(tmp_path, vocab):
    matrix, _ = load_embeddings(write(tmp_path / "v", ["the 1 0 0", ". . . 5 5 5", "dog 0 1 0"]), vocab)
    assert row(matrix, vocab, "dog").argmax() == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["the 1 2 3", "dog 1 2"], ":2: a word and 3 numbers"),
        (["the 1 2 3", "dog 1 x 3"], ":2: not all"),
        (["the 1 2 3", "dog 1 nan 3"], ":2: not all"),
        (["the 1 2 3", "dog 1 2 1e99"], ":2: not all"),
        (["the", "dog 1 2"], ":1: a word and 0 numbers"),
        (["3 0", "the"], ":2: a word and 0 numbers"),
        (["2 3"], "no vector but zero for any piece"),
        (["the 0 0 0", "dog 0 0 0"], "no vector but zero for any piece"),
        (["5 999999999999", "the 1 2"], ":2: a word and 999999999999 numbers"),
        (["unicorn 1 2 3"], "no vector but zero for any piece"),
    ],
)
def test_faulty_files_are_named(tmp_path, vocab, lines, message):
    with pytest.raises(DataError, match=message):
        load_embeddings(write(tmp_path / "v", lines), vocab)


def test_a_model_takes_them(tmp_path, vocab):
    matrix, _ = load_embeddings(write(tmp_path / "v", LINES), vocab)
    model = build_model(RnnSettings(emb_dim=3, dim=4), Sizes(len(vocab), len(vocab), True))
    set_embeddings(model, "src", matrix)
    assert torch.equal(model.src_embedding.weight, matrix)
    assert model.head.weight is model.src_embedding.weight  # tied, and so set as well
    wider = build_model(RnnSettings(emb_dim=8, dim=4, tie="none"), Sizes(len(vocab), len(vocab), True))
    with pytest.raises(ConfigError, match="3 wide"):
        set_embeddings(wider, "tgt", matrix)


@pytest.mark.parametrize(("tie", "factor"), [("all", 1.0), ("target", 1.0), ("none", 3**0.5)])
def test_they_are_as_large_as_the_model_begins_with(tmp_path, vocab, tie, factor):
    """Where a recurrent model's table is no output layer too, of variance 1."""
    matrix, _ = load_embeddings(write(tmp_path / "v", LINES), vocab)
    model = build_model(RnnSettings(emb_dim=3, dim=4, tie=tie), Sizes(len(vocab), len(vocab), True))
    set_embeddings(model, "tgt", matrix)
    torch.testing.assert_close(model.tgt_embedding.weight.detach(), matrix * factor)
