"""Between text and piece ids: SentencePiece vocabularies, and the text rules recorded beside them.

SentencePiece runs with identity normalisation and keeps every space; what changes text (Unicode normalisation, case) is
done here and written down, so that whoever has the folder applies the same. Then `decode(encode(x)) == x` for every x
that the rules leave alone and the vocabulary covers (with byte fallback: every x). This room knows no torch.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import sentencepiece

from s2s_cli.data import sampling, spm
from s2s_cli.data.sampling import SPACE
from s2s_cli.data.spm import BOS, EOS, PAD, UNK, VocabType
from s2s_cli.errors import ConfigError, DataError

__all__ = ["BOS", "EOS", "PAD", "SPACE", "UNK", "TextRules", "Vocab", "VocabType", "Vocabs", "reuse"]

SENTINEL = "<extra_id_"  # what reserved pieces begin with that stand for a span taken away, and may be said
ESCAPE = "\u241b"  # SYMBOL FOR ESCAPE: begins our spelling of itself and of SPACE
ESCAPED = {ESCAPE: ESCAPE + ESCAPE, SPACE: ESCAPE + "_"}
TEXT_FILE = "text.json"
TEXT_VERSION = 1


@dataclass(frozen=True)
class TextRules:
    """What is done to a line before it is split into pieces."""

    normalize: Literal["none", "nfc", "nfkc"] = "none"
    lowercase: bool = False

    def apply(self, line: str) -> str:
        """The line as the vocabulary sees it; what a reference text must look like to be compared with output."""
        if self.lowercase:
            line = line.lower()
        if self.normalize == "none":
            return line
        return unicodedata.normalize("NFC" if self.normalize == "nfc" else "NFKC", line)


class Vocab:
    """A SentencePiece model with text rules. `pad`, `unk`, `bos` and `eos` are ids that always exist.

    `tags` are reserved pieces that a line may begin with, each followed by a space, such as `<2de> Good morning`.
    """

    def __init__(self, proto: bytes, rules: TextRules = TextRules(), tags: Iterable[str] = ()) -> None:
        """Take a serialized SentencePiece model; special pieces and tags that it lacks are appended to it."""
        self.rules, self.tags = rules, tuple(sorted(set(tags)))
        self.proto = spm.complete(proto, self.tags)
        self._model: sentencepiece.SentencePieceProcessor = spm.load(self.proto)
        self._ids = {self._model.id_to_piece(i): i for i in range(len(self._model))}
        self._tag_ids = {self._ids[tag]: tag for tag in self.tags}
        self._samplers: dict[float, sampling.Sampler | None] = {}
        self.unk: int = self._model.unk_id()
        self.pad = self._id_or(self._model.pad_id(), "<pad>")
        self.bos = self._id_or(self._model.bos_id(), "<s>")
        self.eos = self._id_or(self._model.eos_id(), "</s>")

    def _id_or(self, id: int, piece: str) -> int:
        return id if id >= 0 else self._ids[piece]

    def __reduce__(self) -> tuple[type["Vocab"], tuple[bytes, TextRules, tuple[str, ...]]]:
        """What goes to another process; SentencePiece's own objects do not."""
        return Vocab, (self.proto, self.rules, self.tags)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, piece: str) -> bool:
        return piece in self._ids

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """Piece ids of each line, without bos and eos. One thread: callers that want more use processes."""
        if not lines:
            return []
        if not self.tags:
            return self._encode(self._prepare(lines))
        heads, rests = zip(*map(self._split_tags, lines), strict=True)
        return [head + ids for head, ids in zip(heads, self._encode(self._prepare(rests)), strict=True)]

    def _encode(self, lines: Sequence[str]) -> list[list[int]]:
        """By SentencePiece, which makes one unknown piece of unknown words that stand side by side: each is one again."""
        rows: list[list[int]] = self._model.encode(lines, num_threads=1)
        odd = [number for number, ids in enumerate(rows) if self.unk in ids]
        texts = self._model.encode([lines[number] for number in odd], out_type=str, num_threads=1) if odd else []
        for number, pieces in zip(odd, texts, strict=True):
            times = [_num_words(piece) if id == self.unk else 1 for id, piece in zip(rows[number], pieces, strict=True)]
            rows[number] = [id for id, num in zip(rows[number], times, strict=True) for _ in range(num)]
        return rows

    def seen(self, lines: Sequence[str]) -> list[str]:
        """Each line by the text rules: lines alike in this are the same to a model."""
        together = self.rules.apply("\n".join(lines)).split("\n")
        return together if len(together) == len(lines) else list(map(self.rules.apply, lines))

    def _prepare(self, lines: Sequence[str]) -> list[str]:
        """Apply the text rules and escapes: to all lines as one text, which is many times faster."""
        together = escape(self.rules.apply("\n".join(lines))).split("\n")
        if len(together) == len(lines):
            return together
        return [escape(self.rules.apply(line)) for line in lines]  # some line holds a line feed

    def resample(self, ids: Sequence[int], rate: float, seed: int) -> list[int]:
        """Another split of encoded text into pieces: a function of the arguments, the same in every process.

        BPE-dropout at `rate`, or unigram sampling with it as α; other kinds of vocabularies have one split only. What is unknown
        stays as it is.
        """
        if rate not in self._samplers:
            self._samplers = {rate: sampling.sampler(self.proto, rate)}  # one at a time: a training has one rate
        sample = self._samplers[rate]
        return sample(ids, seed) if sample else list(ids)

    @property
    def can_resample(self) -> bool:
        """Whether text has other splits into pieces than that of `encode`."""
        return sampling.sampler(self.proto, 0.0) is not None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of piece ids as one line; special pieces are silent, a line feed in bytes becomes a space."""
        ids = list(ids)
        tags = ""
        while ids and ids[0] in self._tag_ids:
            tags += self._tag_ids[ids.pop(0)] + " "
        table = self._bytes
        text = b"".join([table[i] for i in ids]).decode("utf-8", "replace").replace(SPACE, " ").replace("\n", " ")
        if self._dummy_prefix:
            text = text.removeprefix(" ")
        return tags + _unescape(text)

    def piece(self, id: int) -> str:
        """The piece as SentencePiece writes it."""
        return self._model.id_to_piece(int(id))

    def id(self, piece: str) -> int:
        """The id of a piece; that of the unknown piece if there is no such piece."""
        return self._ids.get(piece, self.unk)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the model and its rules: equal fingerprints encode equally."""
        record = json.dumps(asdict(self.rules) | ({"tags": self.tags} if self.tags else {}), sort_keys=True)
        return hashlib.sha256(self.proto + record.encode()).hexdigest()

    @cached_property
    def starts_word(self) -> npt.NDArray[np.bool_]:
        """[V] whether a piece begins with a space: where words begin."""
        return np.array([self.piece(i).startswith(SPACE) for i in range(len(self))])

    @cached_property
    def is_control(self) -> npt.NDArray[np.bool_]:
        """[V] whether a piece stands for no text: special, reserved and unused pieces."""
        return np.array([self._model.is_control(i) or self._model.is_unused(i) for i in range(len(self))])

    @cached_property
    def is_byte(self) -> npt.NDArray[np.bool_]:
        """[V] whether a piece is a byte of something that has no piece."""
        return np.array([self._model.is_byte(i) for i in range(len(self))])

    @cached_property
    def _bytes(self) -> list[bytes]:
        """UTF-8 of every piece as it stands in text."""
        table = []
        for i in range(len(self)):
            piece = self.piece(i)
            if i == self.unk:
                table.append(" \u2047 ".encode())
            elif self.is_control[i]:
                table.append(b"")
            else:
                table.append(bytes([int(piece[3:5], 16)]) if self.is_byte[i] else piece.encode())
        return table

    @cached_property
    def _dummy_prefix(self) -> bool:
        """Whether the model puts a space before every line, which decoding takes away again."""
        first = self._model.encode("a", out_type=str)[0]
        return first.startswith(SPACE) or first == "<0xE2>"  # the space itself may be spelled in bytes

    def _split_tags(self, line: str) -> tuple[list[int], str]:
        """The ids of the tags that a line begins with, and the rest of it."""
        ids: list[int] = []
        while line.startswith(self.tags):
            tag, space, rest = line.partition(" ")
            if not space or tag not in self.tags:
                break
            ids.append(self._ids[tag])
            line = rest
        return ids, line

    def tags_of(self, line: str) -> str:
        """The tags that a line begins with, and the space behind each."""
        return line[: len(line) - len(self._split_tags(line)[1])]

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
        symbols: Sequence[str] = (),
        reserved: Sequence[str] = (),
        tags: Sequence[str] = (),
    ) -> "Vocab":
        """A new vocabulary of at most `size` pieces rounded up to a multiple of 8; fewer where the text has not so many."""
        text = (escape(rules.apply(line)) for line in lines)
        symbols = list(dict.fromkeys(escape(rules.apply(symbol)) for symbol in symbols))
        extra = list(dict.fromkeys([*tags, *reserved]))
        return cls(spm.train(text, size, kind, byte_fallback, character_coverage, symbols, extra), rules, tags)


