"""Between text and piece ids: SentencePiece vocabularies, and the text rules recorded beside them.

SentencePiece runs with identity normalisation and keeps every space; what changes text (Unicode normalisation, case) is
done here and written down, so that whoever has the folder applies the same. Then `decode(encode(x)) == x` for every x
that the rules leave alone and the vocabulary covers (with byte fallback: every x). This room knows no torch.
"""

import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import sentencepiece

from s2s_cli.errors import ConfigError, DataError

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPACE = "\u2581"  # what SentencePiece writes for a space, and so would take for one in raw text
ESCAPE = "\u241b"  # SYMBOL FOR ESCAPE: begins our spelling of itself and of SPACE
ESCAPED = {ESCAPE: ESCAPE + ESCAPE, SPACE: ESCAPE + "_"}
TEXT_FILE = "text.json"
TRAIN_CHARS = 1000  # longer lines are cut for vocabulary training: its trainer fails on very long ones
VocabType = Literal["bpe", "unigram", "char", "word"]


@dataclass(frozen=True)
class TextRules:
    """What is done to a line before it is split into pieces."""

    normalize: Literal["none", "nfc", "nfkc"] = "none"
    lowercase: bool = False

    def apply(self, line: str) -> str:
        """The line as the vocabulary sees it; what a reference text must look like to be compared with output."""
        if self.lowercase:
            line = line.lower()
        if self.normalize == "nfc":
            return unicodedata.normalize("NFC", line)
        if self.normalize == "nfkc":
            return unicodedata.normalize("NFKC", line)
        return line


class Vocab:
    """A SentencePiece model with text rules. `pad`, `unk`, `bos` and `eos` are ids that always exist."""

    def __init__(self, proto: bytes, rules: TextRules = TextRules()) -> None:
        """Take a serialized SentencePiece model; a missing pad, bos or eos piece is appended to it."""
        self.rules = rules
        self.proto = _complete(proto)
        self._model = _load(self.proto)
        names = [self._model.id_to_piece(i) for i in range(len(self._model))]
        self.unk: int = self._model.unk_id()
        self.pad = self._model.pad_id() if self._model.pad_id() >= 0 else names.index("<pad>")
        self.bos = self._model.bos_id() if self._model.bos_id() >= 0 else names.index("<s>")
        self.eos = self._model.eos_id() if self._model.eos_id() >= 0 else names.index("</s>")

    def __len__(self) -> int:
        return len(self._model)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """Piece ids of each line, without bos and eos. One thread: callers that want more use processes."""
        return self._model.encode([_escape(self.rules.apply(line)) for line in lines], num_threads=1)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of piece ids as one line; special pieces are silent, a line feed in bytes becomes a space."""
        table = self._bytes
        raw = b"".join([table[i] for i in ids])
        text = raw.decode("utf-8", "replace").replace(SPACE, " ").replace("\n", " ")
        if self._dummy_prefix:
            text = text.removeprefix(" ")
        return _unescape(text)

    def piece(self, id: int) -> str:
        """The piece as SentencePiece writes it."""
        return self._model.id_to_piece(int(id))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the model and its rules: equal fingerprints encode equally."""
        return hashlib.sha256(self.proto + json.dumps(asdict(self.rules), sort_keys=True).encode()).hexdigest()

    @cached_property
    def _bytes(self) -> list[bytes]:
        """UTF-8 of every piece as it stands in text."""
        model, table = self._model, []
        for i in range(len(model)):
            piece = model.id_to_piece(i)
            if model.is_unknown(i):
                table.append(" \u2047 ".encode())
            elif model.is_control(i) or model.is_unused(i):
                table.append(b"")
            else:
                table.append(bytes([int(piece[3:5], 16)]) if model.is_byte(i) else piece.encode())
        return table

    @cached_property
    def _dummy_prefix(self) -> bool:
        """Whether the model puts a space before every line, which decoding takes away again."""
        return self._model.decode([f"{SPACE}a"]) == "a"

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        *,
        size: int,
        kind: VocabType = "bpe",
        rules: TextRules = TextRules(),
        byte_fallback: bool = True,
        character_coverage: float = 1.0,
    ) -> "Vocab":
        """A new vocabulary of at most `size` pieces; fewer where the text has not so many. Deterministic."""
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_training_text(lines, rules),
                model_writer=model,
                model_type=kind,
                vocab_size=size,
                hard_vocab_limit=False,
                character_coverage=character_coverage,
                byte_fallback=byte_fallback,
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
            raise _training_error(str(error), size) from None
        return cls(model.getvalue(), rules)


