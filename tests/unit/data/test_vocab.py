import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import sentencepiece
from corpora import sentences
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_cli.data.vocab import PAD, TextRules, Vocab, Vocabs, read_model, reuse
from s2s_cli.errors import ConfigError, DataError, Interrupted

KINDS = ("bpe", "unigram", "char", "word", "byte")
TEXT = st.one_of(
    st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])),
    st.lists(
        st.sampled_from(
            [
                "▁",
                "␛",
                "␛_",
                "␛␛",
                "▅",
                "⁇",
                "<s>",
                "</s>",
                "<unk>",
                "<pad>",
                "<0x0A>",
                "<0x41>",
                "@@",
                "##",
                "\t",
                "\x00",
                "\r",
                "\u2028",
                "\x85",
                "\xa0",
                "\ufeff",
                "�",
                "dog",
                "犬",
                "the",
            ]
            + [" ", "  "]
        )
    ).map("".join),
)


@pytest.fixture(scope="module")
def vocabs() -> dict[str, Vocab]:
    return {kind: Vocab.train(sentences(300), size=400, kind=kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_decoding_undoes_encoding(vocabs: dict[str, Vocab], kind: str, text: str) -> None:
    [ids] = vocabs[kind].encode([text])
    assert vocabs[kind].decode(ids) == text


@settings(deadline=None)
@given(texts=st.lists(TEXT))
def test_lines_are_encoded_one_by_one(vocabs: dict[str, Vocab], texts: list[str]) -> None:
    assert vocabs["bpe"].encode(texts) == [vocabs["bpe"].encode([text])[0] for text in texts]


@given(st.lists(st.integers(0, 399), max_size=30))
def test_whatever_is_decoded_is_one_line(vocabs: dict[str, Vocab], ids: list[int]) -> None:
    vocab = vocabs["bpe"]
    text = vocab.decode([i % len(vocab) for i in ids])
    assert "\n" not in text
    text.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic_and_makes_a_multiple_of_eight(vocabs: dict[str, Vocab], kind: str) -> None:
    vocab = vocabs[kind]
    again = Vocab.train(sentences(300), size=400, kind=kind)
    assert again.fingerprint == vocab.fingerprint
    assert len(vocab) % 8 == 0
    assert (vocab.pad, vocab.unk, vocab.bos, vocab.eos) == (0, 1, 2, 3)
    assert all(PAD not in ids and vocab.eos not in ids for ids in vocab.encode(sentences(50)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiny_text_makes_a_small_vocabulary(kind: str) -> None:
    vocab = Vocab.train(["a b"], size=5000, kind=kind)
    assert len(vocab) < 300
    assert vocab.decode(vocab.encode(["b a"])[0]) == "b a"


@pytest.mark.parametrize("line", ["▅", "x" * 100_000, "\0", "\t", "word " * 30_000])
@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_odd_lines_do_not_break_training(kind: str, line: str) -> None:
    vocab = Vocab.train([line, "a b"], size=400, kind=kind)
    assert vocab.decode(vocab.encode([line])[0]) == line


def test_a_symbol_may_be_named_twice() -> None:
    rules = TextRules(lowercase=True)
    twice = Vocab.train(sentences(50), size=400, rules=rules, symbols=["#P1#", "#p1#", "#P1#"])
    assert twice.fingerprint == Vocab.train(sentences(50), size=400, rules=rules, symbols=["#P1#"]).fingerprint


RULES = [TextRules(normalize, lowercase) for normalize in ("none", "nfc", "nfkc") for lowercase in (False, True)]


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(TEXT, max_size=5), rules=st.sampled_from(RULES))
def test_decoding_gives_what_the_rules_make_of_each_line(
    vocabs: dict[str, Vocab], texts: list[str], rules: TextRules
) -> None:
    vocab = Vocab(vocabs["bpe"].proto, rules)
    assert [vocab.decode(ids) for ids in vocab.encode(texts)] == [rules.apply(text) for text in texts]


def test_what_cannot_be_trained_is_said() -> None:
    with pytest.raises(DataError, match="no text to train"):
        Vocab.train(["", ""], size=400)
    with pytest.raises(ConfigError, match="vocab_size 100 is too small"):
        Vocab.train(["a b c"], size=100)


@pytest.mark.parametrize(
    "error", [DataError("train.de:7: bad"), Interrupted(15, "terminated"), KeyboardInterrupt()], ids=repr
)
def test_what_ends_the_reading_of_text_ends_training_as_itself(error: BaseException) -> None:
    """A signal too: SentencePiece would tell of all as of faults of its own."""

    def lines() -> Iterator[str]:
        yield from sentences(50)
        raise error

    with pytest.raises(type(error)) as raised:
        Vocab.train(lines(), size=400)
    assert raised.value is error


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("the qqq zzz man", [1, 0, 0, 1]),
        ("qqq zzz xxx the man", [0, 0, 0, 1, 1]),
        ("the  qqq  zzz man", [1, 0, 0, 1]),
        ("qqq", [0]),
    ],
)
def test_unknown_words_side_by_side_are_as_many_pieces(text: str, known: list[int]) -> None:
    vocab = Vocab.train(["the man sees the dog"] * 9, size=40, kind="word", byte_fallback=False)
    assert [int(id != vocab.unk) for id in vocab.encode([text])[0]] == known


def test_unknown_pieces_show_without_byte_fallback() -> None:
    vocab = Vocab.train(["a b"], size=16, byte_fallback=False)
    [ids] = vocab.encode(["a 犬"])
    assert vocab.unk in ids
    assert "⁇" in vocab.decode(ids)
    drawn = [vocab.resample(ids, 0.5, seed) for seed in range(20)]
    assert len(set(map(tuple, drawn))) > 1, "what is known around them is spelled anew"
    for one in drawn:  # and they stay
        assert vocab.decode(one) == vocab.decode(ids)
        assert one.count(vocab.unk) == ids.count(vocab.unk)


@pytest.mark.parametrize("normalize", ["none", "nfc", "nfkc"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_text_rules_are_what_decoding_gives_back(normalize: str, lowercase: bool) -> None:
    rules = TextRules(normalize, lowercase)  # type: ignore[arg-type]
    vocab = Vocab.train(sentences(50), size=400, rules=rules)
    text = "U\u0308ber ﬁne ΟΔΟΣ İ ▁ ␛"
    assert vocab.decode(vocab.encode([text])[0]) == rules.apply(text)
    assert (rules.apply("U\u0308") == "U\u0308") is (normalize == "none" and not lowercase)
    assert ("fi" in rules.apply("ﬁ")) is (normalize == "nfkc")


def test_reserved_pieces_come_from_no_text_and_symbols_from_all() -> None:
    vocab = Vocab.train(sentences(100), size=400, reserved=["<mask>"], symbols=["#Person1#"])
    assert vocab.id("<mask>") not in vocab.encode(["<mask> a<mask>"])[0]
    assert vocab.decode(vocab.encode(["<mask> a<mask>"])[0]) == "<mask> a<mask>"
    [ids] = vocab.encode(["said#Person1#: #Person1#"])
    assert ids.count(vocab.id("#Person1#")) == 2
    assert "<mask>" in vocab
    assert "<nothing>" not in vocab


@settings(deadline=None)
@given(text=TEXT)
def test_tags_are_pieces_at_the_beginning_only(tagged: Vocab, text: str) -> None:
    de, fr = tagged.id("<2de>"), tagged.id("<2fr>")
    plain = tagged.encode([text])[0]
    assert tagged.encode([f"<2de> <2fr> {text}"])[0] == [de, fr, *plain]
    assert de not in tagged.encode([f"a <2de> {text}"])[0]
    assert tagged.decode([de, fr, *plain]) == f"<2de> <2fr> {text}"
    for other in ("<2de>", "<2de>x", "<2xx> y"):
        [ids] = tagged.encode([other])
        assert de not in ids
        assert tagged.decode(ids) == other


@pytest.fixture(scope="module")
def tagged() -> Vocab:
    return Vocab.train(sentences(100), size=400, tags=["<2de>", "<2fr>"])


@pytest.mark.parametrize("shared", [True, False])
def test_saved_and_loaded_is_the_same(tmp_path: Path, tagged: Vocab, vocabs: dict[str, Vocab], shared: bool) -> None:
    saved = Vocabs(tagged, tagged if shared else vocabs["unigram"])
    saved.save(tmp_path / "vocab")
    loaded = Vocabs.load(tmp_path / "vocab")
    assert loaded.shared is shared
    assert loaded.fingerprints == saved.fingerprints
    assert loaded.src.encode(["<2de> a dog"]) == saved.src.encode(["<2de> a dog"])
    assert reuse(tmp_path, "tgt", TextRules("nfkc"), [], []).fingerprint == saved.tgt.fingerprint


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, vocabs: dict[str, Vocab]) -> None:
    with pytest.raises(DataError, match=r"no vocabulary here, text\.json is missing"):
        Vocabs.load(tmp_path)
    Vocabs(vocabs["bpe"], vocabs["bpe"]).save(tmp_path)
    (tmp_path / "joint.model").write_bytes(vocabs["char"].proto)
    with pytest.raises(DataError, match="do not belong together"):
        Vocabs.load(tmp_path)
    (tmp_path / "joint.model").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"joint\.model: not a SentencePiece model"):
        Vocabs.load(tmp_path)
    (tmp_path / "text.json").write_text("{}")
    with pytest.raises(DataError, match=r"text\.json: not readable"):
        Vocabs.load(tmp_path)


def foreign(tmp_path: Path, **options: object) -> Path:
    """A model as other people train them: SentencePiece's defaults, without a pad piece."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(200)), model_writer=model, vocab_size=40, minloglevel=2, **options
    )
    path = tmp_path / "foreign.model"
    path.write_bytes(model.getvalue())
    return path


def test_a_model_of_another_tool_gets_what_it_lacks(tmp_path: Path) -> None:
    path = foreign(tmp_path, bos_id=-1)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    vocab = reuse(path, "src", TextRules(), ["<2de>"], ["<mask>"])
    text = "the dog sees a tree"
    assert vocab.encode([text]) == [theirs.encode(text)]
    assert vocab.decode(theirs.encode(text)) == theirs.decode(theirs.encode(text)) == text
    added = {vocab.pad, vocab.bos, vocab.id("<mask>"), vocab.id("<2de>")}
    assert added == set(range(len(theirs), len(theirs) + 4))
    assert (vocab.unk, vocab.eos) == (theirs.unk_id(), theirs.eos_id())
    assert vocab.decode([vocab.pad, vocab.bos, *vocab.encode([text])[0], vocab.eos]) == text


def test_our_models_are_read_by_sentencepiece_itself(vocabs: dict[str, Vocab]) -> None:
    for vocab in vocabs.values():
        theirs = sentencepiece.SentencePieceProcessor(model_proto=vocab.proto)
        assert len(theirs) == len(vocab)
        assert [theirs.encode("the old dog")] == vocab.encode(["the old dog"])


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        read_model(tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@settings(max_examples=50, deadline=None)
@given(text=TEXT, seed=st.integers(0, 1 << 40))
def test_resampling_keeps_the_text_and_depends_on_the_seed_alone(
    vocabs: dict[str, Vocab], kind: str, text: str, seed: int
) -> None:
    vocab = vocabs[kind]
    [ids] = vocab.encode([text])
    again = vocab.resample(ids, 0.3, seed)
    assert vocab.decode(again) == text
    vocab.resample(vocab.encode(["something else"])[0], 0.3, seed + 1)
    assert vocab.resample(ids, 0.3, seed) == again
    assert Vocab(vocab.proto).resample(ids, 0.3, seed) == again


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_resampling_differs_between_seeds(vocabs: dict[str, Vocab], kind: str) -> None:
    [ids] = vocabs[kind].encode([" ".join(sentences(20))])
    assert len({tuple(vocabs[kind].resample(ids, 0.3, seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("kind", ["char", "word", "byte"])
def test_what_has_one_split_keeps_it(vocabs: dict[str, Vocab], kind: str) -> None:
    [ids] = vocabs[kind].encode([" ".join(sentences(20))])
    assert vocabs[kind].resample(ids, 0.5, 1) == ids
    assert not vocabs[kind].can_resample


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@settings(max_examples=50, deadline=None)
@given(text=TEXT, rate=st.floats(0.05, 0.95), seed=st.integers(0, 1000))
def test_tags_symbols_and_bytes_stay_as_they_are(
    special: dict[str, Vocab], kind: str, text: str, rate: float, seed: int
) -> None:
    vocab = special[kind]
    [ids] = vocab.encode([f"<2de> {text}#Person1#{text} the dog"])
    again = vocab.resample(ids, rate, seed)
    assert vocab.decode(again) == vocab.decode(ids)
    fixed = {i for i in range(len(vocab)) if vocab.is_byte[i] or vocab.is_control[i]} | {vocab.id("#Person1#")}
    assert [id for id in again if id in fixed] == [id for id in ids if id in fixed]


@pytest.fixture(scope="module")
def special() -> dict[str, Vocab]:
    return {
        kind: Vocab.train(sentences(100), size=400, kind=kind, symbols=["#Person1#"], tags=["<2de>"])
        for kind in ("bpe", "unigram")
    }
