"""From attention to links between pieces or words."""

import pytest
import torch
from samples import sentences

from s2s_cli.data.vocab import Vocab
from s2s_cli.search.alignment import pharaoh, piece_links, word_links, words_of

TEXTS = [text for pair in sentences(200, seed=9) for text in pair]


def test_links_of_a_known_attention() -> None:
    attention = torch.tensor([[0.1, 0.2, 0.6, 0.1], [0.3, 0.3, 0.0, 0.4], [0.0, 0.1, 0.0, 0.9], [0.0, 0.0, 0.0, 1.0]])
    assert piece_links(attention) == [
        (2, 0),
        (0, 1),
        (1, 2),
    ]  # what looks at the end of the source looks somewhere still
    # Words: source {0, 1} and {2}; target {0}, {1, 2}.
    assert word_links(attention, [0, 0, 1], [0, 1, 1]) == [(1, 0), (0, 1)]
    assert pharaoh([(1, 0), (0, 1)]) == "1-0 0-1"


def test_nothing_to_align() -> None:
    assert piece_links(torch.ones(1, 4)) == []
    assert word_links(torch.ones(1, 4), [0, 0, 1], []) == []
    assert pharaoh([]) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the dog sees.", 3),
        ("  the   dog ", 2),
        ("<2de> the dog", 3),
        ("x☃y dog", 2),
    ],
)
def test_pieces_know_their_words(text: str, words: int) -> None:
    """The pieces of each word are those that it has by itself, however far the line goes on."""
    vocab = Vocab.train(TEXTS, size=400, tags=["<2de>"])
    ids = vocab.encode([text])[0]
    found = words_of(vocab, ids, text)
    assert found == sorted(found)
    assert set(found) == set(range(words))
    for number, word in enumerate(text.split()):
        own = vocab.decode([i for i, at in zip(ids, found, strict=True) if at == number]).strip()
        assert own == word


def test_unknown_pieces_are_no_words_of_their_own() -> None:
    vocab = Vocab.train(TEXTS, size=400, byte_fallback=False)
    ids = vocab.encode(["the d☃g sees"])[0]
    assert max(words_of(vocab, ids, "the d☃g sees")) == 2
    assert max(words_of(vocab, ids)) == 4, "decoded, it is set apart"


def test_spaces_alone_are_no_word() -> None:
    vocab = Vocab.train(TEXTS, size=400, byte_fallback=False)
    space, (the, *_) = vocab.encode(["  "])[0] or [vocab.id("▁")], vocab.encode(["the"])[0]
    assert vocab.decode([space[0]]).strip() == ""
    assert words_of(vocab, [space[0]] * 2) == [-1, -1]
    assert word_links(torch.ones(3, 2), [0], [-1, -1]) == []
    assert word_links(torch.ones(2, 3), [-1, -1], [0]) == []
    unknown = vocab.encode(["the \u2028 "])[0]  # a space that the vocabulary does not know
    assert set(words_of(vocab, unknown, "the \u2028 ")) == {0}
    assert the in unknown
