"""Settings of `translate`; those of search hold for validation too."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from s2s_cli.config.section import Flag, NonNegativeInt, Section


class SearchSettings(Section):
    """How translations are searched for: by `translate`, and by `train` when it validates."""

    beam: PositiveInt = 5
    """Hypotheses kept at each step; 1 is greedy search."""
    length_penalty: Literal["none", "average", "gnmt"] = "average"
    """What a log-probability is divided by: 1, length^alpha, or ((5+length)/6)^alpha (Wu et al. 2016)."""
    alpha: Annotated[float, Field(ge=0.0)] = 1.0
    """Exponent of the length penalty; larger favours longer output."""
    coverage_penalty: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the sum of log min(attention, 1) over source pieces, added to a score (Wu et al. 2016); 0 is off."""
    min_len: NonNegativeInt = 0
    """Fewest pieces of an output."""
    min_len_ratio: Annotated[float, Field(ge=0.0)] = 0.0
    """An output has at least this many times the pieces of its source, as long as its most are not fewer."""
    max_len: PositiveInt = 512
    """Most pieces of an output, whatever its source."""
    max_len_ratio: Annotated[float, Field(ge=0.0)] = 2.0
    """An output has at most this many times the pieces of its source, plus `max_len_extra`."""
    max_len_extra: NonNegativeInt = 10
    """See `max_len_ratio`."""
    no_repeat_ngram: NonNegativeInt = 0
    """No so many pieces in a row come twice in an output (Paulus et al. 2018); 0 is off."""
    repetition_penalty: Annotated[float, Field(ge=1.0)] = 1.0
    """What the log-probability of a piece said before is multiplied by (after Keskar et al. 2019); 1 is off."""
    may_repeat: list[str] = []
    """Words that `no_repeat_ngram` and `repetition_penalty` leave alone."""
    ban: list[str] = []
    """Words and phrases that no output has, in lower or upper case, however they are split into pieces."""
    allow_unk: bool = False
    """Whether an output may have the unknown piece."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """What log-probabilities are divided by when sampling; below 1 is bolder, above 1 more varied."""
    top_k: NonNegativeInt = 0
    """Sample among the so many most probable pieces (Fan et al. 2018); 0 is all."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Sample among the most probable pieces whose probabilities just sum to this (Holtzman et al. 2020); 1 is all."""
    search_tokens: PositiveInt = 4096
    """Source positions times beam that are searched at once; the output does not depend on it."""

    @model_validator(mode="after")
    def _check(self) -> "SearchSettings":
        if self.min_len > self.max_len:
            raise ValueError(f"min_len ({self.min_len}) is more than max_len ({self.max_len})")
        if self.min_len_ratio > self.max_len_ratio:
            raise ValueError(f"min_len_ratio ({self.min_len_ratio}) is more than max_len_ratio ({self.max_len_ratio})")
        if self.may_repeat and not self.no_repeat_ngram and self.repetition_penalty == 1.0:
            raise ValueError("may_repeat has no rule to except words from: add no_repeat_ngram or repetition_penalty")
        return self


class TranslateSettings(Section):
    """A model and source lines in, target lines out."""

    model: Annotated[list[Path], Flag("-m")] = Field(default=[Path("run")], min_length=1)
    """Run folder (its best checkpoint) or bundle; several make an ensemble."""
    input: Annotated[Path, Flag("-i")] = Path("-")
    """Source text, plain or gzipped; - reads standard input."""
    output: Annotated[Path, Flag("-o")] = Path("-")
    """Where the translations go; - writes standard output."""
    nbest: PositiveInt = 1
    """Hypotheses a line (tsv and jsonl only)."""
    format: Literal["text", "tsv", "jsonl"] = "text"
    """text: one line a line. tsv: line, rank, score, text. jsonl: one object a line, with scores and pieces."""
    max_src_len: PositiveInt = 1024
    """Cut a source line after so many pieces; each cut is reported."""
    window: PositiveInt = 8192
    """Lines read ahead, sorted by length, translated, and written in order."""
