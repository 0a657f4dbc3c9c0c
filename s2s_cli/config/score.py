"""Settings of `score`; `train` validates with the same options."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from s2s_cli.config.section import Flag, NonNegativeInt, Section, Target


class ScoreSettings(Section):
    """Outputs and references in, scores with signatures out. `train` validates with the same options."""

    input: Annotated[list[Path], Flag("-i")] = Field(default=[Path("-")], min_length=1)
    """Output to score, plain or compressed; several are compared; - reads standard input."""
    ref: Annotated[list[Path], Flag("-r")] = Field(default=[Path("test.tgt")], min_length=1)
    """Reference translation or summary; several are used together."""
    bleu: bool = False
    """BLEU (Papineni et al. 2002); every metric is computed where none is named."""
    chrf: bool = False
    """chrF (Popović 2015); chrF++ with `chrf_word_order` 2."""
    ter: bool = False
    """TER, the translation edit rate (Snover et al. 2006); lower is better."""
    wer: bool = False
    """Word error rate: edits over reference words, which are what spaces separate; lower is better."""
    exact: bool = False
    """Exact match: share of the lines that are a reference, but for spaces."""
    rouge: bool = False
    """ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, F1 (Lin 2004)."""
    sentence: bool = False
    """Score each line by itself: a tab-separated row for each line of each system."""
    as_json: Annotated[bool, Flag("--json")] = False
    """Write one JSON object with unrounded values."""
    digits: Annotated[int, Field(ge=0, le=10)] = 2
    """Digits after the point."""
    tokenize: Literal[
        "13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab", "flores101", "flores200", "spBLEU-1K"
    ] = "13a"
    """BLEU's tokenizer, by sacrebleu's names; ja-mecab and ko-mecab need an extra of sacrebleu, flores and spBLEU a download."""
    lowercase: bool = False
    """Ignore case in BLEU, chrF, WER and exact match (ROUGE always does, TER does unless `ter_case_sensitive`)."""
    smooth: Literal["exp", "floor", "add-k", "none"] = "exp"
    """How BLEU treats n-gram orders without a match."""
    smooth_value: PositiveFloat | None = None
    """Value for the smoothing methods floor (0.1 if none is given) and add-k (1)."""
    chrf_char_order: PositiveInt = 6
    """Longest character n-gram of chrF."""
    chrf_word_order: NonNegativeInt = 0
    """Longest word n-gram of chrF; 2 makes it chrF++ (Popović 2017)."""
    chrf_beta: PositiveInt = 2
    """Weight of recall against precision in chrF."""
    chrf_whitespace: bool = False
    """Let chrF see spaces."""
    chrf_eps_smoothing: bool = False
    """Smooth chrF as NLTK and Moses do, rather than by effective order."""
    ter_normalized: bool = False
    """Normalise and tokenize for TER as Tercom does."""
    ter_no_punct: bool = False
    """Remove punctuation before TER."""
    ter_asian_support: bool = False
    """Treat Chinese and Japanese characters as words in TER, where it normalises or removes punctuation."""
    ter_case_sensitive: bool = False
    """Mind case in TER."""
    rouge_stem: bool = False
    """Compare the stems of English words in ROUGE (Porter 1980)."""
    rouge_tokenizer: Literal["rouge-score", "unicode"] = "rouge-score"
    """rouge-score keeps a-z and 0-9 alone; unicode keeps every script, by character where it writes no spaces."""
    rouge_split: Literal["newline", "q", "sentence"] = "newline"
    """Where sentences end for ROUGE-Lsum: at newline marks (the two characters \\n), at <q> marks, or (sentence) at full stops,
    question marks and their like in any script."""
    rouge_multi_ref: Literal["max", "mean"] = "max"
    """ROUGE of a line with several references: that of the best one, or their mean."""
    confidence: bool = False
    """95 % confidence intervals by bootstrap resampling (Koehn 2004)."""
    paired: Literal["none", "bootstrap", "randomization"] = "none"
    """Test each system against the baseline: paired bootstrap, or approximate randomization (Riezler, Maxwell 2005). p of BLEU,
    chrF and TER is sacrebleu's: by bootstrap it looks at one side, by randomization it is too small where few lines differ."""
    baseline: Path | None = None
    """The system that the others are tested against and compared with; by default the first input."""
    resamples: NonNegativeInt = 0
    """Bootstrap resamples or randomization trials; 0 takes 1,000 resamples and 10,000 trials."""
    seed: NonNegativeInt = 12345
    """Seed of resampling, as sacrebleu's SACREBLEU_SEED."""
    diff: bool = False
    """Print the ten lines where systems differ most from the baseline, or the worst of one system, differences marked."""
    analyze: Target | None = None
    """Write an analysis of the output to this HTML page."""
    src: Annotated[Path | None, Flag("-s")] = None
    """Source text, for `analyze` and `diff`."""
    train_tgt: Path | None = None
    """Text to count word frequencies in for `analyze`: the training target; by default the references."""

    @model_validator(mode="after")
    def _check(self) -> "ScoreSettings":
        if self.smooth_value is not None and self.smooth not in ("floor", "add-k"):
            raise ValueError(f"smooth_value is for the methods floor and add-k, not for {self.smooth}")
        if self.sentence and (self.confidence or self.paired != "none"):
            raise ValueError("sentence scores have no confidence and no paired test: leave out one or the other")
        if self.sentence and (self.diff or self.analyze):
            raise ValueError("sentence scores go without diff and analyze: make two calls of it")
        return self
