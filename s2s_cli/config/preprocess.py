"""Settings of `preprocess`."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from s2s_cli.config.section import Flag, NonNegativeInt, Section


class PreprocessSettings(Section):
    """Raw text in, a dataset folder out."""

    train_src: list[Path] = Field(default=[Path("train.src")], min_length=1)
    """Source side of the training text, plain or compressed; several files are joined in order; - is standard input."""
    train_tgt: list[Path] = Field(default=[Path("train.tgt")], min_length=1)
    """Target side of the training text, as many files and lines as the source side."""
    valid_src: list[Path] = Field(default=[Path("valid.src")], min_length=1)
    """Source side of the validation text."""
    valid_tgt: list[Path] = Field(default=[Path("valid.tgt")], min_length=1)
    """Target side of the validation text."""
    test_src: list[Path] = []
    """Source side of test text, a line each: not written, only looked for in the training text (see leaks)."""
    tsv: bool = False
    """Both sides stand in columns of the files `train`, `valid` and `test`, separated by tabs."""
    jsonl: bool = False
    """Both sides stand in fields of the files `train`, `valid` and `test`, one JSON object a line."""
    train: list[Path] = []
    """Training text with both sides in one file (with tsv or jsonl); - is standard input."""
    valid: list[Path] = []
    """Validation text with both sides in one file (with tsv or jsonl)."""
    test: list[Path] = []
    """Test text with both sides in one file (with tsv or jsonl): only looked for in the training text."""
    src_column: PositiveInt = 1
    """Column of the source side in a tsv file, from 1."""
    tgt_column: PositiveInt = 2
    """Column of the target side in a tsv file."""
    src_field: str = "src"
    """Field of the source side in a jsonl file; a line feed in it becomes a space."""
    tgt_field: str = "tgt"
    """Field of the target side in a jsonl file."""
    corpus: list[str] = []
    """Name of each training file, in their order (file names, if none are given)."""
    weight: list[PositiveFloat] = []
    """How many times an epoch holds the pairs of each training file (1, if none are given); 0.5 takes another half each time."""
    temperature: PositiveFloat = 1.0
    """Above 1, small corpora are seen more often: their shares are (pairs * weight) ^ (1 / temperature)."""
    tag: list[str] = []
    """Reserved pieces put before the sources of each training file, such as <2de>; translate takes them from the line's start."""
    valid_tag: list[str] = []
    """The same for each validation file (if none are given and all tags are one, that one)."""
    out: Annotated[Path, Flag("-o")] = Path("data-bin")
    """The dataset folder to write."""
    dry_run: bool = False
    """Report, and leave nothing behind (meanwhile the dataset stands in a temporary folder, see TMPDIR)."""
    vocab_type: Literal["bpe", "unigram", "char", "word", "byte"] = "bpe"
    """Kind of SentencePiece vocabulary to train."""
    vocab_size: Annotated[int, Field(ge=16, le=1_000_000)] = 8000
    """Pieces in the vocabulary, special ones included; fewer where the text is too small for so many; a multiple of 8 is made."""
    vocab_sample: PositiveInt = 500_000
    """Lines of text, drawn by chance, that the vocabulary is trained on at most (each 1,000 characters of a longer one count)."""
    shared_vocab: bool = True
    """One vocabulary for both sides, or one for each."""
    src_vocab: Path | None = None
    """Reuse that of this SentencePiece model, dataset, bundle or run for the source side (both, if shared) and train none."""
    tgt_vocab: Path | None = None
    """Reuse that of this SentencePiece model, dataset, bundle or run for the target side."""
    byte_fallback: bool = True
    """Spell what the vocabulary lacks in bytes, so that nothing becomes unknown."""
    character_coverage: Annotated[float, Field(ge=0.98, le=1.0)] = 1.0
    """Share of the text's characters that get a piece of their own, from 0.98 on."""
    symbol: list[str] = []
    """Text that is always one piece of the vocabulary, such as #Person1#."""
    reserved: list[str] = []
    """Pieces that no text turns into, such as <mask> for noising."""
    sentinels: NonNegativeInt = 0
    """Reserve so many pieces <extra_id_0>, <extra_id_1>, … for noising spans as T5 does."""
    normalize: Literal["none", "nfc", "nfkc"] = "nfc"
    """Unicode normalisation of both sides, recorded, and applied by `translate` in the same way."""
    lowercase: bool = False
    """Lowercase both sides, recorded, and applied by `translate` in the same way."""
    src_truncate: NonNegativeInt = 0
    """Cut the training sources after so many pieces, as for summarization; 0 cuts nothing."""
    tgt_truncate: NonNegativeInt = 0
    """Cut the training targets after so many pieces; 0 cuts nothing."""
    max_len: PositiveInt = 256
    """Drop a training pair with a side of more pieces than this (a side that is cut may keep as many as its cut leaves)."""
    max_ratio: PositiveFloat = 9.0
    """Drop a training pair with a side of more than this many times the pieces of the other, unless both have at most five;
    100 or so for summarization, where a target is meant to be short."""
    max_unknown: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Drop a training pair with a side of which more than this share of the pieces is unknown."""
    src_script: list[str] = []
    """Drop a training pair if most letters of the source are of another script than these: latin, cyrillic, han, …"""
    tgt_script: list[str] = []
    """The same for the target."""
    identical: Literal["keep", "drop"] = "keep"
    """Training pairs whose sides are equal: counted, and kept or dropped."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Training pairs that stood there before: counted, and kept or dropped."""
    leaks: Literal["keep", "drop"] = "keep"
    """Training pairs whose source is also a validation or test source: counted, and kept or dropped."""
    allow_drops: bool = False
    """Go on even if more than a tenth of the training pairs is dropped."""
    max_unknown_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Refuse training text of which more than this share of pieces is unknown to the vocabulary."""
    allow_unknown: bool = False
    """Go on even so."""
    workers: NonNegativeInt = 0
    """Processes that encode; 0 takes every core (under torchrun, this rank's share). The output is the same for any number."""
    seed: NonNegativeInt = 1
    """Seed of the sample of lines that the vocabulary is trained on."""

    def idle(self) -> dict[str, str]:
        """As of every section."""
        kinds = {"tsv": ("src_column", "tgt_column"), "jsonl": ("src_field", "tgt_field")}
        needs = {name: kind for kind, names in kinds.items() if not getattr(self, kind) for name in names}
        if self.tsv or self.jsonl:
            needs |= dict.fromkeys(
                ("train_src", "train_tgt", "valid_src", "valid_tgt"), "files of one side (no tsv, no jsonl)"
            )
        if self.vocab_type == "byte":
            needs |= dict.fromkeys(
                ("vocab_size", "byte_fallback", "character_coverage"), "a vocab_type other than byte"
            )
        if len(self.train if self.tsv or self.jsonl else self.train_src) == 1:
            needs["temperature"] = "several training files"
        return needs

    @model_validator(mode="after")
    def _check(self) -> "PreprocessSettings":
        if self.tsv and self.jsonl:
            raise ValueError("name one of tsv and jsonl")
        one_file = self.tsv or self.jsonl
        if one_file and not (self.train and self.valid):
            raise ValueError("tsv and jsonl read the files named by train and valid: name both")
        if not one_file and (self.train or self.valid or self.test):
            raise ValueError(
                "train, valid and test name files with both sides: say tsv or jsonl, or name train_src and train_tgt"
            )
        num_train = len(self.train if one_file else self.train_src)
        for name in ("corpus", "weight", "tag"):
            if len(getattr(self, name)) not in (0, num_train):
                raise ValueError(f"{name} has {len(getattr(self, name))} values for {num_train} training files")
        if len(self.valid_tag) not in (0, len(self.valid if one_file else self.valid_src)):
            raise ValueError(f"valid_tag has {len(self.valid_tag)} values, which is not one for each validation file")
        for piece in [*self.reserved, *self.symbol]:
            if not piece or any(c.isspace() for c in piece):
                raise ValueError(f"{piece!r}: a piece of the vocabulary is not empty and holds no space")
        tags = {piece for tag in [*self.tag, *self.valid_tag] for piece in tag.split()}
        tags |= {f"<extra_id_{i}>" for i in range(self.sentinels)}
        for piece in [*self.reserved, *self.symbol, *sorted(tags)]:
            if piece in ("<pad>", "<unk>", "<s>", "</s>") or re.fullmatch("<0x[0-9A-F]{2}>", piece):
                raise ValueError(f"{piece} is a piece of every vocabulary already, and has its own meaning")
        if both := set(self.symbol) & {*self.reserved, *tags}:
            raise ValueError(
                f"{min(both)} is named as symbol, which text turns into, and as reserved, sentinel or tag, which it does not"
            )
        if self.tgt_vocab and self.shared_vocab:
            raise ValueError("tgt_vocab needs shared_vocab off: a shared vocabulary is named by src_vocab")
        return self
