"""Settings of `translate`; those of search hold for validation too."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from s2s_cli.config.section import Flag, NonNegativeInt, Section, Target
from s2s_cli.errors import ConfigError

Length = Annotated[int, Field(ge=1, le=10**9)]
Ratio = Annotated[float, Field(ge=0.0, le=1e6)]


class SearchSettings(Section):
    """How translations are searched for: by `translate`, and by `train` when it validates."""

    max_src_len: Length = 1024
    """A source line of more pieces is too long; unless given, the `src_truncate` of `preprocess`, or without one its `max_len`,
    but 1024 at least."""
    beam: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Hypotheses kept at each step; 1 is greedy search."""
    length_penalty: Literal["none", "average", "gnmt"] = "average"
    """What a log-probability is divided by: 1, length^alpha, or ((5+length)/6)^alpha (Wu et al. 2016)."""
    alpha: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    """Exponent of the length penalty; larger favours longer output."""
    beam_patience: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.0
    """0: the search for an output goes on until nothing can beat the best, provably. Else it ends, sooner, once so many times
    `beam` hypotheses are finished (Kasai et al. 2022); most toolkits do as with 1."""
    coverage_penalty: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the sum of log min(attention, 1) over source pieces, added to a score (Wu et al. 2016); 0 is off."""
    min_len: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Fewest pieces of an output, as long as its most by `max_len_ratio` are not fewer."""
    min_len_ratio: Ratio = 0.0
    """An output has at least this many times the pieces of its source, as long as its most are not fewer."""
    max_len: Length = 512
    """Most pieces of an output, whatever its source."""
    max_len_ratio: Ratio = 2.0
    """An output has at most this many times the pieces of its source, plus `max_len_extra`."""
    max_len_extra: Annotated[int, Field(ge=0, le=10**9)] = 10
    """See `max_len_ratio`."""
    no_repeat_ngram: NonNegativeInt = 0
    """No so many pieces in a row come twice in an output (Paulus et al. 2018); 0 is off."""
    repetition_penalty: Annotated[float, Field(ge=1.0)] = 1.0
    """What the log-probability of a piece said before is multiplied by (after Keskar et al. 2019); 1 is off."""
    may_repeat: list[str] = []
    """Words that `no_repeat_ngram` and `repetition_penalty` leave alone."""
    ban: list[str] = []
    """Words and phrases that no output has, in lower or upper case, however they are split into pieces. A prefix is said as it is
    given, though; and of a line that is split each part obeys by itself, as with the other rules."""
    allow_unk: bool = False
    """Whether an output may have the unknown piece."""
    temperature: Annotated[float, Field(ge=0.001, le=1000.0)] = 1.0
    """What log-probabilities are divided by when sampling; below 1 keeps closer to the likeliest, above 1 is more varied."""
    top_k: NonNegativeInt = 0
    """Sample among the so many most probable pieces (Fan et al. 2018); 0 is all."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Sample among the most probable pieces whose probabilities just sum to this (Holtzman et al. 2020); 1 is all."""
    search_tokens: PositiveInt | None = None
    """Source positions times beam that are searched at once, by default 4096 on a CPU (12288 with a beam, for models up to
    256 wide; 2048 without one, for wider models in fp32) and 32768 on a GPU; the output does not depend on it."""

    def check(self) -> None:
        """ConfigError for settings that conflict; not before they are whole: those of `translate` are completed by a model's."""
        for least, most in (("min_len", "max_len"), ("min_len_ratio", "max_len_ratio")):
            if getattr(self, least) > getattr(self, most):
                raise ConfigError(
                    f"search: {least} ({getattr(self, least)}) is more than {most} ({getattr(self, most)}): set both"
                )
        if self.may_repeat and not self.no_repeat_ngram and self.repetition_penalty == 1.0:
            raise ConfigError(
                "search: may_repeat has no rule to except words from: add no_repeat_ngram or repetition_penalty, or set it to []"
            )


class TranslateSettings(Section):
    """A model and source lines in, target lines out."""

    model: Annotated[list[Path], Flag("-m")] = Field(default=[Path("run")], min_length=1)
    """Run folder (its best checkpoint) or bundle; several make an ensemble."""
    weight: list[float] = []
    """Weight of each model of an ensemble, in their order (equal ones, if none are given)."""
    input: Annotated[Path, Flag("-i")] = Path("-")
    """Source text, plain or compressed; - reads standard input."""
    output: Annotated[Target, Flag("-o")] = Path("-")
    """Where the translations go; - writes standard output. Interrupted, the same command goes on with a file."""
    format: Literal["text", "tsv", "jsonl"] = "text"
    """text: one line a line. tsv: line, rank, score, text (with `force` line, log-probability, pieces, perplexity, text), before
    the text the alignment if there is one. jsonl: one object a line, with pieces and log-probabilities."""
    nbest: PositiveInt = 1
    """Hypotheses a line, `beam` at most; to be written (tsv and jsonl), or for `mbr` to choose from."""
    samples: NonNegativeInt = 0
    """Draw so many outputs of each line from the model's distribution, instead of searching for the most probable one."""
    seed: NonNegativeInt = 1
    """Seed of `samples`; what is drawn for a line depends on it, on the line and on its number."""
    mbr: Literal["no", "chrf", "bleu", "rouge"] = "no"
    """Of `samples` (or `nbest`) choose the one with the greatest expected score by this metric (Eikema & Aziz 2020), with the
    options of `score`; rouge is ROUGE-L, with `rouge_tokenizer` unicode unless that is set."""
    prefix: Path | None = None
    """A file with what the output of each line has to begin with; a line of it may be empty."""
    prefix_text: str = ""
    """What every output has to begin with."""
    force: Path | None = None
    """A file with an output for each line: write its log-probability, and tell the perplexity of all."""
    align: Literal["no", "words", "pieces"] = "no"
    """Align each output with its source by the attention of the model: whitespace-separated words, or pieces."""
    alignments: Target | None = None
    """Write the alignment of each line's (best) output to this file, as i-j from 0 (Pharaoh); `align` is words unless given."""
    long_lines: Literal["truncate", "split"] = "truncate"
    """Cut lines that are too long, or split them at ends of sentences, translate the parts and join them; both are reported."""
    flush_every: PositiveInt = 2048
    """Lines that are read ahead, sorted by length, translated and written in order; 1 gives a line out for each line in."""

    @model_validator(mode="after")
    def _check(self) -> "TranslateSettings":
        if self.samples and self.nbest > 1:
            raise ValueError("samples and nbest are two ways to get several outputs: leave out one of them")
        if self.mbr != "no" and max(self.samples, self.nbest) < 2:
            raise ValueError("mbr chooses among candidates: add --samples 32, or --nbest 5")
        if self.prefix and self.prefix_text:
            raise ValueError("prefix and prefix_text both say how outputs begin: leave out one of them")
        if self.force:
            self.check_forced()
        return self

    def check_forced(self) -> None:
        """ValueError for what makes outputs, where outputs are given."""
        others = {"samples": self.samples > 0, "mbr": self.mbr != "no", "nbest": self.nbest > 1}
        others |= {"prefix": self.prefix is not None, "prefix_text": self.prefix_text != ""}
        others |= {"long_lines": self.long_lines == "split"}  # where an output would be split, nobody knows
        if named := [name for name, given in others.items() if given]:
            raise ValueError(f"force scores the outputs that it is given: leave out {', '.join(named)}")