def _num_words(piece: str) -> int:
    """How many words stand in what is unknown: at least one, which may be a space."""
    return max(1, sum(map(bool, piece.split(SPACE))))


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
        sides = {"src": self.src, "tgt": self.tgt}
        for name, vocab in ({"joint": self.src} if self.shared else sides).items():
            (folder / f"{name}.model").write_bytes(vocab.proto)
        record = {side: {**asdict(vocab.rules), "tags": vocab.tags} for side, vocab in sides.items()}
        text = {"version": TEXT_VERSION, **record, "fingerprints": self.fingerprints}
        (folder / TEXT_FILE).write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Vocabs":
        """Read what `save` wrote; DataError if the folder is incomplete or its files do not belong together."""
        file = folder / TEXT_FILE
        try:
            text = json.loads(file.read_text(encoding="utf-8"))
            version, fingerprints = text["version"], text["fingerprints"]
            sides = {
                side: (TextRules(text[side]["normalize"], text[side]["lowercase"]), text[side].get("tags", []))
                for side in ("src", "tgt")
            }
        except FileNotFoundError:
            raise DataError(f"{folder}: no vocabulary here, {TEXT_FILE} is missing") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}: not readable ({error!r})") from None
        if version != TEXT_VERSION:
            raise DataError(f"{file}: version {version}, this program reads {TEXT_VERSION}")
        if (folder / "joint.model").exists():
            joint = read_model(folder / "joint.model", *sides["src"])
            vocabs = cls(joint, joint)
        else:
            vocabs = cls(
                read_model(folder / "src.model", *sides["src"]), read_model(folder / "tgt.model", *sides["tgt"])
            )
        if vocabs.fingerprints != fingerprints:
            raise DataError(f"{folder}: its files do not belong together (fingerprints differ); make it anew")
        return vocabs


