import io
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import sentencepiece
from corpora import WORDS, sentences
from hypothesis import given
from hypothesis import strategies as st

from s2s_cli.data import sampling
from s2s_cli.data.sampling import BpeDropout, Piece, Sampler, UnigramSampling
from s2s_cli.data.vocab import Vocab, read_model

KINDS = ["bpe", "unigram"]
# Models as others train them: spaces at the end of pieces, spaces within them, no space in front, no bytes, few characters.
FOREIGN = {
    "plain": {},
    "suffix": {"treat_whitespace_as_suffix": True},
    "across words": {"split_by_whitespace": False, "vocab_size": 120},
    "no prefix": {"add_dummy_prefix": False},
    "bytes": {"byte_fallback": True, "vocab_size": 320, "character_coverage": 0.98},
    "symbols": {"user_defined_symbols": ["og", "the dog"]},
}
TEXT = st.lists(
    st.sampled_from([*WORDS, " ", " ", "  ", "▁", "og", "treehouse", "<s>", "<unk>", "␛"])
    | st.text("abdeghorst ", max_size=9)
).map("".join)

# "abab" has merges of equal rank, one that needs another, and pieces that no merge makes.
TINY = [Piece(text, id, score) for id, (text, score) in enumerate(
    {"a": -6.0, "b": -5.5, "ab": -1.0, "ba": -1.0, "bab": -2.0, "abab": -3.0, "▁": -7.0, "▁a": -4.0}.items()
)]  # fmt: skip
IDS = {piece.text: piece.id for piece in TINY}
Split = tuple[int, ...]


def foreign(kind: str, **options: object) -> bytes:
    model = io.BytesIO()
    options = {"vocab_size": 60, "hard_vocab_limit": False, **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(200)), model_writer=model, model_type=kind, minloglevel=2, **options
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def vocabs() -> dict[tuple[str, str], Vocab]:
    ours = {(kind, "ours"): Vocab.train(sentences(300), size=400, kind=kind) for kind in KINDS}
    return ours | {(kind, name): Vocab(foreign(kind, **options)) for kind in KINDS for name, options in FOREIGN.items()}


def splits(text: str, start: int = 0) -> Iterator[Split]:
    """All splits into tiny pieces."""
    if start == len(text):
        yield ()
    for end in range(start + 1, len(text) + 1):
        if text[start:end] in IDS:
            yield from ((IDS[text[start:end]], *rest) for rest in splits(text, end))


def posterior(text: str, alpha: float) -> dict[Split, float]:
    weights = {split: math.exp(alpha * sum(TINY[id].score for id in split)) for split in splits(text)}
    return {split: weight / sum(weights.values()) for split, weight in weights.items()}


def dropped_out(pieces: tuple[str, ...], rate: float) -> Counter[Split]:
    """The law of BPE-dropout from these pieces on, as the paper tells it: merge by merge, for one word."""
    merges = [(-TINY[IDS[a + b]].score, i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in IDS]
    law: Counter[Split] = Counter()
    reached = 1.0
    for _, i in sorted(merges):
        for split, p in dropped_out((*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]), rate).items():
            law[split] += reached * (1 - rate) * p
        reached *= rate
    law[tuple(IDS[piece] for piece in pieces)] += reached
    return law


def one_by_one(words: list[dict[Split, float]]) -> dict[Split, float]:
    """The law of words that are split independently."""
    law: dict[Split, float] = {(): 1.0}
    for word in words:
        law = {(*split, *more): p * q for split, p in law.items() for more, q in word.items()}
    return law


def check_frequencies(sampler: Sampler, text: str, law: dict[Split, float], num: int = 4000) -> None:
    """What is drawn is what the law says, within five standard deviations and, for what is rare, five draws."""
    assert sum(law.values()) == pytest.approx(1)
    ids = [IDS[char] for char in text]
    found = Counter(tuple(sampler(ids, seed)) for seed in range(num))
    assert set(found) <= {split for split, p in law.items() if p > 0}
    for split, p in law.items():
        assert abs(found[split] / num - p) <= 5 * math.sqrt(p * (1 - p) / num) + 5 / num


@pytest.mark.parametrize("words", [["abab"], ["▁abab"], ["bab", "▁ab"], ["▁", "▁a"]])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout_follows_the_law_of_the_paper(words: list[str], rate: float) -> None:
    law = one_by_one([dropped_out(tuple(word), rate) for word in words])
    check_frequencies(BpeDropout(TINY, rate), "".join(words), law)


