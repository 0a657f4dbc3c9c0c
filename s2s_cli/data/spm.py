"""What we ask of SentencePiece: load a model, train one, append pieces to one.

Models are handled as serialized bytes, exactly as a `.model` file holds them, so that any other tool reads them. Text
rules and escapes are the business of `vocab`.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Literal

import sentencepiece

from s2s_cli.errors import ConfigError, DataError

PAD, UNK, BOS, EOS = 0, 1, 2, 3
MULTIPLE = 8  # matrix products over the vocabulary are faster at multiples of it
MAX_CHARS = 1000  # longer lines are cut for training, which fails on very long ones
MAX_WORD = 200  # longer words are left out of a word vocabulary

VocabType = Literal["bpe", "unigram", "char", "word", "byte"]


def load(proto: bytes) -> sentencepiece.SentencePieceProcessor:
    """A processor for a serialized model; DataError if it is none."""
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=proto)
    except (RuntimeError, OSError, ValueError):
        raise DataError("not a SentencePiece model") from None


def train(
    lines: Iterable[str],
    size: int,
    kind: VocabType,
    byte_fallback: bool,
    character_coverage: float,
    symbols: Sequence[str],
    reserved: Sequence[str],
) -> bytes:
    """A model of at most `size` pieces rounded up to a multiple of 8, the same for the same text.

    It normalises nothing and keeps every space. `symbols` are pieces wherever they stand in text, `reserved` nowhere.
    ConfigError if not even characters and special pieces fit, DataError if there is no text. What `lines` raises passes.
    """
    if kind == "byte":
        lines, size, byte_fallback = [" "], 4 + 256 + 1 + len(symbols) + len(reserved), True
    model = io.BytesIO()
    raised: list[BaseException] = []  # by `lines`; SentencePiece makes a RuntimeError of all, a signal's exceptions too

    def read() -> Iterator[str]:
        try:
            yield from short(lines, kind)
        except (Exception, KeyboardInterrupt) as error:
            raised.append(error)
            raise

    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=read(),
            model_writer=model,
            model_type="char" if kind == "byte" else kind,
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            user_defined_symbols=list(symbols),
            control_symbols=list(reserved),
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=1 << 20,
            minloglevel=2,
        )
    except RuntimeError as error:
        if raised:
            raise raised[0] from None
        raise _training_error(str(error), size) from None
    return pad(model.getvalue())


def pad(proto: bytes) -> bytes:
    """The model with as many unused pieces appended as make its size a multiple of 8."""
    model = load(proto)
    known = {model.id_to_piece(i) for i in range(len(model))}
    names = (name for i in count() if (name := f"<unused_{i}>") not in known)
    return append(proto, list(islice(names, -len(model) % MULTIPLE)))


def complete(proto: bytes, reserved: Sequence[str]) -> bytes:
    """The model with the special and reserved pieces that it lacks appended; its own ids stay what they are."""
    model = load(proto)
    if model.unk_id() < 0:
        raise DataError("the SentencePiece model has no unknown piece")
    special = (("<pad>", model.pad_id()), ("<s>", model.bos_id()), ("</s>", model.eos_id()))
    wanted = [piece for piece, id in special if id < 0] + list(reserved)
    known = {model.id_to_piece(i) for i in range(len(model))}
    return append(proto, [piece for piece in dict.fromkeys(wanted) if piece not in known])


def append(proto: bytes, pieces: Sequence[str]) -> bytes:
    """The model with control pieces appended: a protobuf message grows by entries of a repeated field at its end."""
    for piece in pieces:
        name = piece.encode()
        entry = b"\x0a" + _varint(len(name)) + name + b"\x15\x00\x00\x00\x00" + b"\x18\x03"  # piece, score 0, CONTROL
        proto += b"\x0a" + _varint(len(entry)) + entry
    return proto


def _varint(number: int) -> bytes:
    low = bytes([number & 0x7F])
    return low if number < 0x80 else bytes([low[0] | 0x80]) + _varint(number >> 7)


def short(lines: Iterable[str], kind: VocabType) -> Iterator[str]:
    """Lines cut into parts that are not too long for training; for a word vocabulary, between words."""
    for line in lines:
        line = line.replace("\0", "")
        if kind == "word":
            words = [word for word in line.split(" ") if len(word) <= MAX_WORD]
            for start in range(0, len(words), MAX_WORD):
                yield " ".join(words[start : start + MAX_WORD])
        else:
            for start in range(0, len(line), MAX_CHARS):
                yield line[start : start + MAX_CHARS]


def _training_error(message: str, size: int) -> ConfigError | DataError:
    if "sentences_.empty()" in message:
        return DataError("there is no text to train a vocabulary on")
    if "required_chars" in message or "vocab_size" in message:
        return ConfigError(
            f"vocab_size {size} is too small for this text: its characters, the special pieces and (with byte_fallback) "
            "256 bytes must fit; raise vocab_size, lower character_coverage (to 0.98 at least) or turn byte_fallback off"
        )
    return DataError(f"SentencePiece could not train a vocabulary: {message}")
