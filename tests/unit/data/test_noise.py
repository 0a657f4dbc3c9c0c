from itertools import pairwise

import numpy as np
import pytest
from corpora import sentences
from hypothesis import given
from hypothesis import strategies as st

from s2s_cli.config import NoiseSettings
from s2s_cli.data.noise import Noise, spans
from s2s_cli.data.vocab import Vocab, Vocabs
from s2s_cli.errors import ConfigError

TEXT = "the old dog sees a tree. the cat sleeps! a small house runs and hears the green tree."
SETTINGS = {
    "sampling": NoiseSettings(subword_sampling=0.3),
    "word dropout": NoiseSettings(src_word_dropout=0.3, tgt_word_dropout=0.3),
    "mask": NoiseSettings(denoise="mask"),
    "infill": NoiseSettings(denoise="infill"),
    "span": NoiseSettings(denoise="span"),
    "permute": NoiseSettings(permute_sentences=True),
    "all": NoiseSettings(subword_sampling=0.1, src_word_dropout=0.1, denoise="infill", permute_sentences=True),
}


@pytest.fixture(scope="module")
def vocabs() -> Vocabs:
    text = [line + mark for line, mark in zip(sentences(300), ".!?" * 100, strict=True)]
    vocab = Vocab.train(text, size=400, reserved=["<mask>", *(f"<extra_id_{i}>" for i in range(20))], tags=["<2de>"])
    return Vocabs(vocab, vocab)


def ids_of(vocabs: Vocabs, text: str) -> list[int]:
    return vocabs.src.encode([text])[0]


@pytest.mark.parametrize("name", SETTINGS)
def test_noise_is_a_function_of_seed_epoch_and_line(vocabs: Vocabs, name: str) -> None:
    ids = ids_of(vocabs, TEXT)

    def run(seed: int, epoch: int, line: int) -> list[list[int]]:
        return [part.tolist() for part in Noise(SETTINGS[name], vocabs, seed)(ids, ids, epoch, line)]

    first = run(1, 2, 3)
    assert run(1, 2, 3) == first
    for where in range(3):
        others = [run(*(n + (i == where) * extra for i, n in enumerate((1, 2, 3)))) for extra in range(1, 5)]
        assert any(other != first for other in others)


@pytest.mark.parametrize("name", SETTINGS)
def test_blank_and_tagged_sources_are_left_whole(vocabs: Vocabs, name: str) -> None:
    noise = Noise(SETTINGS[name], vocabs, 1)
    for line in range(20):
        assert noise([], [], 0, line)[0].tolist() == []
        assert noise(ids_of(vocabs, f"<2de> {TEXT}"), [5], 0, line)[0][0] == vocabs.src.id("<2de>")


def test_no_noise_is_none(vocabs: Vocabs) -> None:
    assert Noise.of(NoiseSettings(), vocabs, 1) is None
    assert Noise.of(NoiseSettings(denoise="mask"), vocabs, 1) is not None


def test_sampling_keeps_both_texts(vocabs: Vocabs) -> None:
    source, read, target = Noise(SETTINGS["sampling"], vocabs, 1)(ids_of(vocabs, TEXT), ids_of(vocabs, TEXT), 0, 1)
    assert vocabs.src.decode(source) == vocabs.tgt.decode(target) == TEXT
    assert read.tolist() == target.tolist()
    assert source.tolist() != target.tolist()


def test_word_dropout_hides_whole_words_and_never_the_answer(vocabs: Vocabs) -> None:
    ids = np.array(ids_of(vocabs, TEXT))
    word = np.cumsum(vocabs.src.starts_word[ids])
    shares = []
    for line in range(200):
        source, read, target = Noise(SETTINGS["word dropout"], vocabs, 1)(ids, ids, 0, line)
        assert target.tolist() == ids.tolist()
        for seen in (source, read):
            hidden = seen == vocabs.src.unk
            assert seen[~hidden].tolist() == ids[~hidden].tolist()
            assert set(word[hidden]) & set(word[~hidden]) == set()
            shares.append(len(set(word[hidden])) / len(set(word)))
    assert np.mean(shares) == pytest.approx(0.3, abs=0.05)


def test_permuted_sentences_are_the_same_sentences(vocabs: Vocabs) -> None:
    source, _, target = Noise(SETTINGS["permute"], vocabs, 1)(ids_of(vocabs, TEXT), ids_of(vocabs, TEXT), 0, 2)
    assert sorted(source.tolist()) == sorted(target.tolist())
    texts = {
        vocabs.src.decode(Noise(SETTINGS["permute"], vocabs, 1)(ids_of(vocabs, TEXT), [], 0, line)[0])
        for line in range(100)
    }
    assert len(texts) == 6  # three sentences
    for sentence in ("the old dog sees a tree.", "the cat sleeps!", "a small house runs and hears the green tree."):
        assert all(sentence in text for text in texts)


