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
    min_len: NonNegativeInt = 0
    """Fewest pieces of an output."""
    max_len: PositiveInt = 512
    """Most pieces of an output, whatever its source."""
    max_len_ratio: Annotated[float, Field(ge=0.0)] = 2.0
    """An output has at most this many times the pieces of its source, plus `max_len_extra`."""
    max_len_extra: NonNegativeInt = 10
    """See `max_len_ratio`."""
    search_tokens: PositiveInt = 4096
    """Source positions times beam that are searched at once; the output does not depend on it."""

    @model_validator(mode="after")
    def _check(self) -> "SearchSettings":
        if self.min_len > self.max_len:
            raise ValueError(f"min_len ({self.min_len}) is more than max_len ({self.max_len})")
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
