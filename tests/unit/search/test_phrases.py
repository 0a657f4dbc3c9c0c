"""Banned words are banned as text, whatever their pieces and their case; what may repeat is given as words."""

import random

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import sentences

from s2s_cli.config import SearchSettings
from s2s_cli.data.vocab import Vocab, Vocabs
from s2s_cli.errors import ConfigError
from s2s_cli.search.phrases import Phrases, specials_for


def babble(vocab: Vocab, phrases: list[str], seed: int, likes: list[str], num: int = 60) -> str:
    """A random output that keeps to the rule, by a model that would like nothing better than to say what is banned.

    It follows random splits of `likes` into pieces, single bytes among them, wherever it may.
    """
    chance, watched = random.Random(seed), Phrases(vocab, phrases)
    texts = {vocab.piece(id): id for id in range(len(vocab)) if not vocab.is_control[id] and id != vocab.unk}
    said: list[int] = []
    rest = ""
    while len(said) < num:
        rest = rest or chance.choice(["\u2581", ""]) + chance.choice(likes).replace(" ", "\u2581")
        sizes = [n for n in range(1, len(rest) + 1) if rest[:n] in texts]
        if sizes and chance.random() < 0.9:
            size = chance.choice(sizes)
            wanted, rest = [texts[rest[:size]]], rest[size:]
        else:
            wanted, rest = [texts[f"<0x{byte:02X}>"] for byte in rest[:1].encode()], rest[1:]
        for id in wanted:
            if id in watched.always or id in watched.completing(said):
                id, rest = texts[chance.choice(["\u2581", "."])], ""
            said.append(id)
    return vocab.decode(said)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from(["dog", "the cat", "Hund", "alte", "über", "n", "東京", "d-o", "?!", "old"]),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 10_000),
)
def test_banned_phrases_never_stand_in_an_output(vocabs: Vocabs, phrases: list[str], seed: int) -> None:
    likes = [form for p in phrases for form in (p, p.upper(), p.lower(), p.capitalize(), p + "s")]
    text = babble(vocabs.tgt, phrases, seed, likes)
    for phrase in phrases:
        words = r"\p{L}\p{M}\p{N}"
        alone = "東" in phrase
        before = "" if alone or not regex.match(f"[{words}]", phrase[0]) else f"(?<![{words}])"
        behind = "" if alone or not regex.match(f"[{words}]", phrase[-1]) else f"(?![{words}])"
        for form in {phrase, phrase.lower(), phrase.upper(), phrase.capitalize()}:
            assert not regex.search(before + regex.escape(form) + behind, text), (form, text)


def test_without_the_rule_they_would() -> None:
    """The babble of the test above says what it likes where nothing is banned."""
    vocab = Vocab.train([text for pair in sentences(200, seed=9) for text in pair], size=400)
    assert "dog" in babble(vocab, ["nothing"], 1, ["dog"]).split()


def test_other_words_stay(vocabs: Vocabs) -> None:
    """A longer word in one piece, or split elsewhere, is another word."""
    vocab = vocabs.tgt
    banned = Phrases(vocab, ["do"])
    dog = vocab.id("\u2581dog")
    assert dog != vocab.unk
    assert dog not in banned.always
    d, g = (vocab.id(piece) for piece in ("\u2581d", "g"))
    o = vocab.id("o")
    assert o in banned.completing([dog, d])
    assert o not in banned.completing([dog])
    assert g not in banned.completing([d])
    assert banned.completing([vocab.id("."), vocab.id("d")]) == banned.completing([d])
    assert banned.completing([g, vocab.id("d")]) == []


def test_a_piece_may_go_on_behind_a_word() -> None:
    """One that ends a banned word and begins something else completes it; one that makes it a longer word does not."""
    text = [text for pair in sentences(200, seed=9) for text in pair]
    vocab = Vocab.train(text, size=400, symbols=["g.", "gs", "og!"])
    banned = Phrases(vocab, ["dog"])
    d, o = vocab.id("d"), vocab.id("o")
    space = vocab.id("\u2581")
    assert {vocab.id("g"), vocab.id("g.")} <= set(banned.completing([space, d, o]))
    assert vocab.id("gs") not in banned.completing([space, d, o])
    assert vocab.id("og!") in banned.completing([space, d])
    assert vocab.unk not in {vocab.id(piece) for piece in ("d", "o", "g.", "gs", "og!", "\u2581")}


def test_specials_of_a_vocabulary(vocabs: Vocabs) -> None:
    vocab = vocabs.tgt
    plain = specials_for(vocab, SearchSettings())
    assert set(plain.banned) == {vocab.pad, vocab.unk, vocab.bos}
    assert (plain.bos, plain.eos, plain.completing, plain.may_repeat) == (vocab.bos, vocab.eos, None, ())
    assert vocab.unk not in specials_for(vocab, SearchSettings(allow_unk=True)).banned
    some = specials_for(vocab, SearchSettings(no_repeat_ngram=2, may_repeat=["the", "."]))
    assert {vocab.id("\u2581the"), vocab.id(".")} <= set(some.may_repeat)
    assert not {vocab.unk, vocab.id("\u2581")} & set(some.may_repeat)


@pytest.mark.parametrize("wrong", [{"ban": ["dog", " "]}, {"may_repeat": [""], "no_repeat_ngram": 2}])
def test_an_empty_word_is_named(vocabs: Vocabs, wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        specials_for(vocabs.tgt, SearchSettings(**wrong))


def test_a_broken_byte_parts_words(vocabs: Vocabs) -> None:
    """The output shows it as a character of its own, behind which a banned word stands alone."""
    vocab = vocabs.tgt
    said = [*vocab.encode(["der"])[0], vocab.id("<0xC9>")]
    whole = [id for id in range(len(vocab)) if vocab.piece(id) == "n"]
    assert whole
    assert set(whole) <= set(Phrases(vocab, ["n"]).completing(said))


@pytest.mark.parametrize("phrase", ["\u2581", "\u241b"])
def test_what_a_vocabulary_escapes_can_be_banned(vocabs: Vocabs, phrase: str) -> None:
    vocab = vocabs.tgt
    ids = vocab.encode([f"a {phrase}"])[0]
    watched = Phrases(vocab, [phrase])
    assert any(id in watched.always or id in watched.completing(ids[:i]) for i, id in enumerate(ids))