@pytest.mark.parametrize("text", ["abab", "▁abab", "babab▁ab", "▁▁a"])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0, 50.0])
def test_unigram_sampling_follows_the_posterior_of_the_lattice(text: str, alpha: float) -> None:
    check_frequencies(UnigramSampling(TINY, alpha), text, posterior(text, alpha))


@pytest.mark.parametrize("name", ["ours", *FOREIGN])
@given(text=TEXT)
def test_without_dropout_bpe_is_that_of_sentencepiece(
    vocabs: dict[tuple[str, str], Vocab], name: str, text: str
) -> None:
    vocab = vocabs["bpe", name]
    [ids] = vocab.encode([text])
    assert vocab.resample(ids, 0.0, 1) == ids
    assert vocab.resample(vocab.resample(ids, 0.7, 1), 0.0, 1) == ids  # and wherever it starts from


@given(text=TEXT)
def test_a_large_alpha_takes_the_best_split(vocabs: dict[tuple[str, str], Vocab], text: str) -> None:
    vocab = vocabs["unigram", "ours"]

    def score(ids: list[int]) -> float:
        return sum(vocab._model.get_score(id) for id in ids)

    [ids] = vocab.encode([text])
    drawn = vocab.resample(ids, 1e5, 1)
    assert score(drawn) == pytest.approx(score(ids), abs=1e-3)  # SentencePiece's, or one as good


@pytest.mark.parametrize("name", ["ours", *FOREIGN])
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT, rate=st.sampled_from([0.0, 0.1, 0.5, 0.99, 1.0]), seed=st.integers(0, 1 << 40))
def test_the_text_stays(
    vocabs: dict[tuple[str, str], Vocab], kind: str, name: str, text: str, rate: float, seed: int
) -> None:
    vocab = vocabs[kind, name]
    [ids] = vocab.encode([text])
    assert vocab.decode(vocab.resample(ids, rate, seed)) == vocab.decode(ids)


@pytest.mark.parametrize("name", ["ours", *FOREIGN])
@pytest.mark.parametrize(("kind", "rate"), [("bpe", 0.5), ("unigram", 0.1)])
def test_every_model_is_split_anew(vocabs: dict[tuple[str, str], Vocab], kind: str, rate: float, name: str) -> None:
    [ids] = vocabs[kind, name].encode([" ".join(["the old dog sees a green tree"] * 20)])
    assert len({tuple(vocabs[kind, name].resample(ids, rate, seed)) for seed in range(10)}) > 5


def test_more_dropout_makes_more_pieces(vocabs: dict[tuple[str, str], Vocab]) -> None:
    vocab = vocabs["bpe", "ours"]
    encoded = vocab.encode(sentences(100))
    sizes = [sum(len(vocab.resample(ids, rate, 7)) for ids in encoded) for rate in (0.0, 0.1, 0.4, 0.7, 1.0)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("kind", KINDS)
def test_other_processes_draw_the_same(vocabs: dict[tuple[str, str], Vocab], kind: str, tmp_path: Path) -> None:
    vocab = vocabs[kind, "ours"]
    (tmp_path / "vocab.model").write_bytes(vocab.proto)
    program = (
        f"from pathlib import Path; from {read_model.__module__} import read_model\n"
        "vocab = read_model(Path('vocab.model'))\n"
        "print([vocab.resample(ids, 0.3, seed) for seed, ids in enumerate(vocab.encode(['the old dog sees a cat'] * 9))])"
    )
    texts = {
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    }
    here = [vocab.resample(ids, 0.3, seed) for seed, ids in enumerate(vocab.encode(["the old dog sees a cat"] * 9))]
    assert texts == {f"{here}\n"}


@pytest.mark.parametrize("kind", KINDS)
def test_words_that_are_not_kept_are_split_alike(
    vocabs: dict[tuple[str, str], Vocab], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = vocabs[kind, "ours"].encode(sentences(50))
    drawn = []
    for kept in (1 << 17, 20, 0):
        monkeypatch.setattr(sampling, "KEPT_CHARS", kept)
        vocab = Vocab(vocabs[kind, "ours"].proto)
        drawn.append([vocab.resample(ids, 0.3, seed) for seed, ids in enumerate(encoded)])
    assert drawn[0] == drawn[1] == drawn[2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_line_without_spaces_is_no_trouble(vocabs: dict[tuple[str, str], Vocab], kind: str) -> None:
    vocab = vocabs[kind, "ours"]
    [ids] = vocab.encode(["treehousedog" * 2000])
    assert vocab.decode(vocab.resample(ids, 0.3, 1)) == "treehousedog" * 2000