@dataclass(frozen=True)
class Vocabs:
    """The vocabularies of both sides, which are one object where they are shared."""

    src: Vocab
    tgt: Vocab

    @property
    def shared(self) -> bool:
        """Whether both sides have one vocabulary."""
        return self.src is self.tgt

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each side."""
        return {"src": self.src.fingerprint, "tgt": self.tgt.fingerprint}

    def save(self, folder: Path) -> None:
        """Write `joint.model`, or `src.model` and `tgt.model`, and `text.json` into a folder, made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, vocab in self._files().items():
            (folder / name).write_bytes(vocab.proto)
        text = {"version": 1, "src": asdict(self.src.rules), "tgt": asdict(self.tgt.rules), **self.fingerprints_entry()}
        (folder / TEXT_FILE).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")

    def fingerprints_entry(self) -> dict[str, dict[str, str]]:
        """What `text.json` says about the models beside it, so that a swapped file is noticed."""
        return {"fingerprints": self.fingerprints}

    def _files(self) -> dict[str, Vocab]:
        return {"joint.model": self.src} if self.shared else {"src.model": self.src, "tgt.model": self.tgt}

    @classmethod
    def load(cls, folder: Path) -> "Vocabs":
        """Read what `save` wrote; DataError if the folder is incomplete or its files do not belong together."""
        try:
            text = json.loads((folder / TEXT_FILE).read_text(encoding="utf-8"))
            rules = {side: TextRules(**text[side]) for side in ("src", "tgt")}
            fingerprints = text["fingerprints"]
        except FileNotFoundError:
            raise DataError(f"{folder}: no vocabulary folder, {TEXT_FILE} is missing") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / TEXT_FILE}: not readable ({error})") from None
        if (folder / "joint.model").exists():
            joint = read_model(folder / "joint.model", rules["src"])
            vocabs = cls(joint, joint)
        else:
            vocabs = cls(
                *(read_model(folder / f"{side}.model", side_rules) for side, side_rules in rules.items()),
            )
        if vocabs.fingerprints != fingerprints:
            raise DataError(f"{folder}: its files do not belong together (fingerprints differ); make it anew")
        return vocabs


def read_model(path: Path, rules: TextRules = TextRules()) -> Vocab:
    """A SentencePiece model file, from `Vocabs.save` or from any other tool."""
    try:
        return Vocab(path.read_bytes(), rules)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def reuse(path: Path, side: Literal["src", "tgt"], rules: TextRules) -> Vocab:
    """The vocabulary of a dataset or bundle folder, with its own rules, or a SentencePiece file under `rules`."""
    if path.is_dir():
        folder = path / "vocab" if (path / "vocab").is_dir() else path
        vocabs = Vocabs.load(folder)
        return vocabs.src if side == "src" else vocabs.tgt
    return read_model(path, rules)


def _load(proto: bytes) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=proto)
    except (RuntimeError, OSError, ValueError):
        raise DataError("not a SentencePiece model") from None


def _complete(proto: bytes) -> bytes:
    """Append the special pieces that a model of another tool may lack."""
    model = _load(proto)
    names = {model.id_to_piece(i) for i in range(len(model))}
    if model.unk_id() < 0:
        raise DataError("the SentencePiece model has no unknown piece")
    for piece, id in (("<pad>", model.pad_id()), ("<s>", model.bos_id()), ("</s>", model.eos_id())):
        if id < 0 and piece not in names:
            proto += _control_piece(piece)
    return proto


def _control_piece(piece: str) -> bytes:
    """A `pieces` entry of a serialized model: protobuf messages grow by appending to a repeated field."""
    name = piece.encode()
    entry = b"\x0a" + bytes([len(name)]) + name + b"\x15\x00\x00\x00\x00" + b"\x18\x03"  # piece, score 0, type CONTROL
    return b"\x0a" + bytes([len(entry)]) + entry


def _escape(line: str) -> str:
    """Spell what SentencePiece would confuse with a space; one to one, and most lines are left as they are."""
    if ESCAPE in line or SPACE in line:
        return re.sub(f"[{ESCAPE}{SPACE}]", lambda match: ESCAPED[match[0]], line)
    return line


def _unescape(text: str) -> str:
    if ESCAPE in text:
        return re.sub(f"{ESCAPE}([{ESCAPE}_])", lambda match: ESCAPE if match[1] == ESCAPE else SPACE, text)
    return text


def _training_text(lines: Iterable[str], rules: TextRules) -> Iterator[str]:
    for line in lines:
        line = _escape(rules.apply(line)).replace("\0", "")
        for start in range(0, len(line), TRAIN_CHARS):
            yield line[start : start + TRAIN_CHARS]


def _training_error(message: str, size: int) -> ConfigError | DataError:
    if "sentences_.empty()" in message:
        return DataError("there is no text to train a vocabulary on")
    if "required_chars" in message or "vocab_size" in message.lower() or "Vocabulary size" in message:
        return ConfigError(
            f"vocab_size {size} is too small for this text: its characters, 4 special pieces and (with byte_fallback) "
            "256 bytes must fit; raise vocab_size, lower character_coverage or turn byte_fallback off"
        )
    return DataError(f"SentencePiece could not train a vocabulary: {message}")