def test_masking_hides_single_pieces(vocabs: Vocabs) -> None:
    ids, mask = np.array(ids_of(vocabs, TEXT)), vocabs.src.id("<mask>")
    rates = []
    for line in range(200):
        source, read, target = Noise(SETTINGS["mask"], vocabs, 1)(ids, ids, 0, line)
        assert ((source == ids) | (source == mask)).all()
        assert read.tolist() == target.tolist() == ids.tolist()
        rates.append((source == mask).mean())
    assert np.mean(rates) == pytest.approx(0.3, abs=0.03)


def test_infilling_puts_one_mask_for_each_span(vocabs: Vocabs) -> None:
    ids, mask = ids_of(vocabs, TEXT), vocabs.src.id("<mask>")
    for line in range(100):
        source = Noise(SETTINGS["infill"], vocabs, 1)(ids, ids, 0, line)[0].tolist()
        assert mask in source
        assert not any(a == b == mask for a, b in pairwise(source))
        rest = iter(ids)  # what is left stands in its order
        assert all(id in rest for id in source if id != mask)
        assert len(source) < len(ids) + source.count(mask)


@given(st.integers(0, 60), st.integers(0, 10_000), st.sampled_from([0.01, 0.5]))
def test_spans_and_what_is_left_make_the_text(vocabs: Vocabs, length: int, line: int, rate: float) -> None:
    vocab = vocabs.src
    ids = [40 + i for i in range(length)]
    noise = Noise(NoiseSettings(denoise="span", denoise_rate=rate, span_length=1.0), vocabs, 1)
    source, read, target = (part.tolist() for part in noise(ids, [], 0, line))
    assert read == target
    sentinels = [vocab.id(f"<extra_id_{i}>") for i in range(20)]
    answers: dict[int, list[int]] = {}
    for id in target:
        if id in sentinels:
            answers[id] = []
        else:
            answers[next(reversed(answers))].append(id)
    whole = [piece for id in source for piece in (answers[id] if id in sentinels else [id])]
    assert whole == ids
    assert list(answers) == sentinels[: len(answers)] == [id for id in source if id in sentinels]
    assert all(answers.values())
    assert bool(answers) == bool(ids), "something is asked for, however little is taken away"


@pytest.mark.parametrize("mean", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_spans_take_their_share(mean: float, rate: float) -> None:
    rng = np.random.default_rng(1)
    masks = [spans(50, rate, mean, rng) for _ in range(300)]
    assert np.mean([mask.mean() for mask in masks]) == pytest.approx(rate, abs=0.02)


def test_longer_spans_are_fewer() -> None:
    rng = np.random.default_rng(1)

    def num_spans(mean: float) -> int:
        return sum(int((np.diff(spans(60, 0.3, mean, rng).astype(int)) == 1).sum()) for _ in range(100))

    assert num_spans(1.0) > 1.5 * num_spans(3.0) > 1.5 * 1.5 * num_spans(10.0)


def test_what_the_vocabulary_lacks_is_said() -> None:
    plain = Vocab.train(sentences(50), size=400)
    with pytest.raises(ConfigError, match="--reserved '<mask>'"):
        Noise(NoiseSettings(denoise="infill"), Vocabs(plain, plain), 1)
    with pytest.raises(ConfigError, match="--sentinels 100"):
        Noise(NoiseSettings(denoise="span"), Vocabs(plain, plain), 1)
    with pytest.raises(ConfigError, match="--shared-vocab"):
        Noise(NoiseSettings(denoise="span"), Vocabs(plain, Vocab.train(sentences(50), size=400)), 1)


def test_a_vocabulary_of_one_split_cannot_be_sampled() -> None:
    char, bpe = (Vocab.train(sentences(50), size=400, kind=kind) for kind in ("char", "bpe"))
    with pytest.raises(ConfigError, match="bpe or unigram"):
        Noise(SETTINGS["sampling"], Vocabs(char, char), 1)
    [chars], [pieces] = char.encode([TEXT]), bpe.encode([TEXT])
    source, _, target = Noise(SETTINGS["sampling"], Vocabs(char, bpe), 1)(chars, pieces, 0, 1)
    assert source.tolist() == chars
    assert target.tolist() != pieces


def test_a_pair_that_an_epoch_holds_again_has_other_noise(vocabs: Vocabs) -> None:
    ids = ids_of(vocabs, TEXT)
    noise = Noise(SETTINGS["sampling"], vocabs, 1)
    first, again, third = (noise(ids, ids, 0, 1, copy)[0].tolist() for copy in range(3))
    assert first == noise(ids, ids, 0, 1)[0].tolist()
    assert len({tuple(first), tuple(again), tuple(third)}) > 1


def test_sentences_end_in_bytes_too() -> None:
    """But a full stop within a word is none."""
    vocab = Vocab.train(sentences(50), size=400, kind="byte")
    noise = Noise(NoiseSettings(permute_sentences=True), Vocabs(vocab, vocab), 1)
    ids = vocab.encode(["it is 3.14. no? yes!"])[0]
    found = {" ".join(vocab.decode(noise(ids, ids, epoch, 1)[0]).split()) for epoch in range(40)}
    assert len(found) == 6
    assert all("3.14." in text for text in found)