def read_model(path: Path, rules: TextRules = TextRules(), tags: Iterable[str] = ()) -> Vocab:
    """A SentencePiece model file, from `Vocabs.save` or from any other tool."""
    try:
        return Vocab(path.read_bytes(), rules, tags)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def is_shared(path: Path) -> bool:
    """Whether a dataset, bundle or run folder, or a SentencePiece file, has one vocabulary for both sides."""
    return not path.is_dir() or _of_folder(path).shared


def _of_folder(path: Path) -> Vocabs:
    """Of a dataset, a bundle, a run, or a folder of vocabularies itself."""
    places = (path / place / "vocab" for place in ("", "best", "last"))
    return Vocabs.load(next((place for place in places if place.is_dir()), path))


def reuse(
    path: Path,
    side: Literal["src", "tgt"],
    rules: TextRules,
    tags: Sequence[str],
    reserved: Sequence[str],
    symbols: Sequence[str] = (),
) -> Vocab:
    """The vocabulary of a dataset, bundle or run folder, with its own rules, or a SentencePiece file under `rules`.

    Tags and reserved pieces that it lacks are appended, and what makes its size a multiple of 8. ConfigError if it lacks
    one of `symbols`, since pieces of text cannot be appended, or if text turns into a tag or reserved piece.
    """
    if path.is_dir():
        vocabs = _of_folder(path)
        found = vocabs.src if side == "src" else vocabs.tgt
    else:
        found = read_model(path, rules)
    for symbol in symbols:
        if escape(found.rules.apply(symbol)) not in found:
            raise ConfigError(f"{path}: has no piece {symbol}, and symbols can only be given to a new vocabulary")
    for piece in [*tags, *reserved]:
        if piece in found and not found.is_control[found.id(piece)]:
            raise ConfigError(
                f"{path}: {piece} is a piece that text turns into: name the tag or reserved piece otherwise"
            )
    return Vocab(spm.pad(spm.complete(found.proto, [*tags, *reserved])), found.rules, [*found.tags, *tags])


def escape(line: str) -> str:
    """Spell what SentencePiece would confuse with a space; one to one, and most lines are left as they are."""
    if ESCAPE in line or SPACE in line:
        return re.sub(f"[{ESCAPE}{SPACE}]", lambda match: ESCAPED[match[0]], line)
    return line


def _unescape(text: str) -> str:
    if ESCAPE in text:
        return re.sub(f"{ESCAPE}([{ESCAPE}_])", lambda match: ESCAPE if match[1] == ESCAPE else SPACE, text)
    return text
